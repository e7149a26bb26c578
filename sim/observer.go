package sim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// healthy is where the range of Healthy levels begins (OPC UA Part 4 §6.6.2.4.2).
const healthy = 200

// observeInterval is how often an Observer looks although nobody told it of a change.
const observeInterval = 3 * time.Millisecond

// Observer stands outside of the group and sees every server's level at each moment, over links that nothing disturbs.
type Observer struct {
	servers *Servers

	mu sync.Mutex
	// last is what each server said last.
	last map[string]redundancy.Level
	// changes counts how often each server's level changed, and falls how often it left the Healthy range.
	changes, falls map[string]int
	problems       []string
	// told has the pairs that were reported and have not ended.
	told  map[string]bool
	Looks int
	// dark is, for each set, since when it has no Healthy server, and gaps how long that was, each time.
	dark  map[string]time.Time
	gaps  map[string][]time.Duration
	trace func(id string, before, after redundancy.Level)
}

func newObserver(s *Servers, trace func(id string, before, after redundancy.Level)) *Observer {
	return &Observer{
		servers: s, trace: trace, last: map[string]redundancy.Level{}, changes: map[string]int{}, falls: map[string]int{}, told: map[string]bool{}, dark: map[string]time.Time{},
		gaps: map[string][]time.Duration{},
	}
}

// run looks until ctx ends.
func (o *Observer) run(ctx context.Context) {
	every := time.NewTicker(observeInterval)
	defer every.Stop()
	for {
		select {
		case <-every.C:
			o.look()
		case <-ctx.Done():
			return
		}
	}
}

// look looks at all servers that answer.
func (o *Observer) look() { o.wake("") }

// wake does so at the moment at which a paused server wakes, which answers from what it knew before.
func (o *Observer) wake(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Looks++
	now := map[string]redundancy.Level{}
	for _, member := range o.servers.world.IDs() {
		if s := o.servers.get(member); s != nil && (!s.host.paused() || member == id) {
			now[member] = s.manager.Level()
		}
	}
	o.compare(now)
}

// compare judges one moment, and what changed since the last.
func (o *Observer) compare(now map[string]redundancy.Level) {
	ids, newest := o.servers.world.IDs(), o.newest()
	standing, lit := map[string]bool{}, map[string]bool{}
	for i, a := range ids {
		la, ok := now[a]
		if !ok {
			continue
		}
		if last, known := o.last[a]; !known || last.Value != la.Value {
			o.changes[a]++
			if last.Value >= healthy && la.Value < healthy {
				o.falls[a]++
			}
			o.trace(a, last, la)
		}
		o.last[a] = la
		if la.Value < healthy {
			continue
		}
		lit[la.Set] = true
		for j, b := range ids {
			lb, ok := now[b]
			if !ok || i == j || lb.Value < healthy {
				continue
			}
			// Whoever reads a server's address space takes the servers that it names there for one set, and chooses among them. Whoever reads the topology does so
			// too, from the moment on at which it is committed.
			if la.Set != "" && la.Set == lb.Set || o.inSet(a, la, b) || o.inSet(b, lb, a) || oneSet(newest, a, b) {
				o.report(standing, a, la, b, lb)
			}
		}
	}
	o.told = standing
	o.darken(now, lit)
}

// darken keeps account of how long sets have no Healthy server.
func (o *Observer) darken(now map[string]redundancy.Level, lit map[string]bool) {
	sets := map[string]bool{}
	for _, l := range now {
		sets[l.Set] = l.Set != ""
	}
	for set := range sets {
		since, dark := o.dark[set]
		switch {
		case !lit[set] && !dark:
			o.dark[set] = time.Now()
		case lit[set] && dark:
			o.gaps[set] = append(o.gaps[set], time.Since(since))
			delete(o.dark, set)
		}
	}
}

// inSet says whether the generation that a server's level was made under puts another one into its set.
func (o *Observer) inSet(id string, l redundancy.Level, other string) bool {
	s := o.servers.get(id)
	if s == nil {
		return false
	}
	g, _ := s.host.node.Local().State.Generation(l.Generation)
	for _, set := range g.GetTopology().GetSets() {
		if set.GetId() == l.Set {
			return slices.ContainsFunc(set.GetServers(), func(r *quoratev1.RedundantServer) bool { return r.GetMember() == other })
		}
	}
	return false
}

// newest returns the newest topology that any member has applied.
func (o *Observer) newest() *quoratev1.Topology {
	var newest *quoratev1.Generation
	for _, id := range o.servers.world.IDs() {
		if n := o.servers.world.Node(id); n != nil {
			if g := n.Local().State.CurrentGeneration(); g.GetNumber() > newest.GetNumber() {
				newest = g
			}
		}
	}
	return newest.GetTopology()
}

// oneSet says whether a topology has two servers in one set.
func oneSet(t *quoratev1.Topology, a, b string) bool {
	return slices.ContainsFunc(t.GetSets(), func(set *quoratev1.RedundantSet) bool {
		has := func(id string) bool {
			return slices.ContainsFunc(set.GetServers(), func(r *quoratev1.RedundantServer) bool { return r.GetMember() == id })
		}
		return has(a) && has(b)
	})
}

func (o *Observer) report(standing map[string]bool, a string, la redundancy.Level, b string, lb redundancy.Level) {
	if a > b {
		a, la, b, lb = b, lb, a, la
	}
	standing[a+b] = true
	if o.told[a+b] {
		return
	}
	o.told[a+b] = true
	o.problems = append(o.problems, fmt.Sprintf("at %s %s (%d, %s of %s, generation %d) and %s (%d, %s of %s, generation %d) "+bothHealthy,
		time.Now().Format("15:04:05.000000"), a, la.Value, la.Role, la.Set, la.Generation, b, lb.Value, lb.Role, lb.Set, lb.Generation))
}

// Problems returns what was wrong.
func (o *Observer) Problems() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.problems)
}

// Report notes another problem.
func (o *Observer) Report(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.problems = append(o.problems, fmt.Sprintf(format, args...))
}

// Changes returns how often each server's level has changed.
func (o *Observer) Changes() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.changes)
}

// Falls returns how often each server has stopped being Healthy.
func (o *Observer) Falls() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.falls)
}

// Gaps returns how long a set had no Healthy server, each time that ended, and forgets them.
func (o *Observer) Gaps(set string) []time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	gaps := o.gaps[set]
	delete(o.gaps, set)
	return gaps
}

// Level returns what a server advertised when it was looked at last.
func (o *Observer) Level(id string) redundancy.Level {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last[id]
}

// bothHealthy is what every report of two Healthy servers ends with.
const bothHealthy = "are both Healthy"
