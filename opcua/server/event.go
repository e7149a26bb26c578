package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// serverObject is the one object whose events can be monitored: that of the standard, which tells of everything.
var serverObject = space.NumericKey(0, id.Server)

var (
	baseEventType     = space.NumericKey(0, id.BaseEventType)
	overflowEventType = space.NumericKey(0, id.EventQueueOverflowEventType)
)

// eventIDLength is that of EventIds in bytes. They are random, so that no two servers of a set give the same.
const eventIDLength = 16

// Event is something that clients are told of which monitor the events of the Server object (Part 5 §6.4.2).
type Event struct {
	// Type is the event's type: BaseEventType, or a subtype of it that the space has.
	Type space.Key
	// Source is the node that it is about, and SourceName its name. The null key is the Server object.
	Source     space.Key
	SourceName string
	// Time is when it happened. Zero is now.
	Time time.Time
	// Message says in English what happened.
	Message string
	// Severity is from 1, of no urgency, to 1000.
	Severity uint16
	// Fields are what the type has beyond BaseEventType, by their BrowseNames.
	Fields map[ua.QualifiedName]*ua.Variant
}

// Emit queues an event for all monitored items that want it. It waits for no client. The error names the field that is wrong.
func (s *Server) Emit(ev Event) error {
	if err := s.services.engine.emit(ev); err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

// Listened says whether anybody monitors events: making one that nobody gets is work that can be spared.
func (s *Server) Listened() bool {
	l := &s.services.engine.listeners
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.items) > 0
}

// happening is an event that was emitted. It is shared by all queues, and never modified.
type happening struct {
	typ    space.Key
	fields map[ua.QualifiedName]*ua.Variant
}

// listeners are the items that monitor events. The lock is taken under that of the hub; the queues' are taken under it. It is
// held while an event is handed out, so that all queues have events in the same order.
type listeners struct {
	mu    sync.Mutex
	items map[*item]struct{}
}

func (e *engine) emit(ev Event) error {
	switch {
	case !e.space.IsSubtype(ev.Type, baseEventType):
		return fmt.Errorf("Event.Type: %s is no event type", ev.Type)
	case ev.Severity < 1 || ev.Severity > 1000:
		return fmt.Errorf("Event.Severity: %d is not within 1 and 1000", ev.Severity)
	case ev.Message == "":
		return errors.New("Event.Message is empty")
	}
	e.listeners.mu.Lock()
	defer e.listeners.mu.Unlock()
	if len(e.listeners.items) == 0 {
		return nil
	}
	h := e.happen(ev)
	types := make(typeTests)
	for it := range e.listeners.items {
		if it.events.where.matches(h, types, e.space) {
			it.tell(h)
		}
	}
	return nil
}

// happen makes what is queued of an event.
func (e *engine) happen(ev Event) *happening {
	now := e.wall()
	if ev.Time.IsZero() {
		ev.Time = now
	}
	if ev.Source.IsNull() {
		ev.Source, ev.SourceName = serverObject, "Server"
	}
	unique := make([]byte, eventIDLength)
	rand.Read(unique)
	h := &happening{typ: ev.Type, fields: make(map[ua.QualifiedName]*ua.Variant, len(ev.Fields)+8)}
	for name, v := range ev.Fields {
		h.fields[name] = v
	}
	for name, v := range map[string]any{
		"EventId": unique, "EventType": ev.Type.NodeID(), "SourceNode": ev.Source.NodeID(), "SourceName": ev.SourceName,
		"Time": ev.Time, "ReceiveTime": now, "Message": ua.NewLocalizedText(ev.Message), "Severity": ev.Severity,
	} {
		h.fields[ua.QualifiedName{Name: name}] = ua.MustVariant(v)
	}
	return h
}

// listen makes an item hear of events, if it does not yet. The hub is locked.
func (e *engine) listen(it *item) {
	e.listeners.mu.Lock()
	defer e.listeners.mu.Unlock()
	e.listeners.items[it] = struct{}{}
}

// ignore undoes listen.
func (e *engine) ignore(it *item) {
	e.listeners.mu.Lock()
	defer e.listeners.mu.Unlock()
	delete(e.listeners.items, it)
}

// refilter gives a listening item another filter.
func (e *engine) refilter(it *item, f *eventFilter) {
	e.listeners.mu.Lock()
	defer e.listeners.mu.Unlock()
	it.sub.queueMu.Lock()
	defer it.sub.queueMu.Unlock()
	it.events = f
}

// tell queues an event.
func (it *item) tell(h *happening) {
	s := it.sub
	s.queueMu.Lock()
	defer s.queueMu.Unlock()
	if it.mode == ua.MonitoringModeDisabled {
		return
	}
	if it.happenings.push(h, it.queue.size, it.queue.discardOldest) {
		s.engine.counts.lostEvents.Add(1)
	}
	it.enlist()
	it.pull()
}

// eventQueue holds the events of one item that wait to be published. Where one is lost an EventQueueOverflowEvent takes its place,
// beyond the queue's size: before all others if the oldest are discarded, else behind them (Part 4 §7.22.3).
type eventQueue struct {
	list []*happening
	lost bool
}

// push adds an event, and says whether one is lost for want of room.
func (q *eventQueue) push(h *happening, size int, discardOldest bool) (lost bool) {
	if len(q.list) < size {
		q.list = append(q.list, h)
		return false
	}
	q.lost = true
	if discardOldest {
		copy(q.list, q.list[1:])
	}
	q.list[len(q.list)-1] = h
	return true
}

func (q *eventQueue) length() int {
	if q.lost {
		return len(q.list) + 1
	}
	return len(q.list)
}

// pop removes the first event. nil stands for those that were lost. The queue must not be empty.
func (q *eventQueue) pop(discardOldest bool) *happening {
	if q.lost && (discardOldest || len(q.list) == 0) {
		q.lost = false
		return nil
	}
	h := q.list[0]
	q.list[0] = nil
	if q.list = q.list[1:]; len(q.list) == 0 {
		q.list = nil
	}
	return h
}

// resize changes the size; what does not fit is lost.
func (q *eventQueue) resize(size int, discardOldest bool) {
	old := *q
	*q = eventQueue{lost: old.lost}
	for _, h := range old.list {
		q.push(h, size, discardOldest)
	}
}

// overflowEvent says that events were lost (Part 5 §6.4.34).
func (e *engine) overflowEvent() *happening {
	return e.happen(Event{Type: overflowEventType, Message: "Events were lost, because the queue of the monitored item was full.", Severity: 500})
}
