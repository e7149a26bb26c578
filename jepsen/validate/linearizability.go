package validate

import (
	"fmt"
	"time"

	"quorate/jepsen/model"
)

// KeyLimit is for how long an order is looked for on one key. A key that is undecided then counts as failed.
const KeyLimit = 3 * time.Minute

// linearizability is check 1.
func linearizability() check {
	return check{
		name: "linearizability", claim: "For every key there is an order of all operations, each between its call and its return, that explains every answer.",
		needs: []string{"topology", "partition", "lease", "maintenance"},
		judge: func(r *record, v *Verdict) {
			verdicts, err := model.Check(r.History, KeyLimit)
			if err != nil {
				v.Undecided = append(v.Undecided, err.Error())
			}
			for _, k := range verdicts {
				v.Checked += k.Ops
				switch k.Result {
				case model.Broken:
					v.problem(k.From, k.Until, append([]int{k.Op.ID}, k.Around...), "%s %s: %s", k.Noun, k.Key, k.Text)
				case model.Undecided:
					v.Undecided = append(v.Undecided, fmt.Sprintf("%s %s: %s", k.Noun, k.Key, k.Text))
				}
			}
		},
	}
}
