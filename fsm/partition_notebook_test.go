package fsm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/durationpb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// The directives of transcripts for partitions and instances. The leader has closed the gates before each command that wants it, unless it says gates=open.

// partitionOptions are the names of arguments that are no partition ids.
var partitionOptions = []string{"at", "to", "id", "actor", "applied", "barrier", "note", "expect", "times", "gates", "early", "verify", "servers"}

// partitionCommand builds the commands of partitions and instances; nil where a directive is none. The i-th of times=N has ".i" at the end of the
// partition's and the placement's name, where these end in a dot.
func partitionCommand(t *testing.T, d *datadriven.TestData, first string, i uint64) *logv1.Command {
	nth := func(name string) string {
		if strings.HasSuffix(name, ".") {
			return name + strconv.FormatUint(i, 10)
		}
		return name
	}
	id, expect, note := nth(first), number(t, d, "expect", 0), text(d, "note", "")
	c := &logv1.Command{}
	switch d.Cmd {
	case "create":
		b := &logv1.CreatePartitions{Placement: nth(text(d, "at", "")), DrainBarrier: optional(t, d, "barrier"), Note: note}
		isOption := func(arg datadriven.CmdArg) bool { return slices.Contains(partitionOptions, arg.Key) }
		for _, arg := range expand(t, slices.DeleteFunc(slices.Clone(d.CmdArgs), isOption)) {
			b.Ids = append(b.Ids, nth(arg.Key))
		}
		c.Body = &logv1.Command_CreatePartitions{CreatePartitions: b}
	case "place":
		c.Body = &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: id, Placement: nth(text(d, "to", "")), ExpectedEpoch: expect, Note: note}}
	case "delete":
		c.Body = &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: id, ExpectedEpoch: expect, Note: note}}
	case "migrate":
		b := &logv1.BeginMigration{Partition: id, To: nth(text(d, "to", "")), ExpectedEpoch: expect, DrainBarrier: optional(t, d, "barrier"),
			EarlyCompletion: d.HasArg("early"), VerificationRequired: d.HasArg("verify"), Note: note}
		if arg, ok := d.Arg("servers"); ok {
			b.Servers = arg.Vals
		}
		c.Body = &logv1.Command_BeginMigration{BeginMigration: b}
	case "report":
		b := &logv1.ReportMigration{Partition: id, ExpectedEpoch: expect, Verified: d.HasArg("verified")}
		if d.HasArg("done") {
			b.Copy = &quoratev1.CopyProgress{Done: number(t, d, "done", 0), Total: number(t, d, "total", 0), Text: text(d, "text", "")}
		}
		c.Body = &logv1.Command_ReportMigration{ReportMigration: b}
	case "cutover":
		c.Body = &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: id, ExpectedEpoch: expect, Note: note}}
	case "complete":
		c.Body = &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{
			Partition: id, ExpectedEpoch: expect, Note: note, Drained: d.HasArg("drained")}}
	case "abort":
		c.Body = &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: id, ExpectedEpoch: expect, Note: note}}
	case "settings":
		c.Body = &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: &quoratev1.PartitionSettings{
			DrainBarrier: optional(t, d, "barrier"), MinDrainBarrier: optional(t, d, "least"), EarlyFloor: optional(t, d, "floor"), GateTtl: optional(t, d, "ttl")}}}
	case "register":
		c.Body = &logv1.Command_RegisterInstance{RegisterInstance: &logv1.RegisterInstance{Id: id, Session: text(d, "session", "")}}
	case "remove":
		c.Body = &logv1.Command_RemoveInstance{RemoveInstance: &logv1.RemoveInstance{Id: id, Session: text(d, "session", ""), Drained: d.HasArg("drained")}}
	case "forget":
		c.Body = &logv1.Command_ForgetInstance{ForgetInstance: &logv1.ForgetInstance{Id: id, Session: text(d, "session", "")}}
	default:
		return nil
	}
	GatesClosed(c, text(d, "gates", "closed") == "closed")
	return c
}

// optional is a duration that may be absent; "never" is one that is none.
func optional(t *testing.T, d *datadriven.TestData, key string) *durationpb.Duration {
	switch value := text(d, key, ""); value {
	case "":
		return nil
	case "never":
		return &durationpb.Duration{Seconds: 1, Nanos: -1}
	default:
		v, err := time.ParseDuration(value)
		if err != nil {
			d.Fatalf(t, "%s: %v", key, err)
		}
		return durationpb.New(v)
	}
}

