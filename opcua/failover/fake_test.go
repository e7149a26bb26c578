package failover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"

	"quorate/opcua/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plant is a set of servers under a virtual clock: real ones need a network, which a bubble does not have. What a real server
// does with the same requests is tested in real_test.go.
type plant struct {
	mu      sync.Mutex
	servers map[string]*fake // by URL
	dials   []string         // URLs, in order
}

// fake is a server that gives out what it is told.
type fake struct {
	plant    *plant
	uri, url string

	// Under plant.mu.
	level     byte
	returns   time.Time
	support   int32
	set       []*fake
	refuses   bool                         // takes no connection
	frozen    bool                         // answers nothing
	noLevel   bool                         // is too old to know ServiceLevel
	announced string                       // its URL as others tell it, where that is not url
	nonsense  func(ua.Request) ua.Response // may answer instead
	nextSub   uint32
	conns     []*fakeConn
	published map[uint32]*ua.NotificationMessage // for Republish
	swallow   int                                // messages that get lost
	forget    bool                               // and can't be had again
}

// newPlant makes a set of servers a, b, c, … with these levels.
func newPlant(support int32, levels ...byte) *plant {
	p := &plant{servers: map[string]*fake{}}
	var set []*fake
	for i, level := range levels {
		name := string(rune('a' + i))
		f := &fake{plant: p, uri: "urn:" + name, url: "opc.tcp://" + name, level: level, support: support, published: map[uint32]*ua.NotificationMessage{}}
		p.servers[f.url] = f
		set = append(set, f)
	}
	for _, f := range set {
		f.set = set
	}
	return p
}

func (p *plant) at(name string) *fake { return p.servers["opc.tcp://"+name] }

// do changes something, and tells all who watch.
func (p *plant) do(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	for _, f := range p.servers {
		for _, c := range f.conns {
			for _, it := range c.items {
				if it.handle < nodeHandle {
					c.push(it, f.value(it.node))
				}
			}
		}
	}
}

// setLevel changes the ServiceLevel of a server.
func (p *plant) setLevel(name string, level byte) { p.do(func() { p.at(name).level = level }) }

// kill ends a server and all its connections.
func (p *plant) kill(name string) {
	p.do(func() {
		f := p.at(name)
		f.refuses = true
		for _, c := range f.conns {
			close(c.gone)
		}
		f.conns = nil
	})
}

func (p *plant) revive(name string, level byte) {
	p.do(func() { p.at(name).refuses, p.at(name).level = false, level })
}

// sample gives all servers a new value of every node, from the source that they share.
func (p *plant) sample() {
	now := time.Now()
	p.do(func() {
		for _, f := range p.servers {
			for _, c := range f.conns {
				for _, it := range c.items {
					if it.handle >= nodeHandle && !f.frozen {
						c.push(it, &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(now.UnixMilli()), SourceTimestamp: now})
					}
				}
			}
		}
	})
}

// run lets time pass, with a sample every 100 ms.
func (p *plant) run(d time.Duration) {
	for ; d > 0; d -= 100 * time.Millisecond {
		p.sample()
		time.Sleep(100 * time.Millisecond)
	}
	synctest.Wait()
}

// modes are the monitoring modes of the nodes at a server, one text for each connection: "-" without items.
func (p *plant) modes(name string) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.at(name).conns {
		s := "-"
		for _, it := range c.items {
			if it.handle >= nodeHandle {
				s = [...]string{"disabled", "sampling", "reporting"}[it.mode]
			}
		}
		list = append(list, s)
	}
	return list
}

func (p *plant) dialled(name string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.dials {
		if u == "opc.tcp://"+name {
			n++
		}
	}
	return n
}

