package validate

import (
	"encoding/json"
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// durability is check 7.
func durability() check {
	return check{
		name: "durability", claim: "Every acknowledged write is there after all faults, and members have equal digests at equal index.",
		needs: []string{"member"},
		judge: func(r *record, v *Verdict) {
			judgeDigests(v, r)
			judgeKeptGenerations(v, r)
			judgeKeptPartitions(v, r)
			judgeKeptLeases(v, r)
			judgeRevisions(v, r)
		},
	}
}

// final returns the last reads.
func (r *record) final(noun, kind string) []*history.Op {
	var found []*history.Op
	for i := range r.Ops {
		if op := &r.Ops[i]; op.Client == "final" && op.Noun == noun && op.Kind == kind && op.Outcome == history.OK {
			found = append(found, op)
		}
	}
	return found
}

// judgeDigests compares the digests of the whole state.
func judgeDigests(v *Verdict, r *record) {
	type known struct {
		digest, member string
		op             *history.Op
	}
	at := map[uint64]known{}
	pairs := 0
	for i := range r.Ops {
		op := &r.Ops[i]
		if op.Noun != "digest" || op.Outcome != history.OK {
			continue
		}
		var out struct {
			Index  json.RawMessage `json:"index"`
			Digest string          `json:"digest"`
		}
		if err := json.Unmarshal(op.Output, &out); err != nil {
			v.problem(op.Call, op.Return, []int{op.ID}, "operation %d can't be read: %v", op.ID, err)
			continue
		}
		index := number(out.Index)
		if index == 0 || out.Digest == "" {
			continue
		}
		before, ok := at[index]
		if !ok {
			at[index] = known{out.Digest, op.Key, op}
			continue
		}
		if before.member == op.Key && before.digest == out.Digest {
			continue // The same member says the same again, which proves nothing.
		}
		v.Checked++
		pairs++
		if before.digest != out.Digest {
			v.problem(before.op.Call, op.Return, []int{before.op.ID, op.ID}, "at index %d %s has digest %s, and %s has %s", index, op.Key, out.Digest, before.member, before.digest)
		}
	}
	if pairs == 0 {
		v.Undecided = append(v.Undecided, "no two members were seen with a digest of the same index")
	}
}

// judgeKeptGenerations says whether the last history has what was accepted.
func judgeKeptGenerations(v *Verdict, r *record) {
	kept := map[uint64]*quoratev1.Generation{}
	oldest, newest := uint64(0), uint64(0)
	for _, op := range r.final("topology", "history") {
		answer := &quoratev1.ListGenerationsResponse{}
		if !v.answered(op, answer) {
			continue
		}
		for _, g := range answer.GetGenerations() {
			kept[g.GetNumber()] = g
			newest = max(newest, g.GetNumber())
			if oldest == 0 || g.GetNumber() < oldest {
				oldest = g.GetNumber()
			}
		}
	}
	if len(kept) == 0 {
		return
	}
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.PublishTopologyResponse{}
		if op.Noun != "topology" || op.Kind != "publish" && op.Kind != "rollback" || !v.answered(op, answer) {
			continue
		}
		g := answer.GetGeneration()
		if g.GetNumber() < oldest {
			continue // The last history doesn't go so far back.
		}
		v.Checked++
		if k := kept[g.GetNumber()]; k == nil || k.GetDigest() != g.GetDigest() || k.GetPublishRequestId() != g.GetPublishRequestId() {
			v.problem(op.Call, op.Return, []int{op.ID}, "generation %d, which was acknowledged, is lost: the last history, up to %d, has it as %v", g.GetNumber(), newest, k.GetPublishRequestId())
		}
	}
}

// judgeKeptPartitions says whether each partition is at least at the highest epoch that was acknowledged.
func judgeKeptPartitions(v *Verdict, r *record) {
	last := map[string]*quoratev1.Partition{}
	for _, op := range r.final("partition", "get") {
		answer := &quoratev1.GetPartitionResponse{}
		if v.answered(op, answer) {
			last[op.Key] = answer.GetPartition()
		}
	}
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.AbortMigrationResponse{}
		if op.Noun != "partition" || op.Client == "final" || last[op.Key] == nil {
			continue
		}
		switch op.Kind {
		case "set_placement", "begin", "cutover", "complete", "abort":
		default:
			continue
		}
		if !v.answered(op, answer) {
			continue
		}
		v.Checked++
		p, l := answer.GetPartition(), last[op.Key]
		if l.GetEpoch() < p.GetEpoch() || l.GetEpoch() == p.GetEpoch() && (l.GetPlacement() != p.GetPlacement() || l.GetPhase() != p.GetPhase()) {
			v.problem(op.Call, op.Return, []int{op.ID}, "%s: epoch %d, %v at %s, was acknowledged, and is lost: the last read has epoch %d, %v at %s",
				op.Key, p.GetEpoch(), p.GetPhase(), p.GetPlacement(), l.GetEpoch(), l.GetPhase(), l.GetPlacement())
		}
	}
}

// judgeKeptLeases says whether the last list has the newest lease of each server that was acknowledged as begun: open, or among the ended ones.
func judgeKeptLeases(v *Verdict, r *record) {
	listed := map[string]bool{}
	lists := r.final("lease", "list")
	for _, op := range lists {
		answer := &quoratev1.ListLeasesResponse{}
		if v.answered(op, answer) {
			for _, l := range answer.GetLeases() {
				listed[keyText(l.GetKey())] = true
			}
		}
	}
	if len(lists) == 0 {
		return
	}
	type begun struct {
		key  string
		op   *history.Op
		when time.Duration
	}
	newest := map[string]begun{}
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.BeginLeaseResponse{}
		if op.Noun != "lease" || op.Kind != "begin" || !v.answered(op, answer) {
			continue
		}
		l := answer.GetLease()
		if when := l.GetBegun().AsDuration(); when >= newest[l.GetKey().GetServer()].when {
			newest[l.GetKey().GetServer()] = begun{keyText(l.GetKey()), op, when}
		}
	}
	for _, server := range sorted(newest) {
		v.Checked++
		if b := newest[server]; !listed[b.key] {
			v.problem(b.op.Call, b.op.Return, []int{b.op.ID}, "the lease %s was acknowledged, and is lost", b.key)
		}
	}
}

// judgeRevisions says whether what was acknowledged at a revision is what the log has there now, as watches were told.
func judgeRevisions(v *Verdict, r *record) {
	requests := map[uint64]map[string]bool{}
	for _, s := range r.events {
		if requests[s.GetRevision()] == nil {
			requests[s.GetRevision()] = map[string]bool{}
		}
		requests[s.GetRevision()][s.GetRequestId()] = true
	}
	for i := range r.Ops {
		op := &r.Ops[i]
		revision, request := changed(v, op)
		if revision == 0 || requests[revision] == nil {
			continue
		}
		v.Checked++
		if !requests[revision][request] {
			v.problem(op.Call, op.Return, []int{op.ID}, "%s of %s was acknowledged at revision %d, where the log has something else", op.Kind, op.Key, revision)
		}
	}
}
