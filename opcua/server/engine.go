package server

import (
	"crypto/rsa"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// secureChannel is what the services need of a channel.Channel. It is an interface so that the engine can be tested
// without connections.
type secureChannel interface {
	SecurityPolicyURI() string
	SecurityMode() ua.MessageSecurityMode
	DiscoveryOnly() bool
	ClientCertificate() []byte
	ServerCertificate() (chain []byte, key *rsa.PrivateKey)
	RemoteAddr() net.Addr
	LocalAddr() net.Addr
	EndpointURL() string
	SetInUse(inUse bool)
	Crowded() bool
	Attach(v any)
	Attached() any
	Yield()
	Send(requestID uint32, resp ua.Response) error
	Close(reason ua.StatusCode)
}

// engine is what all sessions' subscriptions share: the timers, the watches, the counters that the limits are about.
type engine struct {
	space     *space.Space
	limits    Limits
	wall      func() time.Time // for timestamps only
	schedule  *schedule
	hub       *hub
	registry  *registry
	listeners listeners

	lastPublisher    atomic.Uint64
	lastSubscription atomic.Uint32
	lastItem         atomic.Uint32

	subscriptions atomic.Int64
	items         atomic.Int64
	queued        atomic.Int64 // the sum of the queue sizes of all items
	eventItems    atomic.Int64
	links         atomic.Int64 // triggering links of all items

	counts counts
}

func newEngine(sp *space.Space, limits Limits, wall func() time.Time) *engine {
	e := &engine{space: sp, limits: limits, wall: wall, schedule: newSchedule()}
	e.hub = &hub{engine: e, watches: make(map[watchKey]*watch)}
	e.listeners.items = make(map[*item]struct{})
	e.registry = &registry{limits: &e.limits, subs: make(map[uint32]*subscription)}
	return e
}

func (e *engine) newPublisher(s *session) *publisher {
	return &publisher{engine: e, session: s, number: e.lastPublisher.Add(1), subs: make(map[uint32]*subscription)}
}

// header returns the header of a response.
func (e *engine) header(handle uint32, status ua.StatusCode) *ua.ResponseHeader {
	return &ua.ResponseHeader{Timestamp: e.wall(), RequestHandle: handle, ServiceResult: status}
}

// take counts n more towards a limit, or none at all.
func take(counter *atomic.Int64, n, limit int) bool {
	if counter.Add(int64(n)) <= int64(limit) {
		return true
	}
	counter.Add(-int64(n))
	return false
}

// nextID returns an identifier that no one had before. When all 2³² are used up it returns 0, for ever: an identifier is
// never given twice, so that no client can meet another's subscription under the id of its own.
func nextID(last *atomic.Uint32) uint32 {
	for {
		n := last.Load()
		if n == math.MaxUint32 {
			return 0
		}
		if last.CompareAndSwap(n, n+1) {
			return n + 1
		}
	}
}

// reviseInterval brings an interval that a client asked for, in milliseconds, onto the grid of the timers.
func reviseInterval(ms float64, least, most time.Duration) time.Duration {
	d := most
	switch {
	case !(ms > float64(least)/float64(time.Millisecond)): // NaN too
		d = least
	case ms < float64(most)/float64(time.Millisecond):
		d = time.Duration(ms * float64(time.Millisecond))
	}
	if rest := d % granularity; rest > 0 {
		d += granularity - rest
	}
	return d
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// The encodings of notifications. They are shared by all messages, and looking them up each time would cost more than
// all the rest of a message.
var (
	dataChangeType   = ua.NewFourByteExpandedNodeID(0, id.DataChangeNotification_Encoding_DefaultBinary)
	eventListType    = ua.NewFourByteExpandedNodeID(0, id.EventNotificationList_Encoding_DefaultBinary)
	statusChangeType = ua.NewFourByteExpandedNodeID(0, id.StatusChangeNotification_Encoding_DefaultBinary)
)

func extension(typeID *ua.ExpandedNodeID, v any) *ua.ExtensionObject {
	return &ua.ExtensionObject{EncodingMask: ua.ExtensionObjectBinary, TypeID: typeID, Value: v}
}
