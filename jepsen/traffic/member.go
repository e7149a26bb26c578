package traffic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"quorate/client"
	"quorate/jepsen/history"
	"quorate/jepsen/lab"
	"quorate/jepsen/nemesis"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// leaderEvery, digestEvery and sampleEvery are how often it is looked at who leads, what the digests are, and what members use.
	leaderEvery = 250 * time.Millisecond
	digestEvery = 2 * time.Second
	sampleEvery = 5 * time.Second
	// askLimit is how long a member may take to answer these questions.
	askLimit = 400 * time.Millisecond
	// listLimit is that for a list of members, for which a member asks all others.
	listLimit = 3 * time.Second
	// comparedLimit is how long it may take until the states of all members are compared: that is done every 30 s.
	comparedLimit = 70 * time.Second
	// maxMetrics bounds what is read of the metrics of a member, in bytes.
	maxMetrics = 8 << 20
)

func members() Workload {
	return Workload{Name: "member", Setup: nothing, Run: runMembers, Quiet: readDigests, Final: finalDigests}
}

// runMembers looks at members: who leads, what they use, and whether their states are the same. Who is in the group is changed by faults.
func runMembers(ctx context.Context, e *Env) error {
	var all []func(context.Context) error
	for _, m := range e.shape.members {
		all = append(all,
			func(ctx context.Context) error { return keepLookingForLeader(ctx, e, m.ID) },
			func(ctx context.Context) error { return keepSampling(ctx, e, m) },
			func(ctx context.Context) error {
				for Rest(ctx, digestEvery) {
					_ = readDigest(ctx, e, "digest-"+m.ID, m.ID)
				}
				return nil
			})
	}
	return together(ctx, all...)
}

// leads says whether a member takes itself for the leader.
func leads(ctx context.Context, c *client.Client) bool {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	resp, err := c.Partitions().GetPartitionSettings(ctx, &quoratev1.GetPartitionSettingsRequest{
		Read: &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL},
	})
	age := resp.GetHeader().GetLeaderContactAge()
	return err == nil && age != nil && age.AsDuration() == 0
}

func keepLookingForLeader(ctx context.Context, e *Env, id string) error {
	was := false
	for Rest(ctx, leaderEvery) {
		now := leads(ctx, e.At[id])
		if now && !was {
			e.Log.Mark(history.Mark{Kind: "leader", Member: id, Text: id + " leads"}, map[string]uint64{"term": term(ctx, e.At[id], id)})
		}
		was = now
	}
	return nil
}

// term is the term of a member, 0 if it does not say.
func term(ctx context.Context, c *client.Client, id string) uint64 {
	m, err := self(ctx, c, id)
	if err != nil {
		return 0
	}
	return m.GetTerm()
}

// self is what a member says of itself.
func self(ctx context.Context, c *client.Client, id string) (*quoratev1.Member, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listLimit)
	defer cancel()
	list, err := c.Members().ListMembers(ctx, &quoratev1.ListMembersRequest{Read: &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}})
	if err != nil {
		return nil, err
	}
	for _, m := range list.GetMembers() {
		if m.GetId() == id {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s does not know itself", id)
}

// digest is what a history has of a member's state.
type digest struct {
	Index    uint64 `json:"index"`
	Digest   string `json:"digest"`
	Applied  uint64 `json:"applied"`
	Diverged bool   `json:"diverged,omitempty"`
}

func readDigest(ctx context.Context, e *Env, as, id string) error {
	op := e.Log.Begin(history.Op{Client: as, Member: id, Noun: "digest", Kind: "get", Key: id}, nil)
	m, err := self(ctx, e.At[id], id)
	if err != nil {
		e.Log.End(op, history.Failed, nil, explain(err))
		return err
	}
	e.Log.End(op, history.OK, digest{m.GetDigestRevision(), m.GetDigest(), m.GetAppliedRevision(), m.GetDiverged()}, nil)
	return nil
}

func readDigests(ctx context.Context, e *Env, as string) error {
	var errs []error
	for _, m := range e.shape.members {
		if err := readDigest(ctx, e, as, m.ID); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.ID, err))
		}
	}
	return errors.Join(errs...)
}

// finalDigests waits until all members have compared their states once more, and reads what they found.
func finalDigests(ctx context.Context, e *Env, as string) error {
	ctx, cancel := context.WithTimeout(ctx, comparedLimit)
	defer cancel()
	now, err := firstRevision(ctx, e)
	if err != nil {
		return err
	}
	for {
		compared := 0
		for _, m := range e.shape.members {
			if found, err := self(ctx, e.At[m.ID], m.ID); err == nil && found.GetDigestRevision() >= now {
				compared++
			}
		}
		if compared == len(e.shape.members) {
			return readDigests(context.WithoutCancel(ctx), e, as)
		}
		if !Rest(ctx, 200*time.Millisecond) {
			return fmt.Errorf("%d of %d members have compared their states within %v", compared, len(e.shape.members), comparedLimit)
		}
	}
}

// sample is what a member uses.
type sample struct {
	RSS        float64 `json:"rss"`
	Goroutines float64 `json:"goroutines"`
	FDs        float64 `json:"fds"`
}

func keepSampling(ctx context.Context, e *Env, m *lab.Member) error {
	web := newWeb(e.Lab)
	defer web.CloseIdleConnections()
	for ctx.Err() == nil {
		if metrics, err := scrape(ctx, web, m); err == nil {
			e.Log.Mark(history.Mark{Kind: "sample", Member: m.ID},
				sample{metrics["process_resident_memory_bytes"], metrics["go_goroutines"], metrics["process_open_fds"]})
		}
		Rest(ctx, sampleEvery)
	}
	return nil
}

