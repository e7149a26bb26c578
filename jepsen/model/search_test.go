package model

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// whole is the verdict of porcupine on a whole history.
func whole(n noun, first at, calls []*call) Result {
	ops := make([]porcupine.Operation, len(calls))
	for i, c := range calls {
		ops[i] = porcupine.Operation{Input: c, Call: int64(c.from), Return: int64(c.to)}
	}
	switch porcupine.CheckOperationsTimeout(porcupine.Model{
		Init:  func() any { return first },
		Step:  func(state, input, _ any) (bool, any) { return n.step(state.(at), input.(*call)) },
		Equal: func(a, b any) bool { return a.(at).view == b.(at).view },
		Hash: func(s any) uint64 {
			sum := fnv.New64a()
			_, _ = sum.Write([]byte(s.(at).view))
			return sum.Sum64()
		},
	}, ops, time.Minute) {
	case porcupine.Ok:
		return Holds
	case porcupine.Illegal:
		return Broken
	}
	return Undecided
}

// happening is an operation with the moment at which it took effect; 0 is never.
type happening struct {
	history.Op
	effect time.Duration
}

// happen makes a history that can have been: some clients call one after the other, everything takes effect in the order of its moments, and of some writes nobody learns the fate, which
// take effect much later or never.
func happen(t testing.TB, n noun, random *rand.Rand, calls, clients int, ask asker) []history.Op {
	t.Helper()
	free := make([]time.Duration, clients)
	all := make([]*happening, calls)
	for i := range all {
		client := random.IntN(clients)
		one := &happening{Op: ask(random)}
		one.ID, one.Client = i, fmt.Sprint("c", client)
		one.Call = free[client] + time.Duration(1+random.IntN(20))
		one.Return = one.Call + time.Duration(1+random.IntN(30))
		one.effect = one.Call + time.Duration(random.Int64N(int64(one.Return-one.Call+1)))
		free[client] = one.Return
		if one.Outcome == history.Unknown && random.IntN(2) == 0 {
			one.effect += time.Duration(random.IntN(60 * calls))
		} else if one.Outcome == history.Unknown && random.IntN(2) == 0 {
			one.effect = 0
		}
		all[i] = one
	}
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b *happening) int { return int(a.effect - b.effect) })
	first, err := n.begin("p", nil, &facts{})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range order {
		if one.effect > 0 {
			answered(t, n, first, &one.Op)
		}
	}
	ops := make([]history.Op, calls)
	for i, one := range all {
		ops[i] = one.Op
	}
	return ops
}

// answered lets a state answer an operation.
func answered(t testing.TB, n noun, s *fsm.State, op *history.Op) {
	t.Helper()
	if op.Kind == "get" {
		p := s.Resolve(op.Key)
		if p.GetEpoch() == 0 {
			op.Outcome, op.Error = history.Refused, "UNKNOWN_PARTITION: why"
			return
		}
		op.Outcome, op.Output = history.OK, encoded(t, &quoratev1.GetPartitionResponse{Partition: &quoratev1.Partition{
			Epoch: p.GetEpoch(), Phase: p.GetPhase(), Placement: p.GetReadPlacement(),
		}})
		return
	}
	if op.Kind == "list" {
		op.Outcome, op.Output = history.OK, encoded(t, &quoratev1.ListMaintenanceResponse{Maintenance: s.AllMaintenance()})
		return
	}
	unknown := *op
	unknown.Outcome = history.Unknown
	c, err := n.read(&unknown, op.Key)
	if err != nil {
		t.Fatal(err)
	}
	outcomes, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: uint64(s.Now() + 1), LeaderApplied: s.Revision(), Commands: []*logv1.Command{c.command}})
	if err != nil {
		t.Fatal(err)
	}
	if op.Outcome == history.Unknown {
		return
	}
	if r := fsm.RefusalOf(outcomes[0]); r != nil {
		op.Outcome, op.Error = history.Refused, r.GetReason()+": why"
		return
	}
	op.Outcome = history.OK
	switch {
	case op.Noun == "maintenance":
		op.Output = encoded(t, &quoratev1.SetMaintenanceResponse{Maintenance: outcomes[0].GetMaintenance()})
	case op.Kind == "create":
		op.Output = encoded(t, &quoratev1.CreatePartitionsResponse{Epoch: outcomes[0].GetPartitionsMade().GetEpoch()})
	case op.Kind != "delete":
		op.Output = encoded(t, &quoratev1.BeginMigrationResponse{Partition: outcomes[0].GetPartitionMoved().GetPartition()})
	}
}