func (p *plant) dial(ctx context.Context, url string, _ session.Options) (conn, error) {
	p.mu.Lock()
	p.dials = append(p.dials, url)
	f := p.servers[url]
	if f == nil || f.refuses {
		p.mu.Unlock()
		return nil, fmt.Errorf("%s refuses", url)
	}
	defer p.mu.Unlock()
	if f.frozen {
		p.mu.Unlock()
		<-ctx.Done()
		p.mu.Lock()
		return nil, ctx.Err()
	}
	c := &fakeConn{server: f, gone: make(chan struct{}), news: make(chan struct{}, 1), next: 1}
	f.conns = append(f.conns, c)
	return c, nil
}

// fakeConn is a session with its one subscription. It is under plant.mu.
type fakeConn struct {
	server *fake
	gone   chan struct{} // closed when the connection is
	news   chan struct{} // there may be something to publish
	sub    uint32
	next   uint32
	keep   time.Duration
	items  []*fakeItem
}

type fakeItem struct {
	handle uint32
	node   *ua.NodeID
	mode   ua.MonitoringMode
	size   int
	queue  []*ua.DataValue
	last   *ua.DataValue
}

func (c *fakeConn) push(it *fakeItem, v *ua.DataValue) {
	if it.handle < nodeHandle && it.last != nil && fmt.Sprint(it.last.Value.Value()) == fmt.Sprint(v.Value.Value()) {
		return
	}
	it.last = v
	if it.mode == ua.MonitoringModeDisabled {
		return
	}
	if it.queue = append(it.queue, v); len(it.queue) > it.size {
		it.queue = it.queue[1:]
	}
	c.wake()
}

func (c *fakeConn) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

func (c *fakeConn) Close() {
	p := c.server.plant
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(c.server.conns, c); i >= 0 {
		c.server.conns = slices.Delete(c.server.conns, i, i+1)
		close(c.gone)
	}
}

func (f *fake) value(n *ua.NodeID) *ua.DataValue {
	good := func(v any) *ua.DataValue { return &ua.DataValue{Value: ua.MustVariant(v)} }
	switch n.IntID() {
	case id.Server_ServiceLevel:
		if f.noLevel {
			break
		}
		return good(f.level)
	case id.Server_EstimatedReturnTime:
		if f.returns.IsZero() {
			return &ua.DataValue{Value: ua.MustVariant(nil)}
		}
		return good(f.returns)
	case id.Server_ServerRedundancy_RedundancySupport:
		return good(f.support)
	case id.Server_ServerArray:
		return good([]string{f.uri})
	case id.Server_ServerRedundancy_ServerURIArray:
		uris := []string{}
		for _, s := range f.set {
			uris = append(uris, s.uri)
		}
		return good(uris)
	}
	return &ua.DataValue{Status: ua.StatusBadNodeIDUnknown, Value: ua.MustVariant(nil)}
}

