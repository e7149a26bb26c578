package failover

import (
	"fmt"
	"strings"
	"time"
)

// Mode is what a client holds ready at the servers that it does not use (OPC 10000-4 §6.6.2.4.5).
type Mode int

// The modes. A client may use one that asks less than the set supports.
const (
	// Auto takes COLD, WARM or HOT from the server's RedundancySupport, HOT being HotA.
	Auto Mode = iota
	// Cold has no connection to other servers while the one in use is Healthy.
	Cold
	// Warm has sessions and monitored items at all servers; they sample and report at the one in use only.
	Warm
	// HotA has monitored items that sample at all servers and report at the one in use only. After a cut-over the queue of the
	// new one gives what was sampled meanwhile.
	HotA
	// HotB has monitored items that report at all servers. Duplicates are removed by source timestamp, so it wants servers
	// that pass the timestamps of the source on.
	HotB
)

var modeNames = []string{"auto", "cold", "warm", "hot-a", "hot-b"}

// ModeNames returns what ParseMode takes.
func ModeNames() []string { return append([]string(nil), modeNames...) }

// ParseMode is the reverse of String, in any case.
func ParseMode(s string) (Mode, error) {
	for i, name := range modeNames {
		if strings.EqualFold(s, name) {
			return Mode(i), nil
		}
	}
	return 0, fmt.Errorf("mode: %q is not one of %s", s, strings.Join(modeNames, ", "))
}

func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return modeNames[m]
}

// modeOf is Auto's choice for a value of RedundancySupport (OPC 10000-5 §12.5). A transparent server is one server to us.
func modeOf(support int32) Mode {
	switch support {
	case 2:
		return Warm
	case 3, 5: // HotAndMirrored is HOT with sessions that we do not count on.
		return HotA
	}
	return Cold
}

// State is what is known of a server.
type State int

// The states.
const (
	// Unknown: not looked at, or not answered yet.
	Unknown State = iota
	// Unreachable: there is no connection; it is tried again.
	Unreachable
	// Reachable: there is a session, and its Level is current.
	Reachable
	// Away: it said Maintenance, and is left alone until its Return, unless there is nowhere else to go.
	Away
)

var stateNames = []string{"unknown", "unreachable", "reachable", "away"}

func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// The ranges of ServiceLevel (OPC 10000-4 §6.6.2.4.2).
const (
	maintenance    = 0
	noData         = 1
	lowestDegraded = 2
	lowestHealthy  = 200
)

// Server is what is known of one server of the set.
type Server struct {
	// URI is its ApplicationUri, empty where no server told.
	URI string
	// URL is where it is reached.
	URL   string
	State State
	// Level is its ServiceLevel, while State is Reachable or Away.
	Level byte
	// Active says that it is the server in use.
	Active bool
	// Return is when it is looked at again, while State is Away. While no server has data, it is looked at each LastRetry as well.
	Return time.Time
	// Problem is why the last attempt or connection failed, while State is Unreachable.
	Problem string
}

// Reason is why a client moved to another server.
type Reason int

// The reasons.
const (
	// Stay is no reason: there was no move.
	Stay Reason = iota
	// Started: it is the first server that is used.
	Started
	// Lost: the connection failed, or the server fell silent.
	Lost
	// Maintenance: the server said that it is being maintained.
	Maintenance
	// NoData: the server said that it has no data.
	NoData
	// Degraded: the server was not Healthy, and another one was.
	Degraded
)

var reasonNames = []string{"stay", "started", "lost", "maintenance", "no-data", "degraded"}

func (r Reason) String() string {
	if r < 0 || int(r) >= len(reasonNames) {
		return fmt.Sprintf("Reason(%d)", int(r))
	}
	return reasonNames[r]
}

// decide says which server to use, and why not the one in use. active is the index of the one in use, or -1; so is next. Stay
// comes with the same index. waiting says that servers that have not answered yet may still be waited for: a Healthy one is
// chosen at once, any other only when nobody better can come.
//
// The rules are those of OPC 10000-4 §6.6.2.4.2 and §6.6.2.4.5: a Healthy server is never left, so that clients of a set do not wander
// with every little change of level. A Degraded one is left for a Healthy one only: between Degraded ones the move costs more than
// it gives.
func decide(servers []Server, active int, waiting bool) (next int, why Reason) {
	best, pending := -1, false
	for i, s := range servers {
		switch {
		case s.State == Unknown:
			pending = true
		case s.State == Reachable && s.Level != maintenance && (best < 0 || s.Level > servers[best].Level):
			best = i
		}
	}
	fallback := -1
	why = Lost
	if active >= 0 {
		a := servers[active]
		switch {
		case a.State == Away || a.State == Reachable && a.Level == maintenance:
			why = Maintenance
		case a.State != Reachable:
		case a.Level >= lowestHealthy:
			return active, Stay
		case a.Level >= lowestDegraded:
			if servers[best].Level < lowestHealthy { // There is a best: this one is reachable.
				return active, Stay
			}
			return best, Degraded
		default:
			fallback, why = active, NoData
		}
	}
	switch {
	case best < 0 || best == fallback:
	case servers[best].Level <= noData && fallback >= 0: // No better than the one in use.
	case pending && waiting && servers[best].Level < lowestHealthy:
	default:
		return best, why
	}
	if fallback == active {
		return active, Stay
	}
	return -1, why
}

// role is what a connection is for. Each has all that the one before it has.
type role int

const (
	off       role = iota // no connection
	watching              // a session with a subscription to what the server says of itself
	disabled              // monitored items, disabled
	sampling              // monitored items that sample, and do not report
	reporting             // monitored items that report
)

// standby is the role of a server that is not in use.
func (m Mode) standby(activeHealthy bool) role {
	switch m {
	case Warm:
		return disabled
	case HotA:
		return sampling
	case HotB:
		return reporting
	}
	if m == Cold && activeHealthy {
		return off
	}
	return watching // Somebody better may be there.
}
