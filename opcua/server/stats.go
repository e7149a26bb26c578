package server

import (
	"sync/atomic"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
)

// Stats are numbers of what the server has at the moment.
type Stats struct {
	Sessions, Subscriptions, MonitoredItems int

	DetachedSubscriptions int // those of the subscriptions that have outlived their sessions
	EventItems            int // those of the monitored items that hear of events
	QueuePlaces           int // sum of the sizes of all queues that have more than one place
	ParkedPublishes       int // Publish requests that wait for something to be published
}

// Stats returns what the server has at the moment.
func (s *Server) Stats() Stats { return s.services.stats() }

func (v *services) stats() Stats {
	e := v.engine
	stats := Stats{
		Subscriptions:         int(e.subscriptions.Load()),
		MonitoredItems:        int(e.items.Load()),
		DetachedSubscriptions: e.registry.countDetached(),
		EventItems:            int(e.eventItems.Load()),
		QueuePlaces:           int(e.queued.Load()),
	}
	// Who asks pays, not who publishes: nothing counts what is parked.
	for _, session := range v.sessions.all() {
		stats.Sessions++
		stats.ParkedPublishes += session.pub.countParked()
	}
	return stats
}

// Counts are numbers of what has happened since the start.
type Counts struct {
	// Requests are those that were answered, by service and result: all combinations, in a fixed order.
	Requests []RequestCount
	// LostValues and LostEvents count what monitored items lost because their queues were full. In a queue of one place, a value that
	// takes the place of the one before is what was asked for, and not counted.
	LostValues, LostEvents uint64
}

// RequestCount is how many requests of a service ended with a class of results.
type RequestCount struct {
	Service string // as Part 4 names it, or "Other"
	Result  string
	Count   uint64
}

// Counts returns what has happened since the start.
func (s *Server) Counts() Counts { return s.services.engine.counts.read() }

func (c *counts) read() Counts {
	counts := Counts{LostValues: c.lostValues.Load(), LostEvents: c.lostEvents.Load()}
	for service := range serviceCount {
		for class := range classCount {
			counts.Requests = append(counts.Requests, RequestCount{serviceNames[service], classNames[class], c.requests[service][class].Load()})
		}
	}
	return counts
}

// Channels returns the numbers of the connections that the server stands on.
func (s *Server) Channels() channel.Stats { return s.channels.Stats() }

// class sorts the results of services.
type class uint8

const (
	classGood    class = iota
	classDenied        // for want of identity, trust or permission
	classLimited       // because a limit was reached
	classBad           // for any other reason
	classCount
)

var classNames = [classCount]string{"good", "denied", "limited", "bad"}

func classOf(status ua.StatusCode) class {
	if status>>30 == 0 { // The severity Good (Part 4 §7.39.1).
		return classGood
	}
	switch status {
	case ua.StatusBadUserAccessDenied, ua.StatusBadIdentityTokenInvalid, ua.StatusBadIdentityTokenRejected, ua.StatusBadUserSignatureInvalid,
		ua.StatusBadApplicationSignatureInvalid, ua.StatusBadSecurityChecksFailed, ua.StatusBadSecurityPolicyRejected,
		ua.StatusBadCertificateInvalid, ua.StatusBadCertificateURIInvalid, ua.StatusBadCertificateUntrusted, ua.StatusBadCertificateTimeInvalid,
		ua.StatusBadCertificateRevoked, ua.StatusBadNonceInvalid:
		return classDenied
	case ua.StatusBadTooManySessions, ua.StatusBadTooManySubscriptions, ua.StatusBadTooManyMonitoredItems, ua.StatusBadTooManyOperations,
		ua.StatusBadTooManyPublishRequests, ua.StatusBadNoContinuationPoints, ua.StatusBadEncodingLimitsExceeded:
		return classLimited
	}
	return classBad
}

// service is a service of Part 4, as requests are counted.
type service uint8

