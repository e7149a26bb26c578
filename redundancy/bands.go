package redundancy

import (
	"fmt"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// Roles of a server, as a topology declares them. No member ever elects one.
const (
	Primary = fsm.RolePrimary
	Backup  = fsm.RoleBackup
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
	Authoritative:   {fsm.BandAuthoritative, 255, 100},
	Isolated:        {fsm.BandIsolated, 230, 80},
	MidApply:        {fsm.BandMidApply, 200, 50},
	Unconfirmed:     {fsm.BandUnconfirmed, 190, 70},
	Recovering:      {fsm.BandRecovering, 180, 30},
	InvalidTopology: {"InvalidTopology", 2, 2},
	NoData:          {"NoData", 1, 1},
	Maintenance:     {"Maintenance", 0, 0},
}

// Healthy is the least ServiceLevel of the Healthy sub-range (Part 4 §6.6.2.4.2): a client stays with such a server.
const Healthy = 200

// String returns the band's name as people and OPC UA clients see it.
func (b Band) String() string {
	if b >= bandCount {
		return fmt.Sprintf("Band(%d)", uint8(b))
	}
	return table[b].name
}

// Value returns the ServiceLevel of the band, 0 to 255, for a role in the standard table. Only Primary has the higher column.
func (b Band) Value(role string) byte {
	if b >= bandCount {
		b = NoData
	}
	if role == Primary {
		return table[b].primary
	}
	return table[b].backup
}

// Policies are those policies of a set that its servers' levels depend on. The zero Policies are the defaults, with the standard table.
type Policies struct {
	// StandIn is the level of a Backup that stands in for its Primary, 200 to 254; 0 is off.
	StandIn byte
	// Hold: quorumLoss is hold, which leaves the Unconfirmed band out.
	Hold bool
	// HotBackupsHealthy: a Backup that is Authoritative advertises Healthy.
	HotBackupsHealthy bool
	// custom are the levels that a policy changed; 0 where it did not.
	custom [Recovering + 1]struct{ primary, backup byte }
}

// PoliciesOf returns the policies of a set. It takes no level over that the state machine's validation refuses and that could make a server
// Healthy without the right to it.
func PoliciesOf(set *quoratev1.RedundantSet) Policies {
	given := fsm.PoliciesOf(set)
	p := Policies{StandIn: given.StandIn, Hold: given.Hold, HotBackupsHealthy: given.HotBackupsHealthy && set.GetMode() == "HOT"}
	for b := range p.custom {
		levels := given.Levels[Band(b).String()]
		if v := levels.Primary; v < Healthy && table[b].primary < Healthy {
			p.custom[b].primary = v
		}
		if v := levels.Backup; v < Healthy {
			p.custom[b].backup = v
		}
	}
	return p
}

// Value returns the ServiceLevel of a band for a role under the policies, when nobody stands in.
func (p Policies) Value(b Band, role string) byte {
	standard := b.Value(role)
	if b > Recovering {
		return standard
	}
	custom := p.custom[b].backup
	switch {
	case role == Primary:
		custom = p.custom[b].primary
	case b == Authoritative && p.HotBackupsHealthy:
		return Healthy
	}
	if custom != 0 {
		return custom
	}
	return standard
}

// BandOf returns the band whose value for the role is level: what a peer's ServiceLevel means. Of a stand-in the level says no more than that nothing
// below Isolated applies, and so it is called Isolated: its Primary is gone. ok is false if no band has that value.
func (p Policies) BandOf(level byte, role string) (b Band, ok bool) {
	if role != Primary && p.StandIn != 0 && level == p.StandIn {
		return Isolated, true
	}
	for b := range bandCount {
		if p.Value(b, role) == level {
			return b, true
		}
	}
	return NoData, false
}
