package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/opcua/wire"
)

// attack is one way to harm a server. Its workers do their work again and again, whatever comes of it, until the end.
type attack struct {
	name    string
	short   bool // in the short form too
	workers int
	work    func(context.Context, *attacker) error
}

const (
	few      = 8
	many     = 64
	hundreds = 400
	// crowd is how many connections one address may hold, and some more.
	crowd = 1_250
)

// attacks are those of opcua.md §1 and issue 3, and those that cost a server most. First come those that need no session.
var attacks = []attack{
	{name: "idle_connections", short: true, workers: crowd, work: idle},
	{name: "connect_and_reset", short: true, workers: few, work: reset},
	{name: "garbage", workers: few, work: garbage},
	{name: "reverse_hello", workers: few, work: reverseHello},
	{name: "unfinished_chunks", short: true, workers: many, work: onChannel(unfinishedChunks)},
	{name: "nested_variants", workers: few, work: onChannel(bodies(nestedVariants()))},
	{name: "array_and_string_bombs", workers: few, work: onChannel(bodies(bombs()...))},
	{name: "without_session", workers: few, work: onChannel(flood(withoutSession))},
	{name: "discovery", workers: few, work: onChannel(flood(discovery))},
	{name: "sessions_never_activated", workers: few, work: onChannel(flood(sessionsNeverActivated))},
	{name: "policy_downgrade", workers: few, work: downgrade},
	{name: "opn_invalid_signature", workers: few, work: replay(invalidOPN)},
	{name: "opn_untrusted", workers: few, work: replay(strangersOPN)},
	{name: "opn_many_certificates", workers: few, work: manyCertificates},
	{name: "opn_trusted", short: true, workers: few, work: replay(trustedOPN)},
	{name: "opn_trusted_from_everywhere", workers: many, work: replay(trustedOPN)},
	{name: "wrong_passwords", short: true, workers: few, work: wrongPasswords},

	{name: "renewals", workers: few, work: onChannel(renewals)},
	{name: "secure_renewals", workers: few, work: secureRenewals},
	{name: "sessions_made_and_closed", workers: few, work: sessionStorm},
	{name: "slow_reader", short: true, workers: hundreds, work: inSession(slowReader)},
	{name: "stalled_subscribers", workers: many, work: inSession(stalledSubscriber)},
	{name: "publishing_interval_0", workers: few, work: inSession(subscriptionStorm)},
	{name: "items_made_and_deleted", workers: few, work: inSession(itemStorm)},
	{name: "unknown_ids", workers: few, work: inSession(flood(unknownIDs))},
	{name: "writes", workers: few, work: inSession(flood(writes))},
	{name: "publish_requests", workers: few, work: inSession(flood(publishRequests))},
	{name: "event_filters", workers: few, work: inSession(eventFilters)},
	{name: "single_reads", workers: many, work: inSession(flood(singleReads))},
	{name: "reads_of_1000", short: true, workers: few, work: inSession(flood(bigReads(1000)))},
	{name: "reads_of_200", workers: many, work: inSession(flood(bigReads(200)))},
	{name: "browse_big_folders", short: true, workers: few, work: inSession(flood(browse(1000)))},
	{name: "browse_from_many", workers: many, work: inSession(flood(browse(100)))},
	{name: "browse_paths", workers: few, work: inSession(flood(browsePaths))},
	{name: "method_calls", workers: few, work: inSession(methodCalls)},
}