const (
	serviceOther service = iota
	serviceFindServers
	serviceGetEndpoints
	serviceCreateSession
	serviceActivateSession
	serviceCloseSession
	serviceCancel
	serviceBrowse
	serviceBrowseNext
	serviceTranslate
	serviceRegisterNodes
	serviceUnregisterNodes
	serviceRead
	serviceWrite
	serviceHistoryRead
	serviceHistoryUpdate
	serviceCall
	serviceCreateItems
	serviceModifyItems
	serviceSetMode
	serviceSetTriggering
	serviceDeleteItems
	serviceCreateSubscription
	serviceModifySubscription
	serviceSetPublishing
	servicePublish
	serviceRepublish
	serviceTransfer
	serviceDeleteSubscriptions
	serviceCount
)

var serviceNames = [serviceCount]string{
	"Other", "FindServers", "GetEndpoints", "CreateSession", "ActivateSession", "CloseSession", "Cancel", "Browse", "BrowseNext",
	"TranslateBrowsePathsToNodeIds", "RegisterNodes", "UnregisterNodes", "Read", "Write", "HistoryRead", "HistoryUpdate", "Call",
	"CreateMonitoredItems", "ModifyMonitoredItems", "SetMonitoringMode", "SetTriggering", "DeleteMonitoredItems", "CreateSubscription",
	"ModifySubscription", "SetPublishingMode", "Publish", "Republish", "TransferSubscriptions", "DeleteSubscriptions",
}

// serviceOf compares types, which costs nanoseconds; a map or a name would cost a request something.
func serviceOf(req ua.Request) service {
	switch req.(type) {
	case *ua.ReadRequest:
		return serviceRead
	case *ua.PublishRequest:
		return servicePublish
	case *ua.FindServersRequest:
		return serviceFindServers
	case *ua.GetEndpointsRequest:
		return serviceGetEndpoints
	case *ua.CreateSessionRequest:
		return serviceCreateSession
	case *ua.ActivateSessionRequest:
		return serviceActivateSession
	case *ua.CloseSessionRequest:
		return serviceCloseSession
	case *ua.CancelRequest:
		return serviceCancel
	case *ua.BrowseRequest:
		return serviceBrowse
	case *ua.BrowseNextRequest:
		return serviceBrowseNext
	case *ua.TranslateBrowsePathsToNodeIDsRequest:
		return serviceTranslate
	case *ua.RegisterNodesRequest:
		return serviceRegisterNodes
	case *ua.UnregisterNodesRequest:
		return serviceUnregisterNodes
	case *ua.WriteRequest:
		return serviceWrite
	case *ua.HistoryReadRequest:
		return serviceHistoryRead
	case *ua.HistoryUpdateRequest:
		return serviceHistoryUpdate
	case *ua.CallRequest:
		return serviceCall
	case *ua.CreateMonitoredItemsRequest:
		return serviceCreateItems
	case *ua.ModifyMonitoredItemsRequest:
		return serviceModifyItems
	case *ua.SetMonitoringModeRequest:
		return serviceSetMode
	case *ua.SetTriggeringRequest:
		return serviceSetTriggering
	case *ua.DeleteMonitoredItemsRequest:
		return serviceDeleteItems
	case *ua.CreateSubscriptionRequest:
		return serviceCreateSubscription
	case *ua.ModifySubscriptionRequest:
		return serviceModifySubscription
	case *ua.SetPublishingModeRequest:
		return serviceSetPublishing
	case *ua.RepublishRequest:
		return serviceRepublish
	case *ua.TransferSubscriptionsRequest:
		return serviceTransfer
	case *ua.DeleteSubscriptionsRequest:
		return serviceDeleteSubscriptions
	}
	return serviceOther
}

// counts is what Counts are made from.
type counts struct {
	requests               [serviceCount][classCount]atomic.Uint64
	lostValues, lostEvents atomic.Uint64
}

func (c *counts) answered(s service, status ua.StatusCode) { c.requests[s][classOf(status)].Add(1) }
