package model

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// topologies are one key: the generations.
func topologies() noun {
	return noun{
		name: "topology", read: readTopology, own: swaps,
		begin: func(_ string, _ []*call, h *facts) (*fsm.State, error) {
			s := fsm.New()
			return s, must(s, members(h.members))
		},
		number: func(s *fsm.State) uint64 { return s.CurrentGeneration().GetNumber() },
		// A rollback may reach back to any generation, so the view is of all that were published, in their order.
		view: func(before string, s *fsm.State, accepted *logv1.Command) string {
			if accepted == nil {
				return before
			}
			sum := sha256.Sum256([]byte(before + s.CurrentGeneration().GetDigest()))
			return hex.EncodeToString(sum[:8])
		},
	}
}

func readTopology(op *history.Op, _ string) (*call, error) {
	answer := &quoratev1.PublishTopologyResponse{} // A rollback's and a get's have the generation in the same field.
	made := func(o *logv1.Outcome) bool {
		g := o.GetGenerationPublished()
		return g.GetNumber() == answer.GetGeneration().GetNumber() && g.GetDigest() == answer.GetGeneration().GetDigest()
	}
	// What the state of leases and serving rights forbids is looked at last.
	elsewhere := []string{fsm.ReasonApplyInProgress, fsm.ReasonServingHeld, fsm.ReasonUnknownMember}
	switch op.Kind {
	case "publish":
		r := &quoratev1.PublishTopologyRequest{}
		if err := decode(op, r, answer); err != nil {
			return nil, err
		}
		c := write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
			ExpectedGeneration: r.GetExpectedGeneration(), Topology: r.GetTopology(), Force: r.GetForce(),
		}}}, made, elsewhere...)
		c.number, c.expected = answer.GetGeneration().GetNumber(), r.GetExpectedGeneration()
		return c, nil
	case "rollback":
		r := &quoratev1.RollbackTopologyRequest{}
		if err := decode(op, r, answer); err != nil {
			return nil, err
		}
		c := write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_RollbackTopology{RollbackTopology: &logv1.RollbackTopology{
			ExpectedGeneration: r.GetExpectedGeneration(), To: r.GetTo(),
		}}}, made, elsewhere...)
		c.number, c.expected = answer.GetGeneration().GetNumber(), r.GetExpectedGeneration()
		return c, nil
	case "get":
		return readGeneration(op, answer)
	case "history":
		return readGenerations(op)
	}
	return nil, nil
}

// readGeneration is a look at one generation, 0 being the one in force.
func readGeneration(op *history.Op, answer *quoratev1.PublishTopologyResponse) (*call, error) {
	r := &quoratev1.GetTopologyRequest{}
	c := newCall(op, false)
	if err := decode(op, r, answer); err != nil || c == nil || !linearizable(r.GetRead()) {
		return nil, err
	}
	if op.Outcome != history.OK {
		c.look = func(s *fsm.State) bool {
			_, refusal := s.WholeGeneration(r.GetGeneration())
			return refusal.GetReason() == reason(op)
		}
		return c, nil
	}
	want := answer.GetGeneration()
	if r.GetGeneration() == 0 {
		c.value, c.number = fmt.Sprint("get", want.GetNumber(), want.GetDigest()), want.GetNumber()
	}
	c.look = func(s *fsm.State) bool {
		got, refusal := s.WholeGeneration(r.GetGeneration())
		return refusal == nil && got.GetNumber() == want.GetNumber() && got.GetDigest() == want.GetDigest()
	}
	return c, nil
}

// readGenerations is a look at the newest generations.
func readGenerations(op *history.Op) (*call, error) {
	r, answer := &quoratev1.ListGenerationsRequest{}, &quoratev1.ListGenerationsResponse{}
	c := newCall(op, false)
	if err := decode(op, r, answer); err != nil || c == nil || !linearizable(r.GetRead()) || op.Outcome != history.OK {
		return nil, err
	}
	want := answer.GetGenerations()
	if r.GetBefore() == 0 && len(want) > 0 {
		text := "history"
		for _, g := range want {
			text += fmt.Sprint(" ", g.GetNumber(), g.GetDigest())
		}
		c.value, c.number = text, want[0].GetNumber()
	}
	limit := cmp.Or(int(r.GetLimit()), len(want))
	c.look = func(s *fsm.State) bool {
		return slices.EqualFunc(s.Generations(r.GetBefore(), limit), want, func(a, b *quoratev1.Generation) bool {
			return a.GetNumber() == b.GetNumber() && a.GetDigest() == b.GetDigest()
		})
	}
	return c, nil
}

// swaps are the generations that the group itself published, to swap the roles of a set.
func swaps(_ string, h *facts) []*call {
	var calls []*call
	for _, number := range sortedKeys(h.swaps) {
		s := h.swaps[number]
		from, to := h.when(s.generation.GetRevision())
		c := &call{
			from: from, to: max(from, min(to, s.seen)), number: number, expected: number - 1,
			command: &logv1.Command{RequestId: fmt.Sprintf("swap to %d", number), Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
				ExpectedGeneration: number - 1, Topology: s.generation.GetTopology(),
			}}},
			fits: func(o *logv1.Outcome) bool {
				g := o.GetGenerationPublished()
				return g.GetNumber() == number && g.GetDigest() == s.generation.GetDigest()
			},
		}
		c.op = &history.Op{ID: -1, Noun: "topology", Kind: "swap", Key: "topology", Outcome: history.OK, Call: c.from, Return: c.to}
		calls = append(calls, c)
	}
	return calls
}
