package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

func newTopology(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topology",
		Short: "The document that says which servers make up each redundant set, and their roles",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newTopologyGet(o), newTopologyPlan(o), newTopologyPublish(o), newTopologyHistory(o), newTopologyDiff(o), newTopologyRollback(o))
	return cmd
}

func newTopologyGet(o *options) *cobra.Command {
	var generation uint64
	var document bool
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Show the current topology, or an older generation of it",
		Example: `  quorate topology get
  quorate topology get --document > plant.yaml   # to edit and publish`,
		Args: cobra.NoArgs,
	}
	read := addReadFlags(cmd)
	cmd.Flags().Uint64Var(&generation, "generation", 0, "show generation `N` (default: the current one)")
	cmd.Flags().BoolVar(&document, "document", false, "print only the document, in the form that publish reads")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options, err := read.options()
		if err != nil {
			return err
		}
		return o.topology(func(client quoratev1.TopologyServiceClient) error {
			answer, err := client.GetTopology(cmd.Context(), &quoratev1.GetTopologyRequest{Read: options, Generation: generation})
			if err != nil {
				return err
			}
			if document {
				text, err := formatTopology(answer.GetGeneration().GetTopology(), o.output)
				if err != nil {
					return err
				}
				_, err = o.std.out.Write(text)
				return err
			}
			return o.show(answer, func(p *printer) { printGeneration(p, answer.GetGeneration()) })
		})
	}
	return cmd
}

func newTopologyPlan(o *options) *cobra.Command {
	draft := &draftFlags{}
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Validate a draft and show what publishing it would change",
		Args:  cobra.NoArgs,
	}
	draft.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		topology, err := readTopology(o.std.in, draft.file)
		if err != nil {
			return err
		}
		request := &quoratev1.PlanTopologyRequest{Topology: topology, Force: draft.force}
		if cmd.Flags().Changed("expect") {
			request.ExpectedGeneration = &draft.expect
		}
		return o.topology(func(client quoratev1.TopologyServiceClient) error {
			answer, err := client.PlanTopology(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) {
				p.line("would become generation %d, digest %s", answer.GetNextGeneration(), short(answer.GetDigest()))
				printChanges(p, answer.GetChanges())
				rows := make([][]cell, 0, len(answer.GetLevels()))
				for _, level := range answer.GetLevels() {
					rows = append(rows, text(level.GetSet(), level.GetServer(), level.GetRole(), level.GetLevel()))
				}
				p.table([]string{"SET", "SERVER", "ROLE", "LEVEL ONCE HEALTHY"}, rows)
				for _, rollout := range answer.GetRollouts() {
					p.line("")
					printPlannedRollout(p, rollout)
				}
			})
		})
	}
	return cmd
}

func newTopologyPublish(o *options) *cobra.Command {
	draft := &draftFlags{}
	cmd := &cobra.Command{
		Use:   "publish -f FILE",
		Short: "Make a draft the next generation, if the expected one is still current",
		Example: `  quorate topology publish -f plant.yaml --expect 3
  quorate topology get --document | sed s/WARM/HOT/ | quorate topology publish -f -`,
		Args: cobra.NoArgs,
	}
	draft.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		topology, err := readTopology(o.std.in, draft.file)
		if err != nil {
			return err
		}
		return draft.publish(cmd, o, func(client quoratev1.TopologyServiceClient, id string, expect uint64) (published, error) {
			return client.PublishTopology(cmd.Context(), &quoratev1.PublishTopologyRequest{
				RequestId: id, ExpectedGeneration: &expect, Topology: topology, Force: draft.force,
			})
		})
	}
	return cmd
}

func newTopologyHistory(o *options) *cobra.Command {
	request := &quoratev1.ListGenerationsRequest{}
	cmd := &cobra.Command{Use: "history", Short: "List the generations, newest first", Args: cobra.NoArgs}
	read := addReadFlags(cmd)
	cmd.Flags().Uint32Var(&request.Limit, "limit", fsm.MaxGenerationsWhole, "show at most `N`")
	cmd.Flags().Uint64Var(&request.Before, "before", 0, "show only generations below `GENERATION`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		return o.topology(func(client quoratev1.TopologyServiceClient) error {
			answer, err := client.ListGenerations(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) { printHistory(p, answer.GetGenerations()) })
		})
	}
	return cmd
}

