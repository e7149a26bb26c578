package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// createBatches is how many batches are under way at a time: enough that the group always has one to commit.
	createBatches = 4
	// maxBatchRequestID leaves room for the number of a batch in its request id.
	maxBatchRequestID = fsm.MaxRequestIDBytes - 16
)

func newPartitionCreate(o *options) *cobra.Command {
	c := &creation{o: o}
	var file string
	var barrier time.Duration
	cmd := &cobra.Command{
		Use:   "create ID… --placement PLACEMENT",
		Short: "Create partitions at a placement",
		Long: `Create creates partitions in batches of 1000, each of them whole or not at all. All ids are looked at before the first is sent. If it is interrupted or fails
in the middle, it prints the command that goes on: batches that are done already are not done again, because their request ids are derived from one.`,
		Example: `  quorate partition create tank-1 tank-2 --placement rack-7
  seq -f 'meter-%.0f' 1000000 | quorate partition create -f - --placement rack-7`,
	}
	flags := cmd.Flags()
	flags.StringVar(&c.request.Placement, "placement", "", "`PLACEMENT` that owns them")
	flags.DurationVar(&barrier, "drain-barrier", 0, "their own drain barrier (default: that of the settings)")
	flags.StringVar(&c.request.Note, "note", "", "why, for people; up to 256 bytes")
	flags.BoolVar(&c.skipExisting, "skip-existing", false, "leave those that are there as they are, wherever that is, and create the others")
	addIDFileFlag(cmd, &file)
	must(cmd.RegisterFlagCompletionFunc("placement", o.completePlacements))
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if c.request.Placement == "" {
			return errors.New("--placement: missing; name the placement that owns them")
		}
		if err := checkPartitionID("--placement", c.request.Placement); err != nil {
			return err
		}
		if barrier < 0 {
			return fmt.Errorf("--drain-barrier: must be more than 0, got %s", barrier)
		}
		if barrier > 0 {
			c.request.DrainBarrier = durationpb.New(barrier)
		}
		c.base = o.newRequestID()
		ids, err := readIDs(o.std.in, arguments, file)
		if err != nil {
			return err
		}
		if len(ids) > fsm.MaxPartitionBatch && len(c.base) > maxBatchRequestID {
			return fmt.Errorf("--request-id: at most %d characters for more than %d partitions, got %d", maxBatchRequestID, fsm.MaxPartitionBatch, len(c.base))
		}
		return o.partition(func(client quoratev1.PartitionServiceClient) error {
			return c.run(cmd.Context(), client, ids, func() string { return createAgain(cmd, arguments, file, c.base) })
		})
	}
	return cmd
}

// createAgain is the command that goes on with a creation.
func createAgain(cmd *cobra.Command, arguments []string, file, base string) string {
	line := commandLine(cmd, arguments, map[string]bool{"skip-existing": true, "request-id": true}) + " --skip-existing --request-id " + quote(base)
	if file == "-" {
		line += "   (with the same standard input)"
	}
	return line
}

// creation creates many partitions.
type creation struct {
	o            *options
	request      quoratev1.CreatePartitionsRequest
	skipExisting bool
	// base is what the request ids of the batches begin with.
	base string

	mu                sync.Mutex
	created, existing int
	epoch             uint64
	failure           error
}

// run creates all, some batches at a time. An interruption lets those under way end, so that it is known how many are done.
func (c *creation) run(ctx context.Context, client quoratev1.PartitionServiceClient, ids []string, again func() string) error {
	bar := c.o.newBar("create", uint64(len(ids)), false)
	batches := make(chan int)
	var workers sync.WaitGroup
	for range createBatches {
		workers.Go(func() {
			for first := range batches {
				created, existing, epoch, err := c.batch(context.WithoutCancel(ctx), client, first, ids[first:min(first+fsm.MaxPartitionBatch, len(ids))], len(ids))
				c.mu.Lock()
				c.created, c.existing, c.epoch = c.created+created, c.existing+existing, max(c.epoch, epoch)
				if c.failure == nil {
					c.failure = err
				}
				bar.set(uint64(c.created + c.existing))
				c.mu.Unlock()
			}
		})
	}
	for first := 0; first < len(ids) && c.goOn(ctx); first += fsm.MaxPartitionBatch {
		batches <- first
	}
	close(batches)
	workers.Wait()
	bar.end()
	switch {
	case c.failure != nil && len(ids) > fsm.MaxPartitionBatch:
		c.o.say("%d of %d are created; once the reason is gone: %s", c.created+c.existing, len(ids), again())
		return c.failure
	case c.failure != nil:
		return c.failure
	case c.created+c.existing < len(ids):
		c.o.say("%d of %d are created; go on with: %s", c.created+c.existing, len(ids), again())
		return context.Canceled
	}
	return c.o.showPlain(map[string]any{
		"placement": c.request.GetPlacement(), "created": c.created, "existing": c.existing, "epoch": c.epoch, "requestId": c.base,
	}, func(p *printer) {
		p.line("created %d partitions at %s, epoch %d%s", c.created, c.request.GetPlacement(), c.epoch, skipped(c.existing))
	})
}

func skipped(existing int) string {
	if existing == 0 {
		return ""
	}
	return fmt.Sprintf("; %d were there already", existing)
}

func (c *creation) goOn(ctx context.Context) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure == nil && ctx.Err() == nil
}

// batch creates one batch. Where some are there already and may be, it creates the others.
func (c *creation) batch(ctx context.Context, client quoratev1.PartitionServiceClient, first int, ids []string, all int) (created, existing int, epoch uint64, err error) {
	id := c.base
	if all > fsm.MaxPartitionBatch {
		id = fmt.Sprintf("%s/%d", c.base, first/fsm.MaxPartitionBatch+1)
	}
	answer, err := c.create(ctx, client, id, ids)
	if err == nil {
		return len(ids), 0, answer.GetEpoch(), nil
	}
	if !c.skipExisting || reasonOf(err) != fsm.ReasonPartitionExists {
		return 0, 0, 0, err
	}
	there, err := client.Resolve(ctx, &quoratev1.ResolveRequest{Partitions: ids})
	if err != nil {
		return 0, 0, 0, err
	}
	var missing []string
	for _, r := range there.GetResolutions() {
		if r.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED {
			missing = append(missing, r.GetPartition())
		}
	}
	if existing = len(ids) - len(missing); len(missing) == 0 {
		return 0, existing, 0, nil
	}
	answer, err = c.create(ctx, client, id+"/rest", missing)
	return len(missing), existing, answer.GetEpoch(), err
}

func (c *creation) create(ctx context.Context, client quoratev1.PartitionServiceClient, id string, ids []string) (*quoratev1.CreatePartitionsResponse, error) {
	return client.CreatePartitions(ctx, &quoratev1.CreatePartitionsRequest{
		RequestId: id, Ids: ids, Placement: c.request.GetPlacement(), DrainBarrier: c.request.GetDrainBarrier(), Note: c.request.GetNote(),
	})
}
