package sim

import (
	"flag"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"quorate/node"
)

var (
	seeds = flag.Int("seeds", 3, "how many seeds to try")
	first = flag.Uint64("seed", 1, "the first seed")
	loud  = flag.Bool("loud", false, "write what the members log to standard error")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// relaxed is a profile for hours of virtual time: raft's idle traffic is what costs.
var relaxed = node.Timing{
	Heartbeat: 10 * time.Second, Election: 10 * time.Second, LeaderLease: 10 * time.Second,
	Commit: time.Second, RPC: 10 * time.Second, Confirm: 5 * time.Second,
}

func logger() *slog.Logger {
	if !*loud {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func expectClean(t *testing.T, h *History, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range h.Problems() {
		t.Error(p)
	}
	t.Logf("%d writes, %d reads, %d unknown outcomes, %d faults", h.Writes(), h.Reads, h.Unknown, h.Faults)
}

// TestFaults runs seeds of three minutes in which something breaks every few seconds.
func TestFaults(t *testing.T) {
	for i := range *seeds {
		seed := *first + uint64(i)
		t.Run("", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				h, err := Run(Scenario{
					Seed: seed, Members: 3 + int(seed%3)&2, For: 3 * time.Minute, Clients: 4, Think: 300 * time.Millisecond, Calm: 8 * time.Second,
					Timing: node.LAN, FastClocks: seed%2 == 0,
					// Few entries between snapshots, so that members which come back get one.
					Limits: node.Limits{SnapshotEntries: 100, DigestInterval: 10 * time.Second, WatchProgress: time.Second},
				})
				t.Logf("seed %d, %v of virtual time", seed, time.Since(began))
				expectClean(t, h, err)
				if err == nil && (h.Writes() < 100 || h.Reads < 100 || h.Faults < 10) {
					t.Error("the scenario did too little to mean anything")
				}
			})
		})
	}
}
