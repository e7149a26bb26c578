package opcua

import (
	"fmt"
	"slices"

	"github.com/gopcua/opcua/id"

	"quorate/fsm"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
)

// The types of the events of roll-outs, and of the right to serve. The apply of one server is told of by ApplyEventType too, whoever made it; these
// are about what a publish makes of its set.
var (
	rolloutMoved = newEventType("RolloutEventType", "A generation that is put into effect in a set went one step on.", nil,
		variable{"Set", "The redundant set.", id.String, false},
		variable{"Server", "The id of the member whose step it was; empty if it is the whole set's.", id.String, false},
		variable{"Generation", "The generation that is rolled out.", id.UInt64, false},
		variable{"Outcome", "How the server's apply ended.", id.String, false})
	rolloutBegun   = newEventType("RolloutBegunEventType", "A generation is rolled out to a set, or its roll-out goes on after it was stopped.", rolloutMoved)
	rolloutApplied = newEventType("RolloutAppliedEventType", "A server has applied the generation.", rolloutMoved)
	rolloutFailed  = newEventType("RolloutFailedEventType", "A server has failed to apply the generation.", rolloutMoved)
	rolloutStopped = newEventType("RolloutStoppedEventType", "The roll-out waits for an operator, to resume it or to roll it back.", rolloutMoved)
	rolloutDone    = newEventType("RolloutDoneEventType", "Every server of the set has applied the generation.", rolloutMoved)

	servingMoved = newEventType("ServingMovedEventType", "The right to serve, without which no server is Healthy, went to another server of its set.", nil,
		variable{"Set", "The redundant set.", id.String, false},
		variable{"Server", "The id of the member that has it now; empty if none has.", id.String, false},
		variable{"PreviousServer", "The id of the member that had it; empty if none had.", id.String, false},
		variable{"StandIn", "Whether a Backup stands in for a Primary that is gone.", id.Boolean, false})
)

func (s *seen) lookAtRollouts(state *fsm.State) (list []news) {
	now := state.Rollouts() // Records are never modified: the same records are the same roll-outs.
	if s.leases != nil && slices.Equal(now, s.rollouts) {
		return nil
	}
	before := make(map[string]*quoratev1.Rollout, len(s.rollouts))
	for _, r := range s.rollouts {
		before[r.GetSet()] = r
	}
	first := s.leases == nil
	s.rollouts = now
	if first {
		return nil
	}
	for _, r := range now {
		if was := before[r.GetSet()]; was != r {
			list = append(list, rolloutNews(was, r)...)
		}
	}
	return list
}

// rolloutNews are the steps that lead from one state of a set's roll-out to another. Of a generation that was superseded between two looks nothing is
// told.
func rolloutNews(before, now *quoratev1.Rollout) (list []news) {
	step := func(t *eventType, severity uint16, server, outcome, message string) {
		list = append(list, news{tell: func(e *Endpoint) { e.rolloutMoved(t, severity, now, server, outcome, message) }})
	}
	another := before.GetGeneration() != now.GetGeneration()
	generation, set := now.GetGeneration(), now.GetSet()
	was := make(map[string]quoratev1.ApplyState)
	if !another {
		for _, s := range before.GetServers() {
			was[s.GetServer()] = s.GetState()
		}
	}
	resumed := before.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_STOPPED && now.GetState() != before.GetState()
	if another || resumed {
		step(rolloutBegun, severityNotice, "", "", fmt.Sprintf("Generation %d is rolled out to set %s.", generation, set))
	}
	for _, s := range now.GetServers() {
		if s.GetState() == was[s.GetServer()] {
			continue
		}
		switch s.GetState() {
		case quoratev1.ApplyState_APPLY_STATE_APPLIED:
			// Where the roles were swapped, those who had applied what they were swapped under are carried over.
			step(rolloutApplied, severityNormal, s.GetServer(), s.GetOutcome(), fmt.Sprintf("%s has applied generation %d.", s.GetServer(), generation))
		case quoratev1.ApplyState_APPLY_STATE_FAILED:
			step(rolloutFailed, severityFailure, s.GetServer(), s.GetOutcome(), fmt.Sprintf("%s has failed to apply generation %d: %q.", s.GetServer(), generation, s.GetOutcome()))
		}
	}
	if now.GetState() == before.GetState() && !another {
		return list
	}
	switch now.GetState() {
	case quoratev1.RolloutState_ROLLOUT_STATE_STOPPED:
		step(rolloutStopped, severityFailure, "", "", fmt.Sprintf("The roll-out of generation %d to set %s is stopped.", generation, set))
	case quoratev1.RolloutState_ROLLOUT_STATE_DONE:
		step(rolloutDone, severityNormal, "", "", fmt.Sprintf("Every server of set %s has applied generation %d.", set, generation))
	}
	return list
}

func (e *Endpoint) rolloutMoved(t *eventType, severity uint16, r *quoratev1.Rollout, server, outcome, message string) {
	e.emit(t, sourceOf(r.GetSet(), server), severity, noTime, message, map[string]any{
		"Set": r.GetSet(), "Server": server, "Generation": r.GetGeneration(), "Outcome": outcome,
	})
}

func (s *seen) lookAtServing(state *fsm.State) (list []news) {
	now := state.AllServing()
	if s.leases != nil && slices.Equal(now, s.servings) {
		return nil
	}
	first, before := s.leases == nil, s.servings
	s.servings = now
	if first {
		return nil
	}
	find := func(list []*quoratev1.Serving, set string) *quoratev1.Serving {
		for _, v := range list {
			if v.GetSet() == set {
				return v
			}
		}
		return nil
	}
	moved := func(set string, was, is *quoratev1.Serving) {
		if was.GetServer() != is.GetServer() || was.GetStandIn() != is.GetStandIn() {
			list = append(list, news{tell: func(e *Endpoint) { e.servingMoved(set, was, is) }})
		}
	}
	for _, v := range now {
		moved(v.GetSet(), find(before, v.GetSet()), v)
	}
	for _, v := range before {
		if find(now, v.GetSet()) == nil {
			moved(v.GetSet(), v, nil)
		}
	}
	return list
}

func (e *Endpoint) servingMoved(set string, was, is *quoratev1.Serving) {
	message := fmt.Sprintf("%s has the right to serve set %s.", is.GetServer(), set)
	var severity uint16 = severityNotice
	switch {
	case is == nil:
		message, severity = fmt.Sprintf("No server has the right to serve set %s: %s gave it up.", set, was.GetServer()), severityWorse
	case is.GetStandIn():
		message, severity = fmt.Sprintf("%s stands in for the Primary of set %s.", is.GetServer(), set), severityWorse
	}
	e.emit(servingMoved, sourceOf(set, is.GetServer()), severity, noTime, message, map[string]any{
		"Set": set, "Server": is.GetServer(), "PreviousServer": was.GetServer(), "StandIn": is.GetStandIn(),
	})
}

// source is whose event it is.
type source struct {
	key  space.Key
	name string
}

func serverSource(member string) source { return source{serverKey(member), member} }

// sourceOf is the server, or the folder of all servers where the event is that of a set.
func sourceOf(set, server string) source {
	if server == "" {
		return source{serversKey, set}
	}
	return serverSource(server)
}
