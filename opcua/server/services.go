package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
	"quorate/opcua/space"
)

// services answers requests: it is what stands on the channels.
type services struct {
	cfg        Config
	limits     Limits
	maxRequest uint32 // bytes, as the channels enforce it
	logger     *slog.Logger
	space      *space.Space
	engine     *engine
	sessions   *sessions
	door       door
	signing    chan struct{} // holds one for each connection that is at a signature
	methods    map[space.Key]method
	ctx        context.Context // ends with the server
	stop       context.CancelFunc

	lastSession atomic.Uint32
}

func newServices(cfg Config, limits Limits) *services {
	v := &services{
		cfg:        cfg,
		limits:     limits,
		maxRequest: channel.DefaultMaxMessageSize,
		logger:     cfg.Logger,
		space:      cfg.Space,
		engine:     newEngine(cfg.Space, limits, cfg.Now),
		signing:    make(chan struct{}, limits.MaxSignatures),
	}
	v.sessions = newSessions(&v.limits)
	v.ctx, v.stop = context.WithCancel(context.Background())
	v.methods = v.allMethods()
	if n := cfg.ChannelLimits.MaxMessageSize; n > 0 {
		v.maxRequest = uint32(n)
	}
	return v
}

var _ channel.Handler = (*handler)(nil)

// handler gives the services the methods that channel.Handler asks for.
type handler struct{ *services }

func (h handler) Serve(ch *channel.Channel, requestID uint32, req ua.Request) {
	h.serve(ch, requestID, req)
}

func (h handler) Closed(ch *channel.Channel) { h.closed(ch) }

// serve answers one request. Only discovery and the making of sessions are open to everybody; all else needs a session
// that was activated on this very channel.
func (v *services) serve(ch secureChannel, requestID uint32, req ua.Request) {
	h := req.Header()
	if h == nil {
		h = &ua.RequestHeader{}
	}
	var resp ua.Response
	var status ua.StatusCode
	switch r := req.(type) {
	case *ua.FindServersRequest:
		resp, status = v.findServers(ch, r)
	case *ua.GetEndpointsRequest:
		resp, status = v.getEndpoints(ch, r)
	case *ua.RegisterServerRequest, *ua.RegisterServer2Request, *ua.FindServersOnNetworkRequest:
		status = ua.StatusBadServiceUnsupported // Discovery too, so these need no session to be told.
	case *ua.CreateSessionRequest:
		resp, status = v.createSession(ch, r)
	case *ua.ActivateSessionRequest:
		resp, status = v.activateSession(ch, r)
	case *ua.PublishRequest:
		var s *session
		if s, status = v.session(ch, h); status == ua.StatusOK {
			if s.bound.Load().identity.allows(r) {
				s.pub.publish(ch, requestID, r)
				return
			}
			status = ua.StatusBadUserAccessDenied
		}
	default:
		resp, status = v.inSession(ch, h, req)
	}
	v.engine.counts.answered(serviceOf(req), status)
	if status != ua.StatusOK {
		resp = &ua.ServiceFault{}
	}
	resp.SetHeader(v.engine.header(h.RequestHandle, status))
	v.send(ch, requestID, resp)
}

// inSession answers the requests that need a session.
func (v *services) inSession(ch secureChannel, h *ua.RequestHeader, req ua.Request) (ua.Response, ua.StatusCode) {
	s, status := v.session(ch, h)
	if r, closing := req.(*ua.CloseSessionRequest); closing && (status == ua.StatusOK || status == ua.StatusBadSessionNotActivated) {
		return v.closeSession(s, r)
	}
	if status != ua.StatusOK {
		return nil, status
	}
	if !s.bound.Load().identity.allows(req) {
		return nil, ua.StatusBadUserAccessDenied
	}
	switch r := req.(type) {
	case *ua.ReadRequest:
		return v.read(r)
	case *ua.WriteRequest:
		return v.write(s, r)
	case *ua.HistoryReadRequest:
		return v.historyRead(r)
	case *ua.HistoryUpdateRequest:
		return v.historyUpdate(r)
	case *ua.CallRequest:
		return v.call(s, r)
	case *ua.BrowseRequest:
		return v.browse(s, r)
	case *ua.BrowseNextRequest:
		return v.browseNext(s, r)
	case *ua.TranslateBrowsePathsToNodeIDsRequest:
		return v.translate(r)
	case *ua.RegisterNodesRequest:
		return v.registerNodes(r)
	case *ua.UnregisterNodesRequest:
		return v.unregisterNodes(r)
	case *ua.CreateSubscriptionRequest:
		return s.pub.createSubscription(r)
	case *ua.ModifySubscriptionRequest:
		return s.pub.modifySubscription(r)
	case *ua.SetPublishingModeRequest:
		return s.pub.setPublishingMode(r)
	case *ua.DeleteSubscriptionsRequest:
		return s.pub.deleteSubscriptions(r)
	case *ua.RepublishRequest:
		return s.pub.republish(r)
	case *ua.TransferSubscriptionsRequest:
		return s.pub.transfer(r)
	case *ua.CreateMonitoredItemsRequest:
		return s.pub.createItems(r)
	case *ua.ModifyMonitoredItemsRequest:
		return s.pub.modifyItems(r)
	case *ua.SetMonitoringModeRequest:
		return s.pub.setMode(r)
	case *ua.SetTriggeringRequest:
		return s.pub.setTriggering(r)
	case *ua.DeleteMonitoredItemsRequest:
		return s.pub.deleteItems(r)
	case *ua.CancelRequest:
		return &ua.CancelResponse{CancelCount: uint32(s.pub.cancelHandle(r.RequestHandle))}, ua.StatusOK
	}
	return nil, ua.StatusBadServiceUnsupported
}

// session returns the session of a request. With BadSessionNotActivated too there is one.
func (v *services) session(ch secureChannel, h *ua.RequestHeader) (*session, ua.StatusCode) {
	s := v.sessions.of(ch, h.AuthenticationToken)
	if s == nil {
		return nil, ua.StatusBadSessionIDInvalid
	}
	if s.channel() != ch {
		return nil, ua.StatusBadSecureChannelIDInvalid
	}
	if s.bound.Load() == nil {
		return s, ua.StatusBadSessionNotActivated
	}
	s.seen.Store(int64(v.engine.schedule.now()))
	return s, ua.StatusOK
}

// send sends a response. A client that is gone needs none; one whose response can't be encoded is told so.
func (v *services) send(ch secureChannel, requestID uint32, resp ua.Response) {
	err := ch.Send(requestID, resp)
	if err == nil || errors.Is(err, channel.ErrClosed) || errors.Is(err, channel.ErrSlow) {
		return
	}
	v.logger.Error("A response could not be encoded.", "type", fmt.Sprintf("%T", resp), "error", err)
	_ = ch.Send(requestID, &ua.ServiceFault{ResponseHeader: v.engine.header(resp.Header().RequestHandle, ua.StatusBadEncodingError)})
}

// closed is told that a channel has ended. Its active sessions live on until their time-out, for their clients to come back on
// another channel; those that were never activated can't be any more.
func (v *services) closed(ch secureChannel) {
	for _, s := range v.sessions.on(ch) {
		if s.bound.Load() == nil {
			v.close(s, endSubscriptions)
			continue
		}
		s.pub.forsake(ch)
	}
}

// shutdown closes all sessions, and ends the subscriptions that have outlived theirs.
func (v *services) shutdown() {
	v.stop()
	for _, s := range v.sessions.all() {
		v.close(s, endSubscriptions)
	}
	v.engine.registry.endDetached()
}
