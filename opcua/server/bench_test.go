package server

import (
	"testing"

	"github.com/gopcua/opcua/ua"
)

// discard is a channel that forgets what is sent by it.
type discard struct{ fakeChannel }

func (*discard) Send(uint32, ua.Response) error { return nil }

// BenchmarkRead is one Read of one value, without decoding, encoding and transport.
func BenchmarkRead(b *testing.B) {
	r := newRig(b, Limits{})
	ch := &discard{}
	auth := r.activateOn(ch)
	req := &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue}}}
	req.SetHeader(&ua.RequestHeader{AuthenticationToken: auth})
	b.ReportAllocs()
	for b.Loop() {
		r.v.serve(ch, 1, req)
	}
}

// BenchmarkPublish is one publishing cycle of one changed value, and the Publish request for it, without decoding, encoding
// and transport.
func BenchmarkPublish(b *testing.B) {
	r := newRig(b, Limits{})
	ch := &discard{}
	auth := r.activateOn(ch)
	pub := r.v.sessions.find(auth).pub
	if _, status := pub.createSubscription(&ua.CreateSubscriptionRequest{PublishingEnabled: true}); status != ua.StatusOK {
		b.Fatal(status)
	}
	sub := pub.subs[1]
	_, status := pub.createItems(&ua.CreateMonitoredItemsRequest{SubscriptionID: 1, ItemsToCreate: []*ua.MonitoredItemCreateRequest{{
		ItemToMonitor:       &ua.ReadValueID{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue},
		MonitoringMode:      ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{},
	}}})
	if status != ua.StatusOK {
		b.Fatal(status)
	}
	ack := &ua.SubscriptionAcknowledgement{SubscriptionID: 1}
	req := &ua.PublishRequest{SubscriptionAcknowledgements: []*ua.SubscriptionAcknowledgement{ack}}
	req.SetHeader(&ua.RequestHeader{AuthenticationToken: auth})
	b.ReportAllocs()
	for i := int64(1); b.Loop(); i++ {
		r.demo.set(i)
		r.v.serve(ch, 1, req)
		sub.cycle(sub.next)
		ack.SequenceNumber++
	}
}

// activateOn makes a session on a channel that is no fakeChannel.
func (r *rig) activateOn(ch secureChannel) *ua.NodeID {
	resp, status := r.v.createSession(ch, &ua.CreateSessionRequest{})
	if status != ua.StatusOK {
		r.t.Fatal(status)
	}
	auth := resp.(*ua.CreateSessionResponse).AuthenticationToken
	if _, status := r.v.activateSession(ch, &ua.ActivateSessionRequest{RequestHeader: &ua.RequestHeader{AuthenticationToken: auth}}); status != ua.StatusOK {
		r.t.Fatal(status)
	}
	return auth
}
