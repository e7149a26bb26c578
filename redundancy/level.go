package redundancy

import (
	"fmt"
	"slices"
	"strings"
)

// Roles of a server, as a topology declares them. No member ever elects one.
const (
	Primary = "Primary"
	Backup  = "Backup"
)

// Band is a named ServiceLevel value (redundancy.md §2). Bands are ordered as in the table there, the best first.
type Band uint8

// The bands.
const (
	Authoritative Band = iota
	Isolated
	MidApply
	Unconfirmed
	Recovering
	InvalidTopology
	NoData
	Maintenance
	bandCount
)

// table holds the ServiceLevel of each band for a Primary and for a Backup.
var table = [bandCount]struct {
	name            string
	primary, backup byte
}{
	Authoritative:   {"Authoritative", 255, 100},
	Isolated:        {"Isolated", 230, 80},
	MidApply:        {"Mid-apply", 200, 50},
	Unconfirmed:     {"Unconfirmed", 190, 70},
	Recovering:      {"Recovering", 180, 30},
	InvalidTopology: {"InvalidTopology", 2, 2},
	NoData:          {"NoData", 1, 1},
	Maintenance:     {"Maintenance", 0, 0},
}

// String returns the band's name as people and OPC UA clients see it.
func (b Band) String() string {
	if b >= bandCount {
		return fmt.Sprintf("Band(%d)", uint8(b))
	}
	return table[b].name
}

// Value returns the ServiceLevel of the band, 0 to 255, for a role. Only Primary has the higher column.
func (b Band) Value(role string) byte {
	if b >= bandCount {
		b = NoData
	}
	if role == Primary {
		return table[b].primary
	}
	return table[b].backup
}

// BandOf returns the band whose value for the role is level: what a peer's ServiceLevel means. ok is false if no band
// has that value.
func BandOf(level byte, role string) (b Band, ok bool) {
	for b := range bandCount {
		if b.Value(role) == level {
			return b, true
		}
	}
	return NoData, false
}

// Fault says why a server has no data to serve.
type Fault uint8

// The faults. Any but NoFault puts the server into NoData.
const (
	NoFault Fault = iota
	// NotInitialised: the member has not yet caught up with the group since it started.
	NotInitialised
	// Diverged: the member's state was found to differ from the majority's.
	Diverged
	// Stale: the level's own watchdog found no fresh computation for WatchdogLimit.
	Stale
	faultCount
)

var faultReasons = [faultCount]string{
	NotInitialised: "not initialised: the state of the group is not known yet",
	Diverged:       "diverged: this member's state differs from the group's",
	Stale:          "watchdog: no fresh computation of the level for " + WatchdogLimit.String(),
}

// Inputs is everything that a level depends on. Evaluate of equal Inputs is equal, on every member and for ever.
type Inputs struct {
	// Generation is that of the topology that Set, Role and Peers are from; 0 before the first publish.
	Generation uint64
	// Set is the server's redundant set; empty for a witness, which serves no data.
	Set string
	// Role is Primary or Backup.
	Role string
	// Peers are the other servers of the set, and Unreachable those of them that the probes cannot reach.
	Peers, Unreachable []string
	// MidApply: the server holds an open apply lease.
	MidApply bool
	// Confirmed: the group confirms the server's role now.
	Confirmed bool
	// Hold: the set's policy quorumLoss is hold, which leaves the Unconfirmed band out.
	Hold bool
	// Recovering: the server is back from a fault, and its dwell or its witness read is outstanding.
	Recovering bool
	// Inconsistencies are the contradictions that were found at run time (redundancy.md §5), for people.
	Inconsistencies []string
	// Fault is why the server has no data, or NoFault.
	Fault Fault
	// Maintenance: an operator declared it. MaintenanceReason is the operator's word on it, for people.
	Maintenance       bool
	MaintenanceReason string
}

