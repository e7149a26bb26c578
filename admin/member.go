package admin

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// memberPath is where the members are, below root.
const memberPath = "members"

// memberNoun is the group: who is in it, who leads.
var memberNoun = noun{
	title: "Members", path: memberPath,
	screens: []screen{{pattern: memberPath, title: func(arguments) string { return "Members" }, read: readMembers}},
	changes: []change{{
		pattern: memberPath + "/transfer", params: []string{"to"}, method: quoratev1.MemberService_TransferLeadership_FullMethodName,
		plan: planTransfer, make: makeTransfer,
	}},
}

// memberView is a member of the group.
type memberView struct {
	*quoratev1.Member
	Raft    string
	Level   level
	Contact instant
	// Behind is by how many revisions it is behind the furthest.
	Behind uint64
	// Transfer leads to making it the leader; empty where that can't be, or whoever asks may not.
	Transfer string
}

// memberTable is the members as a table, with more columns where it is all that a page shows.
type memberTable struct {
	Members []memberView
	Whole   bool
	// Changes says that there is something to do.
	Changes bool
}

func newMemberTable(o *quoratev1.GetOverviewResponse, r *reader, whole bool) memberTable {
	var furthest uint64
	led := false
	for _, m := range o.GetMembers() {
		furthest = max(furthest, m.GetAppliedRevision())
		led = led || m.GetReachable() && m.GetLeader()
	}
	// Without a leader there is none to hand over.
	t := memberTable{Whole: whole, Changes: whole && led && r.may(quoratev1.MemberService_TransferLeadership_FullMethodName)}
	for _, m := range o.GetMembers() {
		v := memberView{Member: m, Raft: "voter", Level: noAnswer}
		switch {
		case m.GetSuffrage() == quoratev1.Suffrage_SUFFRAGE_LEARNER:
			v.Raft = "learner"
		case m.GetReachable() && m.GetLeader():
			v.Raft = "leader"
		case t.Changes && m.GetReachable():
			v.Transfer = root + memberPath + "/transfer?" + url.Values{"to": {m.GetId()}}.Encode()
		}
		if m.GetReachable() {
			v.Level = newLevel(m.GetServiceLevel(), m.GetBand(), m.GetRole())
			v.Behind = furthest - m.GetAppliedRevision()
			if age := m.GetLeaderContactAge().AsDuration(); age > silence {
				v.Contact = instant(r.now.Add(-age).Truncate(time.Second))
			}
		}
		t.Members = append(t.Members, v)
	}
	return t
}

func readMembers(ctx context.Context, r *reader) ([]part, error) {
	o, err := r.overview(ctx, "", 0)
	if err != nil {
		return nil, err
	}
	table := newMemberTable(o, r, true)
	return []part{{template: "member.head"}, {template: "member.table", data: table}, {template: "member.addresses", data: table}}, nil
}

// transferView is what handing over the leadership does.
type transferView struct {
	From, To string
	Servers  []memberView
}

func planTransfer(ctx context.Context, r *reader) (plan, error) {
	o, err := r.overview(ctx, "", 0)
	if err != nil {
		return plan{}, err
	}
	to := r.arguments["to"]
	if !slices.ContainsFunc(o.GetMembers(), func(m *quoratev1.Member) bool { return m.GetId() == to }) {
		return plan{}, notFound("to", fmt.Sprintf("%q is no member of the group", to))
	}
	view := transferView{To: to, From: newGroupView("", o, r.now).Leader}
	for _, m := range newMemberTable(o, r, false).Members {
		if m.GetSet() != "" {
			view.Servers = append(view.Servers, m)
		}
	}
	return plan{Title: "Transfer leadership to " + to, Template: "member.transfer", Data: view, Button: "Make " + to + " the leader", Back: root + memberPath}, nil
}

// makeTransfer needs no request id: to hand over to the member that leads already changes nothing.
func makeTransfer(ctx context.Context, r *reader, _ order) (done, error) {
	if r.arguments["to"] == "" {
		return done{}, invalid("to", "is missing")
	}
	answer, err := quoratev1.NewMemberServiceClient(r.conn).TransferLeadership(ctx, &quoratev1.TransferLeadershipRequest{To: r.arguments["to"]})
	if err != nil {
		return done{}, err
	}
	return done{text: answer.GetLeader() + " leads the group.", revision: answer.GetHeader().GetRevision(), back: root + memberPath}, nil
}
