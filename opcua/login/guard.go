package login

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// The delays after failures: the first ones are free, then each doubles the wait.
const (
	freeAddressFailures = 10
	freeNameFailures    = 3
	firstDelay          = time.Second
	maxAddressDelay     = time.Minute
	maxNameDelay        = 5 * time.Second
	// forgetAfter is how long a failure counts.
	forgetAfter = 15 * time.Minute
	// maxTracked bounds the addresses, and the names, of which failures are counted. The oldest make room.
	maxTracked = 4_096
)

// guard counts failures by key, and says when a key may be tried again.
type guard struct {
	free int
	most time.Duration

	mu    sync.Mutex
	byKey map[string]failures
}

type failures struct {
	count int
	last  time.Time
}

func newGuard(free int, most time.Duration) *guard {
	return &guard{free: free, most: most, byKey: map[string]failures{}}
}

// open says whether a key may be tried now.
func (g *guard) open(key string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.byKey[key]
	return !ok || now.Sub(f.last) >= g.delay(f.count)
}

func (g *guard) delay(count int) time.Duration {
	if count <= g.free {
		return 0
	}
	// The shift is bounded, so that it can't overflow.
	return min(firstDelay<<min(count-g.free-1, 16), g.most)
}

func (g *guard) failed(key string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.byKey[key]
	if ok && now.Sub(f.last) >= forgetAfter {
		f.count = 0
	}
	if !ok && len(g.byKey) >= maxTracked {
		g.makeRoom(now)
	}
	f.count, f.last = f.count+1, now
	g.byKey[key] = f
}

// makeRoom forgets what no longer counts, and the oldest in any case. It looks at all, which is nothing beside the argon2
// that each failure has cost.
func (g *guard) makeRoom(now time.Time) {
	oldest := ""
	for key, f := range g.byKey {
		if now.Sub(f.last) >= forgetAfter {
			delete(g.byKey, key)
		} else if oldest == "" || f.last.Before(g.byKey[oldest].last) {
			oldest = key
		}
	}
	if len(g.byKey) >= maxTracked {
		delete(g.byKey, oldest)
	}
}

func (g *guard) forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.byKey, key)
}

// addressKey is by what an address is counted: an IPv6 one by its /64, of which every host has all.
func addressKey(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, _ := ip.Prefix(64)
	return prefix.String()
}
