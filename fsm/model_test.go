package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// model is the state machine again, written as plainly as can be: slow, without history, and with none of State's code. It
// says what the answer to a command has to be: "ok", or the reason of a refusal.
type model struct {
	now         time.Duration
	members     map[string]bool // false: departed
	adopted     map[string]uint64
	generation  uint64
	sets        []map[string]string // By generation: server → set.
	publishes   []string            // By generation: request id.
	leases      map[string]*modelLease
	maintenance map[string]bool
	answers     map[string]modelAnswer
	partitions  *modelPartitions
}

type modelLease struct {
	server, publish, set string
	generation           uint64
	windows              int
	begun                time.Duration
}

type modelAnswer struct {
	body, answer string
	at           time.Duration
}

func newModel() *model {
	m := &model{
		members: map[string]bool{}, adopted: map[string]uint64{}, sets: []map[string]string{{}}, publishes: []string{""},
		leases: map[string]*modelLease{}, maintenance: map[string]bool{}, answers: map[string]modelAnswer{},
	}
	m.partitions = newModelPartitions(m)
	return m
}

func (m *model) current() map[string]string { return m.sets[m.generation] }

// stamp is what an entry says before its commands.
func (m *model) stamp(clock time.Duration, applied, index uint64) {
	m.now = max(m.now, clock)
	m.partitions.stamp(applied, index)
}

func (m *model) apply(c *logv1.Command) string {
	if info, _ := describe(c); !info.public {
		return m.own(c)
	}
	if c.GetRequestId() == "" {
		return ReasonRequestIDRequired
	}
	key := c.GetActor().GetName() + "/" + c.GetRequestId()
	body := fmt.Sprintf("%T %v", c.GetBody(), canonicalOf(c))
	if before, ok := m.answers[key]; ok && m.now-before.at <= RequestMemory {
		if before.body != body {
			return ReasonRequestIDReused
		}
		return before.answer
	}
	if m.partitions.gatesOpen(c) {
		return ReasonGatesNotClosed // And nothing is remembered.
	}
	answer := m.public(c)
	m.answers[key] = modelAnswer{body: body, answer: answer, at: m.now}
	return answer
}

func canonicalOf(c *logv1.Command) []byte {
	var b canonical
	b.command(c)
	return b
}

func (m *model) public(c *logv1.Command) string {
	switch b := c.GetBody().(type) {
	case *logv1.Command_PublishTopology:
		if b.PublishTopology.GetExpectedGeneration() != m.generation {
			return ReasonGenerationConflict
		}
		sets := map[string]string{}
		for _, set := range b.PublishTopology.GetTopology().GetSets() {
			for _, server := range set.GetServers() {
				sets[server.GetMember()] = set.GetId()
			}
		}
		return m.publish(c.GetRequestId(), sets)
	case *logv1.Command_RollbackTopology:
		if b.RollbackTopology.GetExpectedGeneration() != m.generation {
			return ReasonGenerationConflict
		}
		to := b.RollbackTopology.GetTo()
		if to == 0 || to > m.generation {
			return ReasonUnknownGeneration
		}
		return m.publish(c.GetRequestId(), m.sets[to])
	case *logv1.Command_BeginLease:
		return m.begin(b.BeginLease)
	case *logv1.Command_EndLease:
		return m.end(b.EndLease)
	case *logv1.Command_SetMaintenance:
		server := b.SetMaintenance.GetServer()
		if m.current()[server] == "" && !m.maintenance[server] {
			return ReasonUnknownServer
		}
		m.maintenance[server] = b.SetMaintenance.GetActive()
	default:
		return m.partitions.public(c)
	}
	return "ok"
}

func (m *model) publish(id string, sets map[string]string) string {
	for server := range sets {
		if !m.members[server] {
			return ReasonUnknownMember
		}
	}
	for _, set := range []string{"line-a", "line-b"} {
		if slices.Contains(slices.Collect(maps.Values(sets)), set) && len(m.applying(set, sets)) > 1 {
			return ReasonApplyInProgress
		}
	}
	m.generation++
	m.sets, m.publishes = append(m.sets, sets), append(m.publishes, id)
	m.sweep()
	return "ok"
}

// sweep drops who has departed and is in no set.
func (m *model) sweep() {
	for id, present := range m.members {
		if !present && m.current()[id] == "" {
			delete(m.members, id)
			delete(m.adopted, id)
			delete(m.maintenance, id)
		}
	}
}

