package sim

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// runPartitions runs one seed. What happened is shown if something was wrong.
func runPartitions(t *testing.T, seed uint64, mutant GateMutant, length time.Duration) *PartitionResult {
	t.Helper()
	var result *PartitionResult
	synctest.Test(t, func(t *testing.T) {
		var trace []string
		s := PartitionScenario{Seed: seed, For: length, Calm: 5 * time.Second, Mutant: mutant}
		s.Trace = func(format string, args ...any) {
			if *loud {
				trace = append(trace, fmt.Sprintf("%s %s", time.Now().Format("15:04:05.000000"), fmt.Sprintf(format, args...)))
			}
		}
		var err error
		if result, err = RunPartitions(s); err != nil {
			t.Fatal(err)
		}
		if len(result.Problems) > 0 && mutant == NoGateMutant {
			for _, line := range trace {
				t.Log(line)
			}
		}
	})
	return result
}

// TestNoMisplacedWrite is the promise of partitions.md §4, INV-M1 to M4: writers with and without gate leases, while partitions migrate and things break.
func TestNoMisplacedWrite(t *testing.T) {
	var all PartitionResult
	for i := range *seeds {
		seed := *first + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := runPartitions(t, seed, NoGateMutant, 45*time.Second)
			for _, p := range r.Problems {
				t.Error(p)
			}
			if r.Transitions < 20 || r.FromMemory < 300 || r.Writes < 300 || r.Faults < 3 {
				t.Errorf("the scenario did too little to mean anything: %+v", r)
			}
			all.Checks += r.Checks
			all.FromMemory += r.FromMemory
			all.Writes += r.Writes
			all.Transitions += r.Transitions
			all.Completed += r.Completed
			all.Early += r.Early
			all.Aborted += r.Aborted
			all.Faults += r.Faults
		})
	}
	t.Logf("%d checks, %d of them from memory, %d writes, %d transitions, %d migrations completed, %d of them early, %d aborted, %d faults",
		all.Checks, all.FromMemory, all.Writes, all.Transitions, all.Completed, all.Early, all.Aborted, all.Faults)
}

// TestGateMutantsAreCaught breaks rules of the gate leases and of the barrier: the ledger has to notice within a few seeds.
func TestGateMutantsAreCaught(t *testing.T) {
	const tries = 30
	for name, mutant := range map[string]GateMutant{
		"leases ignored": LeasesIgnored, "closed gates ignored": ClosedIgnored,
		"barrier by the wall clock": BarrierByWallClock, "drained too soon": DrainedTooSoon,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(tries) {
				r := runPartitions(t, 1000+seed, mutant, time.Minute)
				for _, p := range r.Problems {
					if !strings.Contains(p, "refused") && !strings.Contains(p, "after the last fault") {
						t.Logf("caught with seed %d: %s", 1000+seed, p)
						return
					}
				}
			}
			t.Errorf("not caught in %d seeds", tries)
		})
	}
}
