package sim

import (
	"fmt"
	"sync"
	"time"
)

// Ledger has what happened to partitions as seen from outside, by one clock: when each epoch can have been the current one, what each gate check
// answered, and where each write landed. It finds what must not be (partitions.md §4).
type Ledger struct {
	mu       sync.Mutex
	stays    map[string][]Stay
	early    []check
	landed   []landing
	told     map[string]string
	problems []string
	checks   int
	writes   int
}

// Stay is a partition at one epoch. The transition to it took effect between Called and Returned.
type Stay struct {
	Epoch            uint64
	Owner            string
	Writable         bool
	Called, Returned time.Time
}

// Answer is what a gate check said: no owner means that nobody may write.
type Answer struct {
	Epoch uint64
	Owner string
}

type check struct {
	who, partition string
	answer         Answer
	began, ended   time.Time
}

type landing struct {
	who, partition, placement string
	epoch                     uint64
	at                        time.Time
}

// NewLedger returns an empty one.
func NewLedger() *Ledger { return &Ledger{stays: map[string][]Stay{}, told: map[string]string{}} }

// Report adds a problem.
func (l *Ledger) Report(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report(format, args...)
}

func (l *Ledger) report(format string, args ...any) {
	if len(l.problems) < 50 {
		l.problems = append(l.problems, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	}
}

// Entered notes that a partition has come to an epoch. Transitions of one partition come in order.
func (l *Ledger) Entered(partition string, s Stay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.stays[partition]
	if n := len(before); n > 0 && s.Epoch != before[n-1].Epoch+1 {
		l.report("%s went from epoch %d to %d", partition, before[n-1].Epoch, s.Epoch)
	}
	l.stays[partition] = append(before, s)
}

// Checked notes what a check answered that began and ended at these moments. It is judged at the end, when all transitions are known.
func (l *Ledger) Checked(who, partition string, a Answer, began, ended time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.checks++
	l.early = append(l.early, check{who, partition, a, began, ended})
	if a.Owner == "" {
		return
	}
	// INV-M4.
	key := fmt.Sprintf("%s@%d", partition, a.Epoch)
	if other, ok := l.told[key]; ok && other != a.Owner {
		l.report("%s: %s is told for epoch %d, and %s was", partition, a.Owner, a.Epoch, other)
	}
	l.told[key] = a.Owner
}

// Landed notes a write that reached a placement. It is judged at the end, when all transitions are known.
func (l *Ledger) Landed(who, partition, placement string, epoch uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes++
	l.landed = append(l.landed, landing{who, partition, placement, epoch, at})
}

// judgeLanding is INV-M1: none reaches the old placement after the completion has returned, nor the new one before it was asked for.
func (l *Ledger) judgeLanding(w landing) {
	stays := l.stays[w.partition]
	for i := len(stays) - 1; i >= 0; i-- {
		s := stays[i]
		if s.Epoch == w.epoch && w.at.Before(s.Called) {
			l.report("%s: a write of %s at epoch %d lands at %s, before anybody asked for that epoch", w.partition, w.who, w.epoch, w.placement)
		}
		if !s.Returned.Before(w.at) {
			continue
		}
		// The newest epoch that was certainly current at that moment, or a later one.
		if s.Owner != w.placement && s.Epoch >= w.epoch {
			l.report("%s: a write of %s at epoch %d lands at %s, %v after %s became the owner at epoch %d",
				w.partition, w.who, w.epoch, w.placement, w.at.Sub(s.Returned), s.Owner, s.Epoch)
		}
		return
	}
}

// judge says whether a check's answer can have been true at some moment between its beginning and its end: INV-M2 and M3, and more.
func (l *Ledger) judge(c check) {
	for i, s := range l.stays[c.partition] {
		if s.Epoch != c.answer.Epoch {
			continue
		}
		owner := s.Owner
		if !s.Writable {
			owner = ""
		}
		if owner != c.answer.Owner {
			l.report("%s: %s was told %q at epoch %d, and it is %q", c.partition, c.who, c.answer.Owner, s.Epoch, owner)
		}
		if c.ended.Before(s.Called) {
			l.report("%s: %s was told epoch %d before anybody asked for it", c.partition, c.who, s.Epoch)
		}
		if next := i + 1; next < len(l.stays[c.partition]) && c.began.After(l.stays[c.partition][next].Returned) {
			l.report("%s: %s was told epoch %d by a check that began %v after epoch %d", c.partition, c.who, s.Epoch,
				c.began.Sub(l.stays[c.partition][next].Returned), s.Epoch+1)
		}
		return
	}
	if n := len(l.stays[c.partition]); n > 0 && c.answer.Epoch > l.stays[c.partition][n-1].Epoch+1 {
		l.report("%s: %s was told epoch %d, which never was", c.partition, c.who, c.answer.Epoch)
	}
}

// Problems judges all checks and landings, and returns what was wrong.
func (l *Ledger) Problems() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.early {
		l.judge(c)
	}
	for _, w := range l.landed {
		l.judgeLanding(w)
	}
	l.early, l.landed = nil, nil
	return l.problems
}
