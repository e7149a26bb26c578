package validate

import (
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// accepted is a publish or rollback that was accepted.
type accepted struct {
	op       *history.Op
	number   uint64
	expected uint64
	request  string
}

// generations is check 2.
func generations() check {
	return check{
		name: "generations", claim: "Generations only grow, one by one; no accepted compare and swap is lost; each has one digest, wherever it is read.",
		needs: []string{"topology"},
		judge: func(r *record, v *Verdict) {
			digests := &digestBook{v: v, seen: map[uint64]seenDigest{}}
			published := r.accepted(v, digests)
			judgeOrder(v, published)
			for _, s := range r.sightings {
				if g := s.GetTopologyPublished(); g != nil {
					digests.see(g, s.at, s.at, nil, "watch "+s.watch)
				}
			}
			judgeKept(v, digests, published)
		},
	}
}

type seenDigest struct {
	digest, request, where string
	revision               uint64
}

// digestBook has what was told of each generation.
type digestBook struct {
	v    *Verdict
	seen map[uint64]seenDigest
}

// see compares what is told of a generation with what was told of it before.
func (b *digestBook) see(g *quoratev1.Generation, from, until time.Duration, ops []int, where string) {
	if g.GetNumber() == 0 {
		return
	}
	b.v.Checked++
	before, ok := b.seen[g.GetNumber()]
	now := seenDigest{g.GetDigest(), g.GetPublishRequestId(), where, g.GetRevision()}
	if !ok {
		b.seen[g.GetNumber()] = now
		return
	}
	if before.digest != now.digest || before.request != now.request || before.revision != now.revision {
		b.v.problem(from, until, ops, "generation %d is %s of request %q at revision %d by %s, and was %s of %q at %d by %s",
			g.GetNumber(), now.digest, now.request, now.revision, where, before.digest, before.request, before.revision, before.where)
	}
}

// accepted returns the publishes that were accepted, in the order of their calls, and notes every generation that was read.
func (r *record) accepted(v *Verdict, digests *digestBook) []accepted {
	var found []accepted
	for i := range r.Ops {
		op := &r.Ops[i]
		if op.Noun != "topology" {
			continue
		}
		switch op.Kind {
		case "publish", "rollback":
			request, answer := &quoratev1.RollbackTopologyRequest{}, &quoratev1.RollbackTopologyResponse{} // Both have these fields in common.
			if !v.answered(op, answer) || decode(op.Input, request) != nil {
				continue
			}
			digests.see(answer.GetGeneration(), op.Call, op.Return, []int{op.ID}, op.Client)
			found = append(found, accepted{op, answer.GetGeneration().GetNumber(), request.GetExpectedGeneration(), request.GetRequestId()})
		case "get":
			answer := &quoratev1.GetTopologyResponse{}
			if v.answered(op, answer) {
				digests.see(answer.GetGeneration(), op.Call, op.Return, []int{op.ID}, op.Client)
			}
		case "history":
			answer := &quoratev1.ListGenerationsResponse{}
			if v.answered(op, answer) {
				for _, g := range answer.GetGenerations() {
					digests.see(g, op.Call, op.Return, []int{op.ID}, op.Client)
				}
			}
		}
	}
	return found
}

// judgeOrder says whether what was accepted is in the order in which it was done.
func judgeOrder(v *Verdict, published []accepted) {
	byNumber := map[uint64]accepted{}
	for _, p := range published {
		v.Checked++
		if p.number != p.expected+1 {
			v.problem(p.op.Call, p.op.Return, []int{p.op.ID}, "generation %d was published in place of generation %d", p.number, p.expected)
		}
		if other, ok := byNumber[p.number]; ok && other.request != p.request {
			v.problem(other.op.Call, p.op.Return, []int{other.op.ID, p.op.ID}, "generation %d was published twice, by %s and %s", p.number, other.op.Client, p.op.Client)
		}
		byNumber[p.number] = p
	}
	numbers := sorted(byNumber)
	for i := 1; i < len(numbers); i++ {
		before, after := byNumber[numbers[i-1]], byNumber[numbers[i]]
		if after.op.Return < before.op.Call {
			v.problem(after.op.Return, before.op.Call, []int{after.op.ID, before.op.ID}, "generation %d was there before generation %d was asked for", after.number, before.number)
		}
	}
}

// judgeKept says whether every accepted publish is in what was read of its generation, and whether the revisions grow with the numbers.
func judgeKept(v *Verdict, digests *digestBook, published []accepted) {
	for _, p := range published {
		if kept, ok := digests.seen[p.number]; ok && kept.request != p.request {
			v.problem(p.op.Call, p.op.Return, []int{p.op.ID}, "generation %d was accepted from request %q, and is that of %q", p.number, p.request, kept.request)
		}
	}
	numbers := sorted(digests.seen)
	for i := 1; i < len(numbers); i++ {
		if a, b := digests.seen[numbers[i-1]], digests.seen[numbers[i]]; a.revision >= b.revision && b.revision != 0 {
			v.problem(0, 0, nil, "generation %d is of revision %d, and generation %d of %d", numbers[i-1], a.revision, numbers[i], b.revision)
		}
	}
}