// partitionQuery answers the directives that change nothing; false where a directive is none.
func (n *notebook) partitionQuery(t *testing.T, out *strings.Builder, s *State, d *datadriven.TestData) bool {
	page := func(found []*quoratev1.Partition, last string, more bool) {
		for _, p := range found {
			fmt.Fprintln(out, sayPartition(p))
		}
		if more {
			fmt.Fprintf(out, "more after %s\n", last)
		}
	}
	limit := int(number(t, d, "limit", 100))
	switch d.Cmd {
	case "partition":
		p, r := s.Partition(d.CmdArgs[0].Key)
		if r != nil {
			n.seen.reasons[r.GetReason()] = true
			fmt.Fprintf(out, "%s: %s\n", r.GetReason(), r.Error())
			break
		}
		fmt.Fprintln(out, sayPartition(p))
	case "partitions":
		page(s.PartitionPage(text(d, "after", ""), text(d, "prefix", ""), text(d, "at", ""), limit))
	case "migrations":
		page(s.MigrationPage(text(d, "after", ""), text(d, "of", ""), limit))
	case "placements":
		all, migrating := s.PartitionCount()
		fmt.Fprintf(out, "%d partitions, %d migrate\n", all, migrating)
		for _, p := range s.Placements() {
			fmt.Fprintf(out, "%s owns %d, %d leaving, %d coming\n", p.GetId(), p.GetPartitions(), p.GetLeaving(), p.GetComing())
		}
	case "resolve":
		for _, arg := range d.CmdArgs {
			r := s.Resolve(arg.Key)
			fmt.Fprintf(out, "%s %s: read at %q, write at %q, epoch %d of revision %d\n", r.GetPartition(), phaseName(r.GetPhase()), r.GetReadPlacement(),
				r.GetWritePlacement(), r.GetEpoch(), r.GetRevision())
		}
	case "gate":
		// As whoever serves a gate check decides it.
		id, epoch := d.CmdArgs[0].Key, number(t, d, "epoch", 0)
		if r := s.Resolve(id); r.GetEpoch() == epoch && r.GetWritePlacement() != "" {
			fmt.Fprintf(out, "pass, write at %s\n", r.GetWritePlacement())
			break
		}
		fmt.Fprintln(out, sayOutcome(&logv1.Outcome{Result: &logv1.Outcome_Refusal{Refusal: s.StaleEpoch(id, epoch).Refusal}}))
	case "instances":
		for i, record := range s.Instances() {
			session := s.InstanceSessions()[i]
			fmt.Fprintf(out, "%s with %s\n", sayInstance(record), session.Session)
			if r := s.CheckInstance(session.ID, session.Session); r != nil {
				t.Fatal(r)
			}
		}
		since, ever := s.InstancesGone()
		fmt.Fprintf(out, "%d registered; one was ever gone: %t, at least %v ago\n", s.InstanceCount(), ever, since)
	case "check-instance":
		if r := s.CheckInstance(d.CmdArgs[0].Key, text(d, "session", "")); r != nil {
			n.seen.reasons[r.GetReason()] = true
			fmt.Fprintf(out, "%s: %s\n", r.GetReason(), r.Error())
			break
		}
		fmt.Fprintln(out, "it is the registered one")
	case "early":
		for _, c := range s.EarlyCutovers() {
			fmt.Fprintf(out, "%s in cutover since epoch %d, may be completed once all have drained: %t\n", c.GetPartition(), c.GetEpoch(), s.MayCompleteEarly(c.GetPartition()))
		}
	case "settings-in-force":
		fmt.Fprintf(out, "%s; a lease lasts %v, and one that stands at most %v\n", saySettings(s.PartitionSettings()), s.GateTTL(), s.LongestGateTTL())
	default:
		return false
	}
	return true
}

// sayPartitionOutcome puts the answers of partitions and instances into words; empty where it is another.
func sayPartitionOutcome(o *logv1.Outcome) string {
	switch r := o.GetResult().(type) {
	case *logv1.Outcome_PartitionsMade:
		return fmt.Sprintf("made at epoch %d", r.PartitionsMade.GetEpoch())
	case *logv1.Outcome_PartitionMoved:
		return sayPartition(r.PartitionMoved.GetPartition()) + map[bool]string{true: ", early"}[r.PartitionMoved.GetEarly()]
	case *logv1.Outcome_PartitionSettings:
		return saySettings(r.PartitionSettings)
	case *logv1.Outcome_Instance:
		return sayInstance(r.Instance)
	default:
		return ""
	}
}

