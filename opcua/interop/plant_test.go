package interop

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	redundancyPort = 18450
	// levelLimit is how long a level may take: a serving lease has to run out, or a member to start, on a machine that does other things too.
	levelLimit = 25 * time.Second
	tableLimit = 3 * time.Minute
	// notificationSlack is by how much what two subscriptions tell may be apart: their publishing interval of 50 ms, and the client's own delay.
	notificationSlack = 250 * time.Millisecond
	// pollingInterval is that of a client which reads ServiceLevel again and again.
	pollingInterval = time.Second
)

// plant is a group of three whose levels a third-party client is subscribed to.
type plant struct {
	*devgroup.Wired
	*watcher
	t          *testing.T
	ctx        context.Context
	hooks      *devgroup.Hooks
	conns      []*grpc.ClientConn
	generation uint64
	requests   int
}

func startPlant(ctx context.Context, t *testing.T) *plant {
	t.Helper()
	return startPlantAt(ctx, t, redundancyPort, "m1", "m2")
}

// startPlantAt starts one whose client is subscribed to those servers.
func startPlantAt(ctx context.Context, t *testing.T, port int, servers ...string) *plant {
	t.Helper()
	requireClient(t)
	dir := t.TempDir()
	binary, err := devgroup.Built()
	if err != nil {
		t.Fatal(err)
	}
	hooks, err := devgroup.NewHooks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var log devgroup.Output
	w, err := devgroup.StartWired(ctx, devgroup.Options{Binary: binary, Data: filepath.Join(dir, "group"), BasePort: port, Log: &log}, map[string]any{
		"redundancy": map[string]any{
			"probeInterval": "500ms", "probeTimeout": "1s", "recoverDwell": "500ms", "applyHook": map[string]any{"command": []string{hooks.Command()}},
		},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	p := &plant{Wired: w, t: t, ctx: ctx, hooks: hooks}
	t.Cleanup(func() {
		p.free(servers...)
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the members said:\n%s", log.String())
		}
	})
	endpoints := map[string]string{}
	for _, m := range w.Members {
		conn, err := devgroup.Dial(m)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		p.conns = append(p.conns, conn)
		if slices.Contains(servers, m.ID) {
			endpoints[m.ID] = m.OPCUA // Not through the wires: a client is not cut off.
		}
	}
	p.watcher = watchLevels(ctx, t, endpoints)
	return p
}

func (p *plant) must(err error) {
	if err != nil {
		p.t.Helper()
		p.t.Fatal(err)
	}
}

func (p *plant) hold(servers ...string) {
	for _, s := range servers {
		p.must(p.hooks.Hold(s))
	}
}

func (p *plant) free(servers ...string) {
	for _, s := range servers {
		p.must(p.hooks.Release(s))
	}
}

// ask asks member after member; a refusal ends the test.
func ask[R any](p *plant, call func(ctx context.Context, conn *grpc.ClientConn) (R, error)) R {
	p.t.Helper()
	answer, err := devgroup.Ask(p.ctx, p.conns, call)
	p.must(err)
	return answer
}

// put publishes the set.
func (p *plant) put(force bool, primary string, policies *quoratev1.RedundancyPolicies) {
	p.t.Helper()
	set := p.Set("line-a", "WARM", policies)
	for _, s := range set.GetServers() {
		s.Role = "Backup"
		if s.GetMember() == primary {
			s.Role = "Primary"
		}
	}
	p.requests++
	request := &quoratev1.PublishTopologyRequest{
		RequestId: fmt.Sprintf("publish-%d", p.requests), ExpectedGeneration: proto.Uint64(p.generation), Force: force,
		Topology: &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}},
	}
	p.generation = ask(p, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.PublishTopologyResponse, error) {
		return quoratev1.NewTopologyServiceClient(c).PublishTopology(ctx, request)
	}).GetGeneration().GetNumber()
}

// publish publishes the set, and waits until it is rolled out.
func (p *plant) publish(force bool, primary string, policies *quoratev1.RedundancyPolicies) {
	p.t.Helper()
	p.put(force, primary, policies)
	wait(p.ctx, p.t, "the set is rolled out", func() bool {
		list := ask(p, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.GetApplyStatusResponse, error) {
			return quoratev1.NewApplyServiceClient(c).GetApplyStatus(ctx, &quoratev1.GetApplyStatusRequest{})
		}).GetRollouts()
		return len(list) == 1 && list[0].GetState() == quoratev1.RolloutState_ROLLOUT_STATE_DONE
	})
}

// swapped notes that the group has published a generation by itself.
func (p *plant) swapped() {
	p.generation = ask(p, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.GetTopologyResponse, error) {
		return quoratev1.NewTopologyServiceClient(c).GetTopology(ctx, &quoratev1.GetTopologyRequest{})
	}).GetGeneration().GetNumber()
}

func (p *plant) maintenance(server string, active bool) {
	p.t.Helper()
	p.requests++
	request := &quoratev1.SetMaintenanceRequest{RequestId: fmt.Sprintf("maintenance-%d", p.requests), Server: server, Active: active}
	ask(p, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.SetMaintenanceResponse, error) {
		return quoratev1.NewMaintenanceServiceClient(c).SetMaintenance(ctx, request)
	})
}

// kill kills a member, and comeBack restarts it.
func (p *plant) kill(member string) { p.t.Helper(); p.must(p.Kill(p.ctx, member)) }

func (p *plant) comeBack(member string) {
	p.t.Helper()
	p.must(p.Restart(member))
	p.must(p.Ready(p.ctx, member))
}

// values are the levels that were seen of a server since a mark, each once where it stayed.
func (p *plant) values(mark int, server string) (values []int) {
	for _, s := range p.since(mark, server) {
		if s.Error == "" {
			values = append(values, s.Value)
		}
	}
	return slices.Compact(values)
}

func (p *plant) awaitApply(server string, more int) {
	p.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p.hooks.Begun(server) < more {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			p.t.Fatalf("%s never began its apply", server)
		}
	}
}

func healthy(_ string, level int) bool { return level >= 200 }
