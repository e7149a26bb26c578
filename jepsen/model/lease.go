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
	return noun{name: "lease", keys: setsOf, read: readLease, begin: beginLeases, own: rollouts, view: viewLeases, dead: tooManyWindows}
}

// setsOf is the set of a server, or all of them.
func setsOf(op *history.Op, h *facts) []string {
	var sets []string
	for _, set := range sortedKeys(h.servers) {
		if op.Kind == "list" || slices.Contains(h.servers[set], op.Key) {
			sets = append(sets, set)
		}
	}
	return sets
}

func beginLeases(set string, calls []*call, h *facts) (*fsm.State, error) {
	servers := slices.Clone(h.servers[set])
	told := map[string]*leaseEvent{} // by request id
	for _, e := range h.events {
		if id := e.event.GetRequestId(); id != "" {
			told[id] = e
		}
	}
	for _, c := range calls {
		if c.command != nil && c.optional() {
			h.learn(c, told[c.command.GetRequestId()])
		}
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

// learn adds to a write of unknown fate what the events tell of it. One that began or closed a lease has an event with its request id; where watches were told of
// everything, one without did at most open or close a further window.
func (f *facts) learn(c *call, e *leaseEvent) {
	begin := c.command.GetBeginLease()
	if e == nil {
		if f.complete {
			c.fits = func(o *logv1.Outcome) bool {
				l := o.GetLease()
				return l.GetState() == quoratev1.LeaseState_LEASE_STATE_OPEN && (begin == nil || l.GetWindows() > 1)
			}
		}
		return
	}
	op := *c.op
	op.Outcome, c.op = history.OK, &op
	c.from, c.to = f.during(e, c.from)
	if begin == nil {
		c.fits = func(o *logv1.Outcome) bool { return o.GetLease().GetState() == quoratev1.LeaseState_LEASE_STATE_ENDED }
		return
	}
	// Nobody was told under which generation it began, but by the event.
	begin.Generation = e.lease.GetKey().GetGeneration()
	c.prepare = inForce(begin.GetGeneration())
	c.fits = func(o *logv1.Outcome) bool { return o.GetLease().GetWindows() == 1 }
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

// tooManyWindows says that a lease has more windows than anybody can be shown any more. Each answer shows how many are left, and only an end of unknown fate takes one away
// without showing it; what else the lease does, to keep out other servers and to be closed by the watchdog, it does with one window less.
func tooManyWindows(calls []*call) func(*fsm.State) bool {
	most := uint32(1)
	for _, c := range calls {
		most = max(most, c.windows+1)
	}
	for _, c := range calls {
		if c.command.GetEndLease() != nil && c.optional() {
			most++
		}
	}
	return func(s *fsm.State) bool {
		return slices.ContainsFunc(s.Leases("", false), func(l *quoratev1.ApplyLease) bool { return l.GetWindows() > most })
	}
}

// describe has what makes a lease another one.
func describe(l *quoratev1.ApplyLease) string {
	key := fmt.Sprint(l.GetKey().GetGeneration(), "/", l.GetKey().GetPublishRequestId())
	if late, ok := strings.CutPrefix(l.GetKey().GetPublishRequestId(), lateRollout); ok {
		key = late
	}
	return fmt.Sprint(l.GetKey().GetServer(), "/", key, "/", l.GetWindows())
}

// lateRollout begins the publish request ids of leases that stand for those of a roll-out whose generation is not in force any more. A publish that doesn't
// change a set leaves its roll-out as it is, and only a roll-out may then begin a lease; in the model it is one of the generation in force, which only describe
// can tell from the other.
const lateRollout = "roll-out of "

// standIn is the key of the lease that stands for another in the model: that one, or one of lateRollout. Whatever generation it was begun in, its publish
// request id finds it.
func standIn(key *quoratev1.LeaseKey, late bool) *quoratev1.LeaseKey {
	if !late {
		return key
	}
	return &quoratev1.LeaseKey{Server: key.GetServer(), PublishRequestId: fmt.Sprint(lateRollout, key.GetGeneration(), "/", key.GetPublishRequestId())}
}

// inForce publishes generations until a given one is in force.
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

func readLease(op *history.Op, set string) (*call, error) {
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
		case reason(op) == fsm.ReasonUnknownServer:
			c.anyway = true // Which servers there are is of another key.
		case op.Outcome == history.OK:
			c.windows = answer.GetLease().GetWindows()
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
		c := write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{
			Server: r.GetServer(), Generation: r.GetGeneration(), PublishRequestId: r.GetPublishRequestId(), Outcome: r.GetOutcome(),
		}}}, same)
		c.windows = answer.GetLease().GetWindows()
		return c, nil
	case "list":
		return readLeases(op, set)
	}
	return nil, nil
}

