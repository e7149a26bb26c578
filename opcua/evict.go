package opcua

import (
	"sync"

	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// Some clients ignore ServiceLevel, and go to another server only when they lose the connection. The policy evictClients of a set makes them: its servers
// close all sessions, and refuse others, where they are not to be used (opcua.md §2, hard demotion).

// evicted is what clients are told who lose their session or get none: the server has stopped and cannot process any requests (Part 4 §7.39.2).
// BadShutdown would say that the application ends, and BadTooManySessions or BadServerTooBusy invite to try here again soon; a server that is
// refused with BadServerHalted is given up for another one, by clients that know of another one.
var evicted = ua.StatusBadServerHalted

// doorkeeper remembers whether clients are kept out.
type doorkeeper struct {
	mu   sync.Mutex
	shut bool
}

// keepDoor shuts or opens the server to clients. It is called whenever what evicts depends on has moved.
func (e *Endpoint) keepDoor() {
	k := &e.door
	k.mu.Lock()
	defer k.mu.Unlock()
	why := e.evicts(e.cfg.Group.Local().State, e.cfg.Redundancy.Level())
	if shut := why != ""; shut == k.shut {
		return
	}
	if k.shut = why != ""; k.shut {
		closed := e.server.Shut(evicted)
		e.cfg.Logger.Warn("clients are kept out, by the policy evictClients", "reason", why, "sessions", closed)
		return
	}
	e.server.Open()
	e.cfg.Logger.Info("clients are let in again")
}

// evicts returns why a server keeps clients out, empty if it doesn't. A Backup does so only for as long as its Primary is the better place: it can be reached, and
// has the higher level. Otherwise those clients would be left with no server at all when the Primary dies or goes into maintenance.
func (e *Endpoint) evicts(state *fsm.State, level redundancy.Level) string {
	set := setOf(state, level)
	policy := fsm.PoliciesOf(set).EvictClients
	switch {
	case set == nil || policy == fsm.EvictOff:
		return ""
	case level.Band == redundancy.Maintenance:
		return "maintenance"
	case policy != fsm.EvictBackups || level.Role != redundancy.Backup || set.GetMode() != "WARM" && set.GetMode() != "COLD":
		return ""
	}
	for _, s := range set.GetServers() {
		if s.GetRole() != redundancy.Primary {
			continue
		}
		if primary, ok := e.cfg.Redundancy.Peer(s.GetMember()); ok && (!primary.Reachable || primary.Known && primary.ServiceLevel <= level.Value) {
			return ""
		}
	}
	return "this is a Backup"
}

// setOf is the set that a level was made under.
func setOf(state *fsm.State, level redundancy.Level) *quoratev1.RedundantSet {
	g, _ := state.Generation(level.Generation)
	return fsm.FindSet(g.GetTopology(), level.Set)
}

// exempt names the applications that keep their sessions all the same: the servers of the topology, which probe each other, and this one, which
// reads its witness. To them a server that is not to be used is not one that cannot be reached.
func (c *Config) exempt(applicationURI string) bool {
	return applicationURI == c.ApplicationURI || c.declares(applicationURI)
}
