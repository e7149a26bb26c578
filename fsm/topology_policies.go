package fsm

import (
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// Values of the policies of a set (quoratev1.RedundancyPolicies); in each the first is the default.
const (
	ApplyInPlace  = "inPlace"
	ApplyHandover = "handover"

	QuorumLossDegrade = "degrade"
	QuorumLossHold    = "hold"

	FailoverManual    = "manual"
	FailoverAutomatic = "automatic"

	EvictOff         = "off"
	EvictMaintenance = "maintenance"
	EvictBackups     = "backups"
)

// Bands whose levels a policy may change, as it names them.
const (
	BandAuthoritative = "Authoritative"
	BandIsolated      = "Isolated"
	BandMidApply      = "Mid-apply"
	BandUnconfirmed   = "Unconfirmed"
	BandRecovering    = "Recovering"
)

// Why the roles of a set were swapped without a person (SwapRoles, Generation.swapped_by).
const (
	SwapHandover = "handover"
	SwapFailover = "failover"
)

// DefaultFailoverAfter is the policy failover_after where a set says nothing.
const DefaultFailoverAfter = 10 * time.Second

// Policies are the policies of a set with every default written out.
type Policies struct {
	MaxServers        uint32
	Apply             string // ApplyInPlace or ApplyHandover.
	StandIn           uint8  // The level of a stand-in, 200 to 254; 0 is off.
	Hold              bool   // quorum_loss: hold.
	Automatic         bool   // failover: automatic.
	FailoverAfter     time.Duration
	EvictClients      string // EvictOff, EvictMaintenance or EvictBackups.
	HotBackupsHealthy bool
	// Levels has an entry for each of the five bands that a policy may change.
	Levels map[string]BandLevels
}

// BandLevels are the ServiceLevels of one band by role.
type BandLevels struct{ Primary, Backup uint8 }

// standardLevels is the table of redundancy.md §2 as far as a policy may change it.
var standardLevels = []struct {
	band string
	BandLevels
}{
	{BandAuthoritative, BandLevels{255, 100}},
	{BandIsolated, BandLevels{230, 80}},
	{BandMidApply, BandLevels{200, 50}},
	{BandUnconfirmed, BandLevels{190, 70}},
	{BandRecovering, BandLevels{180, 30}},
}

// PoliciesOf returns the policies of a set with every default written out; nil stands for a set that says nothing. Only give it
// a set in normal form, which every kept generation is.
func PoliciesOf(set *quoratev1.RedundantSet) Policies {
	given := set.GetPolicies()
	p := Policies{
		MaxServers: given.GetMaxServers(), Apply: given.GetApply(), StandIn: uint8(given.GetStandIn()),
		Hold: given.GetQuorumLoss() == QuorumLossHold, Automatic: given.GetFailover() == FailoverAutomatic,
		FailoverAfter: given.GetFailoverAfter().AsDuration(), EvictClients: given.GetEvictClients(),
		HotBackupsHealthy: given.GetHotBackupsHealthy(), Levels: make(map[string]BandLevels, len(standardLevels)),
	}
	if p.MaxServers == 0 {
		p.MaxServers = DefaultMaxServers
	}
	if p.Apply == "" {
		p.Apply = ApplyInPlace
	}
	if p.FailoverAfter == 0 {
		p.FailoverAfter = DefaultFailoverAfter
	}
	if p.EvictClients == "" {
		p.EvictClients = EvictOff
	}
	for _, standard := range standardLevels {
		p.Levels[standard.band] = standard.BandLevels
	}
	for _, l := range given.GetLevels() {
		levels := p.Levels[l.GetBand()]
		if l.GetPrimary() != 0 {
			levels.Primary = uint8(l.GetPrimary())
		}
		if l.GetBackup() != 0 {
			levels.Backup = uint8(l.GetBackup())
		}
		p.Levels[l.GetBand()] = levels
	}
	return p
}
