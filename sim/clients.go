package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// watch follows one member's events across its lives.
func (r *run) watch(l *Log) {
	next := uint64(1)
	for r.ctx.Err() == nil {
		n := r.world.Node(l.Member)
		if n == nil {
			r.pause(50 * time.Millisecond)
			continue
		}
		next = r.follow(l, n, next)
		r.pause(10 * time.Millisecond)
	}
}

func (r *run) follow(l *Log, n *node.Node, next uint64) uint64 {
	skip := func(err error) uint64 {
		var c *node.CompactedError
		if errors.As(err, &c) && c.Revision+1 > next {
			r.history.mu.Lock()
			l.gaps = append(l.gaps, [2]uint64{next - 1, c.Revision})
			r.history.mu.Unlock()
			return c.Revision + 1
		}
		return next
	}
	w, err := n.Watch(next)
	if err != nil {
		return skip(err)
	}
	defer w.Close()
	// The last watch may have ended within a revision, which now begins again.
	l.trim(next)
	for {
		events, revision, err := w.Next(r.ctx)
		if err != nil {
			return skip(err)
		}
		for _, e := range events {
			r.history.Event(e)
		}
		r.history.mu.Lock()
		l.events = append(l.events, events...)
		r.history.mu.Unlock()
		next = max(next, revision+1)
	}
}

// client does one operation after the other.
func (r *run) client(number int, rng *rand.Rand) {
	for i := 0; r.pause(time.Duration(rng.Int64N(int64(r.Think)))); i++ {
		select {
		case <-r.load:
			return
		default:
		}
		ids := r.world.IDs()
		member := ids[rng.IntN(len(ids))]
		request := fmt.Sprintf("c%d-%d", number, i)
		server := ids[rng.IntN(2)]
		switch rng.IntN(6) {
		case 0, 1:
			r.read(member)
		case 2:
			if s := r.read(member); s != nil {
				r.write(request, member, publish(s.CurrentGeneration().GetNumber(), rng))
			}
		case 3:
			r.write(request, member, &logv1.Command{Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{
				Server: server, Active: rng.IntN(2) == 0, Reason: request,
			}}})
		case 4:
			r.history.AskedLease(request, server)
			r.write(request, member, &logv1.Command{Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{
				Server: server, PublishRequestId: request, Reason: "apply",
			}}})
		case 5:
			r.endLease(request, member, server, rng)
		}
	}
}

// endLease ends an open lease, mostly: some are left to the watchdog.
func (r *run) endLease(request, member, server string, rng *rand.Rand) {
	s := r.read(member)
	if s == nil || rng.IntN(4) == 0 {
		return
	}
	for _, l := range s.Leases(server, false) {
		r.write(request, member, &logv1.Command{Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{
			Server: server, Generation: l.GetKey().GetGeneration(), PublishRequestId: l.GetKey().GetPublishRequestId(), Outcome: "success",
		}}})
		return
	}
}

func (r *run) read(member string) *fsm.State {
	n := r.world.Node(member)
	if n == nil {
		return nil
	}
	floor := r.history.Floor()
	ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
	defer cancel()
	v, err := n.Read(ctx, nil)
	if err != nil {
		return nil
	}
	r.history.Read(member, floor, v.State.Revision())
	return v.State
}

// write sends a command until its outcome is known, and returns it; nil when the run ended first.
func (r *run) write(request, member string, cmd *logv1.Command) *logv1.Outcome {
	cmd.Actor = &quoratev1.Actor{Name: "sim", Role: "operator"}
	if cmd.GetTick() == nil {
		cmd.RequestId = request
	}
	asked := time.Now()
	for try := 0; r.ctx.Err() == nil; try++ {
		ids := r.world.IDs()
		n := r.world.Node(member)
		member = ids[try%len(ids)]
		if n == nil {
			r.pause(20 * time.Millisecond)
			continue
		}
		ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
		o, err := n.Propose(ctx, cmd)
		cancel()
		if err == nil {
			r.history.Wrote(request, asked, o)
			return o
		}
		var e *node.Error
		if errors.As(err, &e) && e.Kind == node.UnknownOutcome {
			r.history.mu.Lock()
			r.history.Unknown++
			r.history.mu.Unlock()
		}
	}
	return nil
}

func publish(expected uint64, rng *rand.Rand) *logv1.Command {
	roles := []string{"Primary", "Backup"}
	first := rng.IntN(2)
	server := func(i int) *quoratev1.RedundantServer {
		id := fmt.Sprintf("m%d", i+1)
		return &quoratev1.RedundantServer{
			Member: id, ApplicationUri: "urn:sim:" + id, EndpointUrl: "opc.tcp://" + id + ":4840", HealthUrl: "http://" + id + ":7201/healthz",
			Role: roles[(first+i)%2],
		}
	}
	return &logv1.Command{Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
		ExpectedGeneration: expected,
		Topology:           &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{Id: "line-a", Mode: "WARM", Servers: []*quoratev1.RedundantServer{server(0), server(1)}}}},
	}}}
}
