package fsm

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/reflect/protoreflect"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// TestTranscripts runs every transcript, and then asks whether together they have shown all that there is: each command accepted
// at least once (and, as after every command, brought through a snapshot), each event, each reason of a refusal.
func TestTranscripts(t *testing.T) {
	all := newSeen()
	for _, noun := range []string{"apply", "clock", "gate", "lease", "level", "maintenance", "member", "partition", "request", "serving", "topology"} {
		datadriven.Walk(t, "testdata/"+noun, func(t *testing.T, path string) {
			n := &notebook{state: New(), seen: all}
			datadriven.RunTest(t, path, n.run)
		})
	}
	for _, name := range oneof((&logv1.Command{}).ProtoReflect(), "body") {
		if !all.bodies[name] {
			t.Errorf("no transcript shows the command %s accepted", name)
		}
	}
	for _, name := range oneof((&quoratev1.Event{}).ProtoReflect(), "body") {
		if !all.events[name] {
			t.Errorf("no transcript shows the event %s", name)
		}
	}
	for _, reason := range reasons(t) {
		if !all.reasons[reason] {
			t.Errorf("no transcript shows a refusal for %s", reason)
		}
	}
}

// TestEveryCommandHasAnApplier holds the lists in command.go, and the fingerprint, to the protobuf definition.
func TestEveryCommandHasAnApplier(t *testing.T) {
	bodies := (&logv1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	prints := map[[32]byte]string{}
	for i := range bodies.Len() {
		field := bodies.Get(i)
		c := &logv1.Command{}
		c.ProtoReflect().Set(field, c.ProtoReflect().NewField(field))
		info, ok := describe(c)
		if !ok || info.name != string(field.Name()) {
			t.Errorf("describe does not know %s, but %q", field.Name(), info.name)
			continue
		}
		if info.since == 0 || info.since > CommandVersion {
			t.Errorf("%s is of command version %d, and the highest is %d", field.Name(), info.since, CommandVersion)
		}
		a := application{State: New(), command: c}
		if _, r := a.dispatch(); r != nil && r.GetReason() == ReasonNotYetSupported {
			t.Errorf("dispatch does not know %s", field.Name())
		}
		if info.public {
			print := fingerprint(c)
			if other, ok := prints[print]; ok || print == fingerprint(&logv1.Command{}) {
				t.Errorf("%s has the fingerprint of an empty command, or of %s", field.Name(), other)
			}
			prints[print] = info.name
		}
		s := New()
		if r := s.Accepts(c); (r != nil) != (info.since > 1) {
			t.Errorf("%s, of a group that knows no member yet: %v", field.Name(), r)
		}
		apply(t, s, 0, sync("m1"), announce("m1", CommandVersion))
		if r := s.Accepts(c); r != nil {
			t.Errorf("%s is not accepted: %v", field.Name(), r)
		}
	}
}

func oneof(m protoreflect.Message, name protoreflect.Name) []string {
	fields := m.Descriptor().Oneofs().ByName(name).Fields()
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = string(fields.Get(i).Name())
	}
	return names
}

// reasons reads the reasons of refusals out of errors.go, without the one that only the node gives, and the two that take too many records for a transcript:
// TestPartitionsAreBounded and TestMigrationsAreBounded show them.
func reasons(t *testing.T) []string {
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := []string{ReasonMemberInTopology, ReasonTooManyPartitions, ReasonTooManyMigrations}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		reason, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(elsewhere, reason) {
			found = append(found, reason)
		}
		return true
	})
	if len(found) < 30 {
		t.Fatalf("only %d reasons found in errors.go", len(found))
	}
	return found
}

