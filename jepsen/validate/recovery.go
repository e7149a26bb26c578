package validate

import (
	"strings"
	"time"

	"quorate/jepsen/history"
)

// RecoveryLimit is how long after the last fault everything must work again (chaos.md, check 9).
const RecoveryLimit = 10 * time.Second

// recovery is check 9.
func recovery() check {
	return check{
		name: "recovery", claim: "From 10 s after the last fault has healed every operation succeeds again.",
		judge: func(r *record, v *Verdict) {
			from, until := r.quiet()
			if from == 0 {
				v.Undecided = append(v.Undecided, "the run has no quiet period")
				return
			}
			for i := range r.Ops {
				op := &r.Ops[i]
				if !strings.HasPrefix(op.Client, "quiet-") && op.Client != "final" && (op.Call < from+RecoveryLimit || until > 0 && op.Return >= until) {
					continue // What is under way when the traffic ends is cut short.
				}
				v.Checked++
				// A refusal is an answer: the rules of the state are for the other checks.
				if op.Outcome != history.OK && op.Outcome != history.Refused {
					v.problem(op.Call, max(op.Call, op.Return), []int{op.ID}, "%s %s of %s by %s at %s is %s %v after the last fault has healed: %s",
						op.Noun, op.Kind, op.Key, op.Client, op.Member, op.Outcome, op.Call-from, op.Error)
				}
			}
		},
	}
}

// quiet is when the quiet period begins, and when the traffic has ended; 0 is unknown.
func (r *record) quiet() (from, until time.Duration) {
	for _, m := range r.Marks {
		if m.Kind == "note" && m.Text == "quiet" {
			from = m.At
		}
		if m.Kind == "note" && m.Text == "final" {
			until = m.At
		}
	}
	return from, until
}