func (m *model) applying(set string, sets map[string]string) map[string]bool {
	servers := map[string]bool{}
	for _, l := range m.leases {
		if l.set == set || sets[l.server] == set {
			servers[l.server] = true
		}
	}
	return servers
}

func (m *model) begin(c *logv1.BeginLease) string {
	switch g := c.GetGeneration(); {
	case g > m.generation:
		return ReasonUnknownGeneration
	case g != 0 && g < m.generation:
		return ReasonStaleGeneration
	}
	set := m.current()[c.GetServer()]
	if set == "" {
		return ReasonUnknownServer
	}
	publish := c.GetPublishRequestId()
	if publish == "" {
		publish = m.publishes[m.generation]
	}
	key := fmt.Sprint(c.GetServer(), m.generation, publish)
	if l, ok := m.leases[key]; ok {
		l.windows++
		return "ok"
	}
	busy := m.applying(set, m.current())
	delete(busy, c.GetServer())
	if len(busy) > 0 {
		return ReasonApplyInProgress
	}
	m.leases[key] = &modelLease{server: c.GetServer(), publish: publish, set: set, generation: m.generation, windows: 1, begun: m.now}
	return "ok"
}

func (m *model) end(c *logv1.EndLease) string {
	var found []string
	for key, l := range m.leases {
		if l.server == c.GetServer() && (c.GetGeneration() == 0 || c.GetGeneration() == l.generation) &&
			(c.GetPublishRequestId() == "" || c.GetPublishRequestId() == l.publish) {
			found = append(found, key)
		}
	}
	if g := c.GetGeneration(); len(found) > 1 && g != 0 && c.GetPublishRequestId() == "" {
		own := fmt.Sprint(c.GetServer(), g, m.publishes[g])
		found = slices.DeleteFunc(found, func(key string) bool { return m.leases[own] != nil && key != own })
	}
	switch len(found) {
	case 0:
		return ReasonLeaseNotOpen
	case 1:
		if m.leases[found[0]].windows--; m.leases[found[0]].windows == 0 {
			delete(m.leases, found[0])
		}
		return "ok"
	default:
		return ReasonLeaseAmbiguous
	}
}

func (m *model) own(c *logv1.Command) string {
	switch b := c.GetBody().(type) {
	case *logv1.Command_Pulse:
		m.partitions.pulse()
		maps.DeleteFunc(m.leases, func(_ string, l *modelLease) bool { return l.begun+ApplyMaxDuration <= m.now })
	case *logv1.Command_SyncMembers:
		wanted := map[string]bool{}
		for _, member := range b.SyncMembers.GetMembers() {
			wanted[member.GetId()] = true
			m.members[member.GetId()] = true
		}
		for id := range m.members {
			m.members[id] = wanted[id]
		}
		m.sweep()
	case *logv1.Command_AdoptGeneration:
		id, g := b.AdoptGeneration.GetMember(), b.AdoptGeneration.GetGeneration()
		switch {
		case !m.members[id]:
			return ReasonUnknownMember
		case g == 0 || g > m.generation:
			return ReasonUnknownGeneration
		case g < m.adopted[id]:
			return ReasonStaleGeneration
		}
		m.adopted[id] = g
	case *logv1.Command_ForgetInstance:
		m.partitions.forget(b.ForgetInstance)
	}
	return "ok"
}