func newWeb(l *lab.Lab) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: l.TLS.Clone(), MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}, Timeout: 2 * time.Second}
}

// ownLabels are those that all series of one member have.
var ownLabels = regexp.MustCompile(`(cluster|node)="[^"]*",?|\{cluster="[^"]*",node="[^"]*"\}|,node="[^"]*"`)

// scrape reads the metrics of a member, by their names with those labels that not all of them have.
func scrape(ctx context.Context, web *http.Client, m *lab.Member) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.HTTP+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of %s: %s", m.ID, resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxMetrics))
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if value, err := strconv.ParseFloat(strings.TrimSpace(line[at:]), 64); err == nil {
			found[ownLabels.ReplaceAllString(line[:at], "")] = value
		}
	}
	return found, nil
}

// Group is the group as faults need it: they change who leads it and who is in it.
type Group struct {
	env *Env
	web *http.Client
}

var _ nemesis.Group = (*Group)(nil)

// NewGroup returns that of a run.
func NewGroup(e *Env) *Group { return &Group{env: e, web: newWeb(e.Lab)} }

// Leader implements nemesis.Group.
func (g *Group) Leader(ctx context.Context) string {
	var mu sync.Mutex
	found := ""
	var asked sync.WaitGroup
	for id, c := range g.env.At {
		asked.Go(func() {
			if leads(ctx, c) {
				mu.Lock()
				found = id
				mu.Unlock()
			}
		})
	}
	asked.Wait()
	return found
}

// Transfer implements nemesis.Group.
func (g *Group) Transfer(ctx context.Context, to string) error {
	ctx, cancel := context.WithTimeout(ctx, listLimit)
	defer cancel()
	_, err := g.env.Group.Members().TransferLeadership(ctx, &quoratev1.TransferLeadershipRequest{To: to})
	return err
}

// AddLearner implements nemesis.Group.
func (g *Group) AddLearner(ctx context.Context, id, raftAddress string) error {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	_, err := g.env.Group.Members().AddLearner(ctx, &quoratev1.AddLearnerRequest{Id: id, RaftAddress: raftAddress})
	return err
}

// Promote implements nemesis.Group. With a vote, a server may be in topologies again.
func (g *Group) Promote(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	_, err := g.env.Group.Members().PromoteMember(ctx, &quoratev1.PromoteMemberRequest{Id: id})
	if err == nil {
		g.env.shape.stay(id)
	}
	return err
}

// Remove implements nemesis.Group. Nobody who is in the topology can be removed, so that changes first.
func (g *Group) Remove(ctx context.Context, id string) error {
	g.env.shape.leave(id)
	client := "operator"
	current, err := getTopology(ctx, g.env, client, "", nil)
	if err != nil {
		return err
	}
	for _, set := range current.GetGeneration().GetTopology().GetSets() {
		for _, server := range set.GetServers() {
			if server.GetMember() == id {
				if _, err := publish(ctx, g.env, client, "", g.env.random(client+id), false); err != nil {
					return err
				}
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	_, err = g.env.Group.Members().RemoveMember(ctx, &quoratev1.RemoveMemberRequest{Id: id})
	return removed(err)
}

// removed is nil where the member is gone: by this attempt, or by one before of which nobody could say how it ended.
func removed(err error) error {
	if client.ReasonOf(err) == client.ReasonUnknownMember {
		return nil
	}
	return err
}

// Metric implements nemesis.Group.
func (g *Group) Metric(ctx context.Context, member, series string) (float64, error) {
	metrics, err := scrape(ctx, g.web, g.env.Lab.Member(member))
	return metrics[series], err
}

// CommandVersion implements nemesis.Group; it is 0 of who is no member.
func (g *Group) CommandVersion(ctx context.Context, member string) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	members, err := g.env.Group.Members().ListMembers(ctx, &quoratev1.ListMembersRequest{})
	if err != nil {
		return 0, err
	}
	for _, m := range members.GetMembers() {
		if m.GetId() == member {
			return m.GetCommandVersion(), nil
		}
	}
	return 0, nil
}

// Lags implements nemesis.Group: partitions are the newest noun, and there is none of this name.
func (g *Group) Lags(ctx context.Context, member string, version uint32) error {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	known, err := g.CommandVersion(ctx, member)
	if err != nil {
		return err
	}
	if known != version {
		return fmt.Errorf("the group takes %s to know version %d", member, known)
	}
	_, err = g.env.Group.Partitions().SetPlacement(ctx, &quoratev1.SetPlacementRequest{RequestId: rand.Text(), Partition: "version-skew", Placement: "none"})
	if client.ReasonOf(err) == client.ReasonNotYetSupported {
		return nil
	}
	return fmt.Errorf("a new command: %w", err)
}

// WallOffset implements nemesis.Group: the member that is asked stamps what it proposes.
func (g *Group) WallOffset(ctx context.Context, member string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	resp, err := g.env.At[member].Gates().RegisterInstance(ctx, &quoratev1.RegisterInstanceRequest{Id: "clock-" + member, Session: rand.Text()})
	if err != nil {
		return 0, err
	}
	return time.Until(resp.GetInstance().GetRegisteredAt().AsTime()), nil
}
