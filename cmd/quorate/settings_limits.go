package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"quorate/opcua/channel"
	"quorate/opcua/server"
)

// opcuaLimits bound what OPC UA clients can make the member keep and do. The tag range says from what to what each may be set;
// the least that it allows is what the members' own probes need. What is not here is explained in channel.Limits and server.Limits.
type opcuaLimits struct {
	// Of the whole server.

	Connections           int `koanf:"connections" range:"8..65536"`              // connections; the oldest without a session makes room
	ConnectionsPerAddress int `koanf:"connectionsPerAddress" range:"2..65536"`    // connections from one address, in the same way
	IncompleteBytes       int `koanf:"incompleteBytes" range:"65536..1073741824"` // bytes that requests of which not all chunks have come hold, over all connections
	Handshakes            int `koanf:"handshakes" range:"1..64"`                  // channels that are in RSA at one time
	LargeRequests         int `koanf:"largeRequests" range:"1..1024"`             // requests of more than 4 KiB that are handled at one time
	Sessions              int `koanf:"sessions" range:"8..65536"`                 // sessions; one that was never activated makes room
	Subscriptions         int `koanf:"subscriptions" range:"1..1000000"`          // subscriptions
	DetachedSubscriptions int `koanf:"detachedSubscriptions" range:"1..1000000"`  // subscriptions that have outlived their sessions; the oldest makes room
	MonitoredItems        int `koanf:"monitoredItems" range:"1..10000000"`        // monitored items
	EventItems            int `koanf:"eventItems" range:"1..1000000"`             // monitored items that hear of events
	TriggeringLinks       int `koanf:"triggeringLinks" range:"1..10000000"`       // links from triggering items to others
	QueuedValues          int `koanf:"queuedValues" range:"1..100000000"`         // places in the queues of all monitored items
	SamplesPerSecond      int `koanf:"samplesPerSecond" range:"1..10000000"`      // samples of values that are not pushed; intervals are revised to keep it
	Signatures            int `koanf:"signatures" range:"1..64"`                  // sessions that are in RSA at one time

	// Of a client, told by its certificate, or its address where it shows none.

	SessionsPerClient int `koanf:"sessionsPerClient" range:"2..65536"`   // sessions
	DetachedPerClient int `koanf:"detachedPerClient" range:"1..1000000"` // subscriptions that have outlived their sessions; the oldest makes room

	// Of a connection.

	ChunkSize        int           `koanf:"chunkSize" range:"8192..1048576"`          // bytes of a chunk
	ChunkCount       int           `koanf:"chunkCount" range:"1..65536"`              // chunks of a request
	MessageSize      int           `koanf:"messageSize" range:"65536..67108864"`      // bytes of a request, over all its chunks
	ArrayLength      int           `koanf:"arrayLength" range:"1000..1048576"`        // elements of an array in a request
	StringLength     int           `koanf:"stringLength" range:"1024..16777216"`      // bytes of a string in a request
	ByteStringLength int           `koanf:"byteStringLength" range:"16384..67108864"` // bytes of a byte string in a request
	QueueBytes       int           `koanf:"queueBytes" range:"65536..268435456"`      // bytes that wait for a slow client; one response may have half of them
	QueueMessages    int           `koanf:"queueMessages" range:"16..1000000"`        // messages that wait for a slow client
	HandshakeTimeout time.Duration `koanf:"handshakeTimeout" range:"100ms..5m"`       // until the secure channel is open
	MessageTimeout   time.Duration `koanf:"messageTimeout" range:"100ms..10m"`        // from the first byte of a request to its last
	WriteTimeout     time.Duration `koanf:"writeTimeout" range:"100ms..5m"`           // for which a client may leave unread what was sent
	IdleTimeout      time.Duration `koanf:"idleTimeout" range:"1s..48h"`              // for which a connection may be silent; longer than maxSessionTimeout
	MaxTokenLifetime time.Duration `koanf:"maxTokenLifetime" range:"10s..24h"`        // of a security token

	// Of a session.

	MinSessionTimeout       time.Duration `koanf:"minSessionTimeout" range:"100ms..1h"`      // shorter requests are revised to it
	MaxSessionTimeout       time.Duration `koanf:"maxSessionTimeout" range:"1s..24h"`        // longer requests are revised to it
	SubscriptionsPerSession int           `koanf:"subscriptionsPerSession" range:"1..10000"` // subscriptions
	PublishRequests         int           `koanf:"publishRequests" range:"1..1000"`          // parked Publish requests; one more is paid for with the oldest
	ContinuationPoints      int           `koanf:"continuationPoints" range:"1..1000"`       // continuation points of Browse; the oldest makes room

	// Of a subscription.

	MinPublishingInterval   time.Duration `koanf:"minPublishingInterval" range:"5ms..1h"`     // shorter requests are revised to it
	MaxPublishingInterval   time.Duration `koanf:"maxPublishingInterval" range:"1s..24h"`     // longer requests are revised to it
	ItemsPerSubscription    int           `koanf:"itemsPerSubscription" range:"1..1000000"`   // monitored items
	NotificationsPerPublish int           `koanf:"notificationsPerPublish" range:"1..100000"` // values and events in one Publish response
	UnacknowledgedMessages  int           `koanf:"unacknowledgedMessages" range:"1..1000"`    // messages kept for Republish; the oldest is dropped

	// Of a monitored item.

	MinSamplingInterval time.Duration `koanf:"minSamplingInterval" range:"5ms..1h"` // shorter requests are revised to it, for values that are not pushed
	QueueSize           int           `koanf:"queueSize" range:"1..1000000"`        // values or events
	SelectClauses       int           `koanf:"selectClauses" range:"1..10000"`      // fields that an event filter selects
	WhereOperands       int           `koanf:"whereOperands" range:"1..10000"`      // elements and operands of an event filter

	// Of a call.

	Operations        int           `koanf:"operations" range:"16..100000"`       // nodes or items in one call of any service but Call
	MethodsPerCall    int           `koanf:"methodsPerCall" range:"1..10000"`     // methods in one Call
	MethodTimeout     time.Duration `koanf:"methodTimeout" range:"10ms..5m"`      // for all methods of one Call together
	ReferencesPerNode int           `koanf:"referencesPerNode" range:"1..100000"` // references in one result of Browse
}

