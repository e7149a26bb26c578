package validate

import (
	"fmt"
	"slices"
	"time"

	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// abandonSlack is how much later than its deadline a lease may be closed in cluster time: the leader looks by pulses, and an election may come between.
const abandonSlack = 30 * time.Second

// applies is check 3.
func applies() check {
	return check{
		name: "applies", claim: "At most one server of a set is mid-apply, under at most one lease for each key; abandoned leases close at ApplyMaxDuration, and no earlier.",
		needs: []string{"lease", "topology"},
		judge: func(r *record, v *Verdict) {
			r.judgeLeaseEvents(v)
			r.judgeLeaseLists(v)
			r.judgeHeld(v)
		},
	}
}

func keyText(k *quoratev1.LeaseKey) string {
	return fmt.Sprintf("%s/%d/%s", k.GetServer(), k.GetGeneration(), k.GetPublishRequestId())
}

// openLease is a lease in the log.
type openLease struct {
	set, server string
	seen        *sighting
}

// judgeLeaseEvents follows the log: its events have every beginning and end of a lease.
func (r *record) judgeLeaseEvents(v *Verdict) {
	open := map[string]openLease{}
	for _, s := range r.events {
		if began := s.GetLeaseBegun(); began != nil {
			v.Checked++
			key := keyText(began.GetKey())
			if _, twice := open[key]; twice {
				v.problem(s.at, s.at, nil, "the lease %s began twice, the second time at revision %d", key, s.GetRevision())
			}
			for _, other := range sorted(open) {
				if o := open[other]; o.set == began.GetSet() && o.server != began.GetKey().GetServer() {
					v.problem(o.seen.at, s.at, nil, "set %s: %s began at revision %d while %s, of revision %d, was open", o.set, key, s.GetRevision(), other, o.seen.GetRevision())
				}
			}
			open[key] = openLease{began.GetSet(), began.GetKey().GetServer(), s}
			continue
		}
		ended, abandoned := s.GetLeaseEnded(), s.GetLeaseAbandoned()
		if ended != nil {
			v.Checked++
			delete(open, keyText(ended.GetKey()))
		}
		if abandoned != nil {
			v.Checked++
			delete(open, keyText(abandoned.GetKey()))
			r.judgeAbandoned(v, s, abandoned)
		}
	}
}

// judgeAbandoned compares how long an abandoned lease was open with how long it may be: by cluster time and by ours.
func (r *record) judgeAbandoned(v *Verdict, s *sighting, l *quoratev1.ApplyLease) {
	lasted := l.GetEnded().AsDuration() - l.GetBegun().AsDuration()
	if lasted < r.run.ApplyMax || lasted > r.run.ApplyMax+abandonSlack {
		v.problem(s.at, s.at, nil, "the lease %s was abandoned after %v of cluster time, not after %v", keyText(l.GetKey()), lasted, r.run.ApplyMax)
	}
	for i := range r.Ops {
		op := &r.Ops[i]
		if op.Noun != "lease" || op.Kind != "begin" || op.Outcome != history.OK {
			continue
		}
		answer := &quoratev1.BeginLeaseResponse{}
		if v.answered(op, answer) && keyText(answer.GetLease().GetKey()) == keyText(l.GetKey()) && answer.GetLease().GetWindows() == 1 && s.at-op.Call < r.run.ApplyMax {
			v.problem(op.Call, s.at, []int{op.ID}, "the lease %s was abandoned %v after it was asked for", keyText(l.GetKey()), s.at-op.Call)
		}
	}
}

// judgeLeaseLists looks at every list of leases, however stale it may be: no state that ever was has two servers of a set mid-apply.
func (r *record) judgeLeaseLists(v *Verdict) {
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.ListLeasesResponse{}
		if op.Noun != "lease" || op.Kind != "list" || !v.answered(op, answer) {
			continue
		}
		v.Checked++
		servers := map[string]string{}
		for _, l := range answer.GetLeases() {
			if l.GetState() != quoratev1.LeaseState_LEASE_STATE_OPEN {
				continue
			}
			if other := servers[l.GetSet()]; other != "" && other != l.GetKey().GetServer() {
				v.problem(op.Call, op.Return, []int{op.ID}, "set %s: %s and %s are both mid-apply", l.GetSet(), other, l.GetKey().GetServer())
			}
			servers[l.GetSet()] = l.GetKey().GetServer()
			if r.run.ApplyMax > 0 && answer.GetHeader().GetClusterTime().AsDuration()-l.GetBegun().AsDuration() > r.run.ApplyMax+abandonSlack {
				v.problem(op.Call, op.Return, []int{op.ID}, "the lease %s is open since %v, and it is %v of cluster time", keyText(l.GetKey()), l.GetBegun().AsDuration(), answer.GetHeader().GetClusterTime().AsDuration())
			}
		}
	}
}

// hold is a stretch of time, by our clock, in which a client certainly held a lease.
type hold struct {
	set, server, key string
	from, until      time.Duration
	op               int
}

// judgeHeld compares the stretches in which clients certainly held leases: from the return of a begin to the first call of any end.
func (r *record) judgeHeld(v *Verdict) {
	ends := map[string][]time.Duration{}
	for i := range r.Ops {
		if op := &r.Ops[i]; op.Noun == "lease" && op.Kind == "end" {
			request := &quoratev1.EndLeaseRequest{}
			if decode(op.Input, request) == nil {
				ends[request.GetServer()] = append(ends[request.GetServer()], op.Call)
			}
		}
	}
	for _, s := range r.events {
		if l := s.GetLeaseAbandoned(); l != nil {
			ends[l.GetKey().GetServer()] = append(ends[l.GetKey().GetServer()], 0) // When it closed isn't known; nothing of this server's is certain.
		}
	}
	for server := range ends {
		slices.Sort(ends[server])
	}
	var holds []hold
	for i := range r.Ops {
		op := &r.Ops[i]
		answer := &quoratev1.BeginLeaseResponse{}
		if op.Noun != "lease" || op.Kind != "begin" || !v.answered(op, answer) {
			continue
		}
		l := answer.GetLease()
		of := ends[l.GetKey().GetServer()]
		if len(of) > 0 && of[0] == 0 {
			continue
		}
		// An end that was called before our begin returned may be the one that closes it.
		next, _ := slices.BinarySearch(of, op.Call)
		if next == len(of) || of[next] <= op.Return {
			continue
		}
		holds = append(holds, hold{l.GetSet(), l.GetKey().GetServer(), keyText(l.GetKey()), op.Return, of[next], op.ID})
	}
	slices.SortFunc(holds, func(a, b hold) int { return int(a.from - b.from) })
	for i, a := range holds {
		v.Checked++
		for _, b := range holds[i+1:] {
			if b.from >= a.until {
				break
			}
			if a.set == b.set && a.server != b.server {
				v.problem(b.from, min(a.until, b.until), []int{a.op, b.op}, "set %s: %s and %s were held at once", a.set, a.key, b.key)
			}
		}
	}
}
