package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/opcua/wire"
)

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
