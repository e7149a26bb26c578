package client

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	quoratev1 "quorate/proto/quorate/v1"
)

// modelGroup is what the leader of a group does with one instance and its gates (node/DESIGN.md, gate leases), as naively as it can be said: what is
// so now, and what the instance has been promised. Time passes only where the test says so.
type modelGroup struct {
	now      time.Duration
	revision uint64
	truth    map[string]*quoratev1.Resolution
	// changes has, for each revision, the partition that changed; told is the revision up to which grants know of it.
	changes map[uint64]string
	told    uint64
	// granted is the number of the last grant, void what the instance uses no more, and end when none can be used.
	granted, void uint64
	end           time.Duration
	// closing has the partitions whose gates are closed: the grant that has to be void before a transition, or the time that has to come.
	closing map[string]closing
	// drain has the cutovers that are to be reported.
	drain map[string]uint64
	// known says that the instance is registered.
	known bool
}

type closing struct {
	need uint64
	end  time.Duration
}

// mayCommit says whether a transition of a partition may happen now.
func (m *modelGroup) mayCommit(p string) bool {
	c, closed := m.closing[p]
	return closed && (m.void >= c.need || m.now >= c.end)
}

// commit makes a transition. Grants know of it once its gates are opened.
func (m *modelGroup) commit(p string, to *quoratev1.Resolution) {
	m.revision++
	to.Partition, to.Revision = p, m.revision
	if to.GetPhase() != 0 {
		to.Epoch = m.revision
	}
	m.truth[p] = to
	m.changes[m.revision] = p
	delete(m.drain, p)
	if to.GetPhase() == cutover {
		m.drain[p] = to.GetEpoch()
	}
}

// grant answers a question.
func (m *modelGroup) grant(req *quoratev1.RenewGateRequest, reset bool) *quoratev1.RenewGateResponse {
	m.granted++
	m.end = m.now + ttl + ttl/50
	g := &quoratev1.RenewGateResponse{Term: 1, Grant: m.granted, Revision: m.told, Ttl: durationpb.New(ttl)}
	for p := range m.closing {
		g.Closed = append(g.Closed, p)
	}
	for p, epoch := range m.drain {
		g.Drain = append(g.Drain, &quoratev1.PartitionEpoch{Partition: p, Epoch: epoch})
	}
	if req.GetRevision() == 0 {
		return g
	}
	if reset {
		g.Reset_ = true
		return g
	}
	for r := req.GetRevision() + 1; r <= m.told; r++ {
		if p, changed := m.changes[r]; changed {
			g.Changed = append(g.Changed, proto.CloneOf(m.truth[p]))
		}
	}
	return g
}

// modelRead is a read under way: what it found, once it was served.
type modelRead struct {
	b        *batch
	found    []*quoratev1.Resolution
	revision uint64
}

// modelRun is one gate on one modelGroup, and what the test knows of both.
type modelRun struct {
	group *modelGroup
	gate  *Gate
	// asked is the question under way, nil if there is none, started when it was asked, and grant the answer, once there is one.
	asked   *quoratev1.RenewGateRequest
	started time.Duration
	grant   *quoratev1.RenewGateResponse
	reads   []*modelRead
	// passes are the writes in flight, and reported the newest cutover of each partition that the instance has said to be drained.
	passes   []Pass
	of       []string
	reported map[string]uint64
	t        *rapid.T
}

var modelPartitions = []string{"a", "b"}

func newModelRun(t *rapid.T) *modelRun {
	r := &modelRun{t: t, reported: map[string]uint64{}, group: &modelGroup{
		truth: map[string]*quoratev1.Resolution{}, changes: map[uint64]string{}, closing: map[string]closing{}, drain: map[string]uint64{}, known: true,
	}}
	for _, p := range modelPartitions {
		r.group.commit(p, &quoratev1.Resolution{Phase: active, ReadPlacement: "b1", WritePlacement: "b1"})
	}
	r.group.told = r.group.revision
	// It does nothing by itself: the test asks, reads and closes.
	maxRemembered := rapid.IntRange(1, len(modelPartitions)).Draw(t, "may remember")
	r.gate = newGate(nil, GateOptions{ID: "model", MaxEntries: maxRemembered, Elapsed: func() time.Duration { return r.group.now }})
	return r
}

func (r *modelRun) partition() string {
	return rapid.SampledFrom(modelPartitions).Draw(r.t, "partition")
}

// enter counts a write that was let in, after looking at whether it may have been.
func (r *modelRun) enter(partition string, e *entry) {
	if e.epoch < r.reported[partition] {
		r.t.Fatalf("a write to %s is let in at epoch %d after %d was reported as drained", partition, e.epoch, r.reported[partition])
	}
	if e.placement == "" {
		e.leave()
		return
	}
	r.passes, r.of = append(r.passes, Pass{Placement: e.placement, Epoch: e.epoch, entry: e}), append(r.of, partition)
}

