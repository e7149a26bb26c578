package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

func newPartitionWatch(o *options) *cobra.Command {
	w := &partitionWatch{o: o}
	cmd := &cobra.Command{
		Use:   "watch [ID…]",
		Short: "Print each transition of partitions as it happens, until it is interrupted",
		Long: `Watch prints one line for each transition, in order, none missed and none twice; with -o json one line of JSON each. A connection that is lost is made
again, at another member, and goes on after the last one printed. --from begins at a revision of the past, as far back as the members remember.`,
		ValidArgsFunction: o.completePartitions(completedArguments),
	}
	cmd.Flags().Uint64Var(&w.from, "from", 0, "begin with the transitions of this `REVISION` (default: from now on)")
	cmd.Flags().IntVar(&w.count, "count", 0, "end after `N` lines (default: go on)")
	cmd.Flags().BoolVar(&w.reports, "reports", false, "print reports of the copy's progress too")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if len(arguments) > fsm.MaxPartitionBatch {
			return fmt.Errorf("ID: at most %d partitions, got %d", fsm.MaxPartitionBatch, len(arguments))
		}
		for _, id := range arguments {
			if err := checkPartitionID("ID", id); err != nil {
				return err
			}
		}
		group, err := o.connect()
		if err != nil {
			return err
		}
		defer group.Close()
		w.ids = arguments
		return w.run(cmd.Context(), group)
	}
	return cmd
}

// partitionWatch is a watch that outlives its streams.
type partitionWatch struct {
	o       *options
	ids     []string
	count   int
	reports bool

	// from is the revision to go on with: all before it was seen. 0 is from now on.
	from  uint64
	lines int
	// last is the event that was printed last: those of one revision may come in two messages, and a stream may break between them.
	last struct {
		revision uint64
		sequence uint32
	}
}

// errEnough ends a watch that has printed as many lines as were asked for.
var errEnough = errors.New("enough")

func (w *partitionWatch) run(ctx context.Context, group *connection) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.from == 0 {
		// A stream that breaks before its first message would not know where to go on.
		answer, err := quoratev1.NewPartitionServiceClient(group).GetPartitionSettings(ctx, &quoratev1.GetPartitionSettingsRequest{})
		if err != nil {
			return err
		}
		w.from = answer.GetHeader().GetRevision() + 1
	}
	lost := time.Time{}
	for pause := firstPause; ; {
		heard, err := w.stream(ctx, group)
		switch {
		case errors.Is(err, errEnough) || ctx.Err() != nil:
			return nil // That is how a watch ends.
		case heard:
			lost, pause = time.Time{}, firstPause
		}
		if !mayResume(err) {
			return w.explain(err)
		}
		if lost.IsZero() {
			lost = time.Now()
			w.o.say("the watch is lost, and goes on at revision %d as soon as a member answers: %s", w.from, status.Convert(err).Message())
		}
		if time.Since(lost) > w.o.timeout {
			return err
		}
		if !sleep(ctx, pause) {
			return nil
		}
		pause = min(2*pause, maxPause)
	}
}

// stream prints what one stream brings. Heard tells whether it brought anything.
func (w *partitionWatch) stream(ctx context.Context, group *connection) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := quoratev1.NewEventServiceClient(group).WatchEvents(ctx, &quoratev1.WatchEventsRequest{
		FromRevision: w.from, Kinds: []string{"partitions_created", "partition_changed"}, Partitions: w.ids,
	})
	if err != nil {
		return false, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return heard, err
		}
		heard = true
		for _, event := range answer.GetEvents() {
			if err := w.print(event); err != nil {
				return heard, err
			}
		}
		// Only once all of a message is printed. Where it has only some events of a revision, its header names the one before.
		w.from = max(w.from, answer.GetHeader().GetRevision()+1)
	}
}

// mayResume tells whether a stream that ended so is worth another try, at another member.
func mayResume(err error) bool {
	var remote *remoteError
	if errors.As(err, &remote) {
		return true // No member could be reached.
	}
	switch status.Code(err) {
	case codes.OutOfRange, codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return false
	default:
		return true
	}
}

