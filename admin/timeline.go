package admin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	quoratev1 "quorate/proto/quorate/v1"
)

// timelinePath is where the timeline is, below root.
const timelinePath = "timeline"

// timelineNoun is one causal list of everything that changed: the events of the log, by revision.
var timelineNoun = noun{title: "Timeline", path: timelinePath, screens: []screen{{
	pattern: timelinePath,
	params:  []string{"noun", "kind", "set", "server", "partition", "before", "sequence"},
	title:   func(arguments) string { return "Timeline" },
	read:    readTimeline,
}}}

// timelineRows is how many events a page of the timeline has.
const timelineRows = 100

// nounOfKind says which noun a kind of event belongs to, where it isn't the first word of its name.
var nounOfKind = map[string]string{"generation_adopted": "topology", "rollout_changed": "apply", "lease_begun": "apply", "lease_ended": "apply", "lease_abandoned": "apply", "partitions_created": "partition"}

// eventKinds are all kinds of events in the order of the protocol, each with its noun: a kind that is new there is known here.
var eventKinds = func() (kinds []eventKind) {
	fields := (&quoratev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range fields.Len() {
		name := string(fields.Get(i).Name())
		first, _, _ := strings.Cut(name, "_")
		kinds = append(kinds, eventKind{Name: name, Words: strings.ReplaceAll(name, "_", " "), Noun: cmp.Or(nounOfKind[name], first)})
	}
	return kinds
}()

type eventKind struct{ Name, Words, Noun string }

// timelineView is a page of the timeline.
type timelineView struct {
	Events []eventView
	// Older leads to the page before, empty if there is none; Newest leads to the first page from a later one.
	Older, Newest string
	// KnownFrom is the first revision that this member remembers, if there is something before.
	KnownFrom uint64
	Member    string
}

// timelineFilter is the form above it.
type timelineFilter struct {
	// Given is what is filtered by now.
	Given         arguments
	Nouns         []string
	Kinds         []eventKind
	Sets, Servers []string
	Active        bool
	Path          string
}

// eventView is an event, told to people.
type eventView struct {
	*quoratev1.Event
	Kind        eventKind
	Set, Server string
	// Partition is the one that it is about, empty where that is none or more than one.
	Partition string
	Text      string
	Tone      tone
	// Change is the change of a level, nil of other events.
	Change *levelChange
	// Notes are free text that goes with it.
	Notes []string
	// Same says that the event above it is of the same revision: it was caused by the same command or decided at the same moment.
	Same bool
}

func readTimeline(ctx context.Context, r *reader) ([]part, error) {
	o, err := r.overview(ctx, "", 0)
	if err != nil {
		return nil, err
	}
	request, err := r.eventsRequest(o.GetHeader().GetRevision())
	if err != nil {
		return nil, err
	}
	list, err := quoratev1.NewEventServiceClient(r.conn).ListEvents(ctx, request)
	if err != nil {
		return nil, err
	}
	v := timelineView{Member: o.GetHeader().GetMember()}
	for i, event := range list.GetEvents() {
		e := newEventView(event)
		e.Same = i > 0 && list.GetEvents()[i-1].GetRevision() == event.GetRevision()
		v.Events = append(v.Events, e)
	}
	if list.GetKnownFrom() > 1 && list.GetComplete() {
		v.KnownFrom = list.GetKnownFrom()
	}
	if n := len(list.GetEvents()); n > 0 && !list.GetComplete() {
		last := list.GetEvents()[n-1]
		v.Older = r.address(timelinePath, map[string]string{
			"before": strconv.FormatUint(last.GetRevision(), 10), "sequence": strconv.FormatUint(uint64(last.GetSequence()), 10),
		})
	}
	if r.arguments["before"] != "" {
		v.Newest = r.address(timelinePath, map[string]string{"before": "", "sequence": ""})
	}
	return []part{{template: "timeline.filter", data: r.filter(o)}, {template: "timeline.list", data: v}}, nil
}

// eventsRequest asks for a page of no later than a revision, so that the list tells nothing that the rest of the page doesn't know.
func (r *reader) eventsRequest(revision uint64) (*quoratev1.ListEventsRequest, error) {
	request := &quoratev1.ListEventsRequest{
		Read: r.local(), BeforeRevision: revision + 1, Limit: timelineRows, Set: r.arguments["set"], Server: r.arguments["server"],
		Partition: r.arguments["partition"],
	}
	if before := r.arguments["before"]; before != "" {
		var err error
		if request.BeforeRevision, err = strconv.ParseUint(before, 10, 64); err != nil || request.BeforeRevision == 0 {
			return nil, invalid("before", "is not a revision")
		}
		sequence, err := strconv.ParseUint(cmp.Or(r.arguments["sequence"], "0"), 10, 32)
		if err != nil {
			return nil, invalid("sequence", "is not the place of an event in its revision")
		}
		request.BeforeSequence = uint32(sequence)
	}
	for _, kind := range eventKinds {
		if noun := r.arguments["noun"]; noun != "" && kind.Noun != noun {
			continue
		}
		if name := r.arguments["kind"]; name != "" && kind.Name != name {
			continue
		}
		request.Kinds = append(request.Kinds, kind.Name)
	}
	switch len(request.Kinds) {
	case 0:
		return nil, invalid("kind", "there are no events of this noun and kind")
	case len(eventKinds):
		request.Kinds = nil
	}
	return request, nil
}

func (r *reader) filter(o *quoratev1.GetOverviewResponse) timelineFilter {
	f := timelineFilter{Given: r.arguments, Kinds: eventKinds, Path: root + timelinePath}
	for _, kind := range eventKinds {
		if !slices.Contains(f.Nouns, kind.Noun) {
			f.Nouns = append(f.Nouns, kind.Noun)
		}
	}
	for _, set := range o.GetGeneration().GetTopology().GetSets() {
		f.Sets = append(f.Sets, set.GetId())
	}
	for _, m := range o.GetMembers() {
		f.Servers = append(f.Servers, m.GetId())
	}
	for _, name := range []string{"noun", "kind", "set", "server", "partition"} {
		f.Active = f.Active || r.arguments[name] != ""
	}
	return f
}

// newEventView tells an event. One that it doesn't know is told by its name alone, so that a new kind is on the list from its first day.
func newEventView(e *quoratev1.Event) eventView {
	v := eventView{Event: e, Tone: toneUnknown}
	m := e.ProtoReflect()
	if field := m.WhichOneof(m.Descriptor().Oneofs().ByName("body")); field != nil {
		v.Kind = eventKinds[slices.IndexFunc(eventKinds, func(k eventKind) bool { return k.Name == string(field.Name()) })]
	}
	v.Text = v.Kind.Words
	switch body := e.GetBody().(type) {
	case *quoratev1.Event_TopologyPublished:
		v.tellPublished(body.TopologyPublished)
	case *quoratev1.Event_GenerationAdopted:
		v.Server, v.Text = body.GenerationAdopted.GetMember(), fmt.Sprintf("works under generation %d", body.GenerationAdopted.GetGeneration())
	case *quoratev1.Event_LeaseBegun:
		v.tellLease(body.LeaseBegun, "apply lease begun", toneWarn)
	case *quoratev1.Event_LeaseEnded:
		v.tellLease(body.LeaseEnded, "apply lease ended", toneGood)
	case *quoratev1.Event_LeaseAbandoned:
		v.tellLease(body.LeaseAbandoned, "apply lease abandoned: closed by the watchdog", toneBad)
	case *quoratev1.Event_MaintenanceChanged:
		v.tellMaintenance(body.MaintenanceChanged)
	case *quoratev1.Event_MemberChanged:
		v.Server, v.Text = body.MemberChanged.GetId(), "member "+body.MemberChanged.GetChange()
	case *quoratev1.Event_RolloutChanged:
		v.tellRollout(body.RolloutChanged)
	case *quoratev1.Event_ServingAssigned:
		v.Set, v.Server, v.Text = body.ServingAssigned.GetSet(), body.ServingAssigned.GetServer(), "may advertise Healthy levels"
		if body.ServingAssigned.GetStandIn() {
			v.Text = "may stand in for the Primary"
		}
	case *quoratev1.Event_ServingReleased:
		v.Set, v.Server, v.Text = body.ServingReleased.GetSet(), body.ServingReleased.GetServer(), "gave up the right to Healthy levels"
	case *quoratev1.Event_LevelChanged:
		change := newLevelChange(body.LevelChanged)
		v.Set, v.Server, v.Change, v.Tone, v.Text = change.GetSet(), change.GetServer(), &change, change.To.Tone, change.GetRole()
		v.Notes = change.GetReasons()
	default:
		v.tellPartitions(e)
	}
	return v
}

func (v *eventView) tellPublished(g *quoratev1.Generation) {
	v.Tone, v.Text = toneStandby, fmt.Sprintf("generation %d published, digest %s", g.GetNumber(), short(g.GetDigest()))
	if g.GetRollbackOf() != 0 {
		v.Text += fmt.Sprintf(", a rollback to generation %d", g.GetRollbackOf())
	}
	if g.GetSwappedBy() != "" {
		v.Text += ", roles swapped by " + g.GetSwappedBy()
	}
	var sets []string
	for _, set := range g.GetTopology().GetSets() {
		sets = append(sets, set.GetId())
	}
	v.Set = strings.Join(sets, ", ")
}

func (v *eventView) tellLease(l *quoratev1.ApplyLease, text string, t tone) {
	v.Set, v.Server, v.Text, v.Tone = l.GetSet(), l.GetKey().GetServer(), fmt.Sprintf("%s, generation %d", text, l.GetKey().GetGeneration()), t
	if outcome := l.GetOutcome(); outcome != "" {
		if v.Notes = append(v.Notes, "outcome: "+outcome); outcome != "ok" {
			v.Tone = toneBad
		}
	}
	if l.GetReason() != "" {
		v.Notes = append(v.Notes, l.GetReason())
	}
}

func (v *eventView) tellMaintenance(m *quoratev1.Maintenance) {
	v.Server, v.Text, v.Tone = m.GetServer(), "maintenance ended", toneGood
	if m.GetActive() {
		v.Text, v.Tone = "in maintenance", toneOff
	}
	if m.GetReason() != "" {
		v.Notes = append(v.Notes, m.GetReason())
	}
}

func (v *eventView) tellRollout(r *quoratev1.Rollout) {
	rollout := newRolloutView(r)
	v.Set, v.Tone = rollout.Set, rollout.Tone
	v.Text = fmt.Sprintf("roll-out of generation %d %s: %d of %d applied", rollout.Generation, rollout.State, rollout.Applied, rollout.Total)
	for _, server := range rollout.Servers {
		note := server.GetServer() + " " + server.State
		if server.GetOutcome() != "" && server.GetOutcome() != "ok" {
			note += ": " + server.GetOutcome()
		}
		v.Notes = append(v.Notes, note)
	}
}

// namedPartitions is how many of the partitions that were created together are named.
const namedPartitions = 5

// tellPartitions tells what became of partitions and instances.
func (v *eventView) tellPartitions(e *quoratev1.Event) {
	switch body := e.GetBody().(type) {
	case *quoratev1.Event_PartitionsCreated:
		c := body.PartitionsCreated
		v.Tone, v.Text = toneGood, fmt.Sprintf("created at %s, epoch %d", c.GetPlacement(), c.GetEpoch())
		if ids := c.GetIds(); len(ids) == 1 {
			v.Partition = ids[0]
		} else {
			v.Text = count(uint64(len(ids))) + " partitions " + v.Text
			named := strings.Join(ids[:min(len(ids), namedPartitions)], ", ")
			if len(ids) > namedPartitions {
				named += ", …"
			}
			v.Notes = append(v.Notes, named)
		}
		v.note(c.GetNote())
	case *quoratev1.Event_PartitionChanged:
		v.tellTransition(body.PartitionChanged)
	case *quoratev1.Event_PartitionSettingsChanged:
		s := newSettingsView(body.PartitionSettingsChanged)
		v.Tone, v.Text = toneStandby, fmt.Sprintf("drain barrier %s, never below %s; early floor %s; gate leases of %s", s.Barrier, s.Least, s.Floor, s.TTL)
	case *quoratev1.Event_InstanceChanged:
		c := body.InstanceChanged
		v.Text = "instance " + c.GetInstance().GetId() + " " + c.GetChange()
		switch c.GetChange() {
		case "registered":
			v.Tone = toneGood
		case "left":
			v.Tone = toneOff
		default:
			v.Tone = toneWarn
		}
	}
}

// note adds free text, if there is any.
func (v *eventView) note(text string) {
	if text != "" {
		v.Notes = append(v.Notes, text)
	}
}

func (v *eventView) tellTransition(c *quoratev1.PartitionChange) {
	p, m := c.GetPartition(), c.GetPartition().GetMigration()
	v.Partition, v.Tone = p.GetId(), toneStandby
	switch c.GetTransition() {
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_SET_PLACEMENT:
		v.Text = fmt.Sprintf("placed at %s, before at %s, epoch %d", p.GetPlacement(), p.GetPreviousPlacement(), p.GetEpoch())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE:
		v.Tone, v.Text = toneOff, fmt.Sprintf("deleted, was at %s, epoch %d", p.GetPlacement(), p.GetEpoch())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_BEGIN:
		v.Text = fmt.Sprintf("migration begun: %s → %s, epoch %d", m.GetFrom(), m.GetTo(), p.GetEpoch())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_CUTOVER:
		v.Tone, v.Text = toneWarn, fmt.Sprintf("cutover: nobody may write; %s → %s, epoch %d", m.GetFrom(), m.GetTo(), p.GetEpoch())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_COMPLETE:
		v.Tone, v.Text = toneGood, fmt.Sprintf("migration completed: at %s, epoch %d", p.GetPlacement(), p.GetEpoch())
		if c.GetEarly() {
			v.Notes = append(v.Notes, "before the barrier had passed: all instances had reported")
		}
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_ABORT:
		v.Tone, v.Text = toneOff, fmt.Sprintf("migration to %s aborted: stays at %s, epoch %d", c.GetEnded().GetTo(), p.GetPlacement(), p.GetEpoch())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT:
		v.Tone, v.Text = toneUnknown, "copy "+newProgress(m.GetCopy()).text()
		if m.GetVerified() {
			v.Text += ", verified"
		}
		v.note(m.GetCopy().GetText())
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_BEGUN:
		v.Text = "drain barrier of " + lasts(m.GetDrainBarrier().AsDuration()) + " begun"
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_BARRIER_PASSED:
		v.Tone, v.Text = toneGood, "drain barrier passed: the migration may be completed"
	}
	v.note(c.GetNote())
}
