package rpc

import (
	"context"
	"crypto/tls"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/node"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// remembering is a node that accepts every lease and remembers who asked.
func remembering() (*scripted, func() *quoratev1.Actor) {
	var last atomic.Pointer[quoratev1.Actor]
	return &scripted{
		propose: func(_ context.Context, c *logv1.Command) (*logv1.Outcome, error) {
			last.Store(c.GetActor())
			return &logv1.Outcome{Result: &logv1.Outcome_Lease{Lease: &quoratev1.ApplyLease{}}}, nil
		},
		read:  func(context.Context) (node.View, error) { return node.View{State: fsm.New()}, nil },
		ready: func() error { return nil },
	}, last.Load
}

var begin = &quoratev1.BeginLeaseRequest{RequestId: "b1", Server: "m1"}

func TestCallersAreWhoTheirCertificateSays(t *testing.T) {
	people := newSite(t)
	n, actor := remembering()
	h := serve(t, Config{Node: n, Credentials: people.member})
	for credentials, want := range map[*pki.Credentials]string{people.operator: "otto operator", people.administrator: "anna administrator"} {
		if _, err := quoratev1.NewLeaseServiceClient(h.dial(t, credentials)).BeginLease(testContext(t), begin); err != nil {
			t.Fatal(err)
		}
		if got := actor().GetName() + " " + actor().GetRole(); got != want || !strings.HasPrefix(actor().GetAddress(), "127.0.0.1:") {
			t.Errorf("gRPC: actor %v, want %s", actor(), want)
		}
		client, base := h.httpClient(t, credentials)
		code, _, answer := restCall(t, client, "POST", base+"/v1/leases:begin", map[string]string{"requestId": "b1", "server": "m1"})
		if code != 200 {
			t.Fatalf("REST: %d, %v", code, answer)
		}
		if got := actor().GetName() + " " + actor().GetRole(); got != want || !strings.HasPrefix(actor().GetAddress(), "127.0.0.1:") {
			t.Errorf("REST: actor %v, want %s", actor(), want)
		}
	}
	client, base := h.httpClient(t, people.viewer)
	code, _, answer := restCall(t, client, "POST", base+"/v1/leases:begin", map[string]string{"requestId": "b1", "server": "m1"})
	if code != 403 || answer["code"] != float64(codes.PermissionDenied) {
		t.Errorf("a viewer over REST: %d, %v", code, answer)
	}
	// A member may look, and is not taken for a person.
	member := quoratev1.NewLeaseServiceClient(h.dial(t, people.member))
	if _, err := member.ListLeases(testContext(t), &quoratev1.ListLeasesRequest{}); err != nil {
		t.Errorf("a member looks: %v", err)
	}
	_, err := member.BeginLease(testContext(t), begin)
	assertRefused(t, err, codes.PermissionDenied, ReasonPermissionDenied, "")
}

// TestCallersInsideTheProcess makes calls for callers whom another endpoint of the member has identified.
func TestCallersInsideTheProcess(t *testing.T) {
	n, actor := remembering()
	h := serve(t, Config{Node: n, Credentials: newSite(t).member})
	const from = "opc.tcp"
	for role, code := range map[pki.Role]codes.Code{pki.RoleOperator: codes.OK, pki.RoleViewer: codes.PermissionDenied} {
		conn, err := h.InProcess(pki.Identity{Name: "olga", Role: role}, from)
		if err != nil {
			t.Fatal(err)
		}
		// A caller that the context brings along must not count.
		forged, err := forward(caller{name: "eve", role: pki.RoleAdministrator})
		if err != nil {
			t.Fatal(err)
		}
		ctx := metadata.NewOutgoingContext(testContext(t), forged)
		if _, err := quoratev1.NewLeaseServiceClient(conn).BeginLease(ctx, begin); status.Code(err) != code {
			t.Errorf("%v: %v, want %v", role, err, code)
		}
	}
	if a := actor(); a.GetName() != "olga" || a.GetRole() != "operator" || a.GetAddress() != from {
		t.Errorf("actor %v", a)
	}
}

func TestIdentitiesCannotBeForged(t *testing.T) {
	people := newSite(t)
	n, _ := remembering()
	h := serve(t, Config{Node: n, Credentials: people.member})
	administrator, err := proto.Marshal(&quoratev1.Actor{Name: "anna", Role: "administrator"})
	if err != nil {
		t.Fatal(err)
	}
	// What the gateway says of its callers, said by somebody else, counts for nothing: over gRPC …
	ctx := metadata.AppendToOutgoingContext(testContext(t), actorKey, string(administrator))
	_, err = quoratev1.NewLeaseServiceClient(h.dial(t, people.viewer)).BeginLease(ctx, begin)
	assertRefused(t, err, codes.PermissionDenied, ReasonPermissionDenied, "")
	// … nor as a header of HTTP, under whatever name a gateway might pass on.
	client, base := h.httpClient(t, people.viewer)
	for _, header := range []string{actorKey, "Grpc-Metadata-" + actorKey, "Grpcgateway-" + actorKey} {
		code, _, answer := restCall(t, client, "POST", base+"/v1/leases:begin", map[string]string{"requestId": "b1", "server": "m1"},
			header, "CgRhbm5hEg1hZG1pbmlzdHJhdG9y")
		if code != 403 {
			t.Errorf("with header %s: %d, %v", header, code, answer)
		}
	}
}

func TestForwardedCallers(t *testing.T) {
	for _, want := range []caller{
		{name: "vera", role: pki.RoleViewer, address: "127.0.0.1:1"},
		{name: "m2", role: pki.RoleViewer, member: true},
		{name: "anonymous", role: pki.RoleAdministrator},
	} {
		md, err := forward(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := forwardedCaller(metadata.NewIncomingContext(context.Background(), md)); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	twice := metadata.Pairs(actorKey, "", actorKey, "")
	for name, md := range map[string]metadata.MD{"none": nil, "two": twice, "no actor": metadata.Pairs(actorKey, "\xff"), "no role": metadata.Pairs(actorKey, "")} {
		if got, err := forwardedCaller(metadata.NewIncomingContext(context.Background(), md)); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestWithoutACertificateNothingIsServed(t *testing.T) {
	people, strangers := newSite(t), newSite(t)
	n, _ := remembering()
	h := serve(t, Config{Node: n, Credentials: people.member})
	bare := people.viewer.ClientTLS()
	bare.GetClientCertificate = nil
	foreign := people.viewer.ClientTLS()
	foreign.GetClientCertificate = strangers.administrator.ClientTLS().GetClientCertificate
	for name, transport := range map[string]credentials.TransportCredentials{
		"plain text": insecure.NewCredentials(), "no certificate": credentials.NewTLS(bare), "another authority's": credentials.NewTLS(foreign),
	} {
		conn, err := grpc.NewClient("passthrough:///"+h.grpcAddress, grpc.WithTransportCredentials(transport), grpc.WithNoProxy())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := quoratev1.NewLeaseServiceClient(conn).ListLeases(testContext(t), &quoratev1.ListLeasesRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
	for name, config := range map[string]*tls.Config{"no certificate": bare, "another authority's": foreign} {
		client, base := h.httpClient(t, people.viewer)
		setTLS(client, config)
		if response, err := client.Get(base + "/healthz"); err == nil {
			response.Body.Close()
			t.Errorf("%s: HTTP answered %d", name, response.StatusCode)
		}
	}
}

func TestACertificateThatExpiresEndsItsConnections(t *testing.T) {
	people := newSite(t)
	n, _ := remembering()
	var ahead atomic.Int64
	h := serve(t, Config{Node: n, Credentials: people.member, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	leases := quoratev1.NewLeaseServiceClient(h.dial(t, people.viewer))
	client, base := h.httpClient(t, people.viewer)
	if _, err := leases.ListLeases(testContext(t), &quoratev1.ListLeasesRequest{}); err != nil {
		t.Fatal(err)
	}
	if code, _, answer := restCall(t, client, "GET", base+"/v1/leases", nil); code != 200 {
		t.Fatalf("%d, %v", code, answer)
	}
	ahead.Store(int64(pki.DefaultValidity + time.Hour))
	_, err := leases.ListLeases(testContext(t), &quoratev1.ListLeasesRequest{})
	assertRefused(t, err, codes.Unauthenticated, ReasonUnauthenticated, "")
	if code, _, answer := restCall(t, client, "GET", base+"/v1/leases", nil); code != 401 {
		t.Errorf("REST: %d, %v", code, answer)
	}
}
