package fsm

import (
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// commandInfo is what has to be known of a command before it is applied.
type commandInfo struct {
	name string
	// public commands come from clients: they carry a request id, and their answer is remembered. The others are the
	// group's own; they may be repeated without harm.
	public bool
	// since is the command version (CommandVersion) that brought the command.
	since uint32
}

// describe returns what is known of a command; false means that this version does not know it.
func describe(c *logv1.Command) (commandInfo, bool) {
	switch c.GetBody().(type) {
	case *logv1.Command_OpenTerm:
		return commandInfo{name: "open_term", since: 1}, true
	case *logv1.Command_Tick:
		return commandInfo{name: "tick", since: 1}, true
	case *logv1.Command_Pulse:
		return commandInfo{name: "pulse", since: 1}, true
	case *logv1.Command_MarkDigest:
		return commandInfo{name: "mark_digest", since: 1}, true
	case *logv1.Command_PublishTopology:
		return commandInfo{name: "publish_topology", public: true, since: 1}, true
	case *logv1.Command_RollbackTopology:
		return commandInfo{name: "rollback_topology", public: true, since: 1}, true
	case *logv1.Command_AdoptGeneration:
		return commandInfo{name: "adopt_generation", since: 1}, true
	case *logv1.Command_BeginLease:
		return commandInfo{name: "begin_lease", public: true, since: 1}, true
	case *logv1.Command_EndLease:
		return commandInfo{name: "end_lease", public: true, since: 1}, true
	case *logv1.Command_SetMaintenance:
		return commandInfo{name: "set_maintenance", public: true, since: 1}, true
	case *logv1.Command_SyncMembers:
		return commandInfo{name: "sync_members", since: 1}, true
	case *logv1.Command_AnnounceMember:
		return commandInfo{name: "announce_member", since: 1}, true
	case *logv1.Command_AssignServing:
		return commandInfo{name: "assign_serving", since: 2}, true
	case *logv1.Command_ReleaseServing:
		return commandInfo{name: "release_serving", since: 2}, true
	case *logv1.Command_RecordLevels:
		return commandInfo{name: "record_levels", since: 2}, true
	case *logv1.Command_BeginApply:
		return commandInfo{name: "begin_apply", since: 2}, true
	case *logv1.Command_EndApply:
		return commandInfo{name: "end_apply", since: 2}, true
	case *logv1.Command_ResumeApply:
		return commandInfo{name: "resume_apply", public: true, since: 2}, true
	case *logv1.Command_SwapRoles:
		return commandInfo{name: "swap_roles", since: 2}, true
	default:
		return describePartition(c)
	}
}

// Accepts says whether a command may be proposed now: one without a body that this version knows, or that some member
// can't apply yet, is refused. The node asks before it proposes, because a member that meets a command it does not know has
// to stop.
func (s *State) Accepts(c *logv1.Command) *Refusal {
	info, ok := describe(c)
	if !ok {
		return refuse(logv1.Kind_KIND_UNSUPPORTED, ReasonNotYetSupported, "", "the command has no body that this version knows")
	}
	since := info.since
	if p := c.GetPublishTopology(); p.GetForce() || p.GetForceSet() != "" || hasPolicies(p.GetTopology()) {
		since = rolloutVersion // An older member would take no notice of them.
	}
	version := s.CommandVersion()
	if s.members.byID.Len() == 0 {
		version = 1 // The group is so new that its leader hasn't said yet who is in it.
	}
	if since > version {
		return refuse(logv1.Kind_KIND_UNSUPPORTED, ReasonNotYetSupported, "",
			"this %s needs command version %d, and some member has only %d: upgrade it first", info.name, since, version)
	}
	return nil
}

// application is one command on its way into the state.
type application struct {
	*State
	command *logv1.Command
	events  []*quoratev1.Event
}

// ApplyEntry applies one entry of the Raft log: its stamp, then each command in order. There is one outcome for each
// command. An entry that was applied before (index ≤ Revision) does nothing and has no outcomes, because a snapshot may
// overlap the log. An error means corruption or an unknown command: nothing was changed, and the process must stop.
func (s *State) ApplyEntry(index uint64, e *logv1.Entry) (outcomes []*logv1.Outcome, events []*quoratev1.Event, err error) {
	if index <= s.clock.revision {
		return nil, nil, nil
	}
	for i, c := range e.GetCommands() {
		if _, ok := describe(c); !ok {
			return nil, nil, fmt.Errorf("entry %d, command %d: %w", index, i, ErrUnknownCommand)
		}
	}
	if err := s.clock.stamp(e.GetClock()); err != nil {
		return nil, nil, fmt.Errorf("entry %d: %w", index, err)
	}
	s.clock.revision = index
	s.requests.prune(s.clock.now)
	a := application{State: s}
	s.settleMoments(e.GetLeaderApplied())
	a.beginBarriers(e.GetLeaderApplied())
	outcomes = make([]*logv1.Outcome, len(e.GetCommands()))
	for i, c := range e.GetCommands() {
		a.command = c
		outcomes[i] = a.apply()
	}
	return outcomes, a.events, nil
}

// apply answers one command: from memory if it was answered before, else by applying it.
func (a *application) apply() *logv1.Outcome {
	info, _ := describe(a.command)
	if r := a.checkEnvelope(info); r != nil {
		return a.answer(nil, r)
	}
	if !info.public {
		return a.answer(a.dispatch())
	}
	key, print := requestKey(a.command.GetActor().GetName(), a.command.GetRequestId()), fingerprint(a.command)
	if before, ok := a.requests.find(key, a.clock.now); ok {
		if before.fingerprint != print {
			return a.answer(nil, invalid(ReasonRequestIDReused, "request_id",
				"request id %s was used for another command", quote(a.command.GetRequestId())))
		}
		return a.recall(before)
	}
	if r := checkGates(a.command); r != nil {
		return a.answer(nil, r)
	}
	o := a.answer(a.dispatch())
	a.requests.remember(key, print, o)
	return o
}

func (a *application) dispatch() (*logv1.Outcome, *Refusal) {
	switch b := a.command.GetBody().(type) {
	case *logv1.Command_OpenTerm:
		return a.openTerm(b.OpenTerm)
	case *logv1.Command_Tick:
		return done(), nil // The entry's stamp was all that it is for.
	case *logv1.Command_Pulse:
		return a.pulse()
	case *logv1.Command_MarkDigest:
		return done(), nil // The node takes the digest after the entry; the state has nothing to note.
	case *logv1.Command_PublishTopology:
		return a.publishTopology(b.PublishTopology)
	case *logv1.Command_RollbackTopology:
		return a.rollbackTopology(b.RollbackTopology)
	case *logv1.Command_AdoptGeneration:
		return a.adoptGeneration(b.AdoptGeneration)
	case *logv1.Command_BeginLease:
		return a.beginLease(b.BeginLease)
	case *logv1.Command_EndLease:
		return a.endLease(b.EndLease)
	case *logv1.Command_SetMaintenance:
		return a.setMaintenance(b.SetMaintenance)
	case *logv1.Command_SyncMembers:
		return a.syncMembers(b.SyncMembers)
	case *logv1.Command_AnnounceMember:
		return a.announceMember(b.AnnounceMember)
	case *logv1.Command_AssignServing:
		return a.assignServing(b.AssignServing)
	case *logv1.Command_ReleaseServing:
		return a.releaseServing(b.ReleaseServing)
	case *logv1.Command_RecordLevels:
		return a.recordLevels(b.RecordLevels)
	case *logv1.Command_BeginApply:
		return a.beginApply(b.BeginApply)
	case *logv1.Command_EndApply:
		return a.endApply(b.EndApply)
	case *logv1.Command_ResumeApply:
		return a.resumeApply(b.ResumeApply)
	case *logv1.Command_SwapRoles:
		return a.swapRoles(b.SwapRoles)
	default:
		return a.dispatchPartition()
	}
}

// checkEnvelope checks what surrounds the body. That a request id is printable ASCII is not checked here but where requests
// come in, by the rules of their messages: every member must judge an entry as all others did when it was new, so that a
// log which holds another id has to replay as it was applied. A rule here would need a command version of its own.
func (a *application) checkEnvelope(info commandInfo) *Refusal {
	c := a.command
	if info.public && c.GetRequestId() == "" {
		return invalid(ReasonRequestIDRequired, "request_id", "a request id is required: without it a repeated command would be applied twice")
	}
	return firstRefusal(
		checkText("request_id", c.GetRequestId(), MaxRequestIDBytes),
		checkText("actor.name", c.GetActor().GetName(), MaxTextBytes),
		checkText("actor.role", c.GetActor().GetRole(), MaxTextBytes),
		checkText("actor.address", c.GetActor().GetAddress(), MaxAddressBytes),
	)
}

// actor returns a copy of the command's actor. State keeps copies, so that it never shares memory with the log, nor keeps
// fields that this version does not know and therefore has in no digest.
func (a *application) actor() *quoratev1.Actor {
	from := a.command.GetActor()
	if from == nil {
		return nil
	}
	return &quoratev1.Actor{Name: from.GetName(), Role: from.GetRole(), Address: from.GetAddress()}
}

// wallTime returns a copy of the command's wall time, nil if it is none: it is for people, so a wrong one is no reason
// to refuse the command.
func (a *application) wallTime() *timestamppb.Timestamp {
	if t := a.command.GetWallTime(); t.IsValid() {
		return copyTime(t)
	}
	return nil
}

func copyTime(t *timestamppb.Timestamp) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: t.GetSeconds(), Nanos: t.GetNanos()}
}