func encoded(t testing.TB, m proto.Message) json.RawMessage {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// asker makes an operation that has not been called yet.
type asker func(*rand.Rand) history.Op

// asking is what clients ask of a partition: about half name an epoch, which is often wrong.
func asking(random *rand.Rand) history.Op {
	op := history.Op{Noun: "partition", Key: "p"}
	request := fmt.Sprintf(`"requestId":"r%d"`, random.Uint64())
	if random.IntN(2) == 0 {
		request += fmt.Sprintf(`,"expectedEpoch":"%d"`, 1+random.IntN(6))
	}
	to := "to"
	switch random.IntN(10) {
	case 0:
		op.Kind, to = "create", "placement"
	case 1, 2:
		op.Kind, to = "set_placement", "placement"
	case 3:
		op.Kind = "begin"
	case 4:
		op.Kind = "abort"
	case 5:
		op.Kind = "delete"
	default:
		op.Kind = "get"
	}
	if op.Kind == "get" {
		op.Input = json.RawMessage(`{"partition":"p"}`)
		return op
	}
	if random.IntN(4) == 0 {
		op.Outcome = history.Unknown
	}
	op.Input = json.RawMessage(fmt.Sprintf(`{%s,%q:"%c"}`, request, to, 'a'+rune(random.IntN(3))))
	return op
}

// seldom has fewer writes of unknown fate.
func seldom(ask asker, one int) asker {
	return func(random *rand.Rand) history.Op {
		op := ask(random)
		if op.Outcome == history.Unknown && random.IntN(one) > 0 {
			op.Outcome = ""
		}
		return op
	}
}

// declaring is what clients ask of a server's maintenance: nothing in it has a number.
func declaring(random *rand.Rand) history.Op {
	op := history.Op{Noun: "maintenance", Key: "p", Kind: "list"}
	if random.IntN(2) == 0 {
		op.Kind = "set"
		op.Input = json.RawMessage(fmt.Sprintf(`{"requestId":"r%d","server":"p","active":%t,"reason":"%c"}`, random.Uint64(), random.IntN(3) > 0, 'a'+rune(random.IntN(2))))
		if random.IntN(4) == 0 {
			op.Outcome = history.Unknown
		}
	}
	return op
}

// corrupt changes what a client was told, or when.
func corrupt(random *rand.Rand, ops []history.Op) {
	op, other := &ops[random.IntN(len(ops))], ops[random.IntN(len(ops))]
	switch {
	case random.IntN(3) == 0 && op.Outcome != history.Unknown:
		shift := time.Duration(random.IntN(60) - 30)
		op.Call, op.Return = max(op.Call+shift, 1), max(op.Return+shift, 2)
	case op.Kind == other.Kind && other.Outcome != history.Unknown:
		op.Outcome, op.Output, op.Error = other.Outcome, other.Output, other.Error
	case op.Outcome == history.OK && op.Kind != "list":
		op.Output = json.RawMessage(strings.NewReplacer(`"1"`, `"2"`, `"2"`, `"3"`, `"3"`, `"2"`, `"a"`, `"b"`).Replace(string(op.Output)))
	}
}

// both are the verdict of the search and that of porcupine: the latter on all calls, those too that say nothing new, and with no end to what is of unknown fate.
func both(t testing.TB, n noun, ops []history.Op, width int) (found searched, reference Result) {
	t.Helper()
	read := func() []*call {
		var calls []*call
		for i := range ops {
			c, err := n.read(&ops[i], "p")
			if err != nil {
				t.Fatal(err)
			}
			if c != nil {
				calls = append(calls, c)
			}
		}
		return calls
	}
	state, err := n.begin("p", nil, &facts{})
	if err != nil {
		t.Fatal(err)
	}
	first := at{state, n.view("", state, nil)}
	reference = whole(n, first, read())
	calls := thin(merge(read()))
	bound(calls)
	return n.search(first, calls, width, time.Minute), reference
}

// TestSearchIsAsWhole compares the search with porcupine's, on histories that can have been, and on such in which something was changed.
func TestSearchIsAsWhole(t *testing.T) {
	const rounds = 1500
	for _, n := range []struct {
		noun noun
		ask  asker
	}{{partitions(), asking}, {maintenances(), declaring}} {
		t.Run(n.noun.name, func(t *testing.T) {
			count := map[Result]int{}
			for seed := range uint64(rounds) {
				random := rand.New(rand.NewPCG(seed, 1))
				ops := happen(t, n.noun, random, 4+random.IntN(16), 1+random.IntN(5), n.ask)
				wrong := seed%3 > 0
				for range 3 * (seed % 3) {
					corrupt(random, ops)
				}
				got, want := both(t, n.noun, ops, 1+random.IntN(narrow))
				if count[want]++; got.result != want || !wrong && want != Holds {
					for _, op := range ops {
						t.Logf("%s %d-%d %s %s %s %s %s", op.Client, op.Call, op.Return, op.Kind, op.Outcome, op.Input, op.Output, op.Error)
					}
					t.Fatalf("seed %d: %s, and by porcupine %s", seed, got.result, want)
				}
			}
			if count[Broken] < rounds/10 || count[Holds] < rounds/3 {
				t.Errorf("%v: too few of one kind", count)
			}
			t.Log(count)
		})
	}
}

// alone is the verdict on one key by the search alone.
func alone(t testing.TB, n noun, ops []history.Op) Verdict {
	t.Helper()
	var calls []*call
	for i := range ops {
		c, err := n.read(&ops[i], "p")
		if err != nil {
			t.Fatal(err)
		}
		if c != nil {
			calls = append(calls, c)
		}
	}
	n.own = nil
	v, err := n.check("p", calls, &facts{}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// declare and look are operations on the maintenance of a server.
func declare(id int, call, end time.Duration, outcome history.Outcome, reason string) history.Op {
	op := history.Op{ID: id, Noun: "maintenance", Kind: "set", Key: "p", Call: call, Return: end, Outcome: outcome}
	op.Input = json.RawMessage(fmt.Sprintf(`{"requestId":"r%d","server":"p","active":true,"reason":%q}`, id, reason))
	if outcome == history.OK {
		op.Output = json.RawMessage(fmt.Sprintf(`{"maintenance":{"server":"p","active":true,"reason":%q}}`, reason))
	}
	return op
}

func look(id int, call, end time.Duration, reason string) history.Op {
	return history.Op{
		ID: id, Noun: "maintenance", Kind: "list", Key: "p", Call: call, Return: end, Outcome: history.OK, Input: json.RawMessage(`{}`),
		Output: json.RawMessage(fmt.Sprintf(`{"maintenance":[{"server":"p","active":true,"reason":%q}]}`, reason)),
	}
}

// TestUnknownTakesEffectLate: a write of unknown fate takes effect after many cuts, once, and not before its call.
func TestUnknownTakesEffectLate(t *testing.T) {
	const many = 3000
	base := func(lost ...history.Op) []history.Op {
		ops := slices.Clone(lost)
		for i := range many {
			at := time.Duration(100 * (i + 10))
			ops = append(ops, declare(100+2*i, at, at+10, history.OK, fmt.Sprint("known ", i%7)), look(101+2*i, at+20, at+30, fmt.Sprint("known ", i%7)))
		}
		return ops
	}
	end := time.Duration(100 * (many + 20))
	lost := declare(1, 10, 20, history.Unknown, "lost")
	another := declare(2, 11, 20, history.Unknown, "lost")
	back := declare(3, end+20, end+30, history.OK, "known")
	for name, c := range map[string]struct {
		ops  []history.Op
		want Result
		at   int
	}{
		"never":           {base(lost), Holds, 0},
		"at the end":      {append(base(lost), look(4, end, end+1, "lost")), Holds, 0},
		"twice":           {append(base(lost), look(4, end, end+1, "lost"), back, look(5, end+40, end+41, "lost")), Broken, 5},
		"two, once each":  {append(base(lost, another), look(4, end, end+1, "lost"), back, look(5, end+40, end+41, "lost")), Holds, 0},
		"before its call": {append(base(), look(4, end, end+1, "lost"), declare(1, end+2, end+10, history.Unknown, "lost")), Broken, 4},
		"another's":       {append(base(lost), look(4, end, end+1, "other")), Broken, 4},
	} {
		t.Run(name, func(t *testing.T) {
			v := alone(t, maintenances(), c.ops)
			if v.Result != c.want || v.Op.ID != c.at {
				t.Errorf("%s at %d, want %s at %d: %s", v.Result, v.Op.ID, c.want, c.at, v.Text)
			}
		})
	}
}

// TestOneWrongAnswerIsFound changes one answer of many, and then each is the last that an order explains.
func TestOneWrongAnswerIsFound(t *testing.T) {
	const calls = 1200
	good := happen(t, partitions(), rand.New(rand.NewPCG(3, 3)), calls, 4, seldom(asking, 20))
	if v := alone(t, partitions(), good); v.Result != Holds {
		t.Fatalf("%s: %s", v.Result, v.Text)
	}
	tried := 0
	for i := 50; i < calls; i += 61 {
		ops := slices.Clone(good)
		if ops[i].Outcome != history.OK || ops[i].Kind == "delete" {
			continue
		}
		tried++
		ops[i].Output = json.RawMessage(`{"epoch":"1000000","partition":{"epoch":"1000000","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}`)
		v := alone(t, partitions(), ops)
		if v.Result != Broken || v.Until > ops[i].Return || v.Op.ID != i && !slices.Contains(v.Around, i) {
			t.Errorf("operation %d: %s at %d: %s", i, v.Result, v.Op.ID, v.Text)
		}
	}
	if tried < 10 {
		t.Errorf("only %d answers were changed", tried)
	}
}

// TestLongHistories has 200,000 calls on one key, none of which says nothing new; one in fifty changes something.
func TestLongHistories(t *testing.T) {
	const calls, changes = 200_000, 50
	ops := happen(t, maintenances(), rand.New(rand.NewPCG(5, 5)), calls, 4, seldom(func(random *rand.Rand) history.Op {
		for {
			if op := declaring(random); op.Kind == "list" || random.IntN(changes) == 0 {
				return op
			}
		}
	}, 200))
	began := time.Now()
	v := alone(t, maintenances(), ops)
	if v.Result != Holds || v.Ops != calls || v.Unknown == 0 || v.Worlds > MaxWorlds {
		t.Errorf("%s of %d operations, %d unknown: %s", v.Result, v.Ops, v.Unknown, v.Text)
	}
	t.Logf("%d calls, %d of them of unknown fate, in %v; at most %d worlds at once", v.Ops, v.Unknown, time.Since(began), v.Worlds)
}
