package opcua

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func asRequest(c *logv1.Command, request string) *logv1.Command {
	c.RequestId = request
	return c
}

// TestMigrationOfARealMember takes a partition through a migration in a group with a real log, under the eyes of a client.
func TestMigrationOfARealMember(t *testing.T) {
	n := startNode(t)
	propose := func(c *logv1.Command) {
		t.Helper()
		c.RequestId, c.Actor = fmt.Sprint("request-", n.Local().State.Revision()), &quoratev1.Actor{Name: "ada", Role: "administrator"}
		outcome, err := n.Propose(within(t), c)
		if err != nil || outcome.GetRefusal() != nil {
			t.Fatalf("propose %T: %v, %v", c.GetBody(), err, outcome.GetRefusal())
		}
	}
	propose(&logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(300 * time.Millisecond), MinDrainBarrier: durationpb.New(300 * time.Millisecond),
	}}}})
	all := named("p-", 3000)
	for i := 0; i < len(all); i += 1000 {
		propose(createPartitions("nas-1", all[i:i+1000]...))
	}
	_, cfg := serve(t, listen(t), "m1", GroupOf(n), &fitness{})
	c := connect(t, cfg.Endpoint)
	if names, count := pages(t, c, partitionsKey, 500); len(names) != len(all)+2 || count != 7 {
		t.Errorf("%d references on %d pages", len(names), count)
	}
	const placement, phase = "ns=2;s=partitions/p-0001234/Placement", "ns=2;s=partitions/p-0001234/Phase"
	s := subscribe(t, c, placement, phase)
	s.expect(change{placement, "nas-1"}, change{phase, "Active"})
	events := listenTo(t, cfg.Endpoint, ofType(barrierPassed))
	propose(beginMigration("p-0001234", "nas-2"))
	s.expect(change{phase, "Draining"})
	if names, _ := pages(t, c, migrationsKey, 0); !slices.Equal(names, []string{"ns=2;s=partitions/p-0001234"}) {
		t.Errorf("migrations %q", names)
	}
	propose(cutoverMigration("p-0001234"))
	s.expect(change{phase, "Cutover"})
	expectEvents(t, events, told{Type: "types/BarrierPassedEventType", Source: "p-0001234", Severity: severityNormal, Phase: "Cutover", Epoch: uint64(3),
		Message: "The drain barrier of partition p-0001234 has passed: its migration to nas-2 may be completed."})
	expectValues(t, cfg, []any{0.0}, "ns=2;s=partitions/p-0001234/BarrierLeft")
	propose(completeMigration("p-0001234"))
	s.expect(change{phase, "Active"}, change{placement, "nas-2"})
	propose(deletePartition("p-0001234"))
	s.expect(change{phase, "BadNodeIdUnknown"}, change{placement, "BadNodeIdUnknown"})
}

// startNode runs a group of one real member, which leads when it returns.
func startNode(t testing.TB) *node.Node {
	t.Helper()
	transport, err := node.Listen("127.0.0.1:0", "", nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(node.Config{
		ID: "m1", DataDir: t.TempDir(), Bootstrap: []node.BootstrapMember{{ID: "m1", RaftAddress: transport.Advertised()}}, Transport: transport, Logger: quiet,
		Announce:  &logv1.AnnounceMember{GrpcAddress: "127.0.0.1:1", Version: "test", CommandVersion: fsm.CommandVersion},
		FreeSpace: func() (uint64, error) { return 1 << 40, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := n.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	ready := within(t)
	for {
		changed := n.Changed()
		if member, _ := n.Local().State.Member("m1"); member.GetCommandVersion() == fsm.CommandVersion {
			return n
		}
		select {
		case <-changed:
		case <-ready.Done():
			t.Fatal("the member has not announced itself")
		}
	}
}

// deaf is a group whose events can't be had, or end.
type deaf struct {
	*group
	watch  error // of Watch, where it is not nil
	closed chan struct{}
}

func (d deaf) Watch(uint64) (EventStream, error) {
	if d.watch != nil {
		return nil, d.watch
	}
	return d, nil
}

func (d deaf) Next(context.Context) ([]*quoratev1.Event, uint64, error) {
	return nil, 0, &node.Error{Op: "watch", Kind: node.Diverged}
}

func (d deaf) Close() { close(d.closed) }

func TestEventsThatCannotBeHad(t *testing.T) {
	g := newGroup(t, "m1")
	shutdown := &node.Error{Op: "watch", Kind: node.Shutdown}
	e, err := New(Config{
		Member: "m1", ApplicationURI: uriOf("m1"), Group: deaf{group: g, watch: shutdown}, Redundancy: &fitness{}, AllowNone: true, AllowAnonymous: true,
		Certificate: certificateOf(t, uriOf("m1")).give, Logger: quiet,
	})
	if e != nil || !errors.Is(err, shutdown) {
		t.Errorf("%v, %v", e, err)
	}
	// A member that has diverged gives no events any more. What it has can be read.
	g.ask(createPartitions("nas-1", "p-1"))
	d := deaf{group: g, closed: make(chan struct{})}
	_, cfg := serve(t, listen(t), "m1", d, &fitness{})
	<-d.closed
	expectValues(t, cfg, []any{"nas-1"}, "ns=2;s=partitions/p-1/Placement")
}
