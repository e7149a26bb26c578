package fsm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// next is the command that brings a partition on.
func (p *modelPartitions) next(id string) string {
	switch v := p.byID[id]; {
	case v == nil:
		return "create"
	case v.migration == nil:
		return "begin"
	case v.migration.cutover == 0 && v.migration.verify && !v.migration.verified:
		return "report"
	case v.migration.cutover == 0:
		return "cutover"
	default:
		return "complete"
	}
}

var partitionIDs = []string{"p1", "p2", "p3", "p4"}

// drawPartitionCommand draws a command such that migrations often come to their end. Request ids are mostly new.
func drawPartitionCommand(t *rapid.T, p *modelPartitions, number int) *logv1.Command {
	id := rapid.SampledFrom(partitionIDs).Draw(t, "partition")
	placement := rapid.SampledFrom([]string{"north", "south", "m1", "m2"}).Draw(t, "placement")
	expected := uint64(0)
	if v := p.byID[id]; v != nil {
		expected = rapid.SampledFrom([]uint64{0, 0, v.epoch, v.epoch, v.epoch, v.epoch - 1}).Draw(t, "expected")
	}
	seconds := func(label string, from ...int64) *durationpb.Duration {
		if s := rapid.SampledFrom(from).Draw(t, label); s >= 0 {
			return &durationpb.Duration{Seconds: s}
		}
		return nil
	}
	session := rapid.SampledFrom([]string{"session-session-1", "session-session-2"}).Draw(t, "session")
	c := &logv1.Command{
		RequestId: fmt.Sprint("r", rapid.SampledFrom([]int{number, number, number, number, number - 1, number - 5}).Draw(t, "id")),
		Actor:     &quoratev1.Actor{Name: rapid.SampledFrom([]string{"ann", "ann", "ann", "bob"}).Draw(t, "actor")},
	}
	command := rapid.SampledFrom([]string{"next", "settings", "register", "remove", "pulse", "create", "place", "delete", "begin", "report", "cutover", "complete", "abort",
		"forget", "tick", "lease", "unlease", "publish"}).Draw(t, "command")
	if command == "next" || rapid.Bool().Draw(t, "next") {
		command, expected = p.next(id), 0
	}
	switch command {
	case "create":
		c.Body = &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: partitionIDs[:rapid.IntRange(1, 4).Draw(t, "ids")], Placement: placement,
			DrainBarrier: seconds("own", -1, -1, 20)}}
	case "place":
		c.Body = &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: id, Placement: placement, ExpectedEpoch: expected}}
	case "delete":
		c.Body = &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: id, ExpectedEpoch: expected}}
	case "begin":
		b := &logv1.BeginMigration{Partition: id, To: placement, ExpectedEpoch: expected, DrainBarrier: seconds("barrier", -1, -1, 12, 45),
			EarlyCompletion: rapid.Bool().Draw(t, "early"), VerificationRequired: rapid.IntRange(0, 3).Draw(t, "verify") == 0}
		if rapid.IntRange(0, 3).Draw(t, "with servers") == 0 {
			b.Servers = []string{rapid.SampledFrom(servers).Draw(t, "server")}
		}
		c.Body = &logv1.Command_BeginMigration{BeginMigration: b}
	case "report":
		b := &logv1.ReportMigration{Partition: id, ExpectedEpoch: expected, Verified: rapid.Bool().Draw(t, "verified")}
		if done := rapid.Uint64Range(0, 3).Draw(t, "done"); done > 0 {
			b.Copy = &quoratev1.CopyProgress{Done: done, Total: 3}
		}
		c.Body = &logv1.Command_ReportMigration{ReportMigration: b}
	case "cutover":
		c.Body = &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: id, ExpectedEpoch: expected}}
	case "complete":
		c.Body = &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{Partition: id, ExpectedEpoch: expected, Drained: rapid.Bool().Draw(t, "drained")}}
	case "abort":
		c.Body = &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: id, ExpectedEpoch: expected}}
	case "settings":
		c.Body = &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{Settings: &quoratev1.PartitionSettings{
			DrainBarrier: seconds("barrier", -1, 10, 30, 60), MinDrainBarrier: seconds("least", -1, -1, 5, 10, 25, 40), EarlyFloor: seconds("floor", -1, 0, 5),
			GateTtl: seconds("ttl", -1, 1, 2, 10)}}}
	case "register":
		c.Body = &logv1.Command_RegisterInstance{RegisterInstance: &logv1.RegisterInstance{Id: id, Session: session}}
	case "remove":
		c.Body = &logv1.Command_RemoveInstance{RemoveInstance: &logv1.RemoveInstance{Id: id,
			Session: rapid.SampledFrom([]string{"", session, session}).Draw(t, "as"), Drained: rapid.Bool().Draw(t, "drained")}}
	case "forget":
		return &logv1.Command{Body: &logv1.Command_ForgetInstance{ForgetInstance: &logv1.ForgetInstance{Id: id, Session: session}}}
	case "pulse":
		return &logv1.Command{Body: &logv1.Command_Pulse{Pulse: &logv1.Pulse{}}}
	case "tick":
		return &logv1.Command{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}}
	case "lease":
		c.Body = &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: rapid.SampledFrom(servers).Draw(t, "server")}}
	case "unlease":
		c.Body = &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: rapid.SampledFrom(servers).Draw(t, "server")}}
	default:
		c.Body = &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{ExpectedGeneration: p.m.generation, Topology: drawTopology(t)}}
	}
	GatesClosed(c, rapid.IntRange(0, 7).Draw(t, "gates open") > 0)
	return c
}

// TestPartitionModel puts random entries of partitions and instances to the trial. Their leaders had applied more or less of what came before. In the end every
// kind of transition has to have come about, or the trial would prove little.
func TestPartitionModel(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		r, number := newTrial(t), 0
		r.repeat(t, map[string]func(*rapid.T){
			"entry": func(t *rapid.T) {
				r.elapse(t, 0, time.Second, 5*time.Second, 30*time.Second, -10*time.Second, 11*time.Minute)
				applied := r.index
				if behind := rapid.Uint64Range(0, 6).Draw(t, "behind"); behind > 3 {
					applied -= min(applied, behind-3)
				}
				r.apply(t, applied, rapid.IntRange(1, 8).Draw(t, "commands"), func() *logv1.Command {
					number++
					return drawPartitionCommand(t, r.model.partitions, number)
				})
				for _, e := range r.events {
					c := e.GetPartitionChanged()
					seen[strings.TrimPrefix(c.GetTransition().String(), "PARTITION_TRANSITION_")+map[bool]string{true: " early"}[c.GetEarly()]]++
				}
			},
		})
	})
	for _, what := range []string{"SET_PLACEMENT", "DELETE", "BEGIN", "CUTOVER", "COMPLETE", "COMPLETE early", "ABORT", "REPORT", "BARRIER_BEGUN", "BARRIER_PASSED"} {
		if seen[what] == 0 && !t.Failed() {
			t.Errorf("no %s among %v", what, seen)
		}
	}
	t.Log(seen)
}