// sayPartitionEvent does the same for their events.
func sayPartitionEvent(e *quoratev1.Event) string {
	switch b := e.GetBody().(type) {
	case *quoratev1.Event_PartitionsCreated:
		c, shown := b.PartitionsCreated, b.PartitionsCreated.GetIds()
		const most = 4
		out := fmt.Sprintf("created at %s, epoch %d: %s", c.GetPlacement(), c.GetEpoch(), strings.Join(shown[:min(len(shown), most)], " "))
		if len(shown) > most {
			out += fmt.Sprintf(" and %d more", len(shown)-most)
		}
		return out + because(c.GetNote())
	case *quoratev1.Event_PartitionChanged:
		c := b.PartitionChanged
		out := fmt.Sprintf("%s: %s%s", strings.TrimPrefix(c.GetTransition().String(), "PARTITION_TRANSITION_"), sayPartition(c.GetPartition()), because(c.GetNote()))
		if c.GetEnded() != nil {
			out += ", ended: " + sayMigration(c.GetEnded())
		}
		return out + map[bool]string{true: ", early"}[c.GetEarly()]
	case *quoratev1.Event_PartitionSettingsChanged:
		return "settings: " + saySettings(b.PartitionSettingsChanged)
	case *quoratev1.Event_InstanceChanged:
		return "instance " + b.InstanceChanged.GetChange() + ": " + sayInstance(b.InstanceChanged.GetInstance())
	default:
		return "unknown"
	}
}

func because(note string) string {
	if note == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", note)
}

func sayPartition(p *quoratev1.Partition) string {
	out := fmt.Sprintf("%s %s at %s, epoch %d of revision %d", p.GetId(), phaseName(p.GetPhase()), p.GetPlacement(), p.GetEpoch(), p.GetRevision())
	if p.GetPreviousPlacement() != "" {
		out += ", before at " + p.GetPreviousPlacement()
	}
	if p.GetDrainBarrier() != nil {
		out += fmt.Sprintf(", its barrier %v", p.GetDrainBarrier().AsDuration())
	}
	if p.GetMigration() != nil {
		out += ", " + sayMigration(p.GetMigration())
	}
	return out
}

func sayMigration(m *quoratev1.Migration) string {
	out := fmt.Sprintf("%s → %s since %v by %s, barrier %v", m.GetFrom(), m.GetTo(), m.GetBegun().AsDuration(), m.GetActor().GetName(), m.GetDrainBarrier().AsDuration())
	for _, said := range []struct {
		is   bool
		what string
	}{
		{m.GetEarlyCompletion(), "early"}, {m.GetVerificationRequired(), "to be verified"}, {m.GetVerified(), "verified"},
		{len(m.GetServers()) > 0, fmt.Sprintf("touches %s", strings.Join(m.GetServers(), " "))},
		{m.GetCopy() != nil, fmt.Sprintf("copied %d of %d at %s%s", m.GetCopy().GetDone(), m.GetCopy().GetTotal(), m.GetCopy().GetAt().AsTime().Format("15:04:05"),
			because(m.GetCopy().GetText()))},
		{m.GetCutoverEpoch() != 0, fmt.Sprintf("cutover of epoch %d in revision %d", m.GetCutoverEpoch(), m.GetCutoverRevision())},
		{m.GetBarrierBegun() != nil, fmt.Sprintf("barrier begun at %v", m.GetBarrierBegun().AsDuration())},
		{m.GetBarrierLeft() != nil, fmt.Sprintf("%v left", m.GetBarrierLeft().AsDuration())},
	} {
		if said.is {
			out += ", " + said.what
		}
	}
	return out + because(m.GetNote())
}

func saySettings(p *quoratev1.PartitionSettings) string {
	return fmt.Sprintf("barrier %v, at least %v, early not before %v, gate TTL %v", p.GetDrainBarrier().AsDuration(), p.GetMinDrainBarrier().AsDuration(),
		p.GetEarlyFloor().AsDuration(), p.GetGateTtl().AsDuration())
}

func sayInstance(i *quoratev1.Instance) string {
	return fmt.Sprintf("%s of %s, revision %d", i.GetId(), i.GetActor().GetName(), i.GetRevision())
}
