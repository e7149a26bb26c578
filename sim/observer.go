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
	// seen is what answered at the last look, and last what each server ever said last.
	seen, last map[string]redundancy.Level
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
		servers: s, trace: trace, seen: map[string]redundancy.Level{}, last: map[string]redundancy.Level{}, changes: map[string]int{}, falls: map[string]int{}, told: map[string]bool{}, dark: map[string]time.Time{},
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
	ids := o.servers.world.IDs()
	standing, lit := map[string]bool{}, map[string]bool{}
	for i, a := range ids {
		la, ok := now[a]
		if !ok {
			continue
		}
		before, answered := o.seen[a]
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
		rose := answered && before.Value < healthy
		for j, b := range ids {
			lb, ok := now[b]
			if !ok || i == j || lb.Value < healthy {
				continue
			}
			// Each knows the other as a server of its set, by its own generation. Who becomes Healthy must be alone even among those that don't know yet.
			mine := o.inSet(a, la, b)
			if la.Set != "" && la.Set == lb.Set || mine && (rose || o.inSet(b, lb, a)) {
				o.report(standing, a, la, b, lb)
			}
		}
	}
	o.told = standing
	o.darken(now, lit)
	o.seen = now
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
