package fsm

import (
	"cmp"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// leases holds the apply leases (redundancy.md §6). An open lease has one or more windows: nested and concurrent applies
// under one key. A server may hold leases of several keys at once, but at most one server of a set holds any. A lease counts for
// the set that its server was in when it began as well as for the one that it is in now, so that moving a server by a publish
// frees neither.
type leases struct {
	open      tree.Map[leaseKey, *quoratev1.ApplyLease]
	deadlines tree.Map[leaseDeadline, struct{}] // Of the open leases.
	ended     tree.Map[endedLease, *quoratev1.ApplyLease]
}

// leaseKey is LeaseKey, ordered by server first.
type leaseKey struct {
	server     string
	generation uint64
	publish    string
}

type leaseDeadline struct {
	at  time.Duration
	key leaseKey
}

// endedLease numbers the ended leases of a server in the order in which they ended. A restore numbers them anew, so the number
// is in no digest.
type endedLease struct {
	server string
	number uint64
}

func (k leaseKey) compare(l leaseKey) int {
	return cmp.Or(strings.Compare(k.server, l.server), cmp.Compare(k.generation, l.generation), strings.Compare(k.publish, l.publish))
}

func (d leaseDeadline) compare(e leaseDeadline) int {
	return cmp.Or(cmp.Compare(d.at, e.at), d.key.compare(e.key))
}

func (e endedLease) compare(f endedLease) int {
	return cmp.Or(strings.Compare(e.server, f.server), cmp.Compare(e.number, f.number))
}

func newLeases() leases {
	return leases{
		open:      tree.New[leaseKey, *quoratev1.ApplyLease](leaseKey.compare),
		deadlines: tree.New[leaseDeadline, struct{}](leaseDeadline.compare),
		ended:     tree.New[endedLease, *quoratev1.ApplyLease](endedLease.compare),
	}
}

func (l *leases) snapshot() leases {
	return leases{open: l.open.Snapshot(), deadlines: l.deadlines.Snapshot(), ended: l.ended.Snapshot()}
}

func keyOf(l *quoratev1.ApplyLease) leaseKey {
	return leaseKey{server: l.GetKey().GetServer(), generation: l.GetKey().GetGeneration(), publish: l.GetKey().GetPublishRequestId()}
}

func deadlineOf(l *quoratev1.ApplyLease) leaseDeadline {
	return leaseDeadline{at: l.GetDeadline().AsDuration(), key: keyOf(l)}
}

// beginLease opens a lease, or one more window of one that is open. A window does not move the deadline: the watchdog counts from
// the first.
func (a *application) beginLease(c *logv1.BeginLease) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(
		checkText("server", c.GetServer(), MaxIDBytes),
		checkText("publish_request_id", c.GetPublishRequestId(), MaxRequestIDBytes),
		checkText("reason", c.GetReason(), MaxTextBytes),
	); r != nil {
		return nil, r
	}
	if r := a.checkGenerationCurrent(c.GetGeneration()); r != nil {
		return nil, r
	}
	set, _, ok := a.Server(c.GetServer())
	if !ok {
		return nil, a.unknownServer(c.GetServer())
	}
	key := leaseKey{server: c.GetServer(), generation: a.generationNumber(), publish: c.GetPublishRequestId()}
	if key.publish == "" {
		key.publish = a.CurrentGeneration().GetPublishRequestId()
	}
	if open, ok := a.leases.open.Get(key); ok {
		return a.openWindow(key, open, false)
	}
	return a.openLease(key, set.GetId(), c.GetReason(), false)
}

// openLease opens a lease with its first window, unless another server of the set is mid-apply.
func (a *application) openLease(key leaseKey, set, reason string, rollout bool) (*logv1.Outcome, *Refusal) {
	if r := a.checkMayOpen(set, key.server); r != nil {
		return nil, r
	}
	lease := &quoratev1.ApplyLease{
		Key:      &quoratev1.LeaseKey{Generation: key.generation, PublishRequestId: key.publish, Server: key.server},
		State:    quoratev1.LeaseState_LEASE_STATE_OPEN,
		Windows:  1,
		Actor:    a.actor(),
		Reason:   reason,
		Begun:    durationpb.New(a.clock.now),
		BegunAt:  a.wallTime(),
		Deadline: durationpb.New(a.clock.now + ApplyMaxDuration),
		Set:      set,
		Rollout:  rollout,
	}
	a.leases.open.Set(key, lease)
	a.leases.deadlines.Set(deadlineOf(lease), struct{}{})
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_LeaseBegun{LeaseBegun: lease}})
	return leased(lease), nil
}

