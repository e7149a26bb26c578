package opcua

import (
	"testing"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	"quorate/redundancy"
)

// TestEventsOfRollouts takes a generation through a set, with a failure on the way, and moves the right to serve.
func TestEventsOfRollouts(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	for _, m := range []string{"m1", "m2"} {
		g.apply(&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: m, CommandVersion: fsm.CommandVersion}}})
	}
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	rollouts, servings := listenTo(t, cfg.Endpoint, ofType(rolloutMoved)), listenTo(t, cfg.Endpoint, ofType(servingMoved))
	begin := func(server string, generation uint64) {
		t.Helper()
		g.apply(&logv1.Command{Body: &logv1.Command_BeginApply{BeginApply: &logv1.BeginApply{Server: server, Generation: generation}}})
	}
	end := func(server string, generation uint64, ok bool, outcome string) {
		t.Helper()
		g.apply(&logv1.Command{Body: &logv1.Command_EndApply{EndApply: &logv1.EndApply{Server: server, Generation: generation, Succeeded: ok, Outcome: outcome}}})
	}

	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	step := func(name, source string, severity uint16, outcome, message string) told {
		return told{Type: "types/Rollout" + name + "EventType", Source: source, Severity: severity, Generation: uint64(1), Outcome: outcome, Message: message}
	}
	expectEvents(t, rollouts, step("Begun", "line-a", severityNotice, "", "Generation 1 is rolled out to set line-a."))
	begin("m2", 1)
	end("m2", 1, true, "ok")
	expectEvents(t, rollouts, step("Applied", "m2", severityNormal, "ok", "m2 has applied generation 1."))
	begin("m1", 1)
	end("m1", 1, false, "disk full")
	expectEvents(t, rollouts,
		step("Failed", "m1", severityFailure, "disk full", `m1 has failed to apply generation 1: "disk full".`),
		step("Stopped", "line-a", severityFailure, "", "The roll-out of generation 1 to set line-a is stopped."))
	g.apply(&logv1.Command{RequestId: "resume", Body: &logv1.Command_ResumeApply{ResumeApply: &logv1.ResumeApply{Set: "line-a"}}})
	expectEvents(t, rollouts, step("Begun", "line-a", severityNotice, "", "Generation 1 is rolled out to set line-a."))
	begin("m1", 1)
	end("m1", 1, true, "ok")
	expectEvents(t, rollouts,
		step("Applied", "m1", severityNormal, "ok", "m1 has applied generation 1."),
		step("Done", "line-a", severityNormal, "", "Every server of set line-a has applied generation 1."))
	if got := values(t, cfg, "ns=2;s=servers/m1/AppliedGeneration"); got[0] != uint64(1) {
		t.Errorf("AppliedGeneration of m1 is %v", got[0])
	}

	assign := func(server string, generation uint64, lapsed ...string) {
		t.Helper()
		g.apply(&logv1.Command{Body: &logv1.Command_AssignServing{AssignServing: &logv1.AssignServing{Server: server, Generation: generation, Lapsed: lapsed}}})
	}
	right := func(source string, severity uint16, message string) told {
		return told{Type: "types/ServingMovedEventType", Source: source, Severity: severity, Message: message}
	}
	assign("m1", 1)
	expectEvents(t, servings, right("m1", severityNotice, "m1 has the right to serve set line-a."))
	g.publish("WARM", serverNamed("m1", redundancy.Backup), serverNamed("m2", redundancy.Primary))
	assign("m2", 2, "m1")
	expectEvents(t, servings, right("m2", severityNotice, "m2 has the right to serve set line-a."))
	g.apply(&logv1.Command{Body: &logv1.Command_ReleaseServing{ReleaseServing: &logv1.ReleaseServing{Server: "m2", Generation: 2}}})
	expectEvents(t, servings, right("line-a", severityWorse, "No server has the right to serve set line-a: m2 gave it up."))
}

// TestRolloutsBetweenTwoLooks has a roll-out go through all its steps unseen: each is told of once, in order.
func TestRolloutsBetweenTwoLooks(t *testing.T) {
	g := newGroup(t, "m1")
	g.apply(&logv1.Command{Body: &logv1.Command_AnnounceMember{AnnounceMember: &logv1.AnnounceMember{Id: "m1", CommandVersion: fsm.CommandVersion}}})
	var s seen
	s.look(g.Local().State)
	g.publish("NONE", serverNamed("m1", redundancy.Primary))
	g.apply(&logv1.Command{Body: &logv1.Command_EndApply{EndApply: &logv1.EndApply{Server: "m1", Generation: 1, Succeeded: true}}})
	if n := len(s.lookAtRollouts(g.Local().State)); n != 3 {
		t.Errorf("%d news, want a beginning, an apply and the end", n)
	}
	if n := len(s.lookAtRollouts(g.Local().State)); n != 0 {
		t.Errorf("%d news of nothing", n)
	}
}
