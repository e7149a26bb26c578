package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// latency is what every link takes, besides its delay.
const latency = 200 * time.Microsecond

var (
	errRefused = errors.New("connection refused")
	errTimeout = errors.New("i/o timeout")
)

// Network joins the members' transports by links that can be cut and slowed, each direction by itself. What is sent into a cut link is lost, and the
// sender finds out by its own deadline only.
type Network struct {
	// TrustOwnTerm is a mutant: members believe their own term instead of asking the voters, so that reads aren't confirmed by anyone.
	TrustOwnTerm atomic.Bool

	mu      sync.Mutex
	links   map[[2]string]link
	members map[string]*Transport
	// paused has a channel for each address whose member stands still; it is closed when that goes on.
	paused map[string]chan struct{}
}

type link struct {
	cut    bool
	delay  time.Duration
	jitter time.Duration
}

// NewNetwork returns a network in which every link is whole.
func NewNetwork() *Network {
	return &Network{links: map[[2]string]link{}, members: map[string]*Transport{}, paused: map[string]chan struct{}{}}
}

// Join returns the transport of the member at an address.
func (n *Network) Join(address string) *Transport {
	t := newTransport(n, address)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members[address] = t
	return t
}

// Leave cuts a member off, for good: one that joins at that address later has nothing to do with it.
func (n *Network) Leave(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.members[address]; t != nil {
		t.dead.Store(true)
		delete(n.members, address)
		t.leave()
	}
}

// Pause lets what goes to and from a member wait, as a process that was stopped does, until Resume. Unlike with Cut nothing is lost.
func (n *Network) Pause(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.paused[addressOf(id)] == nil {
		n.paused[addressOf(id)] = make(chan struct{})
	}
}

// Resume ends a pause.
func (n *Network) Resume(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if going := n.paused[addressOf(id)]; going != nil {
		close(going)
		delete(n.paused, addressOf(id))
	}
}

// wait returns once neither end stands still.
func (n *Network) wait(ctx context.Context, from, to string) error {
	for {
		n.mu.Lock()
		going := n.paused[from]
		if going == nil {
			going = n.paused[to]
		}
		n.mu.Unlock()
		if going == nil {
			return nil
		}
		select {
		case <-going:
		case <-ctx.Done():
			return errTimeout
		}
	}
}

// Ping says whether one member can reach another one and get an answer.
func (n *Network) Ping(ctx context.Context, from, to string) error {
	n.mu.Lock()
	asker := n.members[addressOf(from)]
	n.mu.Unlock()
	if asker == nil {
		return errRefused
	}
	asked, err := n.cross(ctx, asker, addressOf(to))
	if err != nil {
		return err
	}
	return n.answer(ctx, asked, asker)
}

func (n *Network) change(from, to string, f func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := [2]string{addressOf(from), addressOf(to)}
	l := n.links[key]
	f(&l)
	n.links[key] = l
}

// Cut cuts the link from one member to another, in this direction only.
func (n *Network) Cut(from, to string) { n.change(from, to, func(l *link) { l.cut = true }) }

// Slow adds a delay, and a random one of up to jitter, to the link from one member to another. With jitter, packets never overtake each other within
// one stream.
func (n *Network) Slow(from, to string, delay, jitter time.Duration) {
	n.change(from, to, func(l *link) { l.delay, l.jitter = delay, jitter })
}

// Heal makes every link whole and fast.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.links)
}

// state returns what a packet sent now from one transport to an address meets.
func (n *Network) state(from *Transport, to string) (target *Transport, delay time.Duration, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[[2]string{from.address, to}]
	delay = latency + l.delay
	if l.jitter > 0 {
		delay += rand.N(l.jitter)
	}
	return n.members[to], delay, l.cut || from.dead.Load()
}

// cross takes a packet across a link. It returns errTimeout when ctx ended first or the packet was lost, and errRefused when nobody is there.
func (n *Network) cross(ctx context.Context, from *Transport, to string) (*Transport, error) {
	_, delay, lost := n.state(from, to)
	if !lost {
		if err := sleep(ctx, delay); err != nil {
			return nil, err
		}
		if err := n.wait(ctx, from.address, to); err != nil {
			return nil, err
		}
		var target *Transport
		// It is lost too if the link was cut while it was under way.
		if target, _, lost = n.state(from, to); !lost && target == nil {
			return nil, errRefused
		} else if !lost {
			return target, nil
		}
	}
	<-ctx.Done()
	return nil, errTimeout
}

// answer takes the answer back from the transport that was asked. That one may have died meanwhile.
func (n *Network) answer(ctx context.Context, asked *Transport, asker *Transport) error {
	_, delay, lost := n.state(asked, asker.address)
	if !lost {
		if err := sleep(ctx, delay); err != nil {
			return err
		}
		if err := n.wait(ctx, asked.address, asker.address); err != nil {
			return err
		}
		if _, _, lost = n.state(asked, asker.address); !lost {
			return nil
		}
	}
	<-ctx.Done()
	return errTimeout
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errTimeout
	}
}
