package channel

import (
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"
)

// Turns keep connections that are always at work from the processors that all others need. The scheduler of the runtime lets a
// goroutine that never waits run for 10 ms and looks at the network only when it has nothing else to do, or as seldom: eight
// clients that send without a pause would make everybody else, the group's heartbeats too, wait for a tenth of a second
// and more. So who takes more than its share may go on only with one of few turns, in the order of coming.

const (
	// freeShare is the part of one processor that a connection may take without waiting for turns: one in freeShare.
	freeShare = 16
	// freeBurst is what it may take at once on top of that.
	freeBurst = 4 * time.Millisecond
	// longestDebt bounds what counts against a connection, so that all is forgiven after freeShare times as long.
	longestDebt = 50 * time.Millisecond
	// chunkCost and byteCost are about what a chunk costs a processor. It is not measured, because what a clock shows is much
	// more than that on a machine with too much to do, which would make everybody busy when it matters most.
	chunkCost = 20 * time.Microsecond
	byteCost  = 50 * time.Nanosecond
)

// work is what a connection costs. All but turn is the reading goroutine's own.
type work struct {
	turn  atomic.Bool   // holds one of the server's turns
	began bool          // since it last waited for input
	debt  time.Duration // what it took beyond its share, at the time of paid
	paid  time.Time
}

// takeTurn comes before a chunk is handled. It waits if the connection took more than its share, or if the chunk is large.
func (c *Channel) takeTurn(size int) error {
	w := &c.work
	if !w.began {
		now := time.Now()
		w.debt = max(0, w.debt-now.Sub(w.paid)/freeShare)
		w.began, w.paid = true, now
	}
	w.debt = min(w.debt+chunkCost+time.Duration(size)*byteCost, longestDebt)
	if size <= readBuffer && w.debt <= freeBurst {
		return nil
	}
	return c.needTurn()
}

// needTurn waits for a turn, unless the connection has one.
func (c *Channel) needTurn() error {
	w := &c.work
	if w.turn.Load() {
		return nil
	}
	select {
	case c.server.turns <- struct{}{}:
	default:
		// Whoever has a turn is at work and waits for nobody, so this is not for long.
		if _, err := c.server.enter(c.server.turns, c.server.limits.MessageTimeout, "too many requests"); err != nil {
			return err
		}
	}
	w.turn.Store(true)
	return nil
}

// rest comes before the connection waits for more input.
func (c *Channel) rest() {
	c.work.began = false
	c.Yield()
}

// Yield says that what follows in a request waits for something else than a processor, or is bounded in another way: others may
// have the turn that the connection may hold. The Handler calls it before it waits.
func (c *Channel) Yield() {
	if c.work.turn.CompareAndSwap(true, false) {
		<-c.server.turns
	}
}

// costly tells requests whose length says nothing of their cost.
func costly(req ua.Request) bool {
	switch req.(type) {
	case *ua.BrowseRequest, *ua.BrowseNextRequest, *ua.TranslateBrowsePathsToNodeIDsRequest, *ua.CallRequest:
		return true
	}
	return false
}
