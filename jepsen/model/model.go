// Package model says whether a recorded history can have been: whether there is an order of its operations, each at some moment between its call and its
// return, in which the state machine gives every client the answer that it got (linearizability; M. Herlihy and J. Wing, 1990).
//
// The model is [fsm.State] itself, so that there is no second opinion on what a command does. The search goes along the time, for each key by itself: an
// order for each key is an order for all. What is compared is what the commands are for: who owns a partition at which epoch, which generation is in force, how
// many windows a lease has. Revisions, digests of the whole and cluster time are for other checks.
//
// Three things can't be told by one key, and are allowed where they can have been:
//
//   - A write of which nobody knows the fate has no end: it may take effect at any later moment, or, which is the same, after all that was seen.
//   - Time. Before the state machine answers, the clock of the model goes to where that answer is right, if there is such a moment: past the drain barrier for a
//     completion, not past it for BARRIER_PENDING. How long a barrier was is for the check of barriers.
//   - Refusals for what another key holds, such as APPLY_IN_PROGRESS. They must be the last thing that the state machine looks at, and change nothing.
package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
)

// explainLimit is how long each step of the search for the moment of a failure may take; a step that is undecided makes the moment less exact.
const explainLimit = 5 * time.Second

// forever is when a call returns of which nobody knows the fate.
const forever = time.Duration(math.MaxInt64)

// Result is what the search found.
type Result string

// The results.
const (
	// Holds means that there is such an order.
	Holds Result = "holds"
	// Broken means that there is none.
	Broken Result = "broken"
	// Undecided means that the search was not over in its time, or that there was too much to search. It proves nothing.
	Undecided Result = "undecided"
)

// Verdict is what became of one key.
type Verdict struct {
	Noun, Key string
	// Ops is how many operations were judged, Unknown how many of them were writes of unknown fate.
	Ops, Unknown int
	Result       Result
	Text         string
	// Of what is broken: the operation at whose return no order was left, when it was under way, and all that was under way with it.
	Op          history.Op
	From, Until time.Duration
	Around      []int
	// Worlds is how many there were at most at one moment.
	Worlds int
	Took   time.Duration
}

// call is an operation as a model sees it.
type call struct {
	op       *history.Op
	from, to time.Duration
	// look says whether a state can have given a read's answer; nil for a write.
	look func(*fsm.State) bool
	// command is what a write put into the log.
	command *logv1.Command
	// prepare returns what else has to have been in the log before, as only the answer tells: entries of the group's own, and time.
	prepare func(*fsm.State) []*logv1.Entry
	// timed says that what is prepared is time, which need not have passed for a refusal.
	timed bool
	// fits says whether the state machine's answer is the one that the client got; nil where the client got none.
	fits func(*logv1.Outcome) bool
	// elsewhere says that it was refused for what another key holds, which is looked at last; anyway that this is looked at before all else.
	elsewhere, anyway bool
	// request is the request id of a write. Operations that share one are one call.
	request string
	// value is what a read saw, if no two moments apart can have shown the same.
	value string
	// number is the epoch or generation that the answer shows, and expected the one that a write asked for; 0 is none.
	number, expected uint64
	// windows is the most of any lease that the answer shows.
	windows uint32
}

func (c *call) unknown() bool { return c.to == forever }

// optional says that nobody knows whether it took effect: it never has to.
func (c *call) optional() bool { return c.op.Outcome == history.Unknown }

// asks is what a write asks for, whatever its request id.
func (c *call) asks() string {
	command := proto.Clone(c.command).(*logv1.Command)
	command.RequestId = ""
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(command)
	if err != nil {
		panic(fmt.Sprintf("model: %v", err)) // The commands are our own.
	}
	return string(b)
}

// pure says that it changes nothing, whenever its answer is right.
func (c *call) pure() bool {
	return c.look != nil || c.anyway || c.elsewhere || c.op.Outcome == history.Refused && (c.prepare == nil || c.timed)
}

// noun is how operations of one noun are read.
type noun struct {
	name string
	// begin is the state before the first call.
	begin func(key string, calls []*call, h *facts) (*fsm.State, error)
	// keys are the keys of the model that an operation concerns; nil stands for the operation's own.
	keys func(op *history.Op, h *facts) []string
	// read makes a call on one key of an operation. Nil means that this operation isn't for the model.
	read func(op *history.Op, key string) (*call, error)
	// own returns calls that no client made, but the group itself.
	own func(key string, h *facts) []*call
	// number is what only grows from state to state, and is what [call.number] has; nil where there is none.
	number func(*fsm.State) uint64
	// dead returns what says that a state is a dead end which only writes of unknown fate lead to: one of them less leads to all that it leads to. Nil is none.
	dead func(calls []*call) func(*fsm.State) bool
	// view is all of a state on which an answer can depend, given the view before: states with equal views are equal.
	view func(before string, s *fsm.State, accepted *logv1.Command) string
}

