package client

import (
	"context"
	"errors"
	"iter"
	"strings"

	quoratev1 "quorate/proto/quorate/v1"
)

// followPage is how many partitions are listed at a time.
const followPage = 1000

// FollowOptions say which partitions to follow.
type FollowOptions struct {
	// Prefix restricts it to those whose id begins so.
	Prefix string
	// Synced, if it is not nil, is called each time a list has been told to its end: everything has been told that was so at the revision. It is called between
	// two pairs.
	Synced func(revision uint64)
}

// FollowPartitions tells where each partition is read and written, and then each change of that, with no gap in between: what was told last of a partition
// is true once its change has arrived. One that was deleted, or was not there any more when it was listed anew, is told with the phase UNSPECIFIED. If the group no longer
// keeps the events in between, all is listed anew, and what changed is told. It ends with ctx, or an error that no member would give differently,
// which the last pair has.
//
// It is for those who keep a copy, such as a router of reads: what is told may be out of date by the time it arrives. May I write now is a question for a Gate. An
// id and a revision are remembered of each partition, some 100 bytes.
func (c *Client) FollowPartitions(ctx context.Context, options FollowOptions) iter.Seq2[*quoratev1.Resolution, error] {
	return func(yield func(*quoratev1.Resolution, error) bool) {
		f := &follower{client: c, options: options, known: map[string]uint64{}, yield: yield}
		for {
			err := f.once(ctx)
			var compacted *CompactedError
			switch {
			case errors.Is(err, errEnough):
				return
			case ctx.Err() != nil:
				yield(nil, ctx.Err())
				return
			case isFinal(err) && !errors.As(err, &compacted):
				yield(nil, err)
				return
			}
			rest(ctx, pauseMost)
		}
	}
}

// errEnough means that whoever is told has had enough.
var errEnough = errors.New("enough")

// follower is one FollowPartitions under way.
type follower struct {
	client  *Client
	options FollowOptions
	// known has the revision of the last transition that was told of each partition.
	known map[string]uint64
	yield func(*quoratev1.Resolution, error) bool
}

// once lists and then watches until that fails.
func (f *follower) once(ctx context.Context) error {
	from, revision, err := f.list(ctx)
	if err != nil {
		return err
	}
	if f.options.Synced != nil {
		f.options.Synced(revision)
	}
	w := f.client.Watch(WatchOptions{FromRevision: from + 1, Kinds: []string{"partitions_created", "partition_changed"}})
	for event, err := range w.Events(ctx) {
		if err != nil {
			return err
		}
		for _, r := range resolutions(event) {
			if err := f.tell(r); err != nil {
				return err
			}
		}
	}
	return nil // It ends with an error only.
}

// list tells all partitions, and those that are gone. Pages are of different revisions: what the events say since the first is told after them, and what a later
// page knew already is left out then.
func (f *follower) list(ctx context.Context) (first, last uint64, err error) {
	gone := make(map[string]bool, len(f.known))
	for id := range f.known {
		gone[id] = true
	}
	for token := ""; ; {
		page, err := f.client.Partitions().ListPartitions(ctx, &quoratev1.ListPartitionsRequest{
			Prefix: f.options.Prefix, PageSize: followPage, PageToken: token,
			// A later page may be another member's.
			Read: &quoratev1.ReadOptions{MinRevision: last},
		})
		if err != nil {
			return 0, 0, err
		}
		last = page.GetHeader().GetRevision()
		if first == 0 {
			first = last
		}
		for _, p := range page.GetPartitions() {
			delete(gone, p.GetId())
			if err := f.tell(resolutionOf(p)); err != nil {
				return 0, 0, err
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	for id := range gone {
		if err := f.tell(&quoratev1.Resolution{Partition: id, Revision: last}); err != nil {
			return 0, 0, err
		}
	}
	return first, last, nil
}

// tell tells what became of a partition, unless that or something newer was told already.
func (f *follower) tell(r *quoratev1.Resolution) error {
	id := r.GetPartition()
	known, ok := f.known[id]
	exists := r.GetPhase() != quoratev1.PartitionPhase_PARTITION_PHASE_UNSPECIFIED
	if !strings.HasPrefix(id, f.options.Prefix) || ok && r.GetRevision() <= known || !ok && !exists {
		return nil
	}
	if exists {
		f.known[id] = r.GetRevision()
	} else {
		delete(f.known, id)
	}
	if !f.yield(r, nil) {
		return errEnough
	}
	return nil
}

// resolutions returns what an event says of where partitions are.
func resolutions(event *quoratev1.Event) []*quoratev1.Resolution {
	if created := event.GetPartitionsCreated(); created != nil {
		var all []*quoratev1.Resolution
		for _, id := range created.GetIds() {
			all = append(all, resolutionOf(&quoratev1.Partition{
				Id: id, Phase: quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE, Placement: created.GetPlacement(), Epoch: created.GetEpoch(), Revision: event.GetRevision(),
			}))
		}
		return all
	}
	change := event.GetPartitionChanged()
	switch {
	case change == nil:
		return nil
	case change.GetTransition() == quoratev1.PartitionTransition_PARTITION_TRANSITION_DELETE:
		return []*quoratev1.Resolution{{Partition: change.GetPartition().GetId(), Revision: event.GetRevision()}}
	}
	return []*quoratev1.Resolution{resolutionOf(change.GetPartition())}
}

// resolutionOf says where a partition is read and written (partitions.md §1).
func resolutionOf(p *quoratev1.Partition) *quoratev1.Resolution {
	r := &quoratev1.Resolution{
		Partition: p.GetId(), Phase: p.GetPhase(), ReadPlacement: p.GetPlacement(), WritePlacement: p.GetPlacement(), Epoch: p.GetEpoch(), Revision: p.GetRevision(),
	}
	if p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER {
		r.WritePlacement = ""
	}
	return r
}
