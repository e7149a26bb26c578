package interop

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	leasePort = 18500
	// leaseTTL is for how long a serving lease lasts (redundancy.md §2), and leaseDrift what the leader waits longer.
	leaseTTL   = 5 * time.Second
	leaseDrift = 100 * time.Millisecond
	// lookInterval is how often a server's level is read.
	lookInterval = 5 * time.Millisecond
	// promptly is how much later than it could a server may become Healthy. Some milliseconds are enough for its question to be answered, and for the client to
	// see it, where the machine does nothing else; whatever it does, it must not take another TTL.
	promptly = 3 * time.Second
)

// look is one reading of a server's level by the observer, whose clock is monotonic. The server had the level at some moment between the two times.
type look struct {
	sent, got time.Time
	level     int // -1 if there was no answer
}

// onlooker reads a server's level again and again, for as long as the server answers, with gopcua's client.
type onlooker struct {
	mu    sync.Mutex
	looks []look
}

func onlook(ctx context.Context, t *testing.T, endpoint string) *onlooker {
	t.Helper()
	o := &onlooker{}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			o.session(ctx, endpoint)
		}
	}()
	return o
}

// session reads until that fails, or ctx ends.
func (o *onlooker) session(ctx context.Context, endpoint string) {
	sent := time.Now()
	c, err := opcua.NewClient(endpoint, opcua.AutoReconnect(false))
	if err == nil {
		err = c.Connect(ctx)
	}
	if err != nil {
		o.note(look{sent, time.Now(), -1})
		pause(ctx, 50*time.Millisecond)
		return
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(closing) // The server may be gone.
	}()
	request := &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: serverNode(id.Server_ServiceLevel), AttributeID: ua.AttributeIDValue}}}
	for ctx.Err() == nil {
		l := look{sent: time.Now(), level: -1}
		response, err := c.Read(ctx, request)
		l.got = time.Now()
		if err == nil && len(response.Results) == 1 && response.Results[0].Status == ua.StatusOK {
			if v, ok := response.Results[0].Value.Value().(byte); ok {
				l.level = int(v)
			}
		}
		o.note(l)
		if l.level < 0 {
			return
		}
		pause(ctx, lookInterval)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (o *onlooker) note(l look) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looks = append(o.looks, l)
}

// since returns the looks that ended after a moment.
func (o *onlooker) since(from time.Time) (list []look) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.looks {
		if l.got.After(from) {
			list = append(list, l)
		}
	}
	return list
}

// servingLease returns between which moments a server's lease runs out, by what it says of it itself.
func servingLease(ctx context.Context, p *plant, member string) (left time.Duration, earliest, latest time.Time) {
	p.t.Helper()
	m, err := p.Member(member)
	p.must(err)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.HTTP+"/metrics", nil)
	p.must(err)
	sent := time.Now()
	response, err := http.DefaultClient.Do(request)
	p.must(err)
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if name, value, _ := strings.Cut(lines.Text(), "} "); strings.HasPrefix(name, "quorate_redundancy_serving_lease_seconds{") {
			seconds, err := strconv.ParseFloat(value, 64)
			p.must(err)
			left = time.Duration(seconds * float64(time.Second))
			return left, sent.Add(left), time.Now().Add(left)
		}
	}
	p.t.Fatalf("%s says nothing of its lease", member)
	return
}

// lead gives the leadership to a member.
func (p *plant) lead(member string) {
	p.t.Helper()
	wait(p.ctx, p.t, member+" leads", func() bool {
		leader, err := p.Leader(p.ctx)
		p.must(err)
		if leader.ID == member {
			return true
		}
		// It may be in the middle of another change; then it is asked for again.
		ctx, cancel := context.WithTimeout(p.ctx, askLimit)
		defer cancel()
		_, _ = quoratev1.NewMemberServiceClient(p.conns[0]).TransferLeadership(ctx, &quoratev1.TransferLeadershipRequest{To: member})
		return false
	})
}

// term is the raft term that a member is in.
func (p *plant) term(member string) uint64 {
	p.t.Helper()
	list := ask(p, func(ctx context.Context, c *grpc.ClientConn) (*quoratev1.ListMembersResponse, error) {
		return quoratev1.NewMemberServiceClient(c).ListMembers(ctx, &quoratev1.ListMembersRequest{})
	})
	for _, m := range list.GetMembers() {
		if m.GetId() == member {
			return m.GetTerm()
		}
	}
	p.t.Fatalf("there is no member %s", member)
	return 0
}

const askLimit = 2 * time.Second