// readLeases is a look at the open leases of a set.
func readLeases(op *history.Op, set string) (*call, error) {
	r, answer := &quoratev1.ListLeasesRequest{}, &quoratev1.ListLeasesResponse{}
	c := newCall(op, false)
	if err := decode(op, r, answer); err != nil || c == nil || !linearizable(r.GetRead()) || op.Outcome != history.OK {
		return nil, err
	}
	var want []string
	for _, l := range answer.GetLeases() {
		if l.GetState() == quoratev1.LeaseState_LEASE_STATE_OPEN && l.GetSet() == set {
			want = append(want, describe(l))
			c.windows = max(c.windows, l.GetWindows())
		}
	}
	// What stands for a late roll-out's lease is at another place among those of its server.
	slices.Sort(want)
	c.look = func(s *fsm.State) bool {
		var got []string
		for _, l := range s.Leases(r.GetServer(), false) {
			got = append(got, describe(l))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	}
	return c, nil
}

// rollouts are the leases that the group itself began and ended: those of applies, and what the watchdog closed. Clients' own are known by their calls.
func rollouts(set string, h *facts) []*call {
	var calls []*call
	held, late := map[string]bool{}, map[string]bool{}
	for _, e := range h.events {
		key := e.lease.GetKey()
		name := fmt.Sprint(key.GetServer(), "/", key.GetGeneration(), "/", key.GetPublishRequestId())
		abandoned := e.event.GetLeaseAbandoned() != nil
		if e.lease.GetSet() != set || e.began && !e.lease.GetRollout() || !e.began && !abandoned && !held[name] {
			continue
		}
		if held[name] = e.began; e.began {
			late[name] = key.GetGeneration() < e.event.GetGeneration()
		}
		key = standIn(key, late[name])
		c := &call{windows: e.lease.GetWindows(), fits: func(o *logv1.Outcome) bool { return fsm.RefusalOf(o) == nil }}
		c.from, c.to = h.during(e, 0)
		c.op = &history.Op{ID: -1, Noun: "lease", Kind: "rollout", Key: set, Outcome: history.OK, Call: c.from, Return: c.to}
		id := fmt.Sprintf("event %d.%d", e.event.GetRevision(), e.event.GetSequence())
		switch {
		case e.began:
			c.prepare = inForce(max(e.event.GetGeneration(), e.lease.GetKey().GetGeneration()))
			c.command = &logv1.Command{RequestId: id, Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{
				Server: key.GetServer(), Generation: key.GetGeneration(), PublishRequestId: key.GetPublishRequestId(),
			}}}
		case abandoned:
			c.prepare, c.command = allButOne(key, id), endOf(key, id)
		default:
			c.command = endOf(key, id)
		}
		calls = append(calls, c)
	}
	return calls
}

func endOf(key *quoratev1.LeaseKey, request string) *logv1.Command {
	return &logv1.Command{RequestId: request, Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{
		Server: key.GetServer(), Generation: key.GetGeneration(), PublishRequestId: key.GetPublishRequestId(),
	}}}
}

// allButOne closes the windows of a lease but one, as the watchdog closes all at once.
func allButOne(key *quoratev1.LeaseKey, request string) func(*fsm.State) []*logv1.Entry {
	return func(s *fsm.State) []*logv1.Entry {
		var entries []*logv1.Entry
		for _, l := range s.Leases(key.GetServer(), false) {
			if l.GetKey().GetPublishRequestId() != key.GetPublishRequestId() || key.GetGeneration() != 0 && l.GetKey().GetGeneration() != key.GetGeneration() {
				continue
			}
			for window := uint32(1); window < l.GetWindows(); window++ {
				entries = append(entries, &logv1.Entry{
					Clock: uint64(s.Now()), LeaderApplied: s.Revision(), Commands: []*logv1.Command{endOf(key, fmt.Sprint(request, " window ", window))},
				})
			}
		}
		return entries
	}
}