func newTopologyDiff(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff [FROM [TO]]",
		Short: "Compare two generations; by default the current one with the one before",
		Args:  cobra.MaximumNArgs(2),

		ValidArgsFunction: o.completeGenerations(2),
	}
	read := addReadFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		request := &quoratev1.DiffTopologyRequest{}
		var err error
		if request.Read, err = read.options(); err != nil {
			return err
		}
		if request.From, request.To, err = parseRange(arguments); err != nil {
			return err
		}
		return o.topology(func(client quoratev1.TopologyServiceClient) error {
			if len(arguments) == 0 {
				current, err := currentGeneration(cmd.Context(), client)
				if err != nil {
					return err
				}
				request.From, request.To = max(current, 1)-1, current
			}
			answer, err := client.DiffTopology(cmd.Context(), request)
			if err != nil {
				return err
			}
			return o.show(answer, func(p *printer) {
				p.line("from generation %d to %d", answer.GetFrom(), answer.GetTo())
				printChanges(p, answer.GetChanges())
			})
		})
	}
	return cmd
}

func parseRange(arguments []string) (from, to uint64, err error) {
	numbers := [2]uint64{}
	for i, argument := range arguments {
		if numbers[i], err = strconv.ParseUint(argument, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("%s: must be the number of a generation, got %q", [2]string{"FROM", "TO"}[i], argument)
		}
	}
	return numbers[0], numbers[1], nil
}

func newTopologyRollback(o *options) *cobra.Command {
	draft := &draftFlags{}
	confirm := &confirmation{}
	cmd := &cobra.Command{
		Use:   "rollback TO",
		Short: "Publish the document of generation TO again, as a new generation",
		Args:  cobra.ExactArgs(1),

		ValidArgsFunction: o.completeGenerations(1),
	}
	draft.addExpect(cmd)
	confirm.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		to, err := strconv.ParseUint(arguments[0], 10, 64)
		if err != nil || to == 0 {
			return fmt.Errorf("TO: must be the number of a generation, got %q", arguments[0])
		}
		if err := confirm.ask(o, fmt.Sprintf("publish the topology of generation %d again", to)); err != nil {
			return err
		}
		return draft.publish(cmd, o, func(client quoratev1.TopologyServiceClient, id string, expect uint64) (published, error) {
			return client.RollbackTopology(cmd.Context(), &quoratev1.RollbackTopologyRequest{
				RequestId: id, ExpectedGeneration: &expect, To: to,
			})
		})
	}
	return cmd
}

// draftFlags say which document is meant and on which generation it is based.
type draftFlags struct {
	file   string
	expect uint64
	force  bool
}

func (d *draftFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&d.file, "file", "f", "", "topology document in YAML or JSON, or - for standard input")
	must(cmd.MarkFlagFilename("file", "yaml", "yml", "json"))
	cmd.Flags().BoolVar(&d.force, "force", false, "apply it to the servers of sets that it does not change, too")
	d.addExpect(cmd)
}

func (d *draftFlags) addExpect(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&d.expect, "expect", 0, "fail unless this `GENERATION` is the current one (default: the one that is current just before)")
}

// expected returns --expect or, without it, the current generation. A change that is repeated under its --request-id must
// be the same in every part, so the generation that it expected at first is found again in the history.
func (d *draftFlags) expected(cmd *cobra.Command, o *options, client quoratev1.TopologyServiceClient) (uint64, error) {
	if cmd.Flags().Changed("expect") {
		return d.expect, nil
	}
	if o.requestID == "" {
		return currentGeneration(cmd.Context(), client)
	}
	answer, err := client.ListGenerations(cmd.Context(), &quoratev1.ListGenerationsRequest{Limit: fsm.MaxGenerationsWhole})
	if err != nil {
		return 0, err
	}
	for _, generation := range answer.GetGenerations() {
		if generation.GetPublishRequestId() == o.requestID {
			return generation.GetNumber() - 1, nil
		}
	}
	return answer.GetHeader().GetGeneration(), nil
}

// published is the answer to what makes a new generation.
type published interface {
	proto.Message
	GetGeneration() *quoratev1.Generation
}

// publish makes a new generation by call, under a request id and on the expected generation, and shows it.
func (d *draftFlags) publish(cmd *cobra.Command, o *options, call func(client quoratev1.TopologyServiceClient, id string, expect uint64) (published, error)) error {
	return o.topology(func(client quoratev1.TopologyServiceClient) error {
		id := o.newRequestID()
		expect, err := d.expected(cmd, o, client)
		if err != nil {
			return err
		}
		answer, err := call(client, id, expect)
		if err != nil {
			return err
		}
		return o.show(answer, func(p *printer) { printPublished(p, answer.GetGeneration()) })
	})
}

func currentGeneration(ctx context.Context, client quoratev1.TopologyServiceClient) (uint64, error) {
	answer, err := client.GetTopology(ctx, &quoratev1.GetTopologyRequest{})
	if err != nil {
		return 0, err
	}
	return answer.GetGeneration().GetNumber(), nil
}

