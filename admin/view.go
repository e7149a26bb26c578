package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// healthy is the least ServiceLevel of the Healthy range (OPC 10000-4 §6.6.2.4.2).
const healthy = 200

// silence is the age of the last contact with a leader from which on a page speaks of it.
const silence = 3 * time.Second

// tone is how good something is. Each has a sign and a word beside its colour.
type tone string

const (
	toneGood    tone = "good"
	toneStandby tone = "standby"
	toneWarn    tone = "warn"
	toneBad     tone = "bad"
	toneOff     tone = "off"
	toneUnknown tone = "unknown"
)

// groupView is what every page shows of the group.
type groupView struct {
	// Known is false where even that could not be read.
	Known                bool
	Member, Leader       string
	Generation, Revision uint64
	Reachable, Members   int
	// ClusterTime is that of the state, in milliseconds. Barriers pass by it.
	ClusterTime int64
	// Contact is when this member last heard from a leader, the zero moment where that is just now.
	Contact instant
	Alerts  []alert
}

// alert is something that is wrong now.
type alert struct {
	Tone        tone
	Title, Text string
	// Since is when it began, if that is known.
	Since instant
	// Path leads to more, if there is any.
	Path string
}

func newGroupView(member string, o *quoratev1.GetOverviewResponse, now time.Time) groupView {
	g := groupView{Member: member}
	if o == nil {
		return g
	}
	g.ClusterTime = o.GetHeader().GetClusterTime().AsDuration().Milliseconds()
	g.Known, g.Generation, g.Revision, g.Members = true, o.GetHeader().GetGeneration(), o.GetHeader().GetRevision(), len(o.GetMembers())
	var silent, diverged []string
	var term uint64
	for _, m := range o.GetMembers() {
		switch {
		case !m.GetReachable():
			silent = append(silent, m.GetId())
			continue
		case m.GetLeader() && m.GetTerm() >= term:
			g.Leader, term = m.GetId(), m.GetTerm()
		}
		g.Reachable++
		if m.GetDiverged() {
			diverged = append(diverged, m.GetId())
		}
	}
	if age := o.GetHeader().GetLeaderContactAge().AsDuration(); age > silence {
		g.Contact = instant(now.Add(-age).Truncate(time.Second))
	}
	g.alert(o, silent, diverged)
	return g
}

// Led says that a leader is known and was heard from: without one, cluster time stands still.
func (g groupView) Led() bool { return g.Leader != "" && time.Time(g.Contact).IsZero() }