// TestSwapWaitsForTheLease publishes a swap while the Primary can't hear of it, and clients read both servers all the time. By the clock of who reads, the new Primary
// is not Healthy before the lease of the old one has run out, by that one's own word, and is so a moment later, whenever the swap was published. So what
// it waits for is the rest of the TTL.
func TestSwapWaitsForTheLease(t *testing.T) {
	three := &quoratev1.RedundancyPolicies{MaxServers: 3}
	ctx, cancel := context.WithTimeout(t.Context(), tableLimit)
	defer cancel()
	p := startPlantAt(ctx, t, leasePort, "m1", "m2", "m3")
	slices.Reverse(p.conns) // The operator asks a member that is not cut off.
	old, next := onlook(ctx, t, p.Members[0].OPCUA), onlook(ctx, t, p.Members[1].OPCUA)
	for _, c := range []struct {
		name     string
		policies *quoratev1.RedundancyPolicies
		leader   string
		cut      func()
		mend     func()
		// publish is how long after the cut the swap is published.
		publish time.Duration
		// healthy is the first Healthy level of the new Primary.
		healthy int
	}{
		{"cut off from the group", three, "m3", func() { p.CutRaft("m1") }, p.Mend, 0, 255},
		{"published later", three, "m3", func() { p.CutRaft("m1") }, p.Mend, 3 * time.Second, 255},
		{"published when the lease has run out", three, "m3", func() { p.CutRaft("m1") }, p.Mend, leaseTTL + time.Second, 255},
		{"the leader is cut off", three, "m1", func() { p.CutRaft("m1") }, p.Mend, 0, 255},
		{"cut off from everything", three, "m3", func() { p.Isolate("m1") }, p.Mend, 0, 255},
		{"cut off from everything, and no other Backup", nil, "m3", func() { p.Isolate("m1") }, p.Mend, 0, 230},
		{"stopped", three, "m3", func() { p.must(p.Pause(ctx, "m1")) }, func() { p.must(p.Signal("m1", syscall.SIGCONT)) }, 0, 255},
	} {
		if !t.Run(c.name, func(t *testing.T) {
			p.t, p.watcher.t = t, t
			p.publish(false, "m1", c.policies)
			p.await(ctx, "all is well", func() bool {
				return p.level("m1") == 255 && p.level("m2") == 100 && p.level("m3") == map[bool]int{true: 100, false: 1}[c.policies != nil]
			})
			p.lead(c.leader)
			mark, term := p.mark(), p.term("m3")
			// The lease has just been renewed, so that the next question is a second away.
			var earliest, latest time.Time
			wait(ctx, t, "the lease is renewed", func() (renewed bool) {
				var left time.Duration
				left, earliest, latest = servingLease(ctx, p, "m1")
				return left > leaseTTL-200*time.Millisecond
			})
			c.cut()
			cut := time.Now()
			// It may have been renewed once more since.
			if c.name == "stopped" {
				latest = cut.Add(leaseTTL)
			} else if _, earliest, latest = servingLease(ctx, p, "m1"); earliest.After(cut.Add(leaseTTL)) {
				t.Fatalf("the lease of m1 lasts for %v after the cut", earliest.Sub(cut))
			}
			pause(ctx, time.Until(cut.Add(c.publish)))
			published := time.Now()
			if c.leader == "m1" {
				p.lead("m3") // By itself, once it is elected.
			}
			p.put(false, "m2", c.policies)
			var first look
			wait(ctx, t, "m2 is Healthy", func() bool {
				for _, l := range next.since(cut) {
					if l.level >= 200 {
						first = l
						return true
					}
				}
				return false
			})
			if first.level != c.healthy {
				t.Errorf("the first Healthy level of m2 is %d, want %d", first.level, c.healthy)
			}
			if first.got.Before(earliest.Add(leaseDrift / 2)) {
				t.Errorf("m2 is at %d %v before the lease of m1 runs out", first.level, earliest.Sub(first.got))
			}
			by := maxTime(latest.Add(leaseDrift), published).Add(promptly)
			if p.term("m3") != term { // A new leader knows of no lease, and waits for as long as one could last.
				by = cut.Add(levelLimit)
			}
			if first.got.After(by) {
				t.Errorf("m2 is at %d %v too late", first.level, first.got.Sub(by))
			}
			// For a while both go on, then the old one hears of it.
			pause(ctx, time.Second)
			c.mend()
			p.await(ctx, "the former Primary has heard of it", func() bool { return p.level("m1") == 100 && p.level("m2") == 255 })
			last := "was not seen to be Healthy"
			for _, l := range old.since(cut) {
				if l.level < 200 {
					continue
				}
				last = fmt.Sprintf("was last seen at %d after %v", l.level, msec(l.got.Sub(cut)))
				if l.sent.After(latest) || l.sent.After(first.sent) {
					t.Errorf("m1 was at %d, %v after the end of its lease, and %v after m2 was at %d", l.level, l.sent.Sub(latest), l.sent.Sub(first.sent), first.level)
				}
			}
			for _, l := range next.since(first.got) {
				if l.level >= 0 && l.level < 200 {
					t.Errorf("m2 was at %d again", l.level)
					break
				}
			}
			p.never(mark, "Healthy", healthy)
			t.Logf("the lease ran out %v to %v after the cut; m1 %s; the swap was published after %v, and m2 first seen at %d after %v",
				msec(earliest.Sub(cut)), msec(latest.Sub(cut)), last, msec(published.Sub(cut)), first.level, msec(first.got.Sub(cut)))
		}) {
			break
		}
	}
	p.t, p.watcher.t = t, t
}

func msec(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
