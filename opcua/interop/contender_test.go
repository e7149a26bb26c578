package interop

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uacp"
)

// attempt is a try to get in and to do things. Zero fields are not used; nobody in particular is anonymous.
type attempt struct {
	security
	endpoint       string // the contender's own if empty
	application    identity
	claims         string // ApplicationUri, that of application if empty
	user, password string
	person         *identity // logs in by certificate
	change         []string  // states that are asked for by RequestServerStateChange
}

// outcome is what came of an attempt: the status that refused it, or what answered a read, a write, and the changes of state.
type outcome struct {
	Refused, Read, Write string
	Change               []string
}

// contender is a client that makes attempts.
type contender struct {
	name string
	try  func(ctx context.Context, t *testing.T, a attempt) outcome
	// longKeys says that it refuses itself to use keys that are too short.
	longKeys bool
}

// nodeContender has node-opcua make attempts, in a process of its own that ends with the test.
func nodeContender(ctx context.Context, t *testing.T, endpoint string) contender {
	t.Helper()
	var said strings.Builder
	client := startTalk(ctx, t, "attempts", map[string]any{"endpoint": endpoint}, &said)
	t.Cleanup(func() {
		if err := errors.Join(client.in.Close(), client.Wait()); err != nil && ctx.Err() == nil {
			t.Errorf("the client: %v\n%s", err, said.String())
		}
	})
	return contender{name: nodeOPCUA, try: func(_ context.Context, t *testing.T, a attempt) outcome {
		t.Helper()
		wanted := map[string]any{
			"mode": a.Mode, "policy": a.Policy, "pki": a.application.pki, "applicationUri": a.claims, "user": a.user, "password": a.password, "change": a.change,
		}
		if a.person != nil {
			wanted["userCertificate"], wanted["userKey"] = a.person.cert, a.person.pem
		}
		if a.endpoint != "" {
			wanted["endpoint"] = a.endpoint
		}
		if err := json.NewEncoder(client.in).Encode(wanted); err != nil {
			t.Fatal(err)
		}
		if !client.lines.Scan() {
			t.Fatalf("the client ended: %v", client.lines.Err())
		}
		var o outcome
		if err := json.Unmarshal(client.lines.Bytes(), &o); err != nil {
			t.Fatalf("%v in %q", err, client.lines.Bytes())
		}
		return o
	}}
}

// gopcuaContender has gopcua's client make attempts from an address of this machine, by which the server counts failures.
func gopcuaContender(endpoint, from string) contender {
	return contender{name: gopcua, longKeys: true, try: func(ctx context.Context, t *testing.T, a attempt) outcome {
		t.Helper()
		endpoint := cmp.Or(a.endpoint, endpoint)
		endpoints, err := opcua.GetEndpoints(ctx, endpoint)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(endpoints, func(e *ua.EndpointDescription) bool { return securityOf(e) == a.security })
		if i < 0 {
			t.Fatalf("%v is not offered", a.security)
		}
		options := []opcua.Option{
			opcua.AutoReconnect(false), opcua.RequestTimeout(scenarioLimit),
			opcua.Dialer(&uacp.Dialer{Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}}),
		}
		if a.Policy != "None" {
			options = append(options, opcua.Certificate(a.application.der), opcua.PrivateKey(a.application.key))
		}
		kind := ua.UserTokenTypeAnonymous
		switch {
		case a.user != "":
			kind = ua.UserTokenTypeUserName
			options = append(options, opcua.AuthUsername(a.user, a.password))
		case a.person != nil:
			kind = ua.UserTokenTypeCertificate
			options = append(options, opcua.AuthCertificate(a.person.der), opcua.AuthPrivateKey(a.person.key))
		}
		c, err := opcua.NewClient(endpoint, append(options, opcua.ApplicationURI(a.claims), opcua.SecurityFromEndpoint(endpoints[i], kind))...)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		if err := c.Connect(ctx); err != nil {
			return outcome{Refused: refusal(err)}
		}
		return gopcuaDeeds(ctx, t, c, a.change)
	}}
}

// refusal is the status that an error tells of, or all of it where it tells of none.
func refusal(err error) string {
	if status := ua.StatusCode(0); errors.As(err, &status) {
		return statusName(status)
	}
	return err.Error()
}

// statusName is the name that the standard gives a status.
func statusName(status ua.StatusCode) string {
	if status == ua.StatusOK {
		return "Good"
	}
	return strings.TrimPrefix(ua.StatusCodes[status].Name, "Status")
}

// gopcuaDeeds are what attempt.mjs has node-opcua do once it is in.
func gopcuaDeeds(ctx context.Context, t *testing.T, c *opcua.Client, change []string) outcome {
	t.Helper()
	read, err := c.Read(ctx, &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{valueOf(id.Server_ServiceLevel)}})
	if err != nil {
		t.Fatal(err)
	}
	written, err := c.Write(ctx, &ua.WriteRequest{NodesToWrite: []*ua.WriteValue{{
		NodeID: serverNode(id.Server_ServiceLevel), AttributeID: ua.AttributeIDValue,
		Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(byte(1))},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{Read: statusName(read.Results[0].Status), Write: statusName(written.Results[0])}
	for _, state := range change {
		r, err := c.Call(ctx, &ua.CallMethodRequest{
			ObjectID: serverNode(id.Server), MethodID: serverNode(id.Server_RequestServerStateChange),
			InputArguments: []*ua.Variant{ua.MustVariant(int32(map[string]ua.ServerState{"Running": ua.ServerStateRunning, "Suspended": ua.ServerStateSuspended}[state])),
				ua.MustVariant(time.Now().Add(time.Hour)), ua.MustVariant(uint32(0)), ua.MustVariant(ua.NewLocalizedText("new bearings")), ua.MustVariant(false)},
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Change = append(o.Change, statusName(r.StatusCode))
	}
	return o
}
