package server

import (
	"fmt"
	"reflect"
	"time"
)

// Limits bounds everything that a client can make the server keep or do. A field that is zero means its default, which
// is what DefaultLimits gives.
type Limits struct {
	// Of the whole server.

	MaxSessions        int // sessions of all clients; one that was never activated makes room for a new one
	MaxSubscriptions   int // subscriptions of all sessions
	MaxMonitoredItems  int // monitored items of all subscriptions
	MaxEventItems      int // monitored items that hear of events
	MaxTriggeringLinks int // links from triggering items to those that they trigger, of all subscriptions
	MaxQueuedValues    int // sum of all monitored items' queue sizes; an item for which none is left gets a queue of 1

	// MaxDetachedSubscriptions bounds those that have outlived their sessions. The oldest makes room for one more, and for
	// subscriptions and items of sessions that are there.
	MaxDetachedSubscriptions int

	// MaxSamplesPerSecond bounds what sampling costs, over all values that are sampled. What would be more is revised to
	// intervals that are ten times as long, or a hundred times, and so on.
	MaxSamplesPerSecond int

	// MaxSignatures is how many connections may at one time be at the RSA signatures of CreateSession and ActivateSession. Others
	// wait for their turn, so that sessions that are made and made again take one core at most.
	MaxSignatures int

	// Of a client, by its certificate, or by its address where it shows none.

	MaxSessionsPerClient int
	MaxDetachedPerClient int // subscriptions that have outlived their sessions; the oldest makes room

	// Of a session.

	MinSessionTimeout          time.Duration // shorter requests are revised to it
	MaxSessionTimeout          time.Duration // longer requests are revised to it
	DefaultSessionTimeout      time.Duration // for a request of 0, a negative one, or NaN
	MaxSessionNameLength       int           // bytes
	MaxSubscriptionsPerSession int           // subscriptions of one session
	MaxPublishRequests         int           // parked Publish requests; one more is paid for with the oldest
	MaxContinuationPoints      int           // of Browse; those of earlier calls make room, the oldest first

	// Of a subscription.

	MinPublishingInterval      time.Duration // 0, NaN and shorter requests are revised to it
	MaxPublishingInterval      time.Duration
	DefaultKeepAliveCount      uint32 // publishing intervals, for a request of 0
	MaxKeepAliveCount          uint32
	MaxLifetimeCount           uint32 // publishing intervals; at least three keep-alive counts (Part 4 §5.14.2.2)
	MaxItemsPerSubscription    int
	MaxNotificationsPerPublish int // values in one Publish response
	MaxUnacknowledged          int // messages kept for Republish; the oldest is dropped

	// Of a monitored item.

	MinSamplingInterval   time.Duration // for values that are sampled; those that are pushed come by exception
	MaxSamplingInterval   time.Duration
	MaxQueueSize          int // values
	MaxLinksPerItem       int // items that one item triggers
	DefaultEventQueueSize int // events, for a request of 0
	MaxSelectClauses      int // fields that an event filter selects
	MaxWhereOperands      int // elements and their operands of an event filter, together

	// Of a call.

	MaxOperations        int           // operations in one call of any service but Call
	MaxMethodsPerCall    int           // methods in one Call
	MethodTimeout        time.Duration // for all methods of one Call together
	MaxReferencesPerNode int           // references in one Browse result
	MaxScanPerCall       int           // references that one Browse, BrowseNext or TranslateBrowsePaths looks at for all its nodes together
	MaxEndpointURLLength int           // bytes
}

// DefaultLimits are the limits of a server that sets none.
var DefaultLimits = Limits{
	MaxSessions:        4000,
	MaxSubscriptions:   8000,
	MaxMonitoredItems:  200_000,
	MaxQueuedValues:    1_000_000,
	MaxEventItems:      2000,
	MaxTriggeringLinks: 200_000,

	MaxDetachedSubscriptions: 1000,

	MaxSamplesPerSecond: 20_000,
	MaxSignatures:       1,

	MaxSessionsPerClient: 2000,
	MaxDetachedPerClient: 100,

	MinSessionTimeout:          time.Second,
	MaxSessionTimeout:          time.Hour,
	DefaultSessionTimeout:      2 * time.Minute,
	MaxSessionNameLength:       512,
	MaxSubscriptionsPerSession: 100,
	MaxPublishRequests:         20,
	MaxContinuationPoints:      20,

	MinPublishingInterval:      50 * time.Millisecond,
	MaxPublishingInterval:      time.Hour,
	DefaultKeepAliveCount:      10,
	MaxKeepAliveCount:          100_000,
	MaxLifetimeCount:           300_000,
	MaxItemsPerSubscription:    20_000,
	MaxNotificationsPerPublish: 1000,
	MaxUnacknowledged:          40,

	MinSamplingInterval:   50 * time.Millisecond,
	MaxSamplingInterval:   time.Hour,
	MaxQueueSize:          1000,
	MaxLinksPerItem:       1000,
	DefaultEventQueueSize: 100,
	MaxSelectClauses:      100,
	MaxWhereOperands:      200,

	MaxOperations:        1000,
	MaxMethodsPerCall:    100,
	MethodTimeout:        10 * time.Second,
	MaxReferencesPerNode: 1000,
	MaxScanPerCall:       50_000,
	MaxEndpointURLLength: 4 << 10,
}

// withDefaults puts the default in place of every zero, and refuses what is negative. The error names the field.
func (l Limits) withDefaults() (Limits, error) {
	v, def := reflect.ValueOf(&l).Elem(), reflect.ValueOf(DefaultLimits)
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() {
			f.Set(def.Field(i))
		}
		if f.CanInt() && f.Int() < 0 {
			return Limits{}, fmt.Errorf("limits: %s is negative", v.Type().Field(i).Name)
		}
	}
	return l, nil
}