// explain says what to do where the members no longer remember.
func (w *partitionWatch) explain(err error) error {
	if revision := errorInfo(status.Convert(err)).GetMetadata()["revision"]; status.Code(err) == codes.OutOfRange && revision != "" {
		return &serverError{fmt.Errorf("--from %d: the members remember transitions after revision %s only: list the partitions, and watch on from there", w.from, revision)}
	}
	return &serverError{errors.New(status.Convert(err).Message())}
}

func (w *partitionWatch) print(event *quoratev1.Event) error {
	seen := event.GetRevision() < w.last.revision || event.GetRevision() == w.last.revision && event.GetSequence() <= w.last.sequence
	if seen && w.last.revision != 0 {
		return nil
	}
	w.last.revision, w.last.sequence = event.GetRevision(), event.GetSequence()
	change := event.GetPartitionChanged()
	if change.GetTransition() == quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT && !w.reports {
		return nil
	}
	if err := w.printLine(event); err != nil {
		return err
	}
	if w.lines++; w.lines == w.count {
		return errEnough
	}
	return nil
}

func (w *partitionWatch) printLine(event *quoratev1.Event) error {
	if w.o.output != outputTable {
		raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(event)
		if err != nil {
			return fmt.Errorf("print an event: %w", err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			return fmt.Errorf("print an event: %w", err)
		}
		return w.o.showLine(text("an event"), json.RawMessage(compact.Bytes()))
	}
	at := "-" // The group's own changes have no wall time.
	if t := event.GetWallTime(); t != nil {
		at = t.AsTime().Local().Format("2006-01-02 15:04:05.000")
	}
	row := text(at, event.GetRevision())
	if created := event.GetPartitionsCreated(); created != nil {
		return w.o.showLine(append(row, text(idsText(created.GetIds()), "created", "at "+created.GetPlacement(), fmt.Sprintf("epoch %d", created.GetEpoch()),
			event.GetActor().GetName(), created.GetNote())...), nil)
	}
	return w.o.showLine(append(row, changeCells(event.GetPartitionChanged(), event.GetActor().GetName())...), nil)
}

// changeCells say what became of one partition.
func changeCells(change *quoratev1.PartitionChange, actor string) []cell {
	p := change.GetPartition()
	name := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(change.GetTransition().String(), "PARTITION_TRANSITION_"), "_", "-"))
	if change.GetEarly() {
		name += " early"
	}
	where := "at " + p.GetPlacement()
	switch m := p.GetMigration(); {
	case m != nil:
		where = m.GetFrom() + " → " + m.GetTo()
	case change.GetEnded() != nil:
		where = change.GetEnded().GetFrom() + " → " + change.GetEnded().GetTo() + ", " + where
	}
	transition := cell{text: name}
	switch change.GetTransition() {
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_CUTOVER, quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE:
		transition.colour = bad
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_COMPLETE:
		transition.colour = good
	case quoratev1.PartitionTransition_PARTITION_TRANSITION_BEGIN, quoratev1.PartitionTransition_PARTITION_TRANSITION_ABORT:
		transition.colour = warn
	}
	note := change.GetNote()
	if change.GetTransition() == quoratev1.PartitionTransition_PARTITION_TRANSITION_REPORT {
		note = strings.TrimSpace(copyText(p.GetMigration()) + " " + verifiedText(p.GetMigration()))
	}
	if actor == "" {
		actor = "-"
	}
	return text(p.GetId(), transition, where, fmt.Sprintf("epoch %d", p.GetEpoch()), phaseCell(p), actor, note)
}

// idsText shows the first of many ids.
func idsText(ids []string) string {
	const shown = 3
	if len(ids) <= shown {
		return strings.Join(ids, ",")
	}
	return fmt.Sprintf("%s,… (%d)", strings.Join(ids[:shown], ","), len(ids))
}
