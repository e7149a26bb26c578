package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// demoHalls are the placements of the demo, each with demoTanks partitions.
var demoHalls = []string{"hall-a", "hall-b", "hall-c"}

const demoTanks = 4

// The barriers of the demo are short, so that a migration can be watched: nobody writes there.
const (
	demoBarrier      = 5 * time.Second
	demoLeastBarrier = 2 * time.Second
	demoEarlyFloor   = time.Second
)

// createDemoPartitions creates the partitions of the demo. It is one and the same however often it is tried. A leader that is new has yet to hear from
// all members that they know of partitions.
func createDemoPartitions(ctx context.Context, client quoratev1.PartitionServiceClient) error {
	err := whenSupported(ctx, func() error {
		_, err := client.SetPartitionSettings(ctx, &quoratev1.SetPartitionSettingsRequest{
			RequestId: demoRequestID + "-settings",
			Settings: &quoratev1.PartitionSettings{
				DrainBarrier: durationpb.New(demoBarrier), MinDrainBarrier: durationpb.New(demoLeastBarrier), EarlyFloor: durationpb.New(demoEarlyFloor),
			},
		})
		return err
	})
	for i, hall := range demoHalls {
		if err != nil {
			return err
		}
		request := &quoratev1.CreatePartitionsRequest{RequestId: demoRequestID + "-" + hall, Placement: hall}
		for tank := range demoTanks {
			request.Ids = append(request.Ids, fmt.Sprintf("tank-%d", i*demoTanks+tank+1))
		}
		_, err = client.CreatePartitions(ctx, request)
	}
	return err
}

// whenSupported makes a change again until every member can apply it. A refusal for that reason is not remembered.
func whenSupported(ctx context.Context, change func() error) error {
	for {
		err := change()
		var remote *remoteError
		if !errors.As(err, &remote) || reasonOf(remote.err) != fsm.ReasonNotYetSupported || !sleep(ctx, readyPoll) {
			return err
		}
	}
}

// partitionSteps are what to try with the partitions of the demo.
func partitionSteps(quorate string) []step {
	return []step{
		{quorate + " partition list", "twelve partitions in three halls"},
		{quorate + ` partition migrate tank-1 --to hall-b --copy-hook 'seq -f "progress %g 5" 5'`, "copy, stop the writes for " + demoBarrier.String() + ", move"},
		{quorate + " partition drain hall-c --to hall-a,hall-b --no-copy --dry-run", "what moving all off a hall would do"},
	}
}
