package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"quorate/client"
	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// GateMutant is a rule of the gate leases that is broken, so that the checks can show that they notice.
type GateMutant int

// The mutants.
const (
	NoGateMutant GateMutant = iota
	// LeasesIgnored: the leader believes after each grant that the lease was given back.
	LeasesIgnored
	// ClosedIgnored: instances are not told which gates are closed, nor what changed, and let go of nothing.
	ClosedIgnored
	// GateCountedFromAnswer: instances count their leases from the answer.
	GateCountedFromAnswer
	// BarrierByWallClock: cluster time follows the wall clock, which is set at times.
	BarrierByWallClock
	// DrainedTooSoon: instances report that nothing is in flight, whatever is.
	DrainedTooSoon
)

// instance is a process that checks gates: a real client.Gate, on a link of the simulated network.
type instance struct {
	id   string
	gate *client.Gate
	link *gateLink
}

// gateLink joins a gate to the members of a world.
type gateLink struct {
	world  *World
	end    *Transport
	id     string
	mutant GateMutant
	member atomic.Int64
	// gone is set when the process is taken for dead: it reaches nobody any more, but what it let in goes on.
	gone atomic.Bool
	// gained is by how much a mutant puts the instance's clock back.
	gained atomic.Int64
}

var errGone = errors.New("the process is gone")

// start starts an instance.
func startInstance(ctx context.Context, w *World, id string, clock *Clock, mutant GateMutant) (*instance, error) {
	l := &gateLink{world: w, end: w.Network.Join(addressOf(id)), id: id, mutant: mutant}
	elapsed := clock.Elapsed
	if mutant == GateCountedFromAnswer {
		elapsed = func() time.Duration { return clock.Elapsed() - time.Duration(l.gained.Load()) }
	}
	g, err := client.OpenGate(ctx, l, client.GateOptions{ID: id, Elapsed: elapsed})
	if err != nil {
		return nil, err
	}
	return &instance{id: id, gate: g, link: l}, nil
}

// call goes to a member and back. What is asked of one that doesn't run is refused, and the next call goes to another one.
func (l *gateLink) call(ctx context.Context, ask func(context.Context, nodeOf) error) error {
	if l.gone.Load() {
		return errGone
	}
	ids := l.world.IDs()
	member := ids[int(l.member.Load())%len(ids)]
	err := func() error {
		asked, err := l.world.Network.cross(ctx, l.end, addressOf(member))
		if err != nil {
			return err
		}
		n := l.world.Node(member)
		if n == nil {
			return errRefused
		}
		failed := ask(ctx, n)
		if err := l.world.Network.answer(ctx, asked, l.end); err != nil {
			return err
		}
		return failed
	}()
	if err != nil {
		l.member.Add(1)
	}
	if l.gone.Load() {
		return errGone
	}
	return err
}

// Register implements client.GateLink.
func (l *gateLink) Register(ctx context.Context, id, session string) error {
	request := rand.Uint64()
	for {
		var outcome error
		err := l.call(ctx, func(ctx context.Context, n nodeOf) error {
			o, err := n.Propose(ctx, registration(fmt.Sprintf("%s-%x", id, request), id, session))
			if r := fsm.RefusalOf(o); r != nil {
				outcome = r
			}
			return err
		})
		if err == nil {
			return outcome
		}
		if ctx.Err() != nil || errors.Is(err, errGone) {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// Renew implements client.GateLink.
func (l *gateLink) Renew(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	if l.mutant == DrainedTooSoon {
		req.Drained = l.allCutovers()
	}
	began := time.Now()
	var resp *quoratev1.RenewGateResponse
	err := l.call(ctx, func(ctx context.Context, n nodeOf) (err error) {
		if resp, err = n.RenewGate(ctx, req); err == nil && l.mutant == LeasesIgnored {
			_, err = n.RenewGate(ctx, &quoratev1.RenewGateRequest{Id: req.GetId(), Session: req.GetSession(), GiveBack: true})
		}
		return err
	})
	var refused *fsm.Refusal
	if errors.As(err, &refused) {
		return nil, client.ErrUnregistered
	}
	if err != nil {
		return nil, err
	}
	switch l.mutant {
	case ClosedIgnored:
		resp.Closed, resp.Changed, resp.Reset_ = nil, nil, false
	case GateCountedFromAnswer:
		// What the question took is taken from every reading after its answer: that is as if the lease began with the answer.
		l.gained.Add(int64(time.Since(began)))
	}
	return resp, nil
}

// allCutovers names whatever is in cutover anywhere.
func (l *gateLink) allCutovers() (found []*quoratev1.PartitionEpoch) {
	for _, id := range l.world.Running() {
		if n := l.world.Node(id); n != nil {
			found = n.Local().State.EarlyCutovers()
		}
	}
	return found
}

// Resolve implements client.GateLink.
func (l *gateLink) Resolve(ctx context.Context, partitions []string) (found []*quoratev1.Resolution, revision uint64, err error) {
	err = l.call(ctx, func(ctx context.Context, n nodeOf) error {
		view, err := n.Read(ctx, nil)
		if err != nil {
			return err
		}
		revision = view.State.Revision()
		for _, p := range partitions {
			found = append(found, view.State.Resolve(p))
		}
		return nil
	})
	return found, revision, err
}

// Remove implements client.GateLink.
func (l *gateLink) Remove(ctx context.Context, id, session string, drained bool) error {
	return l.call(ctx, func(ctx context.Context, n nodeOf) error {
		_, err := n.Propose(ctx, removal(fmt.Sprintf("%s-%x", id, rand.Uint64()), id, session, drained))
		return err
	})
}
