package redundancy

import (
	"time"

	"quorate/telemetry"
)

// reading is what one scrape is told.
type reading struct {
	level    Level
	peers    []PeerView
	midApply bool
	adopted  uint64
	applied  uint64
	lease    time.Duration
	changes  uint64
}

func (m *Manager) reading() reading {
	state := m.group.Local().State
	record, _ := state.Member(m.member)
	return reading{
		level: m.Level(), peers: m.probes.views(), midApply: state.MidApply(m.member), adopted: record.GetAdoptedGeneration(),
		applied: state.AppliedGeneration(m.member), lease: max(m.serving.left(m.elapsed()), 0), changes: m.history.count(),
	}
}

// measure registers how fit this server is and what it sees of the others. The names of the first three are given by redundancy.md §8.
func (m *Manager) measure(metrics *telemetry.Metrics) error {
	return telemetry.Register(metrics, m.reading,
		telemetry.Gauge("ot_opcua_service_level", "ServiceLevel that this server advertises at this moment, 0 to 255.", func(r reading) byte { return r.level.Value }),
		telemetry.GaugeBy("ot_opcua_peer_reachable", "1 while a peer server of the set counts as reachable from here. There is a series for each peer.",
			[]string{"peer"}, func(r reading, report telemetry.Report) {
				for _, p := range r.peers {
					report(float64(telemetry.Bit(p.Reachable)), p.Server)
				}
			}),
		telemetry.Gauge("ot_opcua_apply_in_progress", "1 while this server holds an open apply lease.", func(r reading) int { return telemetry.Bit(r.midApply) }),
		telemetry.GaugeBy("quorate_redundancy_band", "1 for the band that the ServiceLevel of this server comes from, 0 for all others.",
			[]string{"band"}, func(r reading, report telemetry.Report) {
				for band := range bandCount {
					report(float64(telemetry.Bit(r.level.Band == band)), band.String())
				}
			}),
		telemetry.Gauge("quorate_redundancy_adopted_generation", "Generation of the topology that this server works under, 0 if none.",
			func(r reading) uint64 { return r.adopted }),
		telemetry.Gauge("quorate_redundancy_applied_generation", "Last generation of the topology that this server applied well, 0 if none.",
			func(r reading) uint64 { return r.applied }),
		telemetry.Gauge("quorate_redundancy_serving_lease_seconds", "What is left of this server's serving lease, in seconds; 0 without one.",
			func(r reading) float64 { return r.lease.Seconds() }),
		telemetry.Counter("quorate_redundancy_level_changes_total", "Changes of this server's ServiceLevel or band since the member started.",
			func(r reading) uint64 { return r.changes }),
		telemetry.CounterBy("quorate_redundancy_probes_total", "Probes of peers, by result: good; failed; outdated, when the topology changed meanwhile.",
			[]string{"result"}, func(_ reading, report telemetry.Report) {
				report(float64(m.probes.good.Load()), "good")
				report(float64(m.probes.failed.Load()), "failed")
				report(float64(m.probes.dropped.Load()), "outdated")
			}),
		telemetry.CounterBy("quorate_redundancy_serving_questions_total", "Questions for a serving lease, by result: answered, or failed.",
			[]string{"result"}, func(_ reading, report telemetry.Report) {
				report(float64(m.asking.answered.Load()), "answered")
				report(float64(m.asking.failed.Load()), "failed")
			}),
	)
}
