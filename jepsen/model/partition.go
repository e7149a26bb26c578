package model

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// partitions are judged one by one.
func partitions() noun {
	return noun{
		name: "partition", read: readPartition,
		keys: func(op *history.Op, _ *facts) []string { return strings.Split(op.Key, ",") },
		begin: func(string, []*call, *facts) (*fsm.State, error) {
			s := fsm.New()
			// How long barriers are is for another check; here any may be asked for.
			return s, must(s, &logv1.Command{RequestId: "first state", Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{
				Settings: &quoratev1.PartitionSettings{DrainBarrier: durationpb.New(fsm.MinDrainBarrier), MinDrainBarrier: durationpb.New(fsm.MinDrainBarrier)},
			}}})
		},
		view: viewPartitions, number: epochOf,
	}
}

// epochOf is the epoch of the one partition that there is; 0 is none.
func epochOf(s *fsm.State) uint64 {
	all, _, _ := s.PartitionPage("", "", "", 1)
	if len(all) == 0 {
		return 0
	}
	return all[0].GetEpoch()
}

// viewPartitions has the one partition that there is. After a deletion its last epoch is in the view of before.
func viewPartitions(before string, s *fsm.State, _ *logv1.Command) string {
	all, _, _ := s.PartitionPage("", "", "", 1)
	if len(all) == 0 {
		return "gone after " + strings.TrimPrefix(before, "gone after ")
	}
	p := all[0]
	m := p.GetMigration()
	return fmt.Sprint(p.GetEpoch(), p.GetPhase(), p.GetPlacement(), m.GetTo(), m.GetVerificationRequired(), m.GetVerified(), m.GetServers())
}

func readPartition(op *history.Op, key string) (*call, error) {
	switch op.Kind {
	case "get", "resolve", "check_gate":
		return readPartitionRead(op)
	case "create":
		return readCreate(op, key)
	}
	command, request, expected, err := partitionCommand(op)
	if err != nil || command == nil {
		return nil, err
	}
	answer := &quoratev1.BeginMigrationResponse{} // All have the partition in the same field.
	if op.Outcome == history.OK && op.Kind != "delete" {
		if err := unmarshal(op.Output, answer); err != nil {
			return nil, err
		}
	}
	want := answer.GetPartition()
	c := write(op, request, command, func(o *logv1.Outcome) bool {
		got := o.GetPartitionMoved().GetPartition()
		return op.Kind == "delete" ||
			got.GetEpoch() == want.GetEpoch() && got.GetPhase() == want.GetPhase() && got.GetPlacement() == want.GetPlacement()
	}, fsm.ReasonApplyInProgress)
	c.number, c.expected = want.GetEpoch(), expected
	c.anyway = reason(op) == fsm.ReasonUnknownServer // Which servers there are is of another key.
	if op.Kind == "complete" && reason(op) != fsm.ReasonBarrierPending {
		c.prepare, c.timed = pastBarrier(op.Key), true
	}
	return c, nil
}

// pastBarrier lets the barrier of a partition begin and pass, if it is in cutover.
func pastBarrier(id string) func(*fsm.State) []*logv1.Entry {
	return func(s *fsm.State) []*logv1.Entry {
		p, _ := s.Partition(id)
		m := p.GetMigration()
		if m.GetCutoverEpoch() == 0 {
			return nil
		}
		tick := []*logv1.Command{{Body: &logv1.Command_Tick{Tick: &logv1.Tick{}}}}
		now := s.Now()
		return []*logv1.Entry{
			{Clock: uint64(now), LeaderApplied: s.Revision(), Commands: tick},
			{Clock: uint64(now + m.GetDrainBarrier().AsDuration() + time.Nanosecond), LeaderApplied: s.Revision() + 1, Commands: tick},
		}
	}
}

// partitionCommand is what a transition puts into the log, with the leader's word: that it was true is for the check of gates.
func partitionCommand(op *history.Op) (command *logv1.Command, request string, expected uint64, err error) {
	answer := &quoratev1.BeginMigrationResponse{}
	c := &logv1.Command{}
	read := func(m interface {
		proto.Message
		GetRequestId() string
		GetExpectedEpoch() uint64
	}) error {
		err := decode(op, m, answer)
		request, expected = m.GetRequestId(), m.GetExpectedEpoch()
		return err
	}
	switch op.Kind {
	case "set_placement":
		r := &quoratev1.SetPlacementRequest{}
		err = read(r)
		c.Body = &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: op.Key, Placement: r.GetPlacement(), ExpectedEpoch: expected}}
	case "delete":
		r := &quoratev1.DeletePartitionRequest{}
		err = read(r)
		c.Body = &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: op.Key, ExpectedEpoch: expected}}
	case "begin":
		r := &quoratev1.BeginMigrationRequest{}
		err = read(r)
		// The servers that it names are for the refusal APPLY_IN_PROGRESS, which is of another key.
		c.Body = &logv1.Command_BeginMigration{BeginMigration: &logv1.BeginMigration{
			Partition: op.Key, To: r.GetTo(), ExpectedEpoch: expected, DrainBarrier: r.GetDrainBarrier(),
			EarlyCompletion: r.GetEarlyCompletion(), VerificationRequired: r.GetVerificationRequired(),
		}}
	case "report":
		r := &quoratev1.ReportMigrationRequest{}
		err = read(r)
		c.Body = &logv1.Command_ReportMigration{ReportMigration: &logv1.ReportMigration{
			Partition: op.Key, ExpectedEpoch: expected, Copy: r.GetCopy(), Verified: r.GetVerified(),
		}}
	case "cutover":
		err = read(&quoratev1.CutoverMigrationRequest{})
		c.Body = &logv1.Command_CutoverMigration{CutoverMigration: &logv1.CutoverMigration{Partition: op.Key, ExpectedEpoch: expected}}
	case "complete":
		err = read(&quoratev1.CompleteMigrationRequest{})
		c.Body = &logv1.Command_CompleteMigration{CompleteMigration: &logv1.CompleteMigration{Partition: op.Key, ExpectedEpoch: expected}}
	case "abort":
		err = read(&quoratev1.AbortMigrationRequest{})
		c.Body = &logv1.Command_AbortMigration{AbortMigration: &logv1.AbortMigration{Partition: op.Key, ExpectedEpoch: expected}}
	default:
		return nil, "", 0, nil
	}
	fsm.GatesClosed(c, true)
	return c, request, expected, err
}

