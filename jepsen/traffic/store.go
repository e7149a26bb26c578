package traffic

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"quorate/jepsen/history"
)

// WriteLimit is how long a write may last, counted from when its gate check was called: no drain barrier is shorter (partitions.md §2).
const WriteLimit = 1800 * time.Millisecond

// landMargin is what a slow write leaves of that, so that most land though the machine is busy.
const landMargin = 100 * time.Millisecond

// maxWrites bounds the writes under way; what would be more is not written.
const maxWrites = 512

// stores are the placements upstream, where writes land. They take whatever comes, as the worst of them do: what keeps writes away is the gate alone.
type stores struct {
	log     *history.Log
	slots   chan struct{}
	pending sync.WaitGroup
}

func newStores(log *history.Log) *stores {
	return &stores{log: log, slots: make(chan struct{}, maxWrites)}
}

// landing is what a history has of a write that landed.
type landing struct {
	Gate   int           `json:"gate"`
	Epoch  uint64        `json:"epoch"`
	Called time.Duration `json:"called"`
}

type landed struct {
	Placement string `json:"placement"`
}

// write sends a write upstream that a check let in. It lands at some time before the limit, or never; done is called when it can't land any more.
func (s *stores) write(r *rand.Rand, check *history.Op, partition, placement string, epoch uint64, done func()) {
	select {
	case s.slots <- struct{}{}:
	default:
		done()
		return
	}
	// Most writes are quick; those that matter are the slow ones.
	after := between(r, 0, 20*time.Millisecond)
	if r.IntN(4) == 0 {
		after = between(r, WriteLimit/2, WriteLimit-landMargin)
	}
	due := check.Call + after
	s.pending.Go(func() {
		defer func() {
			done()
			<-s.slots
		}()
		Rest(context.Background(), due-s.log.Since())
		op := s.log.Begin(history.Op{Client: "store-" + placement, Noun: "partition", Kind: "land", Key: partition}, landing{check.ID, epoch, check.Call})
		// The moment of the call is that of the landing: it is decided by it alone, however late the rest is written down.
		outcome := history.OK
		if op.Call > check.Call+WriteLimit {
			outcome = history.Failed // The store gave up waiting for it.
		}
		s.log.End(op, outcome, landed{placement}, nil)
	})
}

func (s *stores) wait() { s.pending.Wait() }