func (o *options) topology(do func(quoratev1.TopologyServiceClient) error) error {
	group, err := o.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	return do(quoratev1.NewTopologyServiceClient(group))
}

func printGeneration(p *printer, generation *quoratev1.Generation) {
	if generation == nil {
		p.line("no topology has been published")
		return
	}
	p.line("generation %d, digest %s, published %s by %s", generation.GetNumber(), short(generation.GetDigest()),
		moment(generation.GetPublishedAt()), generation.GetActor().GetName())
	var rows [][]cell
	for _, set := range generation.GetTopology().GetSets() {
		for _, server := range set.GetServers() {
			rows = append(rows, text(set.GetId(), set.GetMode(), server.GetMember(), server.GetRole(), server.GetApplicationUri(), server.GetEndpointUrl()))
		}
	}
	p.table([]string{"SET", "MODE", "SERVER", "ROLE", "APPLICATION URI", "ENDPOINT"}, rows)
}

func printPublished(p *printer, generation *quoratev1.Generation) {
	p.line("generation %d is current, digest %s, request id %s", generation.GetNumber(), short(generation.GetDigest()), generation.GetPublishRequestId())
}

func printHistory(p *printer, generations []*quoratev1.Generation) {
	rows := make([][]cell, 0, len(generations))
	for _, g := range generations {
		note := ""
		switch {
		case g.GetRollbackOf() != 0:
			note = fmt.Sprintf("rollback of %d", g.GetRollbackOf())
		case g.GetSwappedBy() != "":
			note = "roles swapped by " + g.GetSwappedBy()
		}
		rows = append(rows, text(g.GetNumber(), short(g.GetDigest()), moment(g.GetPublishedAt()), g.GetActor().GetName(), g.GetPublishRequestId(), note))
	}
	p.table([]string{"GENERATION", "DIGEST", "PUBLISHED", "BY", "REQUEST ID", "NOTE"}, rows)
}

func printChanges(p *printer, changes []*quoratev1.TopologyChange) {
	if len(changes) == 0 {
		p.line("no change")
		return
	}
	rows := make([][]cell, 0, len(changes))
	for _, change := range changes {
		rows = append(rows, text(change.GetPath(), cell{text: change.GetBefore(), colour: bad}, cell{text: change.GetAfter(), colour: good}))
	}
	p.table([]string{"PATH", "BEFORE", "AFTER"}, rows)
}

// printPlannedRollout shows the moments of a roll-out: what each server would advertise, and on which server clients of each kind would be.
func printPlannedRollout(p *printer, rollout *quoratev1.PlannedRollout) {
	p.line("set %s: %s", rollout.GetSet(), describePolicies(rollout.GetPolicies()))
	headings := []string{"STEP"}
	var rows [][]cell
	for i, step := range rollout.GetSteps() {
		row := text(step.GetAction())
		for _, level := range step.GetLevels() {
			if i == 0 {
				headings = append(headings, level.GetServer())
			}
			row = append(row, cell{text: fmt.Sprintf("%d %s", level.GetLevel(), level.GetRole())})
		}
		for _, client := range step.GetClients() {
			if i == 0 {
				headings = append(headings, client.GetKind()+" client")
			}
			c := cell{text: client.GetServer()}
			if client.GetMoved() {
				c = cell{text: "moves to " + cmp.Or(client.GetServer(), "none"), colour: warn}
			}
			row = append(row, c)
		}
		rows = append(rows, row)
	}
	p.table(headings, rows)
}

// describePolicies writes all policies of a set in one line, defaults included.
func describePolicies(given *quoratev1.RedundancyPolicies) string {
	policies := fsm.PoliciesOf(&quoratev1.RedundantSet{Policies: given})
	standIn, quorumLoss, failover := "off", fsm.QuorumLossDegrade, fsm.FailoverManual
	if policies.StandIn != 0 {
		standIn = fmt.Sprint(policies.StandIn)
	}
	if policies.Hold {
		quorumLoss = fsm.QuorumLossHold
	}
	if policies.Automatic {
		failover = fmt.Sprintf("%s after %v", fsm.FailoverAutomatic, policies.FailoverAfter)
	}
	parts := []string{
		"apply " + policies.Apply, "stand-in " + standIn, "quorum loss " + quorumLoss, "failover " + failover, "evict clients " + policies.EvictClients,
	}
	if policies.HotBackupsHealthy {
		parts = append(parts, "hot Backups Healthy")
	}
	if len(given.GetLevels()) > 0 {
		parts = append(parts, "levels of its own")
	}
	return strings.Join(parts, ", ")
}