func (c *fakeConn) Send(ctx context.Context, request ua.Request) (ua.Response, error) {
	f, p := c.server, c.server.plant
	p.mu.Lock()
	frozen := f.frozen
	p.mu.Unlock()
	select {
	case <-c.gone:
		return nil, io.EOF
	default:
	}
	if frozen {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	p.mu.Lock()
	nonsense := f.nonsense
	p.mu.Unlock()
	if nonsense != nil {
		if response := nonsense(request); response != nil {
			return response, nil
		}
	}
	if _, ok := request.(*ua.PublishRequest); ok {
		return c.publish(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r := request.(type) {
	case *ua.ReadRequest:
		response := &ua.ReadResponse{}
		for _, n := range r.NodesToRead {
			response.Results = append(response.Results, f.value(n.NodeID))
		}
		return response, nil
	case *ua.FindServersRequest:
		response := &ua.FindServersResponse{}
		for _, s := range f.set {
			if slices.Contains(r.ServerURIs, s.uri) {
				at := s.url
				if s.announced != "" {
					at = s.announced
				}
				response.Servers = append(response.Servers, &ua.ApplicationDescription{ApplicationURI: s.uri, DiscoveryURLs: []string{"https://x", at}})
			}
		}
		return response, nil
	case *ua.CreateSubscriptionRequest:
		f.nextSub++
		c.sub = f.nextSub
		c.keep = time.Duration(r.RequestedPublishingInterval*float64(r.RequestedMaxKeepAliveCount)) * time.Millisecond
		return &ua.CreateSubscriptionResponse{
			SubscriptionID: c.sub, RevisedPublishingInterval: r.RequestedPublishingInterval, RevisedMaxKeepAliveCount: r.RequestedMaxKeepAliveCount,
		}, nil
	case *ua.CreateMonitoredItemsRequest:
		response := &ua.CreateMonitoredItemsResponse{}
		for _, create := range r.ItemsToCreate {
			it := &fakeItem{handle: create.RequestedParameters.ClientHandle, node: create.ItemToMonitor.NodeID, mode: create.MonitoringMode, size: int(create.RequestedParameters.QueueSize)}
			result := &ua.MonitoredItemCreateResult{MonitoredItemID: uint32(len(c.items) + 1)}
			if it.node.Namespace() == 9 || it.handle < nodeHandle && f.value(it.node).Status != ua.StatusOK {
				result.StatusCode = ua.StatusBadNodeIDUnknown
			} else {
				c.items = append(c.items, it)
			}
			if it.handle < nodeHandle && result.StatusCode == ua.StatusOK {
				c.push(it, f.value(it.node))
			}
			response.Results = append(response.Results, result)
		}
		return response, nil
	case *ua.SetMonitoringModeRequest:
		response := &ua.SetMonitoringModeResponse{}
		for _, n := range r.MonitoredItemIDs {
			it := c.items[n-1]
			before := it.mode
			if it.mode = r.MonitoringMode; it.mode == ua.MonitoringModeDisabled {
				it.queue = nil
			} else if before == ua.MonitoringModeDisabled && it.last != nil {
				it.queue = append(it.queue, it.last)
			}
			response.Results = append(response.Results, ua.StatusOK)
		}
		c.wake()
		return response, nil
	case *ua.RepublishRequest:
		if m := f.published[r.RetransmitSequenceNumber]; m != nil {
			return &ua.RepublishResponse{NotificationMessage: m}, nil
		}
		return nil, ua.StatusBadMessageNotAvailable
	}
	return nil, errors.New("not served")
}

// publish waits until there is something to tell, or until a keep-alive is due.
func (c *fakeConn) publish(ctx context.Context) (ua.Response, error) {
	p := c.server.plant
	alive := time.NewTimer(c.keep)
	defer alive.Stop()
	for {
		p.mu.Lock()
		n := &ua.DataChangeNotification{}
		for _, it := range c.items {
			if it.mode != ua.MonitoringModeReporting {
				continue
			}
			for _, v := range it.queue {
				n.MonitoredItems = append(n.MonitoredItems, &ua.MonitoredItemNotification{ClientHandle: it.handle, Value: v})
			}
			it.queue = nil
		}
		m := &ua.NotificationMessage{SequenceNumber: c.next}
		if len(n.MonitoredItems) > 0 && !c.server.frozen {
			m.NotificationData = []*ua.ExtensionObject{ua.NewExtensionObject(n)}
			c.server.published[c.next] = m
			c.next++
			if c.server.swallow > 0 {
				c.server.swallow--
				if c.server.forget {
					delete(c.server.published, m.SequenceNumber)
				}
				p.mu.Unlock()
				continue
			}
			p.mu.Unlock()
			return &ua.PublishResponse{SubscriptionID: c.sub, NotificationMessage: m}, nil
		}
		frozen := c.server.frozen
		p.mu.Unlock()
		keep := alive.C
		if frozen {
			keep = nil
		}
		select {
		case <-c.news:
		case <-keep:
			return &ua.PublishResponse{SubscriptionID: c.sub, NotificationMessage: m}, nil
		case <-c.gone:
			return nil, io.EOF
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
