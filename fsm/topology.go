package fsm

import (
	"cmp"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// topologies holds the published generations: the last MaxGenerationsWhole with their document, up to MaxGenerationDigests
// older ones by digest. Their numbers have no gap.
type topologies struct {
	kept    tree.Map[uint64, *quoratev1.Generation]
	current *quoratev1.Generation
	// servers finds a server of the current generation by its member. It is made with the generation and never changed,
	// so snapshots share it.
	servers map[string]serverPlace
}

// serverPlace is a server and the set that it is in.
type serverPlace struct {
	set    *quoratev1.RedundantSet
	server *quoratev1.RedundantServer
}

func newTopologies() topologies {
	return topologies{kept: tree.New[uint64, *quoratev1.Generation](cmp.Compare[uint64])}
}

func (t *topologies) snapshot() topologies {
	return topologies{kept: t.kept.Snapshot(), current: t.current, servers: t.servers}
}

// setCurrent puts a generation into force.
func (t *topologies) setCurrent(g *quoratev1.Generation) {
	t.current = g
	t.servers = make(map[string]serverPlace)
	for _, set := range g.GetTopology().GetSets() {
		for _, server := range set.GetServers() {
			t.servers[server.GetMember()] = serverPlace{set, server}
		}
	}
}

func (a *application) publishTopology(c *logv1.PublishTopology) (*logv1.Outcome, *Refusal) {
	// The comparison comes first: a draft made against an old generation says nothing about the present one.
	if r := a.CheckExpected(c.GetExpectedGeneration()); r != nil {
		return nil, r
	}
	return a.publish(c.GetTopology(), 0, publishing{force: c.GetForce(), forceSet: c.GetForceSet()})
}

// rollbackTopology publishes the document of an old generation as a new one. The document is validated again, since its
// members may have left the group meanwhile.
func (a *application) rollbackTopology(c *logv1.RollbackTopology) (*logv1.Outcome, *Refusal) {
	if r := a.CheckExpected(c.GetExpectedGeneration()); r != nil {
		return nil, r
	}
	if c.GetTo() == 0 {
		return nil, invalid(ReasonUnknownGeneration, "to", "generations are numbered from 1")
	}
	g, r := a.WholeGeneration(c.GetTo())
	if r != nil {
		r.Field = "to"
		return nil, r
	}
	return a.publish(g.GetTopology(), g.GetNumber(), publishing{})
}

// publish makes a document the next generation.
func (a *application) publish(draft *quoratev1.Topology, rollbackOf uint64, p publishing) (*logv1.Outcome, *Refusal) {
	topology, r := ValidateTopology(a.State, draft)
	if r != nil {
		return nil, r
	}
	g := a.nextGeneration(topology)
	g.RollbackOf = rollbackOf
	return a.putInForce(g, p), nil
}

// nextGeneration makes the generation of a topology in normal form.
func (a *application) nextGeneration(topology *quoratev1.Topology) *quoratev1.Generation {
	return &quoratev1.Generation{
		Number:           a.generationNumber() + 1,
		Digest:           TopologyDigest(topology),
		Topology:         topology,
		PublishRequestId: a.command.GetRequestId(),
		Actor:            a.actor(),
		PublishedAt:      a.wallTime(),
		ClusterTime:      durationpb.New(a.clock.now),
		Revision:         a.clock.revision,
	}
}

// putInForce makes a generation the current one.
func (a *application) putInForce(g *quoratev1.Generation, p publishing) *logv1.Outcome {
	p.before = a.CurrentGeneration().GetTopology()
	a.topology.kept.Set(g.GetNumber(), g)
	a.topology.setCurrent(g)
	a.compactGenerations()
	a.dropDeparted()
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_TopologyPublished{TopologyPublished: g}})
	a.rollOut(p)
	return published(g)
}

// compactGenerations takes the document from the one generation that a publish made too old to keep whole, and drops the one
// that it made too old to keep at all.
func (a *application) compactGenerations() {
	t := &a.topology
	number := t.current.GetNumber()
	if number > MaxGenerationsWhole {
		if old, ok := t.kept.Get(number - MaxGenerationsWhole); ok {
			t.kept.Set(old.GetNumber(), digestOnly(old))
		}
	}
	if number > MaxGenerationsWhole+MaxGenerationDigests {
		t.kept.Delete(number - MaxGenerationsWhole - MaxGenerationDigests)
	}
}

// digestOnly returns a copy of a generation without its document. Snapshots and events may still hold the original.
func digestOnly(g *quoratev1.Generation) *quoratev1.Generation {
	return &quoratev1.Generation{
		Number:           g.GetNumber(),
		Digest:           g.GetDigest(),
		PublishRequestId: g.GetPublishRequestId(),
		Actor:            g.GetActor(),
		PublishedAt:      g.GetPublishedAt(),
		ClusterTime:      g.GetClusterTime(),
		RollbackOf:       g.GetRollbackOf(),
		Revision:         g.GetRevision(),
		SwappedBy:        g.GetSwappedBy(),
	}
}

// CurrentGeneration returns the generation in force, nil before the first publish.
func (s *State) CurrentGeneration() *quoratev1.Generation { return s.topology.current }

// generationNumber is the number of the generation in force, 0 before the first publish.
func (s *State) generationNumber() uint64 { return s.topology.current.GetNumber() }

// CheckExpected says whether a generation is the current one, 0 before the first publish; if not, the refusal is
// GENERATION_CONFLICT and names the current one.
func (s *State) CheckExpected(generation uint64) *Refusal {
	if generation == s.generationNumber() {
		return nil
	}
	return s.wrongGeneration(logv1.Kind_KIND_PRECONDITION, ReasonGenerationConflict, "expected_generation",
		"expected generation %d, but the current one is %d", generation, s.generationNumber())
}