// checkGenerationCurrent refuses any generation but the current one; 0 means the current one. A new window of an older
// generation is refused even where its lease is still open: what arrives with a lower generation is dropped.
func (a *application) checkGenerationCurrent(generation uint64) *Refusal {
	switch current := a.generationNumber(); {
	case generation == 0 || generation == current:
		return nil
	case generation > current:
		return a.wrongGeneration(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownGeneration, "generation",
			"there is no generation %d, the current one is %d", generation, current)
	default:
		return a.wrongGeneration(logv1.Kind_KIND_PRECONDITION, ReasonStaleGeneration, "generation",
			"generation %d is no longer current, %d is", generation, current)
	}
}

func (s *State) unknownServer(server string) *Refusal {
	return refuse(logv1.Kind_KIND_NOT_FOUND, ReasonUnknownServer, "server",
		"no server of the current topology is called %s", quote(server))
}

// openWindow counts one more window. It is no event: the server is mid-apply before and after. The lease keeps the reason of
// its first window, which is why it is open.
func (a *application) openWindow(key leaseKey, open *quoratev1.ApplyLease, rollout bool) (*logv1.Outcome, *Refusal) {
	if open.GetWindows() >= MaxLeaseWindows {
		return nil, refuse(logv1.Kind_KIND_EXHAUSTED, ReasonTooManyWindows, "",
			"the lease of server %s has %d windows open, and more are not allowed", key.server, open.GetWindows())
	}
	lease := proto.CloneOf(open)
	lease.Windows++
	lease.Rollout = lease.GetRollout() || rollout
	a.leases.open.Set(key, lease)
	return leased(lease), nil
}

// checkMayOpen refuses a lease while another server of the set is mid-apply, or where the server holds too many.
func (a *application) checkMayOpen(set, server string) *Refusal {
	first, second := a.midApplyIn(set, a.setOf)
	for _, other := range []string{first, second} {
		if other != "" && other != server {
			return refuse(logv1.Kind_KIND_PRECONDITION, ReasonApplyInProgress, "server",
				"server %s of set %s is mid-apply, and only one server of a set may be", other, set).
				with("server", other)
		}
	}
	if n := len(a.openLeases(server)); n >= MaxOpenLeases {
		return refuse(logv1.Kind_KIND_EXHAUSTED, ReasonTooManyLeases, "server",
			"server %s holds %d apply leases, and more are not allowed", server, n)
	}
	return nil
}

// endLease closes one window; the lease ends with its last.
func (a *application) endLease(c *logv1.EndLease) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(
		checkText("server", c.GetServer(), MaxIDBytes),
		checkText("publish_request_id", c.GetPublishRequestId(), MaxRequestIDBytes),
		checkText("outcome", c.GetOutcome(), MaxTextBytes),
	); r != nil {
		return nil, r
	}
	open, r := a.findOpen(c)
	if r != nil {
		return nil, r
	}
	lease := a.endWindow(open, cmp.Or(c.GetOutcome(), "ok"))
	if lease.GetWindows() == 0 {
		a.loseApply(keyOf(lease), applyCut)
	}
	return leased(lease), nil
}

// endWindow closes one window of a lease, and with the last the lease.
func (a *application) endWindow(open *quoratev1.ApplyLease, outcome string) *quoratev1.ApplyLease {
	lease := proto.CloneOf(open)
	if lease.Windows--; lease.Windows > 0 {
		a.leases.open.Set(keyOf(lease), lease)
		return lease
	}
	lease.State = quoratev1.LeaseState_LEASE_STATE_ENDED
	lease.Outcome = outcome
	a.closeLease(lease)
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_LeaseEnded{LeaseEnded: lease}})
	return lease
}

