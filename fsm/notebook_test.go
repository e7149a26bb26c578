package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// notebook runs one transcript: a state, the entries that were applied to it, and what they did, in words.
//
// Every directive that is a command becomes an entry of its own, at the next index, stamped with the reading that "clock" set
// last. After each, the invariants are checked, and the state must come through a snapshot with the same digest.
type notebook struct {
	state   *State
	reading time.Duration
	index   uint64
	last    *logv1.Entry
	draft   *quoratev1.Topology // Of the last publish, for "publish same".
	seen    *seen
}

// seen collects what all transcripts together have shown.
type seen struct{ bodies, events, reasons map[string]bool }

func newSeen() *seen {
	return &seen{bodies: map[string]bool{}, events: map[string]bool{}, reasons: map[string]bool{}}
}

// wallStart is the wall time of cluster time 0 in transcripts.
var wallStart = time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)

func (n *notebook) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "clock":
		n.reading = duration(t, d)
		return ""
	case "again":
		return n.apply(t, n.index+1, n.last)
	case "replay":
		return n.apply(t, n.index, n.last)
	case "publish", "rollback", "adopt", "begin", "end", "maintenance", "sync", "announce", "open-term", "tick", "pulse", "mark-digest",
		"assign", "release", "level", "begin-apply", "end-apply", "resume", "swap":
		return n.apply(t, n.index+1, n.entry(t, d))
	default:
		return n.query(t, d)
	}
}

func duration(t *testing.T, d *datadriven.TestData) time.Duration {
	v, err := time.ParseDuration(d.CmdArgs[0].Key)
	if err != nil {
		d.Fatalf(t, "%v", err)
	}
	return v
}

// entry builds the entry that a directive stands for; times=N puts the command into it N times, each with a request id of its own
// (and publish request id of its own, where that is given), and expecting the generation that the one before it made.
func (n *notebook) entry(t *testing.T, d *datadriven.TestData) *logv1.Entry {
	e := &logv1.Entry{Clock: uint64(n.reading), LeaderApplied: n.index}
	times := number(t, d, "times", 1)
	if d.Cmd == "assign" && d.HasArg("everybody") {
		for _, set := range n.state.CurrentGeneration().GetTopology().GetSets() {
			e.Commands = append(e.Commands, &logv1.Command{Body: &logv1.Command_AssignServing{AssignServing: &logv1.AssignServing{
				Server: primaryOf(set), Generation: n.state.CurrentGeneration().GetNumber()}}})
		}
		return e
	}
	for i := range times {
		c := n.command(t, d, i)
		c.RequestId = text(d, "id", "")
		if times > 1 && c.RequestId != "" {
			c.RequestId += "." + strconv.FormatUint(i, 10)
		}
		c.Actor = &quoratev1.Actor{Name: text(d, "actor", "ann"), Role: "operator", Address: "10.0.0.7:5511"}
		c.WallTime = timestamppb.New(wallStart.Add(n.reading))
		e.Commands = append(e.Commands, c)
	}
	return e
}

