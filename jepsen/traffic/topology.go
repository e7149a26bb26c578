package traffic

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/jepsen/history"
	"quorate/jepsen/lab"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	topologyShare = 0.08
	// publishEvery is the time between two publishes of one client: roll-outs and swaps of roles shall also come to their ends.
	publishEvery = 2500 * time.Millisecond
	publishers   = 2
	setID        = "press"
)

// shape is which topologies may be published.
type shape struct {
	members []*lab.Member

	mu sync.Mutex
	// away are members that leave the group, or are not in it.
	away    map[string]bool
	primary int
	// generation is the newest that anybody has seen.
	generation atomic.Uint64
}

// leave keeps a member out of topologies until stay.
func (s *shape) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away[id] = true
}

func (s *shape) stay(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.away, id)
}

// present are the members that may be in a topology.
func (s *shape) present() []*lab.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*lab.Member
	for _, m := range s.members {
		if !s.away[m.ID] {
			found = append(found, m)
		}
	}
	return found
}

func (s *shape) saw(generation uint64) {
	for {
		before := s.generation.Load()
		if before >= generation || s.generation.CompareAndSwap(before, generation) {
			return
		}
	}
}

// document makes a topology of the members that are there; nil if none is. Now and then another server is Primary, and policies change. No policy ever exempts
// a set from having at most one Healthy server (redundancy.md §2).
func (s *shape) document(r *rand.Rand) *quoratev1.Topology {
	members := s.present()
	if len(members) == 0 {
		return nil
	}
	s.mu.Lock()
	if r.IntN(3) == 0 {
		s.primary = r.IntN(len(s.members))
	}
	primary := s.members[s.primary]
	s.mu.Unlock()
	set := &quoratev1.RedundantSet{Id: setID, Mode: pick(r, "WARM", "WARM", "HOT", "COLD"), Policies: &quoratev1.RedundancyPolicies{
		MaxServers: 8, Apply: pick(r, "inPlace", "inPlace", "handover"), QuorumLoss: "degrade", Failover: "manual",
	}}
	if len(members) == 1 {
		set.Mode, set.Policies.Apply = "NONE", "inPlace"
	}
	switch r.IntN(4) {
	case 0:
		set.Policies.StandIn = 210
	case 1:
		set.Policies.Failover, set.Policies.FailoverAfter = "automatic", durationpb.New(3*time.Second)
	}
	hasPrimary := false
	for _, m := range members {
		hasPrimary = hasPrimary || m == primary
	}
	for i, m := range members {
		role := "Backup"
		if m == primary || !hasPrimary && i == 0 {
			role = "Primary"
		}
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{
			Member: m.ID, ApplicationUri: m.ApplicationURI(), EndpointUrl: m.OPCUA, HealthUrl: "https://" + m.HTTP + "/healthz", Role: role,
		})
	}
	return &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}}
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

func topologies() Workload {
	return Workload{Name: "topology", Setup: setUpTopology, Run: runTopology, Quiet: quietTopology, Final: finalTopology}
}

// setUpTopology publishes the first generation. A leader that is new has yet to put the members into the state, so that may have to be tried again.
func setUpTopology(ctx context.Context, e *Env) error {
	r := e.random("topology setup")
	for {
		_, err := publish(ctx, e, "setup", "", r, false)
		if err == nil {
			return nil
		}
		if !Rest(ctx, 200*time.Millisecond) {
			return errors.Join(err, ctx.Err())
		}
	}
}

func topologyOp(client, member, kind string) history.Op {
	return history.Op{Client: client, Member: member, Noun: "topology", Kind: kind, Key: "topology"}
}

var errNoMember = errors.New("no member may be in a topology")

// publish publishes a document, on top of the newest generation that is known.
func publish(ctx context.Context, e *Env, client, member string, r *rand.Rand, force bool) (*quoratev1.PublishTopologyResponse, error) {
	document := e.shape.document(r)
	if document == nil {
		return nil, errNoMember
	}
	expected := e.shape.generation.Load()
	at := e.Group
	if member != "" {
		at = e.At[member]
	}
	resp, _, err := call(ctx, e, topologyOp(client, member, "publish"),
		&quoratev1.PublishTopologyRequest{ExpectedGeneration: &expected, Topology: document, Force: force}, at.Topology().PublishTopology)
	switch {
	case err == nil:
		e.shape.saw(resp.GetGeneration().GetNumber())
	case refusal(err) != "":
		// It may be that somebody else was faster.
		_, _ = getTopology(ctx, e, client, "", nil)
	}
	return resp, err
}

