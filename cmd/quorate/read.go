package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// readFlags choose how fresh the answer of a read must be.
type readFlags struct {
	consistency  string
	maxStaleness time.Duration
	minRevision  uint64
}

func addReadFlags(cmd *cobra.Command) *readFlags {
	f := &readFlags{}
	cmd.Flags().StringVar(&f.consistency, "consistency", "linearizable", "`HOW` fresh the answer must be: linearizable, bounded or local")
	cmd.Flags().DurationVar(&f.maxStaleness, "max-staleness", 0, "for bounded: the oldest contact with the leader that the answering member may have")
	cmd.Flags().Uint64Var(&f.minRevision, "min-revision", 0, "the answer reflects at least this `REVISION`")
	must(cmd.RegisterFlagCompletionFunc("consistency",
		cobra.FixedCompletions([]string{"linearizable", "bounded", "local"}, cobra.ShellCompDirectiveNoFileComp)))
	return f
}

// options translates the flags, and refuses combinations that a member would have to guess about.
func (f *readFlags) options() (*quoratev1.ReadOptions, error) {
	options := &quoratev1.ReadOptions{MinRevision: f.minRevision}
	switch f.consistency {
	case "linearizable":
		options.Consistency = quoratev1.Consistency_CONSISTENCY_LINEARIZABLE
	case "local":
		options.Consistency = quoratev1.Consistency_CONSISTENCY_LOCAL
	case "bounded":
		options.Consistency = quoratev1.Consistency_CONSISTENCY_BOUNDED
		if f.maxStaleness <= 0 {
			return nil, fmt.Errorf("--max-staleness: bounded reads need it, such as 5s")
		}
	default:
		return nil, fmt.Errorf("--consistency: must be linearizable, bounded or local, got %q", f.consistency)
	}
	if f.maxStaleness != 0 {
		if options.Consistency != quoratev1.Consistency_CONSISTENCY_BOUNDED {
			return nil, fmt.Errorf("--max-staleness: only for --consistency bounded")
		}
		options.MaxStaleness = durationpb.New(f.maxStaleness)
	}
	return options, nil
}

// isRead tells whether a request changes nothing, so that it may be sent twice.
func isRead(request any) bool {
	if _, ok := request.(*quoratev1.PlanTopologyRequest); ok {
		return true
	}
	_, ok := request.(interface{ GetRead() *quoratev1.ReadOptions })
	return ok
}
