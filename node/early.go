package node

import (
	"sync"

	"github.com/hashicorp/raft"
)

// maxEarly bounds the entries that wait for the leader's own disk while it writes others. Those that it writes were such entries before, so that at most
// twice as many have been handed out and are not on it.
const maxEarly = 64

// early is the log store of a member that may lead. Raft hands an entry to the others once its own store has it, so that two disks write one after the
// other. Here a leader's store takes its entries at once and writes them while they are on their way (Raft thesis §10.2.1).
//
// Raft counts the leader among those that have an entry as soon as the store has taken it. So that nothing is committed by this word alone, an answer by
// which another member acknowledges entries is held back until they are on the leader's disk too (heldPipeline, patient). A majority needs at least one
// such answer; where it does not, since the leader is the only voter, nothing is taken early (mayWriteEarly).
type early struct {
	raft.LogStore
	// may says whether these entries may be taken before they are written. It is asked on raft's own goroutine.
	may func([]*raft.Log) bool

	writers sync.WaitGroup
	mu      sync.Mutex
	// waiting are entries that were taken and that nobody writes yet.
	waiting []*raft.Log
	// first is the index of the first entry that was taken and is not yet written, 0 if there is none.
	first uint64
	// failed is why no more can be written. What was taken then is never acknowledged: the member has to stop.
	failed  error
	written notifier
}

// StoreLog implements raft.LogStore.
func (e *early) StoreLog(l *raft.Log) error { return e.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (e *early) StoreLogs(logs []*raft.Log) error {
	// From here on others may read the entries, so they get their checksums before. One that is wrong is left to the store to complain of.
	if len(logs) == 0 || !e.may(logs) || sealAll(logs) != nil {
		if err := e.settle(); err != nil {
			return err
		}
		return e.LogStore.StoreLogs(logs)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.failed == nil && len(e.waiting)+len(logs) > maxEarly && len(e.waiting) > 0 {
		e.awaitLocked()
	}
	if e.failed != nil {
		return e.failed
	}
	e.waiting = append(e.waiting, logs...)
	if e.first == 0 {
		e.first = logs[0].Index
		e.writers.Go(e.write)
	}
	return nil
}

// write writes what waits, until nothing does.
func (e *early) write() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.waiting) > 0 {
		batch := e.waiting
		e.waiting = nil
		e.mu.Unlock()
		err := e.LogStore.StoreLogs(batch)
		e.mu.Lock()
		switch {
		case err != nil:
			e.failed, e.waiting = err, nil
		case len(e.waiting) > 0:
			e.first = e.waiting[0].Index
		default:
			e.first = 0
		}
		e.written.wake()
	}
}

// awaitLocked waits until something was written.
func (e *early) awaitLocked() {
	changed := e.written.wait()
	e.mu.Unlock()
	<-changed
	e.mu.Lock()
}

// settle waits until all that was taken is written, and returns why it can't be.
func (e *early) settle() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.first != 0 && e.failed == nil {
		e.awaitLocked()
	}
	return e.failed
}

// has waits until the entry of that index and all before are written; false means that they never will be, since the store has failed, or that done was
// closed before.
func (e *early) has(index uint64, done <-chan struct{}) bool {
	for {
		e.mu.Lock()
		pending, failed, changed := e.first != 0 && index >= e.first, e.failed != nil, e.written.wait()
		e.mu.Unlock()
		if !pending {
			return true
		}
		if failed {
			return false
		}
		select {
		case <-changed:
		case <-done:
			return false
		}
	}
}

// close waits for the last write.
func (e *early) close() { e.writers.Wait() }

// FirstIndex implements raft.LogStore.
func (e *early) FirstIndex() (uint64, error) {
	if err := e.settle(); err != nil {
		return 0, err
	}
	return e.LogStore.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (e *early) LastIndex() (uint64, error) {
	if err := e.settle(); err != nil {
		return 0, err
	}
	return e.LogStore.LastIndex()
}

// GetLog implements raft.LogStore. Raft's cache, which is in front, has what is not written yet.
func (e *early) GetLog(index uint64, l *raft.Log) error {
	e.mu.Lock()
	pending := e.first != 0 && index >= e.first
	e.mu.Unlock()
	if pending {
		if err := e.settle(); err != nil {
			return err
		}
	}
	return e.LogStore.GetLog(index, l)
}

// DeleteRange implements raft.LogStore.
func (e *early) DeleteRange(first, last uint64) error {
	if err := e.settle(); err != nil {
		return err
	}
	return e.LogStore.DeleteRange(first, last)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (e *early) IsMonotonic() bool {
	m, ok := e.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// mayWriteEarly says whether entries may be taken early: by a leader, whose entries need the acknowledgement of others. A change of the configuration is
// written first, and all before it with it, since it may make the leader the only voter.
func (n *Node) mayWriteEarly(logs []*raft.Log) bool {
	select {
	case <-n.started:
	default:
		return false
	}
	if n.raft.State() != raft.Leader || n.otherVoters() == 0 {
		return false
	}
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			return false
		}
	}
	return true
}

// heldPipeline holds back the answers that acknowledge entries which this member's own disk does not have yet.
type heldPipeline struct {
	raft.AppendPipeline
	log     *early
	out     chan raft.AppendFuture
	done    chan struct{}
	ended   sync.Once
	running sync.WaitGroup
}

func holdAnswers(p raft.AppendPipeline, log *early) *heldPipeline {
	h := &heldPipeline{AppendPipeline: p, log: log, out: make(chan raft.AppendFuture), done: make(chan struct{})}
	h.running.Go(h.run)
	return h
}

func (h *heldPipeline) run() {
	for {
		select {
		case answer := <-h.AppendPipeline.Consumer():
			if !h.log.hasAll(answer.Request(), h.done) {
				// Nobody may count it. It is taken all the same: with a few answers that nobody takes the pipeline is full, raft waits for room in it, and neither
				// hears that it leads no more nor that the member stops.
				continue
			}
			select {
			case h.out <- answer:
			case <-h.done:
				return
			}
		case <-h.done:
			return
		}
	}
}

// hasAll waits until all entries of a request are written.
func (e *early) hasAll(request *raft.AppendEntriesRequest, done <-chan struct{}) bool {
	sent := request.Entries
	return len(sent) == 0 || e.has(sent[len(sent)-1].Index, done)
}

// Consumer implements raft.AppendPipeline.
func (h *heldPipeline) Consumer() <-chan raft.AppendFuture { return h.out }

// Close implements raft.AppendPipeline.
func (h *heldPipeline) Close() error {
	h.ended.Do(func() { close(h.done) })
	err := h.AppendPipeline.Close()
	h.running.Wait()
	return err
}
