package admin

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
)

// swapChange gives the Primary's role to a Backup. It is a draft first: the page shows what the group says that publishing it would bring.
var swapChange = change{
	pattern: redundancyPath + "/{set}/swap", params: []string{"set", "to"}, method: quoratev1.TopologyService_PublishTopology_FullMethodName,
	plan: planSwap, make: makeSwap,
}

// Roles, as topologies write them.
const (
	rolePrimary = "Primary"
	roleBackup  = "Backup"
)

// draftView is a draft with its plan.
type draftView struct {
	Set, From, To string
	Based, Next   uint64
	Digest        string
	// Others are the servers that the role could go to instead, To among them.
	Others  []string
	Action  string
	Changes []*quoratev1.TopologyChange
	Plans   []plannedView
}

// plannedView is how a set gets there.
type plannedView struct {
	Set, Policies string
	Servers       []string
	Clients       []string
	Steps         []plannedStep
}

type plannedStep struct {
	Action  string
	Levels  []plannedLevel
	Clients []*quoratev1.PlannedClient
}

type plannedLevel struct {
	Server, Role string
	Level        level
}

// clientKinds say what a client of each kind does (PlannedClient.kind).
var clientKinds = map[string]string{
	"standard":    "stays while its server is Healthy",
	"highest":     "takes the highest level",
	"healthyOnly": "uses only servers at 200 or more",
}

// newPlannedView shows what the plan says of one set.
func newPlannedView(p *quoratev1.PlannedRollout) plannedView {
	v := plannedView{Set: p.GetSet(), Policies: policiesText(p.GetPolicies())}
	for i, step := range p.GetSteps() {
		s := plannedStep{Action: step.GetAction(), Clients: step.GetClients()}
		for _, planned := range step.GetLevels() {
			l := newLevel(planned.GetLevel(), "", planned.GetRole())
			switch {
			case planned.GetLevel() == 0:
				l.Tone = toneOff
			case step.GetAction() == "apply "+planned.GetServer():
				l.Band = "Mid-apply"
			case planned.GetLevel() >= healthy:
				l.Tone = toneGood
			default:
				l.Tone = toneStandby
			}
			s.Levels = append(s.Levels, plannedLevel{planned.GetServer(), planned.GetRole(), l})
			if i == 0 {
				v.Servers = append(v.Servers, planned.GetServer())
			}
		}
		if i == 0 {
			for _, client := range step.GetClients() {
				v.Clients = append(v.Clients, client.GetKind())
			}
		}
		v.Steps = append(v.Steps, s)
	}
	return v
}

// findSet returns the set of that id, nil if there is none.
func findSet(t *quoratev1.Topology, id string) *quoratev1.RedundantSet {
	for _, set := range t.GetSets() {
		if set.GetId() == id {
			return set
		}
	}
	return nil
}

// swapped returns a topology in which a server of the set is the Primary, and who was before.
func swapped(t *quoratev1.Topology, set, to string) (draft *quoratev1.Topology, from string, err error) {
	draft = proto.CloneOf(t)
	s := findSet(draft, set)
	if s == nil {
		return nil, "", notFound("set", "the topology has no set "+set)
	}
	found := false
	for _, server := range s.GetServers() {
		if server.GetRole() == rolePrimary {
			from = server.GetMember()
			server.Role = roleBackup
		}
		if server.GetMember() == to {
			found, server.Role = true, rolePrimary
		}
	}
	switch {
	case !found:
		return nil, "", notFound("to", fmt.Sprintf("set %s has no server %q", set, to))
	case from == to:
		return nil, "", invalid("to", fmt.Sprintf("%s is the Primary already", to))
	}
	return draft, from, nil
}

// heirs returns the servers of a set that are not its Primary, the fittest first.
func heirs(o *quoratev1.GetOverviewResponse, set *quoratev1.RedundantSet) []string {
	var fit, others []string
	for _, server := range set.GetServers() {
		if server.GetRole() == rolePrimary {
			continue
		}
		if m := memberOf(o, server.GetMember()); m.GetReachable() && (m.GetBand() == "Authoritative" || m.GetBand() == "Isolated") {
			fit = append(fit, server.GetMember())
		} else {
			others = append(others, server.GetMember())
		}
	}
	return append(fit, others...)
}

func planSwap(ctx context.Context, r *reader) (plan, error) {
	id, to := r.arguments["set"], r.arguments["to"]
	o, err := r.overview(ctx, "", 0)
	if err != nil {
		return plan{}, err
	}
	set := findSet(o.GetGeneration().GetTopology(), id)
	others := heirs(o, set)
	if to == "" && len(others) > 0 {
		to = others[0]
		r.arguments["to"] = to // It goes with the form.
	}
	draft, from, err := swapped(o.GetGeneration().GetTopology(), id, to)
	if err != nil {
		return plan{}, err
	}
	view, err := planDraft(ctx, r, draft, o.GetGeneration().GetNumber())
	if err != nil {
		return plan{}, err
	}
	view.Set, view.From, view.To, view.Others, view.Action = id, from, to, others, setPath(id)+"/swap"
	return plan{
		Title: "Draft: make " + to + " the Primary of " + id, Template: "redundancy.draft", Data: view, Wide: true,
		Button: fmt.Sprintf("Publish generation %d", view.Next), Back: setPath(id), Based: view.Based,
		Ask: fmt.Sprintf("%s becomes the Primary of %s, and %s a Backup. Clients that follow the standard move to %s.", to, id, from, to),
	}, nil
}

// planDraft asks the group what publishing a draft would bring.
func planDraft(ctx context.Context, r *reader, draft *quoratev1.Topology, based uint64) (draftView, error) {
	planned, err := quoratev1.NewTopologyServiceClient(r.conn).PlanTopology(ctx, &quoratev1.PlanTopologyRequest{Topology: draft, ExpectedGeneration: &based})
	if err != nil {
		return draftView{}, err
	}
	view := draftView{Based: based, Next: planned.GetNextGeneration(), Digest: planned.GetDigest(), Changes: planned.GetChanges()}
	for _, rollout := range planned.GetRollouts() {
		// Of a set that nothing happens to the plan has the beginning and the end alone.
		if len(rollout.GetSteps()) > 2 {
			view.Plans = append(view.Plans, newPlannedView(rollout))
		}
	}
	return view, nil
}

// makeSwap publishes the draft, which it makes again of the generation that it was based on: the form carries what the draft was, not the document.
func makeSwap(ctx context.Context, r *reader, o order) (done, error) {
	id := r.arguments["set"]
	client := quoratev1.NewTopologyServiceClient(r.conn)
	if o.based == 0 {
		return done{}, invalid(basedField, "is missing: a draft is based on a generation")
	}
	based, err := client.GetTopology(ctx, &quoratev1.GetTopologyRequest{Generation: o.based})
	if err != nil {
		return done{}, err
	}
	draft, _, err := swapped(based.GetGeneration().GetTopology(), id, r.arguments["to"])
	if err != nil {
		return done{}, err
	}
	answer, err := client.PublishTopology(ctx, &quoratev1.PublishTopologyRequest{RequestId: o.id, ExpectedGeneration: &o.based, Topology: draft})
	if err != nil {
		return done{}, err
	}
	return published(answer.GetGeneration(), answer.GetHeader(), id), nil
}

// published is what a new generation of a set did.
func published(g *quoratev1.Generation, header *quoratev1.ResponseHeader, set string) done {
	return done{
		text:     fmt.Sprintf("Generation %d is published. Its servers apply it one after the other.", g.GetNumber()),
		revision: header.GetRevision(), back: setPath(set),
	}
}
