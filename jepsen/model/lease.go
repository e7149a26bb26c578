package model

import (
	"fmt"
	"slices"
	"strings"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// leases are judged by set, since at most one server of a set may be mid-apply. Which generation is in force is not of this key: the model publishes one when an
// answer shows that it was. What roll-outs begin and end is known by its events.
func leases() noun {
	return noun{name: "lease", read: readLease, begin: beginLeases, own: rollouts, view: viewLeases}
}

func beginLeases(set string, calls []*call, h *facts) (*fsm.State, error) {
	servers := slices.Clone(h.servers[set])
	for _, c := range calls {
		server := c.command.GetBeginLease().GetServer() + c.command.GetEndLease().GetServer()
		if server != "" && !slices.Contains(servers, server) {
			servers = append(servers, server)
		}
	}
	slices.Sort(servers)
	s := fsm.New()
	if err := must(s, members(servers)); err != nil {
		return nil, err
	}
	return s, must(s, publishServers(h.request(1), 0, set, servers...))
}

// request is the request id under which a generation was published.
func (f *facts) request(generation uint64) string {
	if id := f.requests[generation]; id != "" {
		return id
	}
	return fmt.Sprintf("generation %d", generation)
}

func viewLeases(_ string, s *fsm.State, _ *logv1.Command) string {
	var b strings.Builder
	fmt.Fprint(&b, s.CurrentGeneration().GetNumber())
	for _, l := range s.Leases("", false) {
		fmt.Fprint(&b, " ", describe(l))
	}
	return b.String()
}

// describe has what makes a lease another one.
func describe(l *quoratev1.ApplyLease) string {
	return fmt.Sprint(l.GetKey().GetServer(), "/", l.GetKey().GetGeneration(), "/", l.GetKey().GetPublishRequestId(), "/", l.GetWindows())
}

// inForce publishes generations until a given one is in force. It reads requests when it is called, since they are facts of the whole history.
func inForce(generation uint64) func(*fsm.State) []*logv1.Entry {
	return func(s *fsm.State) []*logv1.Entry {
		var entries []*logv1.Entry
		current := s.CurrentGeneration()
		for number := current.GetNumber(); number < generation; number++ {
			entries = append(entries, &logv1.Entry{Clock: uint64(s.Now()), LeaderApplied: s.Revision(), Commands: []*logv1.Command{{
				RequestId: fmt.Sprintf("generation %d", number+1),
				Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
					ExpectedGeneration: number, Topology: current.GetTopology(),
				}},
			}}})
		}
		return entries
	}
}

func readLease(op *history.Op) (*call, error) {
	answer := &quoratev1.BeginLeaseResponse{}
	same := func(o *logv1.Outcome) bool {
		return o.GetLease().GetState() == answer.GetLease().GetState() && describe(o.GetLease()) == describe(answer.GetLease())
	}
	switch op.Kind {
	case "begin":
		r := &quoratev1.BeginLeaseRequest{}
		if err := decode(op, r, answer); err != nil {
			return nil, err
		}
		key := answer.GetLease().GetKey()
		command := &logv1.BeginLease{Server: r.GetServer(), Generation: r.GetGeneration(), PublishRequestId: r.GetPublishRequestId(), Reason: r.GetReason()}
		if op.Outcome == history.OK {
			// Without a publish request id it is that of the generation, which the model's generations don't have.
			command.PublishRequestId = key.GetPublishRequestId()
		}
		c := write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_BeginLease{BeginLease: command}}, same)
		switch {
		case op.Outcome == history.OK:
			c.prepare = inForce(key.GetGeneration())
		case reason(op) == fsm.ReasonStaleGeneration:
			c.prepare = inForce(r.GetGeneration() + 1)
		default:
			c.prepare = inForce(r.GetGeneration())
		}
		return c, nil
	case "end":
		r := &quoratev1.EndLeaseRequest{}
		if err := decode(op, r, answer); err != nil {
			return nil, err
		}
		return write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{
			Server: r.GetServer(), Generation: r.GetGeneration(), PublishRequestId: r.GetPublishRequestId(), Outcome: r.GetOutcome(),
		}}}, same), nil
	case "list":
		return readLeases(op)
	}
	return nil, nil
}

// readLeases is a look at the open leases of a set.
func readLeases(op *history.Op) (*call, error) {
	r, answer := &quoratev1.ListLeasesRequest{}, &quoratev1.ListLeasesResponse{}
	c := newCall(op, false)
	if err := decode(op, r, answer); err != nil || c == nil || !linearizable(r.GetRead()) || op.Outcome != history.OK {
		return nil, err
	}
	var want []string
	for _, l := range answer.GetLeases() {
		if l.GetState() == quoratev1.LeaseState_LEASE_STATE_OPEN && l.GetSet() == op.Key {
			want = append(want, describe(l))
		}
	}
	c.look = func(s *fsm.State) bool {
		var got []string
		for _, l := range s.Leases(r.GetServer(), false) {
			got = append(got, describe(l))
		}
		return slices.Equal(got, want)
	}
	return c, nil
}

// rollouts are the leases that the group itself began for an apply, and their ends. Clients' own are left out: they are known by their calls.
func rollouts(set string, h *facts) []*call {
	var calls []*call
	held := map[string]bool{}
	for _, e := range h.events {
		key := e.lease.GetKey()
		name := fmt.Sprint(key.GetServer(), "/", key.GetGeneration(), "/", key.GetPublishRequestId())
		if e.lease.GetSet() != set || e.began && !e.lease.GetRollout() || !e.began && !held[name] {
			continue
		}
		held[name] = e.began
		from, to := h.when(e.event.GetRevision())
		c := &call{
			op:   &history.Op{ID: -1, Noun: "lease", Kind: "rollout", Key: set, Outcome: history.OK},
			from: from, to: min(to, e.seen), prepare: inForce(key.GetGeneration()),
			fits: func(o *logv1.Outcome) bool { return fsm.RefusalOf(o) == nil },
		}
		c.op.Call, c.op.Return = c.from, c.to
		id := fmt.Sprintf("event %d.%d", e.event.GetRevision(), e.event.GetSequence())
		if e.began {
			c.command = &logv1.Command{RequestId: id, Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{
				Server: key.GetServer(), Generation: key.GetGeneration(), PublishRequestId: key.GetPublishRequestId(),
			}}}
		} else {
			c.command = &logv1.Command{RequestId: id, Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{
				Server: key.GetServer(), Generation: key.GetGeneration(), PublishRequestId: key.GetPublishRequestId(),
			}}}
			c.prepare = nil
		}
		calls = append(calls, c)
	}
	return calls
}
