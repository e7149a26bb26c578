package server

import (
	"context"
	"testing"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// FuzzServe feeds the services with whatever the decoder lets through, on an activated session with a subscription and an
// item: every request has to be answered, once at most, and none may panic.
func FuzzServe(f *testing.F) {
	seeds := append(inSessionRequests(),
		&ua.FindServersRequest{}, &ua.GetEndpointsRequest{EndpointURL: "opc.tcp://host:1"}, &ua.RegisterServer2Request{},
		&ua.CreateSessionRequest{EndpointURL: "opc.tcp://host:1", SessionName: "s"}, &ua.ActivateSessionRequest{UserIdentityToken: ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: "p"})})
	for _, req := range seeds {
		req.SetHeader(&ua.RequestHeader{AuthenticationToken: ua.NewTwoByteNodeID(0)})
		b, err := wire.AppendMessage(nil, req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := wire.DecodeRequest(b, wire.DefaultLimits)
		if err != nil {
			return
		}
		r := newRig(t, Limits{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.v.engine.schedule.run(ctx)
		}()
		defer func() {
			r.v.shutdown()
			cancel()
			<-done
		}()
		auth := r.connect(r.ch)
		r.auth = auth
		r.monitor(r.subscribe().SubscriptionID, levelKey.NodeID(), 2)
		r.ch.take()
		if req.Header() == nil {
			t.Fatal("the decoder made a request without a header")
		}
		r.post(r.ch, auth, req)
		sent := r.ch.take()
		_, publish := req.(*ua.PublishRequest)
		if len(sent) != 1 && !publish {
			t.Fatalf("%T: %d answers", req, len(sent))
		}
		for _, m := range sent {
			if _, err := wire.AppendMessage(nil, m.resp); err != nil {
				t.Fatalf("%T can't be encoded: %v", m.resp, err)
			}
		}
	})
}