// each gives the place of each limit here with its place in the two packages below, where a name is not always what an operator
// would say.
func (l *opcuaLimits) each(c *channel.Limits, s *server.Limits, number func(here, there *int), duration func(here, there *time.Duration)) {
	number(&l.Connections, &c.MaxConnections)
	number(&l.ConnectionsPerAddress, &c.MaxConnectionsPerHost)
	number(&l.IncompleteBytes, &c.MaxPartialBytes)
	number(&l.Handshakes, &c.MaxHandshakes)
	number(&l.LargeRequests, &c.MaxLargeRequests)
	number(&l.Sessions, &s.MaxSessions)
	number(&l.Subscriptions, &s.MaxSubscriptions)
	number(&l.DetachedSubscriptions, &s.MaxDetachedSubscriptions)
	number(&l.MonitoredItems, &s.MaxMonitoredItems)
	number(&l.EventItems, &s.MaxEventItems)
	number(&l.TriggeringLinks, &s.MaxTriggeringLinks)
	number(&l.QueuedValues, &s.MaxQueuedValues)
	number(&l.SamplesPerSecond, &s.MaxSamplesPerSecond)
	number(&l.Signatures, &s.MaxSignatures)
	number(&l.SessionsPerClient, &s.MaxSessionsPerClient)
	number(&l.DetachedPerClient, &s.MaxDetachedPerClient)
	number(&l.ChunkSize, &c.MaxChunkSize)
	number(&l.ChunkCount, &c.MaxChunkCount)
	number(&l.MessageSize, &c.MaxMessageSize)
	number(&l.ArrayLength, &c.Decoding.MaxArrayLength)
	number(&l.StringLength, &c.Decoding.MaxStringLength)
	number(&l.ByteStringLength, &c.Decoding.MaxByteStringLength)
	number(&l.QueueBytes, &c.MaxQueueBytes)
	number(&l.QueueMessages, &c.MaxQueueMessages)
	duration(&l.HandshakeTimeout, &c.HandshakeTimeout)
	duration(&l.MessageTimeout, &c.MessageTimeout)
	duration(&l.WriteTimeout, &c.WriteTimeout)
	duration(&l.IdleTimeout, &c.IdleTimeout)
	duration(&l.MaxTokenLifetime, &c.MaxTokenLifetime)
	duration(&l.MinSessionTimeout, &s.MinSessionTimeout)
	duration(&l.MaxSessionTimeout, &s.MaxSessionTimeout)
	number(&l.SubscriptionsPerSession, &s.MaxSubscriptionsPerSession)
	number(&l.PublishRequests, &s.MaxPublishRequests)
	number(&l.ContinuationPoints, &s.MaxContinuationPoints)
	duration(&l.MinPublishingInterval, &s.MinPublishingInterval)
	duration(&l.MaxPublishingInterval, &s.MaxPublishingInterval)
	number(&l.ItemsPerSubscription, &s.MaxItemsPerSubscription)
	number(&l.NotificationsPerPublish, &s.MaxNotificationsPerPublish)
	number(&l.UnacknowledgedMessages, &s.MaxUnacknowledged)
	duration(&l.MinSamplingInterval, &s.MinSamplingInterval)
	number(&l.QueueSize, &s.MaxQueueSize)
	number(&l.SelectClauses, &s.MaxSelectClauses)
	number(&l.WhereOperands, &s.MaxWhereOperands)
	number(&l.Operations, &s.MaxOperations)
	number(&l.MethodsPerCall, &s.MaxMethodsPerCall)
	duration(&l.MethodTimeout, &s.MethodTimeout)
	number(&l.ReferencesPerNode, &s.MaxReferencesPerNode)
}