// findOpen returns the open lease that a command means. Generation 0 means that of the server's only open lease; an empty
// publish request id means the only one of the generation, or else that of the generation's own publish.
func (a *application) findOpen(c *logv1.EndLease) (*quoratev1.ApplyLease, *Refusal) {
	var found []*quoratev1.ApplyLease
	for _, l := range a.openLeases(c.GetServer()) {
		key := keyOf(l)
		if (c.GetGeneration() == 0 || c.GetGeneration() == key.generation) &&
			(c.GetPublishRequestId() == "" || c.GetPublishRequestId() == key.publish) {
			found = append(found, l)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) == 0 {
		return nil, refuse(logv1.Kind_KIND_PRECONDITION, ReasonLeaseNotOpen, "server",
			"server %s holds no such apply lease: it may have ended, or the watchdog has closed it", quote(c.GetServer()))
	}
	if g, ok := a.Generation(c.GetGeneration()); ok && c.GetPublishRequestId() == "" {
		key := leaseKey{server: c.GetServer(), generation: g.GetNumber(), publish: g.GetPublishRequestId()}
		if l, ok := a.leases.open.Get(key); ok {
			return l, nil
		}
	}
	return nil, invalid(ReasonLeaseAmbiguous, "generation",
		"server %s holds %d such apply leases: give generation and publish_request_id", quote(c.GetServer()), len(found))
}

// abandonLeases is the watchdog: it closes every lease whose deadline has come.
func (a *application) abandonLeases() {
	for {
		due, _, ok := a.leases.deadlines.First()
		if !ok || due.at > a.clock.now {
			return
		}
		open, _ := a.leases.open.Get(due.key)
		lease := proto.CloneOf(open)
		lease.State = quoratev1.LeaseState_LEASE_STATE_ABANDONED
		a.closeLease(lease)
		a.emit(&quoratev1.Event{Body: &quoratev1.Event_LeaseAbandoned{LeaseAbandoned: lease}})
		a.loseApply(due.key, applyAbandoned)
	}
}

// closeLease moves a lease from the open to the ended ones, of which each member keeps the last MaxEndedLeases. Those of a
// server whose member has left the group are not kept, or servers that come and go would add up.
func (a *application) closeLease(lease *quoratev1.ApplyLease) {
	lease.Windows, lease.Rollout = 0, false
	lease.Ended = durationpb.New(a.clock.now)
	a.leases.open.Delete(keyOf(lease))
	a.leases.deadlines.Delete(deadlineOf(lease))
	if _, ok := a.Member(lease.GetKey().GetServer()); ok {
		a.leases.keepEnded(lease)
	}
}

func (l *leases) keepEnded(lease *quoratev1.ApplyLease) {
	server := lease.GetKey().GetServer()
	kept := l.endedOf(server)
	next := endedLease{server: server}
	if n := len(kept); n > 0 {
		next.number = kept[n-1].number + 1
	}
	l.ended.Set(next, lease)
	if len(kept) >= MaxEndedLeases {
		l.ended.Delete(kept[0])
	}
}

// forgetEnded drops the ended leases of a server.
func (l *leases) forgetEnded(server string) {
	for _, key := range l.endedOf(server) {
		l.ended.Delete(key)
	}
}

// endedOf returns the keys of the ended leases of a server, oldest first.
func (l *leases) endedOf(server string) []endedLease {
	var keys []endedLease
	for key := range l.ended.From(endedLease{server: server}) {
		if key.server != server {
			break
		}
		keys = append(keys, key)
	}
	return keys
}

// Leases returns the open apply leases of a server, or of all servers if it is empty, in order of their keys; then, on
// request, the last MaxEndedLeases of each that ended, oldest first.
func (s *State) Leases(server string, includeEnded bool) []*quoratev1.ApplyLease {
	var found []*quoratev1.ApplyLease
	for key, l := range s.leases.open.From(leaseKey{server: server}) {
		if server != "" && key.server != server {
			break
		}
		found = append(found, l)
	}
	if !includeEnded {
		return found
	}
	for key, l := range s.leases.ended.From(endedLease{server: server}) {
		if server != "" && key.server != server {
			break
		}
		found = append(found, l)
	}
	return found
}

// MidApply says whether a server holds an open apply lease.
func (s *State) MidApply(server string) bool { return len(s.openLeases(server)) > 0 }

// openLeases returns the open leases of one server; no server has an empty name.
func (s *State) openLeases(server string) []*quoratev1.ApplyLease {
	if server == "" {
		return nil
	}
	return s.Leases(server, false)
}

// midApplyIn returns the servers that keep a set mid-apply, at most two: those with an open lease that began in the set, or
// that are in it now by setOf.
func (s *State) midApplyIn(set string, setOf func(server string) string) (first, second string) {
	for key, l := range s.leases.open.All() {
		if l.GetSet() != set && setOf(key.server) != set || key.server == first {
			continue
		}
		if first != "" {
			return first, key.server
		}
		first = key.server
	}
	return first, ""
}

// nextDeadline returns when the watchdog has to look.
func (l *leases) nextDeadline() (time.Duration, bool) {
	due, _, ok := l.deadlines.First()
	return due.at, ok
}