func (in Inputs) equal(o Inputs) bool {
	return in.Generation == o.Generation && in.Set == o.Set && in.Role == o.Role && slices.Equal(in.Peers, o.Peers) &&
		slices.Equal(in.Unreachable, o.Unreachable) && in.MidApply == o.MidApply && in.Confirmed == o.Confirmed && in.Hold == o.Hold &&
		in.Recovering == o.Recovering && slices.Equal(in.Inconsistencies, o.Inconsistencies) && in.Fault == o.Fault &&
		in.Maintenance == o.Maintenance && in.MaintenanceReason == o.MaintenanceReason
}

// Level is a ServiceLevel with what made it.
type Level struct {
	// Value is the ServiceLevel, 0 to 255.
	Value byte
	// Band is the name of Value.
	Band Band
	// Reasons says, lowest band first, everything that keeps the server from being Authoritative, and which peers are
	// unreachable. It must not be modified.
	Reasons []string
	// Generation, Set and Role are those that the level was made under. Set and Role are empty for a witness.
	Generation uint64
	Set, Role  string
}

// Equal reports whether two levels are the same in every respect.
func (l Level) Equal(o Level) bool {
	return l.Value == o.Value && l.Band == o.Band && l.Generation == o.Generation && l.Set == o.Set && l.Role == o.Role &&
		slices.Equal(l.Reasons, o.Reasons)
}

// Healthy is the least ServiceLevel of the Healthy sub-range (Part 4 §6.6.2.4.2): a client stays with such a server.
const Healthy = 200

// Evaluate is the level function: pure, and total over every combination of inputs. Of the bands that apply, the one with
// the lowest value wins; so a Backup that is mid-apply is at 50 even when it is also Unconfirmed (70), while a Primary
// in the same case is at 190.
func Evaluate(in Inputs) Level {
	if in.Set == "" {
		// A witness serves no data. Maintenance is of servers, so nothing can bring a witness to 0.
		reasons := []string{"witness: in no redundant set"}
		if in.Fault != NoFault {
			reasons = append([]string{in.Fault.reason()}, reasons...)
		}
		return Level{Value: NoData.Value(""), Band: NoData, Reasons: reasons, Generation: in.Generation}
	}
	l := Level{Band: Authoritative, Generation: in.Generation, Set: in.Set, Role: in.Role}
	for b := bandCount; b > Authoritative; {
		b--
		reasons := in.applies(b)
		if len(reasons) == 0 {
			continue
		}
		l.Reasons = append(l.Reasons, reasons...)
		if b.Value(in.Role) < l.Band.Value(in.Role) {
			l.Band = b
		}
	}
	if l.Value = l.Band.Value(in.Role); len(in.Unreachable) > 0 && len(in.Unreachable) < len(in.Peers) {
		// It moves no level while another peer answers, but whoever looks for the cause of the next step wants to know.
		l.Reasons = append(l.Reasons, "unreachable: "+strings.Join(in.Unreachable, ", "))
	}
	return l
}

// applies returns why a band applies; nothing if it doesn't.
func (in *Inputs) applies(b Band) []string {
	one := func(is bool, reason string) []string {
		if is {
			return []string{reason}
		}
		return nil
	}
	switch b {
	case Maintenance:
		reason := "maintenance: declared by an operator"
		if in.MaintenanceReason != "" {
			reason = "maintenance: " + in.MaintenanceReason
		}
		return one(in.Maintenance, reason)
	case NoData:
		return one(in.Fault != NoFault, in.Fault.reason())
	case InvalidTopology:
		return in.Inconsistencies
	case Recovering:
		return one(in.Recovering, "recovering: back from a fault")
	case Unconfirmed:
		return one(!in.Confirmed && !in.Hold, "unconfirmed: the group cannot confirm this server's role")
	case MidApply:
		return one(in.MidApply, "mid-apply: an apply lease is open")
	case Isolated:
		// A server without peers cannot lose them.
		return one(len(in.Peers) > 0 && len(in.Unreachable) == len(in.Peers),
			"isolated: no peer of the set is reachable: "+strings.Join(in.Unreachable, ", "))
	}
	return nil
}

func (f Fault) reason() string {
	if f >= faultCount {
		return fmt.Sprintf("fault %d", uint8(f))
	}
	return faultReasons[f]
}