// readCreate is the creation of one partition; those that were created with it are judged by themselves.
func readCreate(op *history.Op, key string) (*call, error) {
	r, answer := &quoratev1.CreatePartitionsRequest{}, &quoratev1.CreatePartitionsResponse{}
	if err := decode(op, r, answer); err != nil {
		return nil, err
	}
	c := write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{
		Ids: []string{key}, Placement: r.GetPlacement(), DrainBarrier: r.GetDrainBarrier(),
	}}}, func(o *logv1.Outcome) bool { return o.GetPartitionsMade().GetEpoch() == answer.GetEpoch() })
	c.number = answer.GetEpoch()
	c.prepare = func(s *fsm.State) []*logv1.Entry { return deletedElsewhere(s, answer.GetEpoch()) }
	return c, nil
}

// deletedElsewhere is the deletion of another partition, after which what is created gets that epoch: it is above those of all partitions that were ever deleted,
// of which a key's own calls say nothing.
func deletedElsewhere(s *fsm.State, epoch uint64) []*logv1.Entry {
	const other = "deleted-elsewhere"
	if epoch == 0 {
		return nil
	}
	var commands []*logv1.Command
	add := func(c *logv1.Command) {
		c.RequestId = fmt.Sprintf("%s-%d-%d", other, epoch, len(commands))
		fsm.GatesClosed(c, true)
		commands = append(commands, c)
	}
	entry := func() *logv1.Entry {
		return &logv1.Entry{Clock: uint64(s.Now() + 1), LeaderApplied: s.Revision(), Commands: commands}
	}
	add(&logv1.Command{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: []string{other}, Placement: "a"}}})
	trial := s.Snapshot()
	outcomes, _, err := trial.ApplyEntry(trial.Revision()+1, entry())
	if err != nil || outcomes[0].GetPartitionsMade().GetEpoch() >= epoch {
		return nil
	}
	for next := outcomes[0].GetPartitionsMade().GetEpoch() + 1; next < epoch; next++ {
		add(&logv1.Command{Body: &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: other, Placement: string('a' + rune(len(commands)%2))}}})
	}
	add(&logv1.Command{Body: &logv1.Command_DeletePartition{DeletePartition: &logv1.DeletePartition{Partition: other}}})
	return []*logv1.Entry{entry()}
}

func readPartitionRead(op *history.Op) (*call, error) {
	c := newCall(op, false)
	if c == nil {
		return nil, nil
	}
	switch op.Kind {
	case "get":
		r, answer := &quoratev1.GetPartitionRequest{}, &quoratev1.GetPartitionResponse{}
		if err := decode(op, r, answer); err != nil || !linearizable(r.GetRead()) {
			return nil, err
		}
		p := answer.GetPartition()
		c.sees(op, p.GetEpoch(), p.GetPhase(), p.GetPlacement())
	case "resolve":
		r, answer := &quoratev1.ResolveRequest{}, &quoratev1.ResolveResponse{}
		if err := decode(op, r, answer); err != nil || !linearizable(r.GetRead()) {
			return nil, err
		}
		for _, p := range answer.GetResolutions() {
			if p.GetPartition() == op.Key {
				c.sees(op, p.GetEpoch(), p.GetPhase(), p.GetReadPlacement())
			}
		}
		if c.look == nil {
			return nil, fmt.Errorf("the answer has nothing of %s", op.Key)
		}
	case "check_gate":
		r, answer := &quoratev1.CheckGateRequest{}, &quoratev1.CheckGateResponse{}
		if err := decode(op, r, answer); err != nil || !linearizable(r.GetRead()) {
			return nil, err
		}
		c.checks(op, r.GetEpoch(), answer)
	}
	return c, nil
}

// sees is a read that shows a partition. A refused one says that there is none, which may be so more than once.
func (c *call) sees(op *history.Op, epoch uint64, phase quoratev1.PartitionPhase, placement string) {
	if op.Outcome == history.OK {
		c.value, c.number = fmt.Sprint(epoch, phase, placement), epoch
	}
	c.look = func(s *fsm.State) bool {
		now := s.Resolve(op.Key)
		return now.GetEpoch() == epoch && now.GetPhase() == phase && now.GetReadPlacement() == placement
	}
}

// checks is a gate check: it passes at the current epoch, if anybody may write.
func (c *call) checks(op *history.Op, asked uint64, answer *quoratev1.CheckGateResponse) {
	if op.Outcome == history.OK {
		c.value, c.number = fmt.Sprint("gate", answer.GetEpoch(), answer.GetPlacement()), answer.GetEpoch()
		c.look = func(s *fsm.State) bool {
			now := s.Resolve(op.Key)
			return now.GetEpoch() == answer.GetEpoch() && now.GetWritePlacement() == answer.GetPlacement() && answer.GetPlacement() != ""
		}
		return
	}
	c.look = func(s *fsm.State) bool {
		now := s.Resolve(op.Key)
		passes := now.GetWritePlacement() != "" && now.GetEpoch() == asked
		return !passes && s.StaleEpoch(op.Key, asked).GetReason() == reason(op)
	}
}