// compare fails unless a state says what the model says.
func (m *model) compare(t *rapid.T, s *State) {
	if s.Now() != m.now || s.CurrentGeneration().GetNumber() != m.generation {
		t.Fatalf("cluster time %v, generation %d; want %v, %d", s.Now(), s.CurrentGeneration().GetNumber(), m.now, m.generation)
	}
	var leases, want []string
	for _, l := range s.Leases("", false) {
		leases = append(leases, fmt.Sprint(l.GetKey().GetServer(), l.GetKey().GetGeneration(), l.GetKey().GetPublishRequestId(), l.GetWindows()))
	}
	earliest := time.Duration(-1)
	for key, l := range m.leases {
		want = append(want, fmt.Sprint(key, l.windows))
		if at := l.begun + ApplyMaxDuration; earliest < 0 || at < earliest {
			earliest = at
		}
	}
	slices.Sort(leases)
	slices.Sort(want)
	if !slices.Equal(leases, want) {
		t.Fatalf("open leases %v, want %v", leases, want)
	}
	if at := m.partitions.earliest(); at >= 0 && (at < earliest || earliest < 0) {
		earliest = at
	}
	if at, waits := s.NextDeadline(); waits != (earliest >= 0) || waits && at != earliest {
		t.Fatalf("next deadline %v %t, want %v", at, waits, earliest)
	}
	for _, id := range servers {
		present, known := m.members[id]
		record, ok := s.Member(id)
		if ok != known || ok && (Departed(record) == present || record.GetAdoptedGeneration() != m.adopted[id]) {
			t.Fatalf("member %s is %v, want known %t present %t adopted %d", id, record, known, present, m.adopted[id])
		}
		set, _, _ := s.Server(id)
		_, maintained := s.Maintenance(id)
		if set.GetId() != m.current()[id] || maintained != m.maintenance[id] {
			t.Fatalf("server %s is in set %q, in maintenance %t; want %q, %t", id, set.GetId(), maintained, m.current()[id], m.maintenance[id])
		}
		busy := slices.ContainsFunc(slices.Collect(maps.Values(m.leases)), func(l *modelLease) bool { return l.server == id })
		if s.MidApply(id) != busy {
			t.Fatalf("server %s is mid-apply %t, want %t", id, s.MidApply(id), busy)
		}
	}
}

var servers = []string{"m1", "m2", "m3", "m4"}

// drawCommand draws a command, such that accepting it is about as likely as refusing it, and few request ids are shared by many.
func drawCommand(t *rapid.T, m *model) *logv1.Command {
	server := rapid.SampledFrom(servers).Draw(t, "server")
	near := func(label string) uint64 {
		g := m.generation
		return rapid.SampledFrom([]uint64{g, g, g, 0, max(g, 1) - 1, g + 1}).Draw(t, label)
	}
	publish := rapid.SampledFrom([]string{"", "", "external", "id1"}).Draw(t, "publish")
	c := &logv1.Command{
		RequestId: rapid.SampledFrom([]string{"id1", "id2", "id3", "id4", "id5", "id6", "id7", "id8", "id9", ""}).Draw(t, "id"),
		Actor:     &quoratev1.Actor{Name: rapid.SampledFrom([]string{"ann", "bob", "cid"}).Draw(t, "actor")},
		WallTime:  &timestamppb.Timestamp{Seconds: 1_700_000_000 + int64(m.now/time.Second)},
	}
	switch rapid.SampledFrom([]string{"publish", "publish", "rollback", "begin", "begin", "begin", "end", "end", "maintenance", "adopt", "sync",
		"announce", "pulse", "tick", "term", "mark"}).Draw(t, "command") {
	case "publish":
		c.Body = &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
			ExpectedGeneration: near("expected"), Topology: drawTopology(t)}}
	case "rollback":
		c.Body = &logv1.Command_RollbackTopology{RollbackTopology: &logv1.RollbackTopology{
			ExpectedGeneration: near("expected"), To: rapid.Uint64Range(0, m.generation+1).Draw(t, "to")}}
	case "begin":
		c.Body = &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: server, Generation: near("generation"), PublishRequestId: publish}}
	case "end":
		c.Body = &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: server,
			Generation: rapid.Uint64Range(0, m.generation).Draw(t, "generation"), PublishRequestId: publish}}
	case "maintenance":
		c.Body = &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: server,
			Active: rapid.Bool().Draw(t, "active"), Reason: rapid.SampledFrom([]string{"", "disk"}).Draw(t, "reason")}}
	case "adopt":
		c.Body = &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: server, Generation: near("generation")}}
	case "sync":
		sync := &logv1.SyncMembers{}
		for _, id := range servers {
			if rapid.IntRange(0, 5).Draw(t, "present") > 0 {
				sync.Members = append(sync.Members, &logv1.SyncMembers_Member{Id: id, RaftAddress: id + ":1", Voter: rapid.Bool().Draw(t, "voter")})
			}
		}
		if len(sync.Members) == 0 {
			sync.Members = append(sync.Members, &logv1.SyncMembers_Member{Id: "m1", RaftAddress: "m1:1"})
		}
		c.Body = &logv1.Command_SyncMembers{SyncMembers: sync}
	case "announce":
		// The model says nothing of what a member announces, only that it may: it has to be in the group.
		if m.members[server] {
			c.Body = &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: server, Version: publish}}
			break
		}
		c.Body = &logv1.Command_Tick{Tick: &logv1.Tick{}}
	case "pulse":
		c.Body = &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}
	case "tick":
		c.Body = &logv1.Command_Tick{Tick: &logv1.Tick{}}
	case "term":
		c.Body = &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: near("term"), Leader: server}}
	default:
		c.Body = &logv1.Command_MarkDigest{MarkDigest: &logv1.MarkDigest{}}
	}
	return c
}

