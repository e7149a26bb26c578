package node

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// applied is what everybody but raft's own goroutine sees of the state machine. A new one is published after each batch of entries.
type applied struct {
	state *fsm.State
	// index is that of the last log entry seen, which is higher than the state's revision after a change of raft's configuration.
	index uint64
	// next is closed when the next one is published.
	next chan struct{}
}

// entryResult is what raft's Apply future carries.
type entryResult struct {
	index    uint64
	term     uint64
	outcomes []*logv1.Outcome
}

// machine makes the state machine a raft.FSM. Raft calls it from one goroutine; others read what it publishes.
type machine struct {
	state *fsm.State
	index uint64
	// broken is why the machine stopped applying: after corruption nothing may be built on this state.
	broken error
	fatal  func(error)
	latest atomic.Pointer[applied]
	events *history
	marks  *digestMarks
	// configured has a signal when raft's configuration changed.
	configured chan struct{}
	snapshots  snapshots
}

var _ raft.BatchingFSM = (*machine)(nil)

func newMachine(limits Limits, fatal func(error)) *machine {
	m := &machine{
		state: fsm.New(), fatal: fatal, configured: make(chan struct{}, 1),
		events: newHistory(limits.WatchEvents), marks: newDigestMarks(),
	}
	m.latest.Store(&applied{state: m.state.Snapshot(), next: make(chan struct{})})
	return m
}

// ApplyBatch implements raft.BatchingFSM. Unlike a plain FSM it is given configuration entries too.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	var events []*quoratev1.Event
	for i, l := range logs {
		switch l.Type {
		case raft.LogCommand:
			result, happened, err := m.apply(l)
			if err != nil {
				results[i] = err
				continue
			}
			results[i] = result
			events = append(events, happened...)
		case raft.LogConfiguration:
			select {
			case m.configured <- struct{}{}:
			default:
			}
		}
		m.index = l.Index
	}
	m.publish()
	m.events.add(m.state.Revision(), events)
	return results
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

func (m *machine) apply(l *raft.Log) (*entryResult, []*quoratev1.Event, error) {
	if m.broken != nil {
		return nil, nil, m.broken
	}
	// Unmarshal copies: nothing in the state aliases l.Data, which belongs to a whole batch.
	e := &logv1.Entry{}
	if err := proto.Unmarshal(l.Data, e); err != nil {
		return nil, nil, m.breakDown(fmt.Errorf("log entry %d: %w", l.Index, err))
	}
	if e.Term != l.Term {
		// The reading was taken under an earlier leadership of the same member; see Entry.term.
		e.Clock, e.LeaderApplied = 0, 0
		disown(e.Commands)
	}
	outcomes, events, err := m.state.ApplyEntry(l.Index, e)
	if err != nil {
		return nil, nil, m.breakDown(fmt.Errorf("log entry %d: %w", l.Index, err))
	}
	for _, c := range e.Commands {
		if c.GetMarkDigest() != nil {
			m.marks.take(m.state.Snapshot())
			break
		}
	}
	return &entryResult{index: l.Index, term: l.Term, outcomes: outcomes}, events, nil
}

// disown takes from commands what only the leader of the term in which they were decided could know: that nobody has been granted a serving lease since,
// or a gate lease.
func disown(commands []*logv1.Command) {
	for _, c := range commands {
		switch b := c.GetBody().(type) {
		case *logv1.Command_AssignServing:
			b.AssignServing.Lapsed = nil
		case *logv1.Command_ReleaseServing:
			// No right has this generation, so the command does nothing.
			b.ReleaseServing.Generation = 0
		default:
			fsm.GatesClosed(c, false)
		}
	}
}

func (m *machine) breakDown(err error) error {
	m.broken = err
	m.fatal(&Error{Op: "apply", Kind: StorageFailed, Err: err})
	return err
}

func (m *machine) publish() {
	a := &applied{state: m.state.Snapshot(), index: m.index, next: make(chan struct{})}
	close(m.latest.Swap(a).next)
}

// Snapshot implements raft.FSM. It captures the state by reference: the trees are copy-on-write.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.broken != nil {
		return nil, m.broken
	}
	start := time.Now()
	s := snapshot{m.state.Snapshot(), &m.snapshots}
	m.snapshots.capture.Store(int64(time.Since(start)))
	return s, nil
}

// Restore implements raft.FSM: all or nothing. Watches are told to start again, since the events in between were never seen here.
func (m *machine) Restore(r io.ReadCloser) error {
	start := time.Now()
	state, err := fsm.Restore(r)
	if err != nil {
		return err
	}
	m.state, m.index = state, state.Revision()
	m.publish()
	m.events.reset(state.Revision())
	m.snapshots.restored.Add(1)
	m.snapshots.restore.Store(int64(time.Since(start)))
	m.snapshots.revision.Store(int64(state.Revision()))
	select {
	case m.configured <- struct{}{}:
	default:
	}
	return nil
}

type snapshot struct {
	state *fsm.State
	done  *snapshots
}

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	start := time.Now()
	bytes, err := s.state.WriteTo(sink)
	if err != nil {
		err = fmt.Errorf("write snapshot: %w", err)
	} else {
		err = sink.Close()
	}
	if err != nil {
		s.done.failed.Add(1)
		return err
	}
	s.done.written.Add(1)
	s.done.revision.Store(int64(s.state.Revision()))
	s.done.bytes.Store(bytes)
	s.done.write.Store(int64(time.Since(start)))
	return nil
}

// Release implements raft.FSMSnapshot.
func (s snapshot) Release() {}
