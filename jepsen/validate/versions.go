package validate

import (
	"encoding/json"
	"slices"
	"time"

	"quorate/jepsen/history"
)

// skew is a time in which the group was known to take a member for one of the former version.
type skew struct {
	Kind    string        `json:"kind"`
	Members []string      `json:"members"`
	Effect  string        `json:"effect"`
	Seen    time.Duration `json:"seen"`
	Healing time.Duration `json:"healing"`
}

// newest are the operations that the former version doesn't know.
var newest = map[string][]string{
	"partition": {"create", "set_placement", "delete", "begin", "cutover", "complete", "abort"},
	"settings":  {"set"},
}

// judgeVersions finds commands that took effect while some member is said not to know them: it would have to stop when it meets one in the log.
func judgeVersions(r *record, v *Verdict) {
	for _, m := range r.Marks {
		var s skew
		if m.Kind != "fault" || json.Unmarshal(m.Data, &s) != nil || s.Kind != "version-skew" || s.Effect == "" {
			continue
		}
		for i := range r.Ops {
			op := &r.Ops[i]
			if op.Call < s.Seen || op.Return > s.Healing || !slices.Contains(newest[op.Noun], op.Kind) || op.Outcome == history.Unknown {
				continue
			}
			if v.Checked++; op.Outcome == history.OK {
				v.problem(op.Call, op.Return, []int{op.ID}, "%s %s of %s by %s took effect while %s was known not to know it", op.Noun, op.Kind, op.Key, op.Client, s.Members)
			}
		}
	}
}