func (n *notebook) command(t *testing.T, d *datadriven.TestData, i uint64) *logv1.Command {
	first := ""
	if len(d.CmdArgs) > 0 && len(d.CmdArgs[0].Vals) == 0 {
		first = d.CmdArgs[0].Key
	}
	apply := text(d, "publish", "")
	if apply != "" && d.HasArg("times") {
		apply += "." + strconv.FormatUint(i, 10)
	}
	switch d.Cmd {
	case "publish":
		if first != "same" {
			n.draft = draft(t, d)
		}
		return &logv1.Command{Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
			ExpectedGeneration: number(t, d, "expect", n.state.CurrentGeneration().GetNumber()) + i, Topology: n.draft,
			Force: d.HasArg("force")}}}
	case "rollback":
		return &logv1.Command{Body: &logv1.Command_RollbackTopology{RollbackTopology: &logv1.RollbackTopology{
			ExpectedGeneration: number(t, d, "expect", n.state.CurrentGeneration().GetNumber()), To: number(t, d, "to", 0)}}}
	case "adopt":
		return &logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{
			Member: first, Generation: number(t, d, "generation", 0)}}}
	case "begin":
		return &logv1.Command{Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: first,
			Generation: number(t, d, "generation", 0), PublishRequestId: apply, Reason: text(d, "reason", "")}}}
	case "end":
		return &logv1.Command{Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: first,
			Generation: number(t, d, "generation", 0), PublishRequestId: apply, Outcome: text(d, "outcome", "")}}}
	case "maintenance":
		m := &logv1.SetMaintenance{Server: text(d, "server", ""), Active: first == "on", Reason: text(d, "reason", "")}
		if hours := text(d, "return", ""); hours == "never" {
			m.EstimatedReturn = &timestamppb.Timestamp{Nanos: -1}
		} else if hours != "" {
			m.EstimatedReturn = timestamppb.New(wallStart.Add(time.Duration(number(t, d, "return", 0)) * time.Hour))
		}
		return &logv1.Command{Body: &logv1.Command_SetMaintenance{SetMaintenance: m}}
	case "sync":
		m := &logv1.SyncMembers{}
		for _, arg := range expand(t, d.CmdArgs) {
			m.Members = append(m.Members, &logv1.SyncMembers_Member{Id: arg.Key, Voter: !slices.Contains(arg.Vals, "learner"),
				RaftAddress: map[bool]string{false: arg.Key + ":7301"}[slices.Contains(arg.Vals, "nowhere")]})
		}
		return &logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: m}}
	case "announce":
		return &logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: first,
			GrpcAddress: text(d, "grpc", first+":7101"), HttpAddress: first + ":7201", OpcuaUrl: "opc.tcp://" + first + ":4841",
			Version: text(d, "version", "0.1.0"), CommandVersion: uint32(number(t, d, "commands", 1))}}}
	case "open-term":
		return &logv1.Command{Body: &logv1.Command_OpenTerm{OpenTerm: &logv1.OpenTerm{Term: number(t, d, "term", 0), Leader: text(d, "leader", "")}}}
	case "assign", "release", "level", "begin-apply", "end-apply", "resume", "swap":
		return n.redundancyCommand(t, d, first, i)
	case "tick":
		return &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}}
	case "pulse":
		return &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}}
	default:
		return &logv1.Command{Body: &logv1.Command_MarkDigest{MarkDigest: &logv1.MarkDigest{}}}
	}
}

// expand writes out the ranges of ids: s=0-2 stands for s0 s1 s2.
func expand(t *testing.T, args []datadriven.CmdArg) (all []datadriven.CmdArg) {
	for _, arg := range args {
		first, last, ok := strings.Cut(strings.Join(arg.Vals, ""), "-")
		if !ok {
			all = append(all, arg)
			continue
		}
		from, bad := strconv.Atoi(first)
		to, worse := strconv.Atoi(last)
		if err := errors.Join(bad, worse); err != nil {
			t.Fatal(err)
		}
		for i := from; i <= to; i++ {
			all = append(all, datadriven.CmdArg{Key: arg.Key + strconv.Itoa(i)})
		}
	}
	return all
}

// redundancyCommand builds the commands of serving rights, roll-outs and levels. The generation is the current one where none is given.
func (n *notebook) redundancyCommand(t *testing.T, d *datadriven.TestData, first string, i uint64) *logv1.Command {
	generation := number(t, d, "generation", n.state.CurrentGeneration().GetNumber())
	switch d.Cmd {
	case "assign":
		c := &logv1.AssignServing{Server: first, Generation: generation, StandIn: d.HasArg("stand-in"), WorksUnder: number(t, d, "under", 0)}
		if arg, ok := d.Arg("lapsed"); ok {
			c.Lapsed = arg.Vals
		}
		return &logv1.Command{Body: &logv1.Command_AssignServing{AssignServing: c}}
	case "release":
		return &logv1.Command{Body: &logv1.Command_ReleaseServing{ReleaseServing: &logv1.ReleaseServing{Server: first, Generation: generation}}}
	case "begin-apply":
		return &logv1.Command{Body: &logv1.Command_BeginApply{BeginApply: &logv1.BeginApply{Server: first, Generation: generation}}}
	case "end-apply":
		return &logv1.Command{Body: &logv1.Command_EndApply{EndApply: &logv1.EndApply{Server: first, Generation: generation,
			Succeeded: !d.HasArg("failed"), Attempt: uint32(number(t, d, "attempt", 0)), Outcome: text(d, "outcome", ""), Output: text(d, "output", "")}}}
	case "resume":
		return &logv1.Command{Body: &logv1.Command_ResumeApply{ResumeApply: &logv1.ResumeApply{Set: first}}}
	case "swap":
		return &logv1.Command{Body: &logv1.Command_SwapRoles{SwapRoles: &logv1.SwapRoles{Set: first, To: text(d, "to", ""), Why: text(d, "why", ""),
			ExpectedGeneration: number(t, d, "expect", n.state.CurrentGeneration().GetNumber())}}}
	default:
		change := &quoratev1.LevelChange{Server: first, Number: number(t, d, "number", 0) + i, Before: uint32(number(t, d, "before", 0)),
			After: uint32(number(t, d, "after", 0)), Band: text(d, "band", ""), Role: text(d, "role", ""), Set: text(d, "set", ""),
			Generation: generation, At: timestamppb.New(wallStart.Add(n.reading))}
		if arg, ok := d.Arg("reasons"); ok {
			change.Reasons = arg.Vals
		}
		if d.HasArg("never") {
			change.At = &timestamppb.Timestamp{Nanos: -1}
		}
		c := &logv1.RecordLevels{}
		for j := range number(t, d, "batch", 1) {
			again := proto.CloneOf(change)
			again.Number += j
			c.Changes = append(c.Changes, again)
		}
		return &logv1.Command{Body: &logv1.Command_RecordLevels{RecordLevels: c}}
	}
}

