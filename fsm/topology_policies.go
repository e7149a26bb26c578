package fsm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

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

// bandRow is a row of the table of bands.
type bandRow struct {
	band string
	BandLevels
}

// standardLevels is the table of redundancy.md §2 as far as a policy may change it.
var standardLevels = []bandRow{
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

// laterPolicies says whether any policy is given that command version 1 did not know.
func laterPolicies(p *quoratev1.RedundancyPolicies) bool {
	return p.GetApply() != "" || p.GetStandIn() != 0 || p.GetQuorumLoss() != "" || p.GetFailover() != "" || p.GetFailoverAfter() != nil ||
		p.GetEvictClients() != "" || p.GetHotBackupsHealthy() || len(p.GetLevels()) > 0
}

// hasPolicies says whether a document needs members that know its policies.
func hasPolicies(t *quoratev1.Topology) bool {
	return slices.ContainsFunc(t.GetSets(), func(set *quoratev1.RedundantSet) bool { return laterPolicies(set.GetPolicies()) })
}

// normalPolicies checks the policies of a set and returns them in normal form. max_servers is written out; of the others only what differs
// from its default, so that a document that says nothing of them keeps the bytes and the digest that it had before they came.
func normalPolicies(field, mode string, p *quoratev1.RedundancyPolicies) (*quoratev1.RedundancyPolicies, *Refusal) {
	limit := p.GetMaxServers()
	if limit == 0 {
		limit = DefaultMaxServers
	}
	if limit > MaxServers {
		return nil, invalid(ReasonInvalidMaxServers, field+".max_servers", "%d is more than the %d allowed", limit, MaxServers)
	}
	normal := &quoratev1.RedundancyPolicies{MaxServers: limit, StandIn: p.GetStandIn(), HotBackupsHealthy: p.GetHotBackupsHealthy()}
	for _, choice := range []struct {
		name, given string
		kept        *string
		values      []string // The default first.
	}{
		{"apply", p.GetApply(), &normal.Apply, []string{ApplyInPlace, ApplyHandover}},
		{"quorum_loss", p.GetQuorumLoss(), &normal.QuorumLoss, []string{QuorumLossDegrade, QuorumLossHold}},
		{"failover", p.GetFailover(), &normal.Failover, []string{FailoverManual, FailoverAutomatic}},
		{"evict_clients", p.GetEvictClients(), &normal.EvictClients, []string{EvictOff, EvictMaintenance, EvictBackups}},
	} {
		switch i := slices.Index(choice.values, choice.given); {
		case i < 0 && choice.given != "":
			return nil, invalid(ReasonInvalidPolicy, field+"."+choice.name, "%s is none of %s", quote(choice.given), strings.Join(choice.values, ", "))
		case i > 0:
			*choice.kept = choice.given
		}
	}
	if at := p.GetStandIn(); at != 0 && (at < MinStandIn || at > MaxStandIn) {
		return nil, invalid(ReasonInvalidPolicy, field+".stand_in", "%d is not %d to %d, nor 0 for off", at, MinStandIn, MaxStandIn)
	}
	if after := p.GetFailoverAfter(); after != nil {
		if !after.IsValid() || after.AsDuration() < MinFailoverAfter || after.AsDuration() > MaxFailoverAfter {
			return nil, invalid(ReasonInvalidPolicy, field+".failover_after", "it must be %v to %v", MinFailoverAfter, MaxFailoverAfter)
		}
		if after.AsDuration() != DefaultFailoverAfter {
			normal.FailoverAfter = durationpb.New(after.AsDuration())
		}
	}
	if r := checkTogether(field, mode, normal); r != nil {
		return nil, r
	}
	levels, r := normalLevels(field+".levels", p.GetLevels())
	if r != nil {
		return nil, r
	}
	normal.Levels = levels
	return normal, nil
}

// checkTogether refuses policies that contradict each other or the mode of their set.
func checkTogether(field, mode string, p *quoratev1.RedundancyPolicies) *Refusal {
	hold := p.GetQuorumLoss() == QuorumLossHold
	switch {
	case hold && p.GetStandIn() != 0:
		return invalid(ReasonInvalidPolicy, field+".quorum_loss", "hold is refused together with stand_in: a Primary that goes on without the group, "+
			"and its stand-in, would both be Healthy")
	case hold && p.GetFailover() == FailoverAutomatic:
		return invalid(ReasonInvalidPolicy, field+".quorum_loss", "hold is refused together with failover automatic: a Primary that goes on without "+
			"the group, and its successor, would both be Healthy")
	case p.GetHotBackupsHealthy() && mode != ModeHot:
		return invalid(ReasonInvalidPolicy, field+".hot_backups_healthy", "it is for mode HOT, and the mode is %s", mode)
	}
	return nil
}

// normalLevels checks the levels that a policy changes, and returns those that differ from the standard table, in its order. Per role the
// levels must keep the order that the bands have in the standard table, a Healthy one of a Primary can't be changed, and nothing else
// can become Healthy, or as low as InvalidTopology.
func normalLevels(field string, given []*quoratev1.BandLevel) ([]*quoratev1.BandLevel, *Refusal) {
	const lowest, highest = 3, 199
	table := slices.Clone(standardLevels)
	seen := make(map[string]bool)
	for i, l := range given {
		at := fmt.Sprintf("%s[%d]", field, i)
		band := slices.IndexFunc(table, func(row bandRow) bool { return row.band == l.GetBand() })
		if band < 0 {
			return nil, invalid(ReasonInvalidPolicy, at+".band", "%s is no band whose levels can be changed", quote(l.GetBand()))
		}
		if seen[l.GetBand()] {
			return nil, invalid(ReasonInvalidPolicy, at+".band", "the levels of %s are given twice", l.GetBand())
		}
		seen[l.GetBand()] = true
		standard := standardLevels[band]
		if p := l.GetPrimary(); p != 0 && p != uint32(standard.Primary) {
			if standard.Primary > highest {
				return nil, invalid(ReasonInvalidPolicy, at+".primary", "the level of a Primary that is %s is %d and can't be changed", l.GetBand(), standard.Primary)
			}
			if p < lowest || p > highest {
				return nil, invalid(ReasonInvalidPolicy, at+".primary", "%d is not %d to %d", p, lowest, highest)
			}
			table[band].Primary = uint8(p)
		}
		if b := l.GetBackup(); b != 0 {
			if b < lowest || b > highest {
				return nil, invalid(ReasonInvalidPolicy, at+".backup", "%d is not %d to %d", b, lowest, highest)
			}
			table[band].Backup = uint8(b)
		}
	}
	for i, a := range standardLevels {
		for j, b := range standardLevels {
			if a.Primary > b.Primary && table[i].Primary <= table[j].Primary || a.Backup > b.Backup && table[i].Backup <= table[j].Backup {
				return nil, invalid(ReasonInvalidPolicy, field, "the bands must keep their order: %s is above %s", a.band, b.band)
			}
		}
	}
	var normal []*quoratev1.BandLevel
	for i, row := range table {
		l := &quoratev1.BandLevel{Band: row.band}
		if row.Primary != standardLevels[i].Primary {
			l.Primary = uint32(row.Primary)
		}
		if row.Backup != standardLevels[i].Backup {
			l.Backup = uint32(row.Backup)
		}
		if l.GetPrimary() != 0 || l.GetBackup() != 0 {
			normal = append(normal, l)
		}
	}
	return normal, nil
}

// policyFields returns the policies of a set as the fields of Diff, all of them each time, in one order. One that is at its default is empty.
func policyFields(p *quoratev1.RedundancyPolicies) [][2]string {
	number := func(n uint32) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatUint(uint64(n), 10)
	}
	after, healthy := "", ""
	if p.GetFailoverAfter() != nil {
		after = p.GetFailoverAfter().AsDuration().String()
	}
	if p.GetHotBackupsHealthy() {
		healthy = "true"
	}
	fields := [][2]string{
		{"max_servers", number(p.GetMaxServers())}, {"apply", p.GetApply()}, {"stand_in", number(p.GetStandIn())},
		{"quorum_loss", p.GetQuorumLoss()}, {"failover", p.GetFailover()}, {"failover_after", after},
		{"evict_clients", p.GetEvictClients()}, {"hot_backups_healthy", healthy},
	}
	for _, row := range standardLevels {
		given := &quoratev1.BandLevel{}
		for _, l := range p.GetLevels() {
			if l.GetBand() == row.band {
				given = l
			}
		}
		fields = append(fields,
			[2]string{"levels[" + row.band + "].primary", number(given.GetPrimary())},
			[2]string{"levels[" + row.band + "].backup", number(given.GetBackup())})
	}
	return fields
}