// query answers the directives that change nothing.
func (n *notebook) query(t *testing.T, d *datadriven.TestData) string {
	s := n.state.Snapshot()
	var out strings.Builder
	switch d.Cmd {
	case "state":
		fmt.Fprintf(&out, "revision %d, cluster time %v, term %d of %s, generation %d", s.Revision(), s.Now(), s.Term(), s.Leader(),
			s.CurrentGeneration().GetNumber())
		if at, waits := s.NextDeadline(); waits {
			fmt.Fprintf(&out, ", next deadline %v", at)
		}
		fmt.Fprintf(&out, ", %d answers remembered, command version %d\n", s.requests.byAge.Len(), s.CommandVersion())
	case "plan":
		top, r := ValidateTopology(s, draft(t, d))
		if r != nil {
			n.seen.reasons[r.GetReason()] = true
			fmt.Fprintf(&out, "%s: %s\n", r.GetReason(), r.Error())
			break
		}
		sayChanges(&out, Diff(s.CurrentGeneration().GetTopology(), top))
	case "diff":
		from, r := s.WholeGeneration(number(t, d, "from", 0))
		if r != nil {
			return r.GetReason() + ": " + r.Error()
		}
		to, r := s.WholeGeneration(number(t, d, "to", 0))
		if r != nil {
			return r.GetReason() + ": " + r.Error()
		}
		sayChanges(&out, Diff(from.GetTopology(), to.GetTopology()))
	case "history":
		for _, g := range s.Generations(number(t, d, "before", 0), int(number(t, d, "limit", 10))) {
			fmt.Fprintln(&out, sayGeneration(g))
		}
	case "topology":
		for _, set := range s.CurrentGeneration().GetTopology().GetSets() {
			fmt.Fprintf(&out, "set %s %s max %d\n", set.GetId(), set.GetMode(), set.GetPolicies().GetMaxServers())
			for _, server := range set.GetServers() {
				in, known, _ := s.Server(server.GetMember())
				fmt.Fprintf(&out, "  %s %s %s %s %s, found in %s as %s\n", server.GetMember(), server.GetRole(), server.GetApplicationUri(),
					server.GetEndpointUrl(), server.GetHealthUrl(), in.GetId(), known.GetRole())
			}
		}
	case "leases":
		for _, l := range s.Leases(text(d, "server", ""), d.HasArg("ended")) {
			fmt.Fprintf(&out, "%s (mid-apply: %t)\n", sayLease(l), s.MidApply(l.GetKey().GetServer()))
		}
	case "serving":
		for _, v := range s.AllServing() {
			in, _ := s.ServingIn(v.GetSet())
			own, _ := s.Serving(v.GetServer())
			fmt.Fprintf(&out, "%s (found both ways: %t)\n", sayServing(v), in == v && own == v)
		}
	case "conflicts":
		for _, v := range s.ServingConflicts(d.CmdArgs[0].Key) {
			fmt.Fprintln(&out, sayServing(v))
		}
	case "rollouts":
		sayRollouts(&out, s)
	case "levels":
		for _, c := range s.LevelChanges(text(d, "server", ""), int(number(t, d, "limit", 10))) {
			fmt.Fprintln(&out, sayLevel(c))
		}
	case "policies":
		for _, set := range s.CurrentGeneration().GetTopology().GetSets() {
			fmt.Fprintf(&out, "%s: %+v\n", set.GetId(), PoliciesOf(set))
		}
	case "accepts-publish":
		c := &logv1.Command{Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{Force: d.HasArg("force"), Topology: draft(t, d)}}}
		if r := s.Accepts(c); r != nil {
			fmt.Fprintf(&out, "%s: %s\n", r.GetReason(), r.Error())
			break
		}
		out.WriteString("accepted\n")
	case "declared":
		for _, m := range s.AllMaintenance() {
			fmt.Fprintln(&out, sayMaintenance(m))
		}
	case "members":
		for _, m := range s.Members() {
			fmt.Fprintf(&out, "%s raft %q voter %t grpc %q version %q adopted %d announced %t\n", m.GetId(), m.GetRaftAddress(), m.GetVoter(),
				m.GetGrpcAddress(), m.GetVersion(), m.GetAdoptedGeneration(), m.GetAnnounced())
		}
	case "accepts-nothing":
		r := s.Accepts(&logv1.Command{})
		n.seen.reasons[r.GetReason()] = true
		fmt.Fprintf(&out, "%s: %s\n", r.GetReason(), r.Error())
	default:
		if !n.partitionQuery(t, &out, s, d) {
			d.Fatalf(t, "unknown directive %s", d.Cmd)
		}
	}
	return out.String()
}

// sayRollouts says what is rolled out, and of each server whether it is its turn.
func sayRollouts(out *strings.Builder, s *State) {
	for _, r := range s.Rollouts() {
		fmt.Fprintln(out, sayRollout(r))
		for _, p := range r.GetServers() {
			generation, waitingFor, ok := s.MayApply(p.GetServer())
			fmt.Fprintf(out, "  %s has applied %d", p.GetServer(), s.AppliedGeneration(p.GetServer()))
			switch {
			case ok:
				fmt.Fprintf(out, ", may apply %d", generation)
			case waitingFor != "":
				fmt.Fprintf(out, ", waits for %s before %d", waitingFor, generation)
			}
			if old := s.SupersededApplies(p.GetServer()); len(old) > 0 {
				fmt.Fprintf(out, ", still holds the lease of %v", old)
			}
			out.WriteByte('\n')
		}
		if to, generation, ok := s.HandOverDue(r.GetSet()); ok {
			fmt.Fprintf(out, "  %s is to take over, expecting %d\n", to, generation)
		}
		if last, ok := s.LastApplied(r.GetSet()); ok {
			fmt.Fprintf(out, "  all have applied %d\n", last)
		}
	}
}

func sayChanges(out *strings.Builder, changes []*quoratev1.TopologyChange) {
	for _, c := range changes {
		fmt.Fprintf(out, "%s: %q → %q\n", c.GetPath(), c.GetBefore(), c.GetAfter())
	}
	if len(changes) == 0 {
		out.WriteString("no change\n")
	}
}