// drawTopology spreads the servers over two sets at random; it breaks no rule that can be judged without the state.
func drawTopology(t *rapid.T) *quoratev1.Topology {
	top := &quoratev1.Topology{}
	left := rapid.Permutation(servers).Draw(t, "order")
	for _, id := range []string{"line-a", "line-b"} {
		n := min(rapid.IntRange(0, 2).Draw(t, "servers"), len(left))
		if n == 0 {
			continue
		}
		set := &quoratev1.RedundantSet{Id: id, Mode: rapid.SampledFrom([]string{ModeCold, ModeWarm, "WARM_ACTIVE"}).Draw(t, "mode"), Policies: drawPolicies(t)}
		for i, server := range left[:n] {
			set.Servers = append(set.Servers, &quoratev1.RedundantServer{
				Member: server, Role: map[bool]string{true: RolePrimary, false: RoleBackup}[i == 0], ApplicationUri: "urn:plant:" + server,
				EndpointUrl: "opc.tcp://" + server + ":4841", HealthUrl: "http://" + server + "/healthz",
			})
		}
		left = left[n:]
		top.Sets = append(top.Sets, set)
	}
	return top
}

// drawPolicies draws policies that do not contradict each other, mostly none.
func drawPolicies(t *rapid.T) *quoratev1.RedundancyPolicies {
	if rapid.IntRange(0, 2).Draw(t, "policies") == 0 {
		return nil
	}
	p := &quoratev1.RedundancyPolicies{
		Apply:    rapid.SampledFrom([]string{"", ApplyInPlace, ApplyHandover}).Draw(t, "apply"),
		StandIn:  rapid.SampledFrom([]uint32{0, MinStandIn, MaxStandIn}).Draw(t, "stand in"),
		Failover: rapid.SampledFrom([]string{"", FailoverManual, FailoverAutomatic}).Draw(t, "failover"),
	}
	if after := rapid.IntRange(0, 20).Draw(t, "failover after"); after > 0 {
		p.FailoverAfter = &durationpb.Duration{Seconds: int64(after)}
	}
	if primary := rapid.Uint32Range(178, 182).Draw(t, "level"); primary != 178 {
		p.Levels = append(p.Levels, &quoratev1.BandLevel{Band: BandRecovering, Primary: primary})
	}
	return p
}

// TestModel puts random entries to the trial.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newTrial(t)
		r.repeat(t, map[string]func(*rapid.T){
			"entry": func(t *rapid.T) {
				r.elapse(t, 0, time.Second, time.Minute, -30*time.Second, 6*time.Minute)
				r.apply(t, r.index, rapid.IntRange(1, 4).Draw(t, "commands"), func() *logv1.Command { return drawCommand(t, r.model) })
			},
		})
	})
}

// TestDiffAgreesWithDigest draws pairs of topologies: no change between them means equal digests, and the other way round.
func TestDiffAgreesWithDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, _ := normalise(drawTopology(t))
		b, _ := normalise(drawTopology(t))
		forth, back := Diff(a, b), Diff(b, a)
		if (len(forth) == 0) != (TopologyDigest(a) == TopologyDigest(b)) {
			t.Fatalf("%d changes between %v and %v", len(forth), a, b)
		}
		for i, c := range forth {
			if c.GetBefore() == c.GetAfter() || back[i].GetPath() != c.GetPath() || back[i].GetBefore() != c.GetAfter() {
				t.Fatalf("%v there and %v back", c, back[i])
			}
			if i > 0 && strings.Compare(forth[i-1].GetPath(), c.GetPath()) == 0 {
				t.Fatalf("%s is there twice", c.GetPath())
			}
		}
	})
}