// apply applies an entry and says in words what it did; of many commands only the last answer.
func (n *notebook) apply(t *testing.T, index uint64, e *logv1.Entry) string {
	n.last = e
	outcomes, events, err := n.state.ApplyEntry(index, e)
	if err != nil {
		return "error: " + err.Error()
	}
	if len(outcomes) == 0 {
		return "skipped"
	}
	n.index = index
	n.verify(t)
	var out strings.Builder
	for i, o := range outcomes {
		body := e.GetCommands()[i]
		if r := RefusalOf(o); r != nil {
			n.seen.reasons[r.GetReason()] = true
		} else {
			n.seen.bodies[bodyName(body)] = true
		}
		if i == len(outcomes)-1 {
			fmt.Fprintf(&out, "%d @%v: %s\n", o.GetRevision(), time.Duration(o.GetClock()), sayOutcome(o))
		}
	}
	const shown = 12
	for i, ev := range events {
		n.seen.events[eventName(ev)] = true
		if i < shown {
			fmt.Fprintf(&out, "  event %s\n", sayEvent(ev))
		}
	}
	if len(events) > shown {
		fmt.Fprintf(&out, "  and %d more\n", len(events)-shown)
	}
	return out.String()
}

func bodyName(c *logv1.Command) string {
	m := c.ProtoReflect()
	return string(m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Name())
}

func eventName(e *quoratev1.Event) string {
	m := e.ProtoReflect()
	return string(m.WhichOneof(m.Descriptor().Oneofs().ByName("body")).Name())
}

// verify checks the invariants, and sends the state through a snapshot: what comes out goes on in its place.
func (n *notebook) verify(t *testing.T) {
	t.Helper()
	if err := n.state.Check(); err != nil {
		t.Fatal(err)
	}
	restored := roundTrip(t, n.state)
	if n.index%2 == 0 {
		n.state = restored
	}
}

// roundTrip writes and restores a state, and fails unless both are equal.
func roundTrip(t interface {
	Helper()
	Fatalf(string, ...any)
}, s *State) *State {
	t.Helper()
	var first, second bytes.Buffer
	written, err := s.WriteTo(&first)
	if err != nil || written != int64(first.Len()) {
		t.Fatalf("write snapshot: %d of %d bytes, %v", written, first.Len(), err)
	}
	restored, err := Restore(bytes.NewReader(first.Bytes()))
	if err != nil {
		t.Fatalf("restore snapshot: %v", err)
	}
	if restored.Digest() != s.Digest() {
		t.Fatalf("the restored state has another digest")
	}
	if _, err := restored.WriteTo(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Fatalf("the restored state writes another snapshot, %v", err)
	}
	return restored
}

func text(d *datadriven.TestData, key, otherwise string) string {
	arg, ok := d.Arg(key)
	if !ok || len(arg.Vals) == 0 {
		return otherwise
	}
	// "a*300" stands for a text that is too long to read.
	if letter, count, ok := strings.Cut(arg.Vals[0], "*"); ok {
		if c, err := strconv.Atoi(count); err == nil {
			return strings.Repeat(letter, c)
		}
	}
	return strings.ReplaceAll(arg.Vals[0], "_", " ")
}

func number(t *testing.T, d *datadriven.TestData, key string, otherwise uint64) uint64 {
	arg, ok := d.Arg(key)
	if !ok {
		return otherwise
	}
	v, err := strconv.ParseUint(arg.Vals[0], 10, 64)
	if err != nil {
		d.Fatalf(t, "%s: %v", key, err)
	}
	return v
}

