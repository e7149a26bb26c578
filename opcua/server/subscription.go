package server

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"
)

// subscription is a subscription and its state machine (Part 4 §5.14.1.2). It lives on the timers of the schedule and has no
// goroutine. All fields but the last group are under the lock of their owner, which lock takes.
type subscription struct {
	id     uint32
	engine *engine
	owner  atomic.Pointer[publisher] // changes with both owners locked
	timer  timer
	ended  bool

	interval  time.Duration
	next      time.Duration // when the next publishing cycle is due
	keepAlive uint32        // cycles without a message after which one is sent
	lifetime  uint32        // cycles without a sign of the client after which the subscription ends
	limit     int           // values per message
	priority  uint8
	enabled   bool

	keepAliveLeft uint32
	lifetimeLeft  uint32
	signs         uint64 // of the owner, as the last cycle saw them
	late          bool   // has a message to send, and waits for a Publish request
	sequence      uint32
	sent          []*ua.NotificationMessage // that are not acknowledged, oldest first
	items         map[uint32]*item

	queueMu sync.Mutex // a leaf, held for moments only: whoever changes a value takes it
	waiting []*item    // those that have values to report
}

// lock locks the owner, and returns it.
func (s *subscription) lock() *publisher {
	for {
		p := s.owner.Load()
		p.mu.Lock()
		if s.owner.Load() == p {
			return p
		}
		p.mu.Unlock() // It was transferred while we waited.
	}
}

// cycle is one publishing cycle.
func (s *subscription) cycle(now time.Duration) {
	p := s.lock()
	defer p.mu.Unlock()
	if s.ended || now < s.next {
		return
	}
	s.next = after(s.next, s.interval, now)
	p.dropTimedOut(now)
	if s.signs != p.signs {
		s.signs = p.signs
		s.alive()
	}
	if len(p.parked) > 0 {
		s.alive()
	} else if s.lifetimeLeft--; s.lifetimeLeft == 0 {
		p.expire(s)
		return
	}
	p.engine.schedule.set(&s.timer, s.next)
	if s.late {
		return
	}
	s.keepAliveLeft--
	if !s.enabled || !s.pending() {
		if s.keepAliveLeft > 0 {
			return
		}
	}
	s.late = true
	p.late = append(p.late, s)
	p.serveLate()
}

// message makes the next message: values if there are some, else a keep-alive, which has the sequence number of the
// message after it (Part 4 §5.14.1.1). more reports whether values are left for another message.
func (s *subscription) message(now time.Time) (msg *ua.NotificationMessage, more bool) {
	s.keepAliveLeft = s.keepAlive
	m := &draft{message: ua.NotificationMessage{SequenceNumber: s.sequence, PublishTime: now}}
	msg = &m.message
	if !s.enabled {
		return msg, false
	}
	s.refresh()
	d, more := s.drain(s.limit, m)
	msg.NotificationData = d.notifications(s.engine, m)
	if len(msg.NotificationData) == 0 {
		return msg, false
	}
	s.remember(msg)
	return msg, more
}

// remember keeps a message for Republish and takes its sequence number, which wraps around to 1.
func (s *subscription) remember(msg *ua.NotificationMessage) {
	if s.sequence++; s.sequence == 0 {
		s.sequence = 1
	}
	if len(s.sent) == s.engine.limits.MaxUnacknowledged {
		s.sent = slices.Delete(s.sent, 0, 1)
	}
	s.sent = append(s.sent, msg)
}

// acknowledge forgets a message.
func (s *subscription) acknowledge(sequence uint32) ua.StatusCode {
	i := s.find(sequence)
	if i < 0 {
		return ua.StatusBadSequenceNumberUnknown
	}
	s.sent = slices.Delete(s.sent, i, i+1)
	return ua.StatusOK
}

func (s *subscription) find(sequence uint32) int {
	return slices.IndexFunc(s.sent, func(m *ua.NotificationMessage) bool { return m.SequenceNumber == sequence })
}

// available lists the messages that Republish can give, nil if there are none. It appends to list, which is empty.
func (s *subscription) available(list []uint32) []uint32 {
	if len(s.sent) == 0 {
		return nil
	}
	for _, m := range s.sent {
		list = append(list, m.SequenceNumber)
	}
	return list
}

// alive notes a sign of the client.
func (s *subscription) alive() { s.lifetimeLeft = s.lifetime }