// alert gathers what is wrong, the worst first.
func (g *groupView) alert(o *quoratev1.GetOverviewResponse, silent, diverged []string) {
	if !g.Led() {
		g.Alerts = append(g.Alerts, alert{Tone: toneBad, Title: "No leader", Since: g.Contact, Text: fmt.Sprintf(
			"%s hears from no leader. What is shown is what %s knows: revision %d, generation %d. No change can be made until a majority of the voters is back.",
			g.Member, g.Member, g.Revision, g.Generation)})
	}
	if len(diverged) > 0 {
		g.Alerts = append(g.Alerts, alert{Tone: toneBad, Title: "Out of service", Path: root + memberPath,
			Text: strings.Join(diverged, ", ") + ": the state differs from that of the other members."})
	}
	for _, rollout := range o.GetRollouts() {
		if rollout.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_STOPPED {
			g.Alerts = append(g.Alerts, alert{Tone: toneBad, Title: "Roll-out stopped", Path: setPath(rollout.GetSet()),
				Text: fmt.Sprintf("An apply of generation %d failed in set %s. Nothing goes on before it is resumed or rolled back.", rollout.GetGeneration(), rollout.GetSet())})
		}
	}
	if len(silent) > 0 {
		g.Alerts = append(g.Alerts, alert{Tone: toneWarn, Title: "No answer", Path: root + memberPath,
			Text: strings.Join(silent, ", ") + plural(len(silent), " does", " do") + " not answer " + g.Member + "."})
	}
	for _, set := range o.GetGeneration().GetTopology().GetSets() {
		if best, known := bestLevel(o, set); known && best < healthy {
			g.Alerts = append(g.Alerts, alert{Tone: toneWarn, Title: "Nobody is Healthy", Path: setPath(set.GetId()),
				Text: fmt.Sprintf("No server of set %s that answers advertises %d or more.", set.GetId(), healthy)})
		}
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// bestLevel is the highest level that a server of the set advertises; known is false if none of them answers.
func bestLevel(o *quoratev1.GetOverviewResponse, set *quoratev1.RedundantSet) (best uint32, known bool) {
	for _, server := range set.GetServers() {
		if m := memberOf(o, server.GetMember()); m.GetReachable() && m.ServiceLevel != nil {
			best, known = max(best, m.GetServiceLevel()), true
		}
	}
	return best, known
}

// memberOf returns a member of that id; one that isn't there is not reachable.
func memberOf(o *quoratev1.GetOverviewResponse, id string) *quoratev1.Member {
	if i := slices.IndexFunc(o.GetMembers(), func(m *quoratev1.Member) bool { return m.GetId() == id }); i >= 0 {
		return o.GetMembers()[i]
	}
	return &quoratev1.Member{Id: id}
}

// level is a ServiceLevel to be shown: the number, and what it means in words.
type level struct {
	Value, Band string
	Tone        tone
}

// newLevel is the level of a server in that role.
func newLevel(value uint32, band, role string) level {
	l := level{Value: strconv.FormatUint(uint64(value), 10), Band: band, Tone: toneWarn}
	switch band {
	case "Authoritative":
		if l.Tone = toneGood; value < healthy {
			l.Tone = toneStandby
		}
	case "InvalidTopology", "NoData":
		l.Tone = toneBad
	case "Maintenance":
		l.Tone = toneOff
	}
	if band == "NoData" && role == "" {
		l.Band, l.Tone = "witness", toneUnknown
	}
	return l
}

// noAnswer is the level of a server that doesn't tell it.
var noAnswer = level{Value: "–", Band: "no answer", Tone: toneBad}

// serverView is a server of a set.
type serverView struct {
	ID, Role, Set, Endpoint string
	Reachable               bool
	Level                   level
	Reasons                 []string
	Peers                   []peerView
	// Right says what the group lets it advertise under a serving lease, and Leased whether it has one now.
	Right  string
	Leased bool
	// Leases are its open apply leases.
	Leases           []*quoratev1.ApplyLease
	Adopted, Applied uint64
	Apply            *applyView
	Maintenance      *quoratev1.Maintenance
	// Maintain leads to declaring or ending its maintenance; nil where that is not offered.
	Maintain *action
	// Last is the last change of its level that is in the log, nil if there is none.
	Last *quoratev1.LevelChange
}

// action is a way to a change.
type action struct {
	ID, Path, Label string
	Danger          bool
	// Dialog says that it opens beside the page, and not in its place.
	Dialog bool
}

// peerView is what a server last saw of another one.
type peerView struct {
	Server string
	Level  string
	Tone   tone
	// Seen is when, where that is longer ago than it should be.
	Seen  instant
	Error string
}

// applyView is a server's part in a roll-out.
type applyView struct {
	*quoratev1.ServerApply
	State string
	Tone  tone
	Took  string
}

// stalePeer is the age from which on a page says when a peer was seen last. It is more than two intervals of probes.
const stalePeer = 5 * time.Second

func newServerView(o *quoratev1.GetOverviewResponse, set *quoratev1.RedundantSet, server *quoratev1.RedundantServer, now time.Time) serverView {
	m := memberOf(o, server.GetMember())
	v := serverView{
		ID: server.GetMember(), Role: server.GetRole(), Set: set.GetId(), Endpoint: server.GetEndpointUrl(), Level: noAnswer,
		Reachable: m.GetReachable(), Adopted: m.GetAdoptedGeneration(), Leased: m.GetServingLease() != nil,
	}
	if m.GetReachable() && m.ServiceLevel != nil {
		v.Level, v.Reasons = newLevel(m.GetServiceLevel(), m.GetBand(), v.Role), m.GetReasons()
	}
	for _, p := range m.GetPeers() {
		v.Peers = append(v.Peers, newPeerView(p, now))
	}
	for _, serving := range o.GetServing() {
		if serving.GetServer() == v.ID {
			if v.Right = "right to Healthy levels"; serving.GetStandIn() {
				v.Right = "right to stand in"
			}
		}
	}
	for _, lease := range o.GetLeases() {
		if lease.GetKey().GetServer() == v.ID {
			v.Leases = append(v.Leases, lease)
		}
	}
	for _, maintenance := range o.GetMaintenance() {
		if maintenance.GetServer() == v.ID && maintenance.GetActive() {
			v.Maintenance = maintenance
		}
	}
	for _, change := range o.GetLevelChanges() {
		if change.GetServer() == v.ID {
			v.Last = change
			break
		}
	}
	if rollout := rolloutOf(o, set.GetId()); rollout != nil {
		for _, apply := range rollout.GetServers() {
			if apply.GetServer() == v.ID {
				v.Apply, v.Applied = newApplyView(apply), apply.GetAppliedGeneration()
			}
		}
	}
	return v
}

func newPeerView(p *quoratev1.PeerStatus, now time.Time) peerView {
	v := peerView{Server: p.GetServer(), Level: "not seen yet", Tone: toneUnknown, Error: p.GetLastError()}
	if p.GetLastSeenAge() != nil {
		v.Level, v.Tone = strconv.FormatUint(uint64(p.GetServiceLevel()), 10), toneGood
		if age := p.GetLastSeenAge().AsDuration(); age > stalePeer || !p.GetReachable() {
			v.Seen = instant(now.Add(-age).Truncate(time.Second))
		}
	}
	if !p.GetReachable() {
		v.Level, v.Tone = "unreachable", toneBad
	}
	return v
}

func rolloutOf(o *quoratev1.GetOverviewResponse, set string) *quoratev1.Rollout {
	for _, r := range o.GetRollouts() {
		if r.GetSet() == set {
			return r
		}
	}
	return nil
}

// applyStates are the words for how far a server is.
var applyStates = map[quoratev1.ApplyState]struct {
	word string
	tone tone
}{
	quoratev1.ApplyState_APPLY_STATE_PENDING:  {"pending", toneUnknown},
	quoratev1.ApplyState_APPLY_STATE_APPLYING: {"applying", toneWarn},
	quoratev1.ApplyState_APPLY_STATE_APPLIED:  {"applied", toneGood},
	quoratev1.ApplyState_APPLY_STATE_FAILED:   {"failed", toneBad},
}

func newApplyView(a *quoratev1.ServerApply) *applyView {
	state := applyStates[a.GetState()]
	v := &applyView{ServerApply: a, State: cmp.Or(state.word, "unknown"), Tone: cmp.Or(state.tone, toneUnknown)}
	if a.GetEnded() != nil && a.GetBegun() != nil {
		v.Took = took(a.GetEnded().AsDuration() - a.GetBegun().AsDuration())
	}
	return v
}

// rolloutView is how far a generation has come in a set.
type rolloutView struct {
	Set                 string
	Generation          uint64
	State               string
	Tone                tone
	Apply, HandOver     string
	Servers             []*applyView
	Applied, Total      int
	Stopped, Unfinished bool
}

var rolloutStates = map[quoratev1.RolloutState]struct {
	word string
	tone tone
}{
	quoratev1.RolloutState_ROLLOUT_STATE_RUNNING: {"running", toneWarn},
	quoratev1.RolloutState_ROLLOUT_STATE_STOPPED: {"stopped", toneBad},
	quoratev1.RolloutState_ROLLOUT_STATE_DONE:    {"done", toneGood},
}

// newRolloutView returns nil where there is no roll-out.
func newRolloutView(r *quoratev1.Rollout) *rolloutView {
	if r == nil {
		return nil
	}
	state := rolloutStates[r.GetState()]
	v := &rolloutView{
		Set: r.GetSet(), Generation: r.GetGeneration(), State: cmp.Or(state.word, "unknown"), Tone: cmp.Or(state.tone, toneUnknown), Apply: r.GetApply(),
		HandOver: r.GetHandOverFrom(), Total: len(r.GetServers()), Stopped: r.GetState() == quoratev1.RolloutState_ROLLOUT_STATE_STOPPED,
		Unfinished: r.GetState() != quoratev1.RolloutState_ROLLOUT_STATE_DONE,
	}
	for _, server := range r.GetServers() {
		v.Servers = append(v.Servers, newApplyView(server))
		if server.GetState() == quoratev1.ApplyState_APPLY_STATE_APPLIED {
			v.Applied++
		}
	}
	return v
}

// policiesText writes the policies of a set in one line, defaults left out where they are.
func policiesText(p *quoratev1.RedundancyPolicies) string {
	parts := []string{"apply " + cmp.Or(p.GetApply(), "inPlace")}
	if p.GetStandIn() != 0 {
		parts = append(parts, fmt.Sprintf("stand-in %d", p.GetStandIn()))
	}
	if text := p.GetQuorumLoss(); text != "" && text != "degrade" {
		parts = append(parts, "quorum loss "+text)
	}
	if p.GetFailover() == "automatic" {
		after := "10 s"
		if p.GetFailoverAfter() != nil {
			after = took(p.GetFailoverAfter().AsDuration())
		}
		parts = append(parts, "failover automatic after "+after)
	} else {
		parts = append(parts, "failover manual")
	}
	if text := p.GetEvictClients(); text != "" && text != "off" {
		parts = append(parts, "evict clients "+text)
	}
	if p.GetHotBackupsHealthy() {
		parts = append(parts, "hot Backups Healthy")
	}
	if len(p.GetLevels()) > 0 {
		parts = append(parts, "levels of its own")
	}
	return strings.Join(parts, " · ")
}
