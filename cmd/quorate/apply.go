package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
)

// watchInterval is how often --watch looks again.
const watchInterval = time.Second

func newApply(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Roll-outs: how far a published generation is applied, one server of a set after the other",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newApplyStatus(o), newApplyResume(o), newApplyRollback(o))
	return cmd
}

func newApplyStatus(o *options) *cobra.Command {
	var watch bool
	request := &quoratev1.GetApplyStatusRequest{}
	cmd := &cobra.Command{
		Use:   "status [SET]",
		Short: "Show each server's adopted and applied generation, and how its last apply went",
		Long: `Status shows the roll-out of each set, its servers in the order in which they apply. With --watch it shows them anew whenever something
changed, until every roll-out is done or one is stopped; then the exit code is 0 or 3.`,
		Args: cobra.MaximumNArgs(1),
	}
	read := addReadFlags(cmd)
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing it until nothing is under way")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		if len(arguments) > 0 {
			request.Set = arguments[0]
		}
		return o.apply(func(client quoratev1.ApplyServiceClient) error {
			if watch {
				return o.watchApply(cmd.Context(), client, request)
			}
			answer, err := client.GetApplyStatus(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printRollouts(p, answer.GetRollouts()...) })
		})
	}
	return cmd
}

// watchApply shows the roll-outs whenever they changed, until none is under way.
func (o *options) watchApply(ctx context.Context, client quoratev1.ApplyServiceClient, request *quoratev1.GetApplyStatusRequest) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	var before *quoratev1.GetApplyStatusResponse
	for {
		answer, err := client.GetApplyStatus(ctx, request)
		if err != nil {
			return err
		}
		seen := &quoratev1.GetApplyStatusResponse{Rollouts: answer.GetRollouts()}
		if before == nil || !proto.Equal(seen, before) {
			if err := o.show(answer, func(p *printer) { printRollouts(p, answer.GetRollouts()...) }); err != nil {
				return err
			}
			before = seen
		}
		running := false
		for _, rollout := range answer.GetRollouts() {
			switch rollout.GetState() {
			case quoratev1.RolloutState_ROLLOUT_STATE_STOPPED:
				return &stoppedRollout{set: rollout.GetSet()}
			case quoratev1.RolloutState_ROLLOUT_STATE_RUNNING:
				running = true
			}
		}
		if !running {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// stoppedRollout is what waiting for a roll-out ends with that a failed apply has stopped.
type stoppedRollout struct{ set string }

func (e *stoppedRollout) Error() string {
	return fmt.Sprintf("the roll-out of set %s is stopped: quorate apply resume %s, or quorate apply rollback %s", e.set, e.set, e.set)
}

func newApplyResume(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "resume SET",
		Short: "Go on with a roll-out that a failed apply has stopped: that server applies again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, arguments []string) error {
			return o.apply(func(client quoratev1.ApplyServiceClient) error {
				answer, err := client.ResumeApply(cmd.Context(), &quoratev1.ResumeApplyRequest{RequestId: o.newRequestID(), Set: arguments[0]})
				if err != nil {
					return err
				}
				return o.show(answer, func(p *printer) { printRollouts(p, answer.GetRollout()) })
			})
		},
	}
}

func newApplyRollback(o *options) *cobra.Command {
	draft := &draftFlags{}
	confirm := &confirmation{}
	cmd := &cobra.Command{
		Use:   "rollback SET",
		Short: "Give a roll-out up: publish the set as it was when all its servers had applied it, as a new generation",
		Args:  cobra.ExactArgs(1),
	}
	draft.addExpect(cmd)
	confirm.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if err := confirm.ask(o, "give up the roll-out of set "+arguments[0]); err != nil {
			return err
		}
		group, err := o.connect()
		if err != nil {
			return err
		}
		defer group.Close()
		return draft.publish(cmd, o, func(_ quoratev1.TopologyServiceClient, id string, expect uint64) (published, error) {
			return quoratev1.NewApplyServiceClient(group).RollbackApply(cmd.Context(), &quoratev1.RollbackApplyRequest{
				RequestId: id, Set: arguments[0], ExpectedGeneration: &expect,
			})
		})
	}
	return cmd
}

func (o *options) apply(do func(quoratev1.ApplyServiceClient) error) error {
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	return do(quoratev1.NewApplyServiceClient(group))
}

func printRollouts(p *printer, rollouts ...*quoratev1.Rollout) {
	var rows [][]cell
	for _, r := range rollouts {
		for _, s := range r.GetServers() {
			rows = append(rows, text(r.GetSet(), r.GetGeneration(), rolloutState(r), s.GetServer(), applyState(s), s.GetAppliedGeneration(),
				s.GetAttempts(), moment(s.GetBegunAt()), applyTook(s), s.GetOutcome()))
		}
	}
	p.table([]string{"SET", "GENERATION", "ROLL-OUT", "SERVER", "APPLY", "APPLIED", "ATTEMPTS", "BEGUN", "TOOK", "OUTCOME"}, rows)
	for _, r := range rollouts {
		for _, s := range r.GetServers() {
			if s.GetState() == quoratev1.ApplyState_APPLY_STATE_FAILED && s.GetOutput() != "" {
				p.line("%s wrote: %s", s.GetServer(), singleLine(strings.TrimSpace(s.GetOutput())))
			}
		}
	}
}

func rolloutState(r *quoratev1.Rollout) cell {
	c := cell{text: strings.ToLower(strings.TrimPrefix(r.GetState().String(), "ROLLOUT_STATE_"))}
	switch r.GetState() {
	case quoratev1.RolloutState_ROLLOUT_STATE_DONE:
		c.colour = good
	case quoratev1.RolloutState_ROLLOUT_STATE_STOPPED:
		c.colour = bad
	default:
		c.colour = warn
	}
	return c
}

func applyState(s *quoratev1.ServerApply) cell {
	c := cell{text: strings.ToLower(strings.TrimPrefix(s.GetState().String(), "APPLY_STATE_"))}
	switch s.GetState() {
	case quoratev1.ApplyState_APPLY_STATE_APPLIED:
		c.colour = good
	case quoratev1.ApplyState_APPLY_STATE_FAILED:
		c.colour = bad
	case quoratev1.ApplyState_APPLY_STATE_APPLYING:
		c.colour = warn
	}
	return c
}

// applyTook is how long an apply took, in cluster time.
func applyTook(s *quoratev1.ServerApply) string {
	if s.GetBegun() == nil || s.GetEnded() == nil || s.GetEnded().AsDuration() < s.GetBegun().AsDuration() {
		return ""
	}
	return (s.GetEnded().AsDuration() - s.GetBegun().AsDuration()).Round(time.Millisecond).String()
}