// idle holds a connection, which the server gives to somebody else when it needs the place.
func idle(ctx context.Context, a *attacker) error {
	c, err := dial(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	a.rounds.Add(1)
	_, err = io.Copy(io.Discard, c)
	return err
}

func reset(ctx context.Context, a *attacker) error {
	c, err := dial(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	a.rounds.Add(1)
	return errors.Join(c.SetLinger(0), c.TCPConn.Close())
}

// garbage sends bytes that mean nothing, to a new connection or behind a channel's opening.
func garbage(ctx context.Context, a *attacker) error {
	begin := open
	if rand.N(2) == 0 {
		begin = dial
	}
	c, err := begin(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	noise := make([]byte, 1<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for range 64 {
		if c.write(noise) != nil {
			break
		}
	}
	a.rounds.Add(1)
	return nil
}

func reverseHello(ctx context.Context, a *attacker) error {
	c, err := dial(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	err = c.write(client.Frame("RHEF", client.Field([]byte("urn:siege")), client.Field([]byte(a.Endpoint))))
	a.rounds.Add(1)
	return err
}

// unfinishedChunks begins requests of the largest size and finishes none.
func unfinishedChunks(_ context.Context, a *attacker, c *conn) error {
	part := make([]byte, client.MaxChunk-client.HeaderLength-4-client.SequenceLength)
	for range 31 {
		b, err := c.Append(nil, "MSGC", part)
		if err != nil {
			return err
		}
		// All chunks belong to one request.
		copy(b[client.HeaderLength+4+4:], client.Words(1))
		if err := c.write(b); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

// bodies floods a channel with requests that are encoded already.
func bodies(list ...[]byte) func(context.Context, *attacker, *conn) error {
	return func(_ context.Context, a *attacker, c *conn) error { return c.floodBodies(a, list) }
}

// writeOf begins a WriteRequest of one value, up to where the value's Variant begins.
func writeOf(variant []byte) []byte {
	b, err := wire.AppendMessage(nil, &ua.WriteRequest{
		RequestHeader: new(ua.RequestHeader),
		NodesToWrite: []*ua.WriteValue{{NodeID: serverNode, AttributeID: ua.AttributeIDValue,
			Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(byte(0))}}},
	})
	if err != nil {
		panic(err) // It is the same at each start.
	}
	return append(b[:len(b)-2], variant...)
}

// nestedVariants is a value in a value in a value…, 12,000 times.
func nestedVariants() []byte {
	const variantOfVariants = 24 | 0x80
	var b []byte
	for range 12_000 {
		b = append(b, variantOfVariants, 1, 0, 0, 0)
	}
	return writeOf(b)
}

// bombs are requests whose lengths say that much follows, or less than nothing.
func bombs() (list [][]byte) {
	for _, n := range []uint32{0x7fffffff, 0xfffffffe, 0x80000000, 1 << 24} {
		for _, kind := range []byte{12, 15, 22, 24} { // String, ByteString, ExtensionObject, Variant
			list = append(list, writeOf(append([]byte{kind | 0x80}, client.Words(n, 0)...)), writeOf(append([]byte{kind}, client.Words(n, 0)...)))
		}
	}
	// The largest array that has nothing in it: two bytes for each node.
	nodes := make([]*ua.NodeID, 30_000)
	for i := range nodes {
		nodes[i] = ua.NewTwoByteNodeID(0)
	}
	b, err := wire.AppendMessage(nil, &ua.RegisterNodesRequest{RequestHeader: new(ua.RequestHeader), NodesToRegister: nodes})
	if err != nil {
		panic(err) // It is the same at each start.
	}
	return append(list, b)
}

var serverNode = ua.NewNumericNodeID(0, id.Server)

func value(node uint32) *ua.ReadValueID {
	return &ua.ReadValueID{NodeID: ua.NewNumericNodeID(0, node), AttributeID: ua.AttributeIDValue}
}

func withoutSession(c *conn) ([]ua.Request, error) {
	return []ua.Request{
		&ua.ReadRequest{RequestHeader: c.Header(), NodesToRead: []*ua.ReadValueID{value(id.Server_ServiceLevel)}},
		&ua.CreateSubscriptionRequest{RequestHeader: c.Header()},
		&ua.CreateMonitoredItemsRequest{RequestHeader: c.Header(), SubscriptionID: 1},
		&ua.PublishRequest{RequestHeader: c.Header()},
		&ua.BrowseRequest{RequestHeader: c.Header()},
		&ua.CallRequest{RequestHeader: c.Header()},
		&ua.WriteRequest{RequestHeader: c.Header()},
		&ua.DeleteSubscriptionsRequest{RequestHeader: c.Header(), SubscriptionIDs: []uint32{1}},
	}, nil
}

func discovery(c *conn) ([]ua.Request, error) {
	return []ua.Request{
		&ua.GetEndpointsRequest{RequestHeader: c.Header(), EndpointURL: c.Endpoint},
		&ua.FindServersRequest{RequestHeader: c.Header(), EndpointURL: c.Endpoint},
	}, nil
}

func sessionsNeverActivated(c *conn) ([]ua.Request, error) {
	return []ua.Request{&ua.CreateSessionRequest{
		RequestHeader: c.Header(), ClientDescription: &ua.ApplicationDescription{ApplicationURI: client.ApplicationURI(clientName)}, EndpointURL: c.Endpoint,
	}}, nil
}

func renewals(_ context.Context, a *attacker, c *conn) error {
	for {
		if err := errors.Join(c.patience(), c.OpenChannel(ua.SecurityTokenRequestTypeRenew)); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
}

func sessionStorm(ctx context.Context, a *attacker) error {
	c, err := connect(ctx, a.Endpoint, attackerAddress)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	a.rounds.Add(1)
	return c.closeSession()
}

// slowReader asks for a lot and reads nothing.
func slowReader(_ context.Context, a *attacker, c *conn) error {
	list, err := bigReads(1000)(c)
	if err != nil {
		return err
	}
	body, err := wire.AppendMessage(nil, list[0])
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		if err := c.Send(body); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
}

// subscribe makes a subscription with items on a value that changes at every sampling.
func (c *conn) subscribe(items int) (uint32, error) {
	var sub ua.CreateSubscriptionResponse
	if err := c.call(&ua.CreateSubscriptionRequest{
		RequestHeader: c.Header(), RequestedLifetimeCount: 10_000, RequestedMaxKeepAliveCount: 1, PublishingEnabled: true,
	}, &sub); err != nil {
		return 0, err
	}
	if items == 0 {
		return sub.SubscriptionID, nil
	}
	return sub.SubscriptionID, c.call(createItems(c, sub.SubscriptionID, items), new(ua.CreateMonitoredItemsResponse))
}

func createItems(c *conn, subscription uint32, n int) *ua.CreateMonitoredItemsRequest {
	r := &ua.CreateMonitoredItemsRequest{RequestHeader: c.Header(), SubscriptionID: subscription, TimestampsToReturn: ua.TimestampsToReturnBoth}
	for range n {
		r.ItemsToCreate = append(r.ItemsToCreate, &ua.MonitoredItemCreateRequest{
			ItemToMonitor: value(id.Server_ServerStatus_CurrentTime), MonitoringMode: ua.MonitoringModeReporting,
			RequestedParameters: &ua.MonitoringParameters{QueueSize: 1000},
		})
	}
	return r
}

// stalledSubscriber asks for notifications and reads none.
func stalledSubscriber(ctx context.Context, a *attacker, c *conn) error {
	if _, err := c.subscribe(500); err != nil {
		return err
	}
	a.rounds.Add(1)
	for range 20 {
		body, err := wire.AppendMessage(nil, &ua.PublishRequest{RequestHeader: c.Header()})
		if err != nil {
			return err
		}
		if err := c.Send(body); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

func subscriptionStorm(_ context.Context, a *attacker, c *conn) error {
	for {
		subscription, err := c.subscribe(0)
		if err != nil {
			return err
		}
		if err := c.call(&ua.DeleteSubscriptionsRequest{RequestHeader: c.Header(), SubscriptionIDs: []uint32{subscription}},
			new(ua.DeleteSubscriptionsResponse)); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
}

func itemStorm(_ context.Context, a *attacker, c *conn) error {
	subscription, err := c.subscribe(0)
	if err != nil {
		return err
	}
	for {
		var made ua.CreateMonitoredItemsResponse
		if err := c.call(createItems(c, subscription, 900), &made); err != nil {
			return err
		}
		remove := &ua.DeleteMonitoredItemsRequest{RequestHeader: c.Header(), SubscriptionID: subscription}
		for _, r := range made.Results {
			remove.MonitoredItemIDs = append(remove.MonitoredItemIDs, r.MonitoredItemID)
		}
		if err := c.call(remove, new(ua.DeleteMonitoredItemsResponse)); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
}

func unknownIDs(c *conn) ([]ua.Request, error) {
	ids := make([]uint32, 1000)
	for i := range ids {
		ids[i] = rand.Uint32()
	}
	return []ua.Request{
		&ua.DeleteMonitoredItemsRequest{RequestHeader: c.Header(), SubscriptionID: 1, MonitoredItemIDs: ids},
		&ua.DeleteSubscriptionsRequest{RequestHeader: c.Header(), SubscriptionIDs: ids},
		&ua.SetPublishingModeRequest{RequestHeader: c.Header(), SubscriptionIDs: ids},
		&ua.TransferSubscriptionsRequest{RequestHeader: c.Header(), SubscriptionIDs: ids},
		&ua.RepublishRequest{RequestHeader: c.Header(), SubscriptionID: 1, RetransmitSequenceNumber: 1},
		&ua.BrowseNextRequest{RequestHeader: c.Header(), ContinuationPoints: [][]byte{{1, 2, 3, 4, 5, 6, 7, 8}}},
	}, nil
}

func writes(c *conn) ([]ua.Request, error) {
	r := &ua.WriteRequest{RequestHeader: c.Header()}
	for range 1000 {
		r.NodesToWrite = append(r.NodesToWrite, &ua.WriteValue{
			NodeID: ua.NewNumericNodeID(0, id.Server_ServiceLevel), AttributeID: ua.AttributeIDValue,
			Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(byte(255))},
		})
	}
	return []ua.Request{r}, nil
}

func publishRequests(c *conn) ([]ua.Request, error) {
	if _, err := c.subscribe(100); err != nil {
		return nil, err
	}
	acknowledged := make([]*ua.SubscriptionAcknowledgement, 50)
	for i := range acknowledged {
		acknowledged[i] = &ua.SubscriptionAcknowledgement{SubscriptionID: rand.Uint32(), SequenceNumber: 1}
	}
	return []ua.Request{&ua.PublishRequest{RequestHeader: c.Header(), SubscriptionAcknowledgements: acknowledged}}, nil
}

func singleReads(c *conn) ([]ua.Request, error) {
	return []ua.Request{&ua.ReadRequest{RequestHeader: c.Header(), TimestampsToReturn: ua.TimestampsToReturnBoth,
		NodesToRead: []*ua.ReadValueID{value(id.Server_ServiceLevel)}}}, nil
}

// bigReads reads n arrays and structures a call.
func bigReads(n int) func(c *conn) ([]ua.Request, error) {
	nodes := []*ua.ReadValueID{
		value(id.Server_ServerCapabilities_ServerProfileArray), value(id.Server_ServerStatus), value(id.Server_NamespaceArray),
	}
	return func(c *conn) ([]ua.Request, error) {
		r := &ua.ReadRequest{RequestHeader: c.Header(), TimestampsToReturn: ua.TimestampsToReturnBoth}
		for i := range n {
			r.NodesToRead = append(r.NodesToRead, nodes[i%len(nodes)])
		}
		return []ua.Request{r}, nil
	}
}

// browse browses the node of the standard that has most references, n times a call: all that is mandatory refers to one rule. Every
// second call looks for what is not there.
func browse(n int) func(c *conn) ([]ua.Request, error) {
	return func(c *conn) ([]ua.Request, error) {
		var list []ua.Request
		for _, class := range []ua.NodeClass{0, ua.NodeClassView} {
			r := &ua.BrowseRequest{RequestHeader: c.Header()}
			for range n {
				r.NodesToBrowse = append(r.NodesToBrowse, &ua.BrowseDescription{
					NodeID: ua.NewNumericNodeID(0, id.ModellingRule_Mandatory), BrowseDirection: ua.BrowseDirectionBoth,
					ReferenceTypeID: ua.NewNumericNodeID(0, id.References), IncludeSubtypes: true,
					NodeClassMask: uint32(class), ResultMask: uint32(ua.BrowseResultMaskAll),
				})
			}
			list = append(list, r)
		}
		return list, nil
	}
}

// browsePaths follows paths through the node with most references, which lead to nothing.
func browsePaths(c *conn) ([]ua.Request, error) {
	r := &ua.TranslateBrowsePathsToNodeIDsRequest{RequestHeader: c.Header()}
	for range 1000 {
		r.BrowsePaths = append(r.BrowsePaths, &ua.BrowsePath{
			StartingNode: ua.NewNumericNodeID(0, id.ModellingRule_Mandatory),
			RelativePath: &ua.RelativePath{Elements: []*ua.RelativePathElement{{
				ReferenceTypeID: ua.NewNumericNodeID(0, id.References), IsInverse: true, IncludeSubtypes: true,
				TargetName: &ua.QualifiedName{Name: "nothing"},
			}}},
		})
	}
	return []ua.Request{r}, nil
}

// methodCalls has the server list and resend what a big subscription has.
func methodCalls(ctx context.Context, a *attacker, c *conn) error {
	subscription, err := c.subscribe(900)
	if err != nil {
		return err
	}
	return flood(func(c *conn) ([]ua.Request, error) {
		r := &ua.CallRequest{RequestHeader: c.Header()}
		for i := range 100 {
			method := uint32(id.Server_GetMonitoredItems)
			if i%2 == 0 {
				method = id.Server_ResendData
			}
			r.MethodsToCall = append(r.MethodsToCall, &ua.CallMethodRequest{
				ObjectID: serverNode, MethodID: ua.NewNumericNodeID(0, method), InputArguments: []*ua.Variant{ua.MustVariant(subscription)},
			})
		}
		return []ua.Request{r}, nil
	})(ctx, a, c)
}

// eventFilters makes and deletes items with as long a where clause as there may be.
func eventFilters(_ context.Context, a *attacker, c *conn) error {
	subscription, err := c.subscribe(0)
	if err != nil {
		return err
	}
	field := &ua.SimpleAttributeOperand{
		TypeDefinitionID: ua.NewNumericNodeID(0, id.BaseEventType), BrowsePath: []*ua.QualifiedName{{Name: "Message"}}, AttributeID: ua.AttributeIDValue,
	}
	filter := &ua.EventFilter{WhereClause: new(ua.ContentFilter)}
	for range 90 {
		filter.SelectClauses = append(filter.SelectClauses, field)
	}
	// A chain: each element compares, or asks for one of the two behind it.
	const elements = 60
	for i := range elements {
		e := &ua.ContentFilterElement{
			FilterOperator: ua.FilterOperatorLike,
			FilterOperands: []*ua.ExtensionObject{ua.NewExtensionObject(field), ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant("%a%b%c%d%")})},
		}
		if i < elements-2 {
			e = &ua.ContentFilterElement{
				FilterOperator: ua.FilterOperatorOr,
				FilterOperands: []*ua.ExtensionObject{ua.NewExtensionObject(&ua.ElementOperand{Index: uint32(i + 1)}), ua.NewExtensionObject(&ua.ElementOperand{Index: uint32(i + 2)})},
			}
		}
		filter.WhereClause.Elements = append(filter.WhereClause.Elements, e)
	}
	r := &ua.CreateMonitoredItemsRequest{RequestHeader: c.Header(), SubscriptionID: subscription}
	for range 4 {
		r.ItemsToCreate = append(r.ItemsToCreate, &ua.MonitoredItemCreateRequest{
			ItemToMonitor:       &ua.ReadValueID{NodeID: serverNode, AttributeID: ua.AttributeIDEventNotifier},
			MonitoringMode:      ua.MonitoringModeReporting,
			RequestedParameters: &ua.MonitoringParameters{QueueSize: 1000, Filter: ua.NewExtensionObject(filter)},
		})
	}
	for {
		var made ua.CreateMonitoredItemsResponse
		if err := c.call(r, &made); err != nil {
			return err
		}
		remove := &ua.DeleteMonitoredItemsRequest{RequestHeader: c.Header(), SubscriptionID: subscription}
		for _, result := range made.Results {
			if result.StatusCode != ua.StatusOK {
				return fmt.Errorf("an item for events: %w", result.StatusCode)
			}
			remove.MonitoredItemIDs = append(remove.MonitoredItemIDs, result.MonitoredItemID)
		}
		if err := c.call(remove, new(ua.DeleteMonitoredItemsResponse)); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
}
