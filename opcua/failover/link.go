package failover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"
)

const (
	// openTimeout bounds opening a session and asking for the facts, and each request after it, Publish apart.
	openTimeout = 5 * time.Second
	// publishTimeout is what the client below allows a request; contexts decide earlier.
	publishTimeout = 5 * time.Minute
	// silence is how long a server may be late with a keep-alive. Less, and a short load on either side would be a cut-over.
	silence = 2 * time.Second
)

// event is what a link reports to the goroutine that decides.
type event struct {
	link *link
	// One of these is set.
	up     *facts      // connected, or its set has changed
	level  *level      // its ServiceLevel has changed
	ready  role        // it is now in this role
	values []itemValue // of monitored nodes
	lost   int         // messages that can't be had again
	down   error       // the connection is over, or there was none
}

// level is a ServiceLevel, with the EstimatedReturnTime where it is Maintenance.
type level struct {
	value   byte
	returns time.Time
}

// itemValue is a value of a node, by its index.
type itemValue struct {
	node    int
	data    *ua.DataValue
	refused bool // the server does not monitor it: no value of the server's
}

// link keeps up the connection to one server until its context ends.
type link struct {
	client *Client
	target target
	events chan<- event
	cancel context.CancelFunc
	// roles has at most one role: the last that was wished for.
	roles chan role
	// conn is the session while there is one, for reads.
	conn atomic.Pointer[conn]

	wished role // of the goroutine that decides: what it wished for last
}

// wish asks for a role. Only the goroutine that decides calls it.
func (l *link) wish(r role) {
	if l.wished == r {
		return
	}
	l.wished = r
	select {
	case <-l.roles:
	default:
	}
	l.roles <- r
}

// report says whether the event was taken; it is not when the context has ended.
func (l *link) report(ctx context.Context, e event) bool {
	e.link = l
	select {
	case l.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// run connects, again and again.
func (l *link) run(ctx context.Context) {
	delay := FirstRetry
	role := watching
	for {
		began := time.Now()
		err := l.once(ctx, &role)
		if ctx.Err() != nil || !l.report(ctx, event{down: err}) {
			return
		}
		// One that fails as soon as it stands is no better than none.
		if time.Since(began) >= LastRetry {
			delay = FirstRetry
		}
		pause := time.NewTimer(l.client.jitter(delay))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
			delay = min(2*delay, LastRetry)
		}
	}
}

// once works with one connection until it fails. want is the role that was wished for last, by this connection or one before.
func (l *link) once(ctx context.Context, want *role) error {
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	c, err := l.client.dial(opening, l.target.url, l.client.cfg.Session)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := ask(opening, c, l.target.url)
	if err != nil {
		return err
	}
	if l.target.uri != "" && f.self != "" && f.self != l.target.uri {
		return fmt.Errorf("the server at %s is %s, not %s", l.target.url, f.self, l.target.uri)
	}
	if f.level == maintenance {
		// Nothing is made at a server in maintenance. This link is ended by who is told, or left to wait.
		if l.report(ctx, event{up: &f}) {
			<-ctx.Done()
		}
		return ctx.Err()
	}
	s := &subscription{link: l, conn: c, url: l.target.url}
	if err := s.create(opening); err != nil {
		return err
	}
	l.conn.Store(&c)
	defer l.conn.Store(nil)
	if !l.report(ctx, event{up: &f}) {
		return ctx.Err()
	}
	return l.serve(ctx, s, want)
}

// serve works with a subscription until it fails.
func (l *link) serve(ctx context.Context, s *subscription, want *role) error {
	ctx, cancel := context.WithCancel(ctx)
	var publishing sync.WaitGroup
	defer publishing.Wait()
	defer cancel()
	messages := make(chan message)
	publishing.Go(func() { s.publish(ctx, messages) })
	enter := func() error {
		within, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		if err := s.enter(within, *want); err != nil {
			return err
		}
		l.report(ctx, event{ready: *want})
		return nil
	}
	select { // What is wished for now, not what was when the last connection ended.
	case *want = <-l.roles:
	default:
	}
	if err := enter(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case *want = <-l.roles:
			if err := enter(); err != nil {
				return err
			}
		case m := <-messages:
			if m.err != nil {
				return m.err
			}
			if err := l.handle(ctx, s, m); err != nil {
				return err
			}
		}
	}
}

// handle reports what is in a message.
func (l *link) handle(ctx context.Context, s *subscription, m message) error {
	if m.lost > 0 {
		l.report(ctx, event{lost: m.lost})
	}
	var values []itemValue
	for _, n := range m.items {
		switch n.ClientHandle {
		case levelHandle:
			now := level{value: levelOf(n.Value)}
			if now.value == maintenance {
				now.returns = s.returns(ctx)
			}
			l.report(ctx, event{level: &now})
		case setHandle, supportHandle:
			if first := !s.told[n.ClientHandle-setHandle]; first {
				s.told[n.ClientHandle-setHandle] = true // The first value is the one that ask has read.
				continue
			}
			within, cancel := context.WithTimeout(ctx, openTimeout)
			f, err := ask(within, s.conn, l.target.url)
			cancel()
			if err != nil {
				return err
			}
			l.report(ctx, event{up: &f})
		default:
			if node := int(n.ClientHandle) - nodeHandle; node >= 0 && node < len(l.client.cfg.Nodes) {
				values = append(values, itemValue{node: node, data: n.Value})
				continue
			}
			return errors.New("the server notifies of what was not asked for")
		}
	}
	if len(values) > 0 {
		l.report(ctx, event{values: values})
	}
	return nil
}
