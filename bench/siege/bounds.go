package main

import (
	"context"
	"fmt"
	"log"
	"time"
)

// The bounds of issue 3, and those that keep them honest.
const (
	// readBound is the p99 of another client's reads.
	readBound = 50 * time.Millisecond
	// newcomerBound is how long a new client may wait until it has a session, at most.
	newcomerBound = 5 * time.Second
	// memoryBound is what a member may take, in MB, however it is attacked.
	memoryBound = 600
	// spareFiles are files that a member may have more than before an attack: probes of its peers come and go.
	spareFiles = 12
	// noise is by how much a bound moves where the control run says that the machine itself does not keep it.
	noise = 3
)

// broken says which bounds did not hold. Where the machine does not keep one while nobody attacks, what it keeps then, times noise,
// is the bound.
func (o *outcome) broken() (list []string) {
	say := func(format string, args ...any) {
		list = append(list, fmt.Sprintf("%s on the %s: ", o.attack, o.role)+fmt.Sprintf(format, args...))
	}
	atMost := func(what string, got, bound, control time.Duration) {
		if got > max(bound, noise*control) {
			say("%s %v, at most %v; %v in the control run", what, got, max(bound, noise*control), control)
		}
	}
	atMost("reads have a p99 of", o.during.reads.at(99), readBound, max(o.control.reads.at(99), o.during.reference.at(99)))
	for _, n := range []struct {
		kind            string
		during, control newcomers
	}{{"without security", o.during.plain, o.control.plain}, {"with security", o.during.secure, o.control.secure}} {
		if n.during.failures > 0 {
			say("%d new clients %s were not let in: %v", n.during.failures, n.kind, n.during.last)
		}
		if len(n.during.all) == 0 {
			say("no new client %s got in", n.kind)
		}
		atMost("a new client "+n.kind+" waits", n.during.most(), newcomerBound, n.control.most())
	}
	// A pause between heartbeats is longer by as much as the machine leaves everybody standing.
	atMost("heartbeats pause for", o.during.beats.most, missedAfter, max(o.control.beats.most, o.during.reference.most()))
	if before, after := o.leading, o.during.beats.after; before != after {
		say("the leader was %s in term %d, and now is %s in term %d", before.member, before.term, after.member, after.term)
	}
	if o.most.rss > memoryBound {
		say("it takes %.0f MB, at most %d", o.most.rss, memoryBound)
	}
	if o.after.files > o.before.files+spareFiles {
		say("it has %d open files %v afterwards, %d before", o.after.files, o.settled, o.before.files)
	}
	return list
}

// tries is how often an attack has to break bounds in a row until it counts. A machine that has too much to do breaks them now and
// then by itself; the server's own faults are there each time.
const tries = 3

// attack runs an attack on a member until no bound is broken, or until it was tried often enough.
func (s *siege) attack(ctx context.Context, name, role string, d, control time.Duration) (o outcome, broken []string, err error) {
	for range tries {
		if o, err = s.attackOnce(ctx, name, role, d, control); err != nil {
			return o, nil, err
		}
		if broken = o.broken(); len(broken) == 0 {
			break
		}
		for _, b := range broken {
			log.Print("broken: ", b)
		}
	}
	return o, broken, nil
}

// print prints results as lines of name, value and unit.
func (o *outcome) print() {
	result := func(name string, value float64, unit string) {
		fmt.Printf("RESULT siege_%s_%s_%s %.2f %s\n", o.attack, o.role, name, value, unit)
	}
	ms := func(name string, d time.Duration) { result(name, float64(d.Microseconds())/1000, "ms") }
	ms("read_p50", o.during.reads.at(50))
	ms("read_p99", o.during.reads.at(99))
	ms("read_max", o.during.reads.most())
	ms("reference_p99", o.during.reference.at(99))
	ms("control_read_p99", o.control.reads.at(99))
	ms("connect_p50", o.during.plain.at(50))
	ms("connect_max", o.during.plain.most())
	ms("secure_connect_p50", o.during.secure.at(50))
	ms("secure_connect_max", o.during.secure.most())
	ms("control_secure_connect_max", o.control.secure.most())
	ms("reference_max", o.during.reference.most())
	ms("heartbeat_pause_max", o.during.beats.most)
	ms("control_heartbeat_pause_max", o.control.beats.most)
	result("heartbeats_missed", float64(o.during.beats.missed), "1")
	result("rss_before", o.before.rss, "MB")
	result("rss_max", o.most.rss, "MB")
	result("rss_after", o.after.rss, "MB")
	result("files_max", float64(o.most.files), "1")
	result("server_cores", o.serverCores, "cores")
	result("attacker_cores", o.attackerCores, "cores")
	result("rounds", float64(o.report.Rounds), "1")
	result("refused", float64(o.report.Failures), "1")
}