// defaultOPCUALimits are those of the runtime.
func defaultOPCUALimits() (l opcuaLimits) {
	c, s := channel.DefaultLimits, server.DefaultLimits
	l.each(&c, &s, func(here, there *int) { *here = *there }, func(here, there *time.Duration) { *here = *there })
	return l
}

// runtime are the limits as the packages of the runtime take them. What has no key stays zero, which means its default.
func (l *opcuaLimits) runtime() (c channel.Limits, s server.Limits) {
	l.each(&c, &s, func(here, there *int) { *there = *here }, func(here, there *time.Duration) { *there = *here })
	s.DefaultSessionTimeout = max(l.MinSessionTimeout, min(server.DefaultLimits.DefaultSessionTimeout, l.MaxSessionTimeout))
	return c, s
}

// limitsKey is the key that all limits are under.
const limitsKey = "opcua.limits."

func (l *opcuaLimits) check(f *findings) {
	values := reflect.ValueOf(l).Elem()
	for i := range values.NumField() {
		field := values.Type().Field(i)
		least, most := limitRange(field)
		if n := values.Field(i).Int(); field.Type == reflect.TypeFor[time.Duration]() {
			between(f, limitsKey+field.Tag.Get("koanf"), time.Duration(n), time.Duration(least), time.Duration(most))
		} else {
			between(f, limitsKey+field.Tag.Get("koanf"), n, least, most)
		}
	}
	// What holds between them.
	switch {
	case l.IdleTimeout <= l.MaxSessionTimeout:
		f.add(limitsKey+"idleTimeout", "must be longer than maxSessionTimeout, %v, got %v", l.MaxSessionTimeout, l.IdleTimeout)
	case l.MinSessionTimeout > l.MaxSessionTimeout:
		f.add(limitsKey+"minSessionTimeout", "must not be longer than maxSessionTimeout, %v, got %v", l.MaxSessionTimeout, l.MinSessionTimeout)
	}
	if l.MinPublishingInterval > l.MaxPublishingInterval {
		f.add(limitsKey+"minPublishingInterval", "must not be longer than maxPublishingInterval, %v, got %v", l.MaxPublishingInterval, l.MinPublishingInterval)
	}
	if l.IncompleteBytes < l.MessageSize {
		f.add(limitsKey+"incompleteBytes", "must not be less than messageSize, %d, got %d", l.MessageSize, l.IncompleteBytes)
	}
}

// limitRange reads the tag range of a limit: LEAST..MOST, in the form of its values.
func limitRange(field reflect.StructField) (least, most int64) {
	from, to, _ := strings.Cut(field.Tag.Get("range"), "..")
	parse := func(text string) int64 {
		if field.Type == reflect.TypeFor[time.Duration]() {
			d, err := time.ParseDuration(text)
			must(err)
			return int64(d)
		}
		n, err := strconv.ParseInt(text, 10, 64)
		must(err)
		return n
	}
	return parse(from), parse(to)
}

// effective returns the value of each key, as it is after defaults.
func (s *settings) effective() map[string]any {
	values := map[string]any{}
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			at := join(path, v.Type().Field(i).Tag.Get("koanf"))
			switch value := v.Field(i).Interface().(type) {
			case time.Duration:
				values[at] = value.String()
			case []bootstrapMember:
				members := make([]string, len(value))
				for j, m := range value {
					members[j] = fmt.Sprintf("%s=%s", m.Member, m.Raft)
				}
				values[at] = strings.Join(members, ",")
			default:
				if v.Field(i).Kind() == reflect.Struct {
					walk(at, v.Field(i))
				} else {
					values[at] = value
				}
			}
		}
	}
	walk("", reflect.ValueOf(*s))
	return values
}