// nouns are those that have a model.
func nouns() []noun { return []noun{topologies(), leases(), partitions(), maintenances(), settings()} }

// at is a state on the way.
type at struct {
	state *fsm.State
	view  string
}

// Check judges every key of every noun, each for at most the given time.
func Check(h history.History, limit time.Duration) ([]Verdict, error) {
	known, err := gather(h)
	if err != nil {
		return nil, err
	}
	var verdicts []Verdict
	for _, n := range nouns() {
		keys, err := n.calls(h, known)
		if err != nil {
			return nil, err
		}
		for _, key := range sortedKeys(keys) {
			v, err := n.check(key, keys[key], known, limit)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", n.name, key, err)
			}
			verdicts = append(verdicts, v)
		}
	}
	return verdicts, nil
}

// calls are those of each key.
func (n noun) calls(h history.History, known *facts) (map[string][]*call, error) {
	calls := map[string][]*call{}
	for i := range h.Ops {
		op := &h.Ops[i]
		if op.Noun != n.name || op.Outcome == history.Failed {
			continue
		}
		keys := []string{op.Key}
		if n.keys != nil {
			keys = n.keys(op, known)
		}
		for _, key := range keys {
			c, err := n.read(op, key)
			if err != nil {
				return nil, fmt.Errorf("operation %d (%s %s of %s): %w", op.ID, op.Noun, op.Kind, op.Key, err)
			}
			if c != nil {
				calls[key] = append(calls[key], c)
			}
		}
	}
	return calls, nil
}

// newCall makes a call of an operation, or nil of a read without an answer.
func newCall(op *history.Op, write bool) *call {
	c := &call{op: op, from: op.Call, to: op.Return}
	if op.Outcome == history.Unknown {
		if !write {
			return nil
		}
		c.to = forever
	}
	return c
}

func (n noun) check(key string, calls []*call, known *facts, limit time.Duration) (Verdict, error) {
	began := time.Now()
	v := Verdict{Noun: n.name, Key: key, Ops: len(calls), Result: Holds}
	calls = thin(merge(calls))
	if n.own != nil {
		calls = append(calls, n.own(key, known)...)
	}
	bound(calls)
	for _, c := range calls {
		if c.command != nil && c.unknown() {
			v.Unknown++
		}
	}
	first, err := n.begin(key, calls, known)
	if err != nil {
		return v, err
	}
	begin := at{first, n.view("", first, nil)}
	found := n.search(begin, calls, narrow, limit)
	v.Result, v.Worlds = found.result, found.most
	switch {
	case found.result == Broken:
		n.explain(begin, calls, min(limit, explainLimit), &v)
	case found.late:
		v.Text = fmt.Sprintf("no order of %d calls, %d of them of unknown fate, was found in %v, nor that there is none", len(calls), v.Unknown, limit)
	case found.result == Undecided:
		v.Text = fmt.Sprintf("more than %d worlds can have been when operation %d returned: no order of %d calls, %d of them of unknown fate, was found, nor that there is none",
			MaxWorlds, found.at.op.ID, len(calls), v.Unknown)
	}
	v.Took = time.Since(began)
	return v, nil
}

// step lets a state answer a call.
func (n noun) step(a at, c *call) (bool, at) {
	if c.look != nil {
		return c.look(a.state), a
	}
	if c.anyway {
		return true, a
	}
	next := a.state.Snapshot()
	if c.prepare != nil {
		for _, e := range c.prepare(next) {
			if _, _, err := next.ApplyEntry(next.Revision()+1, e); err != nil {
				panic(fmt.Sprintf("model: %v", err)) // The entries are our own.
			}
		}
	}
	prepared := next.Revision() != a.state.Revision() && !c.timed
	outcomes, _, err := next.ApplyEntry(next.Revision()+1, &logv1.Entry{
		Clock: uint64(next.Now() + 1), LeaderApplied: next.Revision(), Commands: []*logv1.Command{c.command},
	})
	if err != nil {
		return false, a
	}
	refusal := fsm.RefusalOf(outcomes[0])
	switch {
	case c.elsewhere:
		return refusal == nil, a
	case c.fits != nil && !c.fits(outcomes[0]):
		return false, a
	case refusal != nil && !prepared:
		return true, a
	case refusal != nil:
		return true, at{next, n.view(a.view, next, nil)}
	}
	return true, at{next, n.view(a.view, next, c.command)}
}