// getTopology reads the current topology.
func getTopology(ctx context.Context, e *Env, client, member string, read *quoratev1.ReadOptions) (*quoratev1.GetTopologyResponse, error) {
	at := e.Group
	if member != "" {
		at = e.At[member]
	}
	resp, _, err := call(ctx, e, topologyOp(client, member, "get"), &quoratev1.GetTopologyRequest{Read: read}, at.Topology().GetTopology)
	if err == nil {
		e.shape.saw(resp.GetGeneration().GetNumber())
	}
	return resp, err
}

func runTopology(ctx context.Context, e *Env) error {
	var all []func(context.Context) error
	for i := range publishers {
		all = append(all, func(ctx context.Context) error { return keepPublishing(ctx, e, "publisher-"+strconv.Itoa(i+1)) })
	}
	for _, m := range e.shape.members {
		all = append(all, func(ctx context.Context) error { return keepReadingTopology(ctx, e, "topology-"+m.ID, m.ID) })
	}
	return together(ctx, all...)
}

func keepPublishing(ctx context.Context, e *Env, client string) error {
	r := e.random(client)
	for Rest(ctx, between(r, publishEvery/2, publishEvery*3/2)) {
		_, member := e.where(r)
		if current := e.shape.generation.Load(); r.IntN(8) == 0 && current > 1 {
			rollback(ctx, e, client, member, 1+r.Uint64N(current))
			continue
		}
		// How it ended is in the history.
		_, _ = publish(ctx, e, client, member, r, r.IntN(6) == 0)
	}
	return nil
}

// rollback publishes an old generation anew. One that has members which left is refused.
func rollback(ctx context.Context, e *Env, client, member string, to uint64) {
	expected := e.shape.generation.Load()
	at := e.Group
	if member != "" {
		at = e.At[member]
	}
	resp, _, err := call(ctx, e, topologyOp(client, member, "rollback"),
		&quoratev1.RollbackTopologyRequest{ExpectedGeneration: &expected, To: to}, at.Topology().RollbackTopology)
	if err == nil {
		e.shape.saw(resp.GetGeneration().GetNumber())
	}
}

func keepReadingTopology(ctx context.Context, e *Env, client, member string) error {
	r, pace := e.random(client), e.pace(topologyShare, len(e.shape.members))
	for pace.wait(ctx) {
		switch current := e.shape.generation.Load(); {
		case r.IntN(8) == 0:
			_, _, _ = call(ctx, e, topologyOp(client, member, "history"),
				&quoratev1.ListGenerationsRequest{Read: someRead(r), Limit: 8}, e.At[member].Topology().ListGenerations)
		case r.IntN(4) == 0 && current > 0:
			_, _, _ = call(ctx, e, topologyOp(client, member, "get"),
				&quoratev1.GetTopologyRequest{Read: someRead(r), Generation: 1 + r.Uint64N(current)}, e.At[member].Topology().GetTopology)
		case r.IntN(4) == 0:
			_, _, _ = call(ctx, e, history.Op{Client: client, Member: member, Noun: "apply", Kind: "get", Key: "topology"},
				&quoratev1.GetApplyStatusRequest{Read: someRead(r)}, e.At[member].Applies().GetApplyStatus)
		default:
			_, _ = getTopology(ctx, e, client, member, someRead(r))
		}
	}
	return nil
}

// quietTopology reads at every member and publishes.
func quietTopology(ctx context.Context, e *Env, as string) error {
	var errs []error
	for _, m := range e.shape.members {
		_, err := getTopology(ctx, e, as, m.ID, nil)
		errs = append(errs, succeeded("get the topology at "+m.ID, err))
	}
	_, err := publish(ctx, e, as, "", e.random(as), false)
	return errors.Join(append(errs, succeeded("publish", err))...)
}

// finalTopology reads the current topology, and all generations, a page at a time.
func finalTopology(ctx context.Context, e *Env, as string) error {
	if _, err := getTopology(ctx, e, as, "", nil); err != nil {
		return err
	}
	before := uint64(0)
	for {
		resp, _, err := call(ctx, e, topologyOp(as, "", "history"), &quoratev1.ListGenerationsRequest{Limit: 200, Before: before}, e.Group.Topology().ListGenerations)
		if err != nil {
			return err
		}
		page := resp.GetGenerations()
		if len(page) == 0 || page[len(page)-1].GetNumber() == 1 {
			return nil
		}
		before = page[len(page)-1].GetNumber()
	}
}