// recall answers from memory, which must be what is so now.
func (r *modelRun) recall(*rapid.T) {
	p := r.partition()
	e, _ := r.gate.recall(p)
	if e == nil {
		return
	}
	if now := r.group.truth[p]; !proto.Equal(e.resolution, now) {
		r.t.Fatalf("%s is remembered as %v, and is %v", p, e.resolution, now)
	}
	r.enter(p, e)
}

func (r *modelRun) pass(*rapid.T) {
	r.group.now += time.Duration(rapid.Int64Range(0, int64(ttl)).Draw(r.t, "passes"))
}

func (r *modelRun) done(t *rapid.T) {
	if len(r.passes) == 0 {
		t.Skip("nothing is in flight")
	}
	i := rapid.IntRange(0, len(r.passes)-1).Draw(t, "write")
	r.passes[i].Done()
	r.passes, r.of = slices.Delete(r.passes, i, i+1), slices.Delete(r.of, i, i+1)
}

// ask sends the next question for a lease, which the group hears at once.
func (r *modelRun) ask(t *rapid.T) {
	if r.asked != nil {
		t.Skip("one question at a time")
	}
	r.asked, _ = r.gate.renewal()
	r.started = r.group.now
	if !r.group.known {
		r.asked = nil
		r.gate.beginSession()
		if rapid.Bool().Draw(t, "registered") {
			r.group.known = true
		}
		return
	}
	if g := r.asked.GetGrant(); g > 0 && g <= r.group.granted {
		r.group.void = max(r.group.void, g-1)
	}
	for _, d := range r.asked.GetDrained() {
		p := d.GetPartition()
		r.reported[p] = max(r.reported[p], d.GetEpoch())
		for i, pass := range r.passes {
			if r.of[i] == p && pass.Epoch < d.GetEpoch() {
				t.Fatalf("%s is reported as drained at %d, and a write of epoch %d is in flight", p, d.GetEpoch(), pass.Epoch)
			}
		}
	}
}

// answer lets the group make a grant.
func (r *modelRun) answer(t *rapid.T) {
	if r.asked == nil || r.grant != nil || !r.group.known {
		t.Skip("there is no question")
	}
	// The events may be behind the state, but only with what is closed.
	for revision, p := range r.group.changes {
		if _, closed := r.group.closing[p]; !closed {
			r.group.told = max(r.group.told, revision)
		}
	}
	r.group.told = rapid.Uint64Range(r.group.told, r.group.revision).Draw(t, "told")
	r.grant = r.group.grant(r.asked, rapid.IntRange(0, 9).Draw(t, "reset") == 0)
}

// arrive lets the answer arrive, unless it is lost.
func (r *modelRun) arrive(t *rapid.T) {
	if r.grant == nil {
		t.Skip("there is no answer")
	}
	if rapid.IntRange(0, 4).Draw(t, "lost") > 0 {
		r.gate.install(r.grant, r.started)
	}
	r.asked, r.grant = nil, nil
}

func (r *modelRun) shut(t *rapid.T) {
	p := r.partition()
	if _, closed := r.group.closing[p]; closed {
		t.Skip("closed already")
	}
	r.close(p)
}

func (r *modelRun) close(p string) {
	c := closing{end: r.group.now}
	if r.group.end > r.group.now && r.group.void < r.group.granted {
		c = closing{need: r.group.granted, end: r.group.end}
	}
	r.group.closing[p] = c
}

func (r *modelRun) commit(t *rapid.T) {
	p := r.partition()
	if !r.group.mayCommit(p) {
		t.Skip("its gates are not closed")
	}
	r.transition(t, p)
}

func (r *modelRun) transition(t *rapid.T, p string) {
	placement := fmt.Sprint("b", rapid.IntRange(1, 3).Draw(t, "placement"))
	to := &quoratev1.Resolution{
		Phase:         rapid.SampledFrom([]quoratev1.PartitionPhase{active, draining, cutover, 0}).Draw(t, "phase"),
		ReadPlacement: placement, WritePlacement: placement,
	}
	switch to.GetPhase() {
	case cutover:
		to.WritePlacement = ""
	case 0:
		to = &quoratev1.Resolution{}
	}
	r.group.commit(p, to)
	// The gates may stay closed for a while.
	if rapid.Bool().Draw(t, "open") {
		delete(r.group.closing, p)
	}
}

func (r *modelRun) reopen(*rapid.T) { delete(r.group.closing, r.partition()) }