// explain finds the first return at which no order is left: what had happened until then can't have been, and until the return before it can.
func (n noun) explain(first at, calls []*call, limit time.Duration, v *Verdict) {
	returns := slices.Clone(calls)
	slices.SortStableFunc(returns, func(a, b *call) int { return cmp.Compare(a.to, b.to) })
	for len(returns) > 1 && returns[len(returns)-1].unknown() {
		returns = returns[:len(returns)-1]
	}
	low, high := 0, len(returns)-1
	for low < high {
		middle := (low + high) / 2
		if n.search(first, until(calls, returns[middle].to), narrow, limit).result == Broken {
			high = middle
		} else {
			low = middle + 1
		}
	}
	last := returns[high]
	v.Op, v.From, v.Until = *last.op, last.from, last.to
	for _, c := range calls {
		if c.from <= last.to && c.to >= last.from && c.op.ID >= 0 && c.op.ID != last.op.ID {
			v.Around = append(v.Around, c.op.ID)
		}
	}
	v.Text = fmt.Sprintf("no order of the calls explains what %s was told by %s at its return: %s", cmp.Or(last.op.Client, "the group"), last.op.Kind, answer(last.op))
}

func answer(op *history.Op) string {
	const most = 300
	text := string(op.Outcome) + " " + string(op.Output)
	if op.Error != "" {
		text = string(op.Outcome) + " " + op.Error
	}
	return text[:min(len(text), most)]
}

// until is what was known at a moment.
func until(calls []*call, moment time.Duration) []*call {
	var seen []*call
	for _, c := range calls {
		switch {
		case c.from > moment || c.to > moment && c.look != nil:
		case c.to > moment && !c.unknown():
			open, op := *c, *c.op
			op.Outcome = history.Unknown
			open.op, open.to, open.fits, open.elsewhere, open.anyway, open.number = &op, forever, nil, false, false, 0
			seen = append(seen, &open)
		default:
			seen = append(seen, c)
		}
	}
	return seen
}

// merge makes one call of the writes that have one request id: they take effect once, before the first of them that was answered returned.
func merge(calls []*call) []*call {
	first := map[string]*call{}
	merged := calls[:0:0]
	for _, c := range calls {
		same := first[c.request]
		if c.request == "" || same == nil {
			first[c.request] = c
			merged = append(merged, c)
			continue
		}
		one := *same
		if c.to < same.to {
			one = *c
		}
		one.from = min(c.from, same.from)
		*same = one
	}
	return merged
}

// thin drops reads that say nothing new. What has a number that never comes twice stands for one stretch of time; if it stood when the first of its readers
// returned and when the last of them was called, it stood at some moment within every other of them.
func thin(calls []*call) []*call {
	type ends struct{ returned, called *call }
	seen := map[string]ends{}
	for _, c := range calls {
		if c.value == "" {
			continue
		}
		e, ok := seen[c.value]
		if !ok {
			e = ends{c, c}
		}
		if c.to < e.returned.to {
			e.returned = c
		}
		if c.from > e.called.from {
			e.called = c
		}
		seen[c.value] = e
	}
	return slices.DeleteFunc(calls, func(c *call) bool {
		e := seen[c.value]
		return c.value != "" && c != e.returned && c != e.called
	})
}

// bound ends writes of unknown fate that asked for a number which somebody has seen overtaken: from then on they change nothing.
func bound(calls []*call) {
	var shown []*call
	for _, c := range calls {
		if c.number != 0 && !c.unknown() {
			shown = append(shown, c)
		}
	}
	// Sorted by number, and least[i] is the earliest return of those from i on.
	slices.SortFunc(shown, func(a, b *call) int { return cmp.Compare(a.number, b.number) })
	least := make([]time.Duration, len(shown)+1)
	least[len(shown)] = forever
	for i := len(shown) - 1; i >= 0; i-- {
		least[i] = min(least[i+1], shown[i].to)
	}
	for _, c := range calls {
		if c.command == nil || !c.unknown() || c.expected == 0 {
			continue
		}
		i, _ := slices.BinarySearchFunc(shown, c.expected+1, func(s *call, number uint64) int { return cmp.Compare(s.number, number) })
		if least[i] != forever {
			c.to = max(c.from, least[i]) + 1
		}
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
