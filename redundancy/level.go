package redundancy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault says why a server has no data to serve.
type Fault uint8

// The faults. Any but NoFault puts the server into NoData.
const (
	NoFault Fault = iota
	// NotInitialised: the member has not yet caught up with the group since it started.
	NotInitialised
	// Diverged: the member's state was found to differ from the majority's.
	Diverged
	// Unanswered: the server is new in its set, and the group has not answered its first question for a serving lease yet.
	Unanswered
	// Stale: the level's own watchdog found no fresh computation for WatchdogLimit.
	Stale
	faultCount
)

var faultReasons = [faultCount]string{
	NotInitialised: "not initialised: the state of the group is not known yet",
	Unanswered:     "not initialised: the group's first word on this server is awaited",
	Diverged:       "diverged: this member's state differs from the group's",
	Stale:          "watchdog: no fresh computation of the level for " + WatchdogLimit.String(),
}

// Lease is what a server's serving lease lets it do at a moment.
type Lease uint8

// The kinds of lease. Each lets a server do what the one before it does.
const (
	// NoLease: none is valid, so the group does not confirm the server's role.
	NoLease Lease = iota
	// Confirmed: the group confirms the server's role; the right to Healthy levels is not the server's.
	Confirmed
	// Right: the server may advertise the Healthy levels of its role.
	Right
	// StandIn: a Backup may advertise the level of a stand-in, because the group confirms that the Primary is gone.
	StandIn
	leaseCount
)

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
	// Lease is what the server's serving lease lets it do now.
	Lease Lease
	// Denied is the leader's word on why it did not give a Healthy lease, for people; empty if it has said nothing.
	Denied string
	// Policies are those of the server's set.
	Policies Policies
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
		slices.Equal(in.Unreachable, o.Unreachable) && in.MidApply == o.MidApply && in.Lease == o.Lease && in.Denied == o.Denied &&
		in.Policies == o.Policies && in.Recovering == o.Recovering && slices.Equal(in.Inconsistencies, o.Inconsistencies) && in.Fault == o.Fault &&
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

// Evaluate is the level function: pure, and total over every combination of inputs. Of the bands that apply, the one with
// the lowest value wins; so a Backup that is mid-apply is at 50 even when it is also Unconfirmed (70), while a Primary
// in the same case is at 190. A stand-in keeps the band that it would have otherwise: Authoritative or Isolated.
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
		if in.Policies.Value(b, in.Role) < in.Policies.Value(l.Band, in.Role) {
			l.Band = b
		}
	}
	l.Value = in.Policies.Value(l.Band, in.Role)
	if in.standsIn() && l.Band <= Isolated {
		l.Value = in.Policies.StandIn
		l.Reasons = append(l.Reasons, "stand-in: the group confirms that the Primary is gone")
	}
	if len(in.Unreachable) > 0 && len(in.Unreachable) < len(in.Peers) {
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
		switch {
		case in.Policies.Hold:
			return nil
		case in.Lease == NoLease:
			return []string{"unconfirmed: the group cannot confirm this server's role"}
		case in.Role == Primary && in.Lease == Confirmed:
			return []string{"unconfirmed: " + cmp.Or(in.Denied, "the right to a Healthy level is not given yet")}
		}
	case MidApply:
		return one(in.MidApply, "mid-apply: an apply lease is open")
	case Isolated:
		// A server without peers cannot lose them.
		return one(len(in.Peers) > 0 && len(in.Unreachable) == len(in.Peers),
			"isolated: no peer of the set is reachable: "+strings.Join(in.Unreachable, ", "))
	}
	return nil
}

// standsIn tells whether the server may advertise the level of a stand-in. A lease that was given to a Backup makes a Primary no stand-in.
func (in *Inputs) standsIn() bool {
	return in.Role != Primary && in.Lease == StandIn && in.Policies.StandIn != 0
}

func (f Fault) reason() string {
	if f >= faultCount {
		return fmt.Sprintf("fault %d", uint8(f))
	}
	return faultReasons[f]
}
