package node

import (
	"container/list"
	"net"
	"sync"
)

// maxStrangers bounds the connections to the raft port that have not yet shown whose they are. When there are too many the oldest has to go: a member shows
// itself within milliseconds, so whoever holds connections open and says nothing keeps no member out.
const maxStrangers = 256

// strangers are the connections that have not yet shown whose they are, oldest first.
type strangers struct {
	mu    sync.Mutex
	conns list.List
}

// admit takes a connection in, and closes the oldest if it is one too many.
func (s *strangers) admit(conn net.Conn) *list.Element {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns.Len() >= maxStrangers {
		if oldest, ok := s.conns.Remove(s.conns.Front()).(net.Conn); ok {
			_ = oldest.Close()
		}
	}
	return s.conns.PushBack(conn)
}

// dismiss forgets a connection that has shown whose it is, or has ended. It may have been sent away before.
func (s *strangers) dismiss(e *list.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns.Remove(e)
}