// draft reads a topology: "set ID MODE [max=N] [POLICY=VALUE …] [level=BAND/PRIMARY/BACKUP]", then its servers, "MEMBER ROLE [uri=…] [endpoint=…] [health=…]". "sets N [pad=BYTES] [first=K]"
// stands for N sets of one server each, numbered from K, whose URLs are made longer by so many bytes.
func draft(t *testing.T, d *datadriven.TestData) *quoratev1.Topology {
	if strings.TrimSpace(d.Input) == "none" {
		return nil
	}
	top := &quoratev1.Topology{}
	for line := range strings.Lines(d.Input) {
		name, args, err := datadriven.ParseLine(line)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		given := map[string]string{}
		var words []string
		for _, a := range args {
			if len(a.Vals) == 0 && !strings.Contains(line, a.Key+"=") {
				words = append(words, a.Key)
				continue
			}
			given[a.Key] = strings.Join(a.Vals, "")
		}
		value := func(key, otherwise string) string {
			if v, ok := given[key]; ok {
				return v
			}
			return otherwise
		}
		if name == "sets" {
			top.Sets = append(top.Sets, manySets(t, words[0], value("pad", "0"), value("first", "0"))...)
			continue
		}
		if name == "set" {
			words = append(words, "", "")
			set := &quoratev1.RedundantSet{Id: words[0], Mode: words[1]}
			set.Policies = policies(t, args)
			top.Sets = append(top.Sets, set)
			continue
		}
		set := top.GetSets()[len(top.GetSets())-1]
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{
			Member: name, Role: append(words, "")[0],
			ApplicationUri: value("uri", "urn:plant:"+name),
			EndpointUrl:    value("endpoint", "opc.tcp://"+name+":4841"),
			HealthUrl:      value("health", "http://"+name+":7201/healthz"),
		})
	}
	return top
}

// policies reads the policies of a set; nil if it says nothing of them.
func policies(t *testing.T, args []datadriven.CmdArg) *quoratev1.RedundancyPolicies {
	p := &quoratev1.RedundancyPolicies{}
	for _, arg := range args {
		value := strings.Join(arg.Vals, "")
		n, err := strconv.ParseUint(value, 10, 32)
		switch arg.Key {
		case "max":
			p.MaxServers = uint32(n)
		case "apply":
			p.Apply, err = value, nil
		case "stand-in":
			p.StandIn = uint32(n)
		case "quorum-loss":
			p.QuorumLoss, err = value, nil
		case "failover":
			p.Failover, err = value, nil
		case "failover-after":
			var after time.Duration
			after, err = time.ParseDuration(value)
			p.FailoverAfter = durationpb.New(after)
		case "evict":
			p.EvictClients, err = value, nil
		case "hot-backups-healthy":
			p.HotBackupsHealthy, err = true, nil
		case "level":
			band, levels, _ := strings.Cut(value, "/")
			primary, backup, _ := strings.Cut(levels, "/")
			a, bad := strconv.ParseUint(primary, 10, 32)
			b, worse := strconv.ParseUint(backup, 10, 32)
			err = errors.Join(bad, worse)
			p.Levels = append(p.Levels, &quoratev1.BandLevel{Band: band, Primary: uint32(a), Backup: uint32(b)})
		default:
			err = nil
		}
		if err != nil {
			t.Fatalf("%s: %v", arg, err)
		}
	}
	if proto.Size(p) == 0 {
		return nil
	}
	return p
}

func manySets(t *testing.T, count, pad, first string) (sets []*quoratev1.RedundantSet) {
	n, err := strconv.Atoi(count)
	bytes, bad := strconv.Atoi(pad)
	from, worse := strconv.Atoi(first)
	if err := errors.Join(err, bad, worse); err != nil {
		t.Fatal(err)
	}
	for i := from; i < from+n; i++ {
		sets = append(sets, &quoratev1.RedundantSet{Id: fmt.Sprintf("set-%d", i), Mode: ModeNone, Servers: []*quoratev1.RedundantServer{{
			Member: fmt.Sprintf("s%d", i), Role: RolePrimary, ApplicationUri: fmt.Sprintf("urn:plant:s%d:%s", i, strings.Repeat("u", bytes)),
			EndpointUrl: fmt.Sprintf("opc.tcp://s%d:4841/%s", i, strings.Repeat("e", bytes)), HealthUrl: "http://s/" + strings.Repeat("h", bytes),
		}}})
	}
	return sets
}