// wrongGeneration is a refusal that names the current generation.
func (s *State) wrongGeneration(kind logv1.Kind, reason, field, format string, args ...any) *Refusal {
	return refuse(kind, reason, field, format, args...).
		with("current_generation", strconv.FormatUint(s.generationNumber(), 10))
}

// Generation returns a generation that is still kept. Its topology is absent where only the digest is.
func (s *State) Generation(number uint64) (*quoratev1.Generation, bool) {
	return s.topology.kept.Get(number)
}

// WholeGeneration returns a generation with its topology, 0 meaning the current one. The refusal is UNKNOWN_GENERATION where
// there is none of that number, GENERATION_COMPACTED where its topology is no longer kept.
func (s *State) WholeGeneration(number uint64) (*quoratev1.Generation, *Refusal) {
	current := s.generationNumber()
	if number == 0 {
		number = current
	}
	if number == 0 || number > current {
		return nil, s.wrongGeneration(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownGeneration, "generation",
			"there is no generation %d, the current one is %d", number, current)
	}
	g, ok := s.Generation(number)
	if !ok || g.GetTopology() == nil {
		oldest := current - min(current, MaxGenerationsWhole) + 1
		return nil, refuse(logv1.Kind_KIND_NOT_FOUND, ReasonGenerationCompacted, "generation",
			"the topology of generation %d is no longer kept, the oldest is %d", number, oldest).
			with("oldest_generation", strconv.FormatUint(oldest, 10))
	}
	return g, nil
}

// Generations returns at most limit generations with a number below before, newest first; before 0 means from the newest.
func (s *State) Generations(before uint64, limit int) []*quoratev1.Generation {
	if before == 0 {
		before = s.generationNumber() + 1
	}
	var found []*quoratev1.Generation
	for _, g := range s.topology.kept.Before(before) {
		if len(found) >= limit {
			break
		}
		found = append(found, g)
	}
	return found
}

// Server returns the server that a member runs in the current topology, and its set.
func (s *State) Server(member string) (*quoratev1.RedundantSet, *quoratev1.RedundantServer, bool) {
	p, ok := s.topology.servers[member]
	return p.set, p.server, ok
}

// setOf returns the id of the set that a server is in, empty if it is in none.
func (s *State) setOf(server string) string { return s.topology.servers[server].set.GetId() }

// checkTopology is the invariant of the generations.
func (s *State) checkTopology() error {
	t := &s.topology
	if t.kept.Len() > MaxGenerationsWhole+MaxGenerationDigests {
		return fmt.Errorf("%d generations are kept", t.kept.Len())
	}
	newest := s.generationNumber()
	if uint64(t.kept.Len()) != min(newest, MaxGenerationsWhole+MaxGenerationDigests) {
		return fmt.Errorf("%d generations are kept up to number %d", t.kept.Len(), newest)
	}
	expected := newest - uint64(t.kept.Len())
	revision, since := uint64(0), int64(0)
	for number, g := range t.kept.All() {
		expected++
		if number != expected || g.GetNumber() != number {
			return fmt.Errorf("generation %d stands where %d belongs", g.GetNumber(), expected)
		}
		if at := int64(g.GetClusterTime().AsDuration()); g.GetRevision() < revision || g.GetRevision() > s.clock.revision ||
			at < since || at > int64(s.clock.now) {
			return fmt.Errorf("generation %d is out of order or from the future", number)
		}
		revision, since = g.GetRevision(), int64(g.GetClusterTime().AsDuration())
		if g.GetRollbackOf() >= number {
			return fmt.Errorf("generation %d is a rollback of %d", number, g.GetRollbackOf())
		}
		if whole := number+MaxGenerationsWhole > newest; whole != (g.GetTopology() != nil) {
			return fmt.Errorf("generation %d of %d is kept whole: %t", number, newest, !whole)
		}
		if err := checkDocument(g); err != nil {
			return err
		}
	}
	if kept, _ := t.kept.Get(newest); kept != t.current {
		return fmt.Errorf("the current generation %d is not the newest one kept", newest)
	}
	return s.checkServers()
}

// checkDocument is the invariant of one kept document: it is valid, in normal form, and has the digest that it is known by.
func checkDocument(g *quoratev1.Generation) error {
	if g.GetTopology() == nil {
		return nil
	}
	normal, r := normalise(g.GetTopology())
	if r != nil {
		return fmt.Errorf("generation %d: %w", g.GetNumber(), r)
	}
	if digest := TopologyDigest(normal); digest != g.GetDigest() || TopologyDigest(g.GetTopology()) != digest {
		return fmt.Errorf("generation %d has digest %s, but its topology has %s", g.GetNumber(), g.GetDigest(), digest)
	}
	return nil
}

// checkServers is the invariant of the current topology: its index is complete, and every server has a member.
func (s *State) checkServers() error {
	count := 0
	for _, set := range s.CurrentGeneration().GetTopology().GetSets() {
		for _, server := range set.GetServers() {
			count++
			if p := s.topology.servers[server.GetMember()]; p.set != set || p.server != server {
				return fmt.Errorf("server %s of set %s is missing in the index", server.GetMember(), set.GetId())
			}
			if _, ok := s.Member(server.GetMember()); !ok {
				return fmt.Errorf("server %s of set %s has no member", server.GetMember(), set.GetId())
			}
		}
	}
	if count != len(s.topology.servers) {
		return fmt.Errorf("%d servers in the topology, %d in the index", count, len(s.topology.servers))
	}
	return nil
}