// read begins a read of some partitions.
func (r *modelRun) read(t *rapid.T) {
	if len(r.reads) == gateAsks {
		t.Skip("enough reads are under way")
	}
	b := &batch{places: map[string]int{}, late: map[int]bool{}, done: make(chan struct{})}
	for _, p := range rapid.SliceOfNDistinct(rapid.SampledFrom(modelPartitions), 1, 2, rapid.ID).Draw(t, "partitions") {
		b.places[p] = len(b.partitions)
		b.partitions = append(b.partitions, p)
		b.waiting = append(b.waiting, int64(rapid.IntRange(0, 2).Draw(t, "waiting")))
	}
	r.gate.begin(b)
	r.reads = append(r.reads, &modelRead{b: b})
}

// serve lets a read find what is so now, some time before its answer arrives.
func (r *modelRun) serve(t *rapid.T) {
	if len(r.reads) == 0 {
		t.Skip("there is no read")
	}
	read := rapid.SampledFrom(r.reads).Draw(t, "read")
	if read.found != nil {
		return
	}
	for _, p := range read.b.partitions {
		found := proto.CloneOf(r.group.truth[p])
		found.Partition = p
		read.found = append(read.found, found)
	}
	read.revision = r.group.revision
}

func (r *modelRun) finish(t *rapid.T) {
	if len(r.reads) == 0 {
		t.Skip("there is no read")
	}
	i := rapid.IntRange(0, len(r.reads)-1).Draw(t, "read")
	if r.reads[i].found == nil {
		t.Skip("it was not served")
	}
	b := r.reads[i].b
	r.gate.end(b, r.reads[i].found, r.reads[i].revision, nil)
	for place, e := range b.entries {
		for range b.waiting[place] {
			switch {
			case e == nil: // It came too late, and is read again.
			case !e.exists():
				e.leave()
			default:
				r.enter(b.partitions[place], e)
			}
		}
	}
	r.reads = slices.Delete(r.reads, i, i+1)
}

// What makes sense together is done together now and then: else a run would seldom come to anything.

func (r *modelRun) renew(t *rapid.T) {
	if r.asked == nil {
		r.ask(t)
	}
	if r.asked != nil && r.grant == nil && r.group.known {
		r.answer(t)
	}
	if r.grant != nil {
		r.arrive(t)
	}
}

func (r *modelRun) learn(t *rapid.T) {
	if len(r.reads) > 0 {
		t.Skip("a read is under way")
	}
	r.read(t)
	r.serve(t)
	r.finish(t)
}

// expire closes a gate, and waits for as long as it takes.
func (r *modelRun) expire(t *rapid.T) {
	p := r.partition()
	if _, closed := r.group.closing[p]; !closed {
		r.close(p)
	}
	if !r.group.mayCommit(p) {
		r.group.now = r.group.closing[p].end
	}
	r.transition(t, p)
}

// forgotten lets the group lose the instance, which learns of it when it asks next.
func (r *modelRun) forgotten(t *rapid.T) {
	if rapid.IntRange(0, 9).Draw(t, "lose") == 0 {
		r.group.known = false
		// Early completion waits for what the lost run may have let in: its reports count no more.
		clear(r.reported)
	}
}

func (r *modelRun) check(*rapid.T) {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	remembered, inFlight := 0, map[string]int64{}
	table := r.gate.memory.table.Load()
	for i := range table.cells {
		if e := table.cells[i].now.Load(); e != nil {
			remembered++
			inFlight[e.resolution.GetPartition()] += e.inFlight.Load()
		}
	}
	if remembered != r.gate.memory.count || remembered > r.gate.options.MaxEntries {
		r.t.Fatalf("%d are remembered, %d counted, and %d may be", remembered, r.gate.memory.count, r.gate.options.MaxEntries)
	}
	for p, entries := range r.gate.lingering {
		for _, e := range entries {
			inFlight[p] += e.inFlight.Load()
		}
	}
	for _, p := range modelPartitions {
		want := int64(0)
		for _, of := range r.of {
			if of == p {
				want++
			}
		}
		if inFlight[p] != want {
			r.t.Fatalf("%d writes to %s are in flight by the gate's count, and %d are", inFlight[p], p, want)
		}
	}
}

// TestGateAgainstModel does what comes to mind, in any order, and compares what the gate says from memory with what is so, and what it reports with what
// is in flight.
func TestGateAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newModelRun(t)
		t.Repeat(map[string]func(*rapid.T){
			"recall": r.recall, "recall again": r.recall, "time passes": r.pass, "done": r.done, "ask": r.ask, "answer": r.answer, "arrive": r.arrive, "renew": r.renew,
			"renew again": r.renew, "learn": r.learn, "learn again": r.learn, "let leases run out": r.expire, "close a gate": r.shut, "commit": r.commit, "open a gate": r.reopen, "read": r.read, "serve": r.serve, "finish": r.finish,
			"lose": r.forgotten, "": r.check,
		})
	})
}
