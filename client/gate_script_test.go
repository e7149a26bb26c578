package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	active   = quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE
	draining = quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING
	cutover  = quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER
)

// ttl is for how long the leases of scripts last.
const ttl = 2 * time.Second

// scripted is a group that answers what the test tells it to, when the test tells it to. It is for a synctest bubble.
type scripted struct {
	t *testing.T

	mu       sync.Mutex
	renewals []*question
	reads    []*reading
	// registered and removed have the sessions, and drained whether the last that was removed was.
	registered, removed []string
	drained             bool
	// revision is that of the last grant.
	revision uint64
	// taken is the error of registrations.
	taken error
	// readsAtOnce is the most reads that were under way.
	readsAtOnce, readsNow int
}

// question is one for a lease that waits for its answer.
type question struct {
	*quoratev1.RenewGateRequest
	answer   chan any
	answered bool
}

// reading is a read that waits for its answer.
type reading struct {
	partitions []string
	answer     chan any
}

func (s *scripted) Register(_ context.Context, id, session string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != "proxy-1" {
		s.t.Errorf("registered as %q", id)
	}
	s.registered = append(s.registered, session)
	return s.taken
}

func (s *scripted) Renew(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	r := &question{RenewGateRequest: req, answer: make(chan any, 1)}
	s.mu.Lock()
	s.renewals = append(s.renewals, r)
	s.mu.Unlock()
	if req.GetGiveBack() {
		return &quoratev1.RenewGateResponse{}, nil
	}
	select {
	case a := <-r.answer:
		if err, failed := a.(error); failed {
			return nil, err
		}
		return a.(*quoratev1.RenewGateResponse), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *scripted) Resolve(ctx context.Context, partitions []string) ([]*quoratev1.Resolution, uint64, error) {
	r := &reading{partitions: partitions, answer: make(chan any, 1)}
	s.mu.Lock()
	s.reads = append(s.reads, r)
	s.readsNow++
	s.readsAtOnce = max(s.readsAtOnce, s.readsNow)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.readsNow--
		s.mu.Unlock()
	}()
	select {
	case a := <-r.answer:
		if err, failed := a.(error); failed {
			return nil, 0, err
		}
		found := a.(found)
		return found.resolutions, found.revision, nil
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}

func (s *scripted) Remove(_ context.Context, _, session string, drained bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed, s.drained = append(s.removed, session), drained
	return nil
}

type found struct {
	resolutions []*quoratev1.Resolution
	revision    uint64
}

// asked waits until everybody waits for something else, and returns the newest question for a lease.
func (s *scripted) asked() *question {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.renewals) == 0 {
		s.t.Fatal("nobody asked for a lease")
	}
	return s.renewals[len(s.renewals)-1]
}

// grant answers the newest question for a lease.
func (s *scripted) grant(g *quoratev1.RenewGateResponse) {
	s.t.Helper()
	r := s.asked()
	g.Term, g.Grant = 1, r.GetGrant()+1
	s.revision = g.GetRevision()
	if g.Ttl == nil {
		g.Ttl = durationpb.New(ttl)
	}
	r.answer <- g
	r.answered = true
	synctest.Wait()
}

// refuse answers it with an error.
func (s *scripted) refuse(err error) {
	s.t.Helper()
	r := s.asked()
	r.answer <- err
	r.answered = true
	synctest.Wait()
}

// read waits until everybody waits for something else, and returns the newest read.
func (s *scripted) read(number int) *reading {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reads) != number {
		s.t.Fatalf("%d reads, want %d", len(s.reads), number)
	}
	return s.reads[number-1]
}

// elapse lets virtual time pass.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// serve answers a read.
func (r *reading) serve(revision uint64, resolutions ...*quoratev1.Resolution) {
	r.answer <- found{resolutions, revision}
	synctest.Wait()
}

func at(partition string, phase quoratev1.PartitionPhase, placement string, epoch, revision uint64) *quoratev1.Resolution {
	r := &quoratev1.Resolution{Partition: partition, Phase: phase, ReadPlacement: placement, WritePlacement: placement, Epoch: epoch, Revision: revision}
	if phase == cutover {
		r.WritePlacement = ""
	}
	return r
}

// entry is a call of Enter under way.
type entering struct {
	done chan struct{}
	pass Pass
	err  error
}

// enter calls Enter and doesn't wait for it.
func enter(g *Gate, partition string) *entering {
	return enterCtx(context.Background(), g, partition)
}

func enterCtx(ctx context.Context, g *Gate, partition string) *entering {
	e := &entering{done: make(chan struct{})}
	go func() {
		defer close(e.done)
		e.pass, e.err = g.Enter(ctx, partition)
	}()
	synctest.Wait()
	return e
}

// waits says whether it has not returned.
func (e *entering) waits() bool {
	synctest.Wait()
	select {
	case <-e.done:
		return false
	default:
		return true
	}
}

func (e *entering) want(t *testing.T, placement string, epoch uint64) Pass {
	t.Helper()
	if e.waits() {
		t.Fatalf("it waits, want %s at epoch %d", placement, epoch)
	}
	if e.err != nil || e.pass.Placement != placement || e.pass.Epoch != epoch {
		t.Fatalf("let in to %s at epoch %d, error %v; want %s at epoch %d", e.pass.Placement, e.pass.Epoch, e.err, placement, epoch)
	}
	return e.pass
}

// scriptedGate opens a gate on a scripted group, in a bubble.
func scriptedGate(t *testing.T, options GateOptions, play func(t *testing.T, s *scripted, g *Gate)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{t: t}
		options.ID = "proxy-1"
		g, err := OpenGate(t.Context(), s, options)
		if err != nil {
			t.Fatal(err)
		}
		// A test that failed, too, has to end what runs in the bubble.
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := g.Close(ctx); err != nil && !errors.Is(err, ErrClosed) {
				t.Errorf("close: %v", err)
			}
		}()
		play(t, s, g)
	})
}

// fromMemory lets one write in and ends it, and fails if the group has to be asked.
func fromMemory(t *testing.T, g *Gate, partition, placement string, epoch uint64) {
	t.Helper()
	before := g.Stats().Misses
	enter(g, partition).want(t, placement, epoch).Done()
	if g.Stats().Misses != before {
		t.Fatalf("%s was not answered from memory", partition)
	}
}

// learned lets the gate learn where a partition is, under a lease of revision 10.
func learned(s *scripted, g *Gate, partition string) {
	s.t.Helper()
	if g.Stats().Lease <= 0 {
		s.grant(&quoratev1.RenewGateResponse{Revision: 10})
	}
	s.mu.Lock()
	reads := len(s.reads)
	s.mu.Unlock()
	e := enter(g, partition)
	s.read(reads+1).serve(max(10, s.revision), at(partition, active, "b1", 1, 5))
	e.want(s.t, "b1", 1).Done()
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("p%d", i)
	}
	return all
}

func wantError[E error](t *testing.T, err error, text string) E {
	t.Helper()
	var want E
	if !errors.As(err, &want) || !strings.Contains(err.Error(), text) {
		t.Fatalf("error %v, want a %T with %q", err, want, text)
	}
	return want
}

// sessions returns those that were registered.
func (s *scripted) sessions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.registered)
}
