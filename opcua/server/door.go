package server

import (
	"sync"
	"sync/atomic"

	"github.com/gopcua/opcua/ua"
)

// door says who may have a session. It is open unless Server.Shut shut it.
type door struct {
	moving sync.Mutex    // serialises Shut and Open
	status atomic.Uint32 // what those are told who are not let in; Good is open
}

// Shut closes all sessions and their connections, but for those of the applications that Config.Exempt names and of administrators, and lets no
// other in until Open: CreateSession and ActivateSession answer the status, and so does the Error message that ends a connection.
// Discovery is answered all the same, so that clients find the servers to go to. It returns how many sessions it closed.
//
// An administrator who is there stays, and may take the session to another connection: who has had the server shut by a method may want to have it
// opened again. One who is not there yet is let in no more than others, since who it is shows only after the session was made.
//
// A client that chooses servers by their ServiceLevel needs none of this. It is for those that move only when they lose the connection.
func (s *Server) Shut(status ua.StatusCode) (closed int) {
	d := &s.services.door
	d.moving.Lock()
	defer d.moving.Unlock()
	d.status.Store(uint32(status))
	return s.services.evict(status)
}

// Open lets everybody in again.
func (s *Server) Open() {
	d := &s.services.door
	d.moving.Lock()
	defer d.moving.Unlock()
	d.status.Store(uint32(ua.StatusOK))
}

// admits returns Good, or what an application is told that is not let in.
func (v *services) admits(applicationURI string) ua.StatusCode {
	status := ua.StatusCode(v.door.status.Load())
	if status != ua.StatusOK && v.exempt(applicationURI) {
		return ua.StatusOK
	}
	return status
}

func (v *services) exempt(applicationURI string) bool {
	return v.cfg.Exempt != nil && v.cfg.Exempt(applicationURI)
}

// admitsSession is the same for a session that is there.
func (v *services) admitsSession(s *session) ua.StatusCode {
	if b := s.bound.Load(); b != nil && b.identity.Role >= RoleAdministrator {
		return ua.StatusOK
	}
	return v.admits(s.application)
}

// evict closes the sessions that would not be let in now. A session that comes at the same time is either in the table, or sees that
// the door is shut after it was put there.
func (v *services) evict(status ua.StatusCode) (closed int) {
	left := make(map[secureChannel]struct{})
	for _, s := range v.sessions.all() {
		if v.admitsSession(s) == ua.StatusOK {
			continue
		}
		left[s.channel()] = struct{}{}
		v.close(s, endSubscriptions)
		closed++
	}
	for ch := range left {
		if len(v.sessions.on(ch)) == 0 {
			ch.Close(status)
		}
	}
	return closed
}
