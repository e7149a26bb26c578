package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"quorate/fsm"
	"quorate/node"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; reaching it is a failure.
const patience = 20 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition that nothing announces.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx := testContext(t)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// openGroup starts a group of real members, m1 and so on, and waits until they are ready.
func openGroup(t testing.TB, size int, limits node.Limits) []*node.Node {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	var transports []node.Transport
	var voters []node.BootstrapMember
	for i := range size {
		transport, err := node.Listen("127.0.0.1:0", "", nil, logger)
		if err != nil {
			t.Fatal(err)
		}
		transports = append(transports, transport)
		voters = append(voters, node.BootstrapMember{ID: fmt.Sprint("m", i+1), RaftAddress: transport.Advertised()})
	}
	var group []*node.Node
	for i, transport := range transports {
		n, err := node.Open(node.Config{
			ID: voters[i].ID, DataDir: t.TempDir(), Transport: transport, Logger: logger, Limits: limits, Bootstrap: voters,
			Announce: &logv1.AnnounceMember{Version: "test", CommandVersion: fsm.CommandVersion},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := n.Shutdown(ctx); err != nil {
				t.Errorf("shut the member down: %v", err)
			}
		})
		group = append(group, n)
	}
	for _, n := range group {
		eventually(t, "the member is ready, and what all can do is known", func() bool {
			state := n.Local().State
			return n.Ready() == nil && len(state.Members()) == size && state.CommandVersion() == fsm.CommandVersion
		})
	}
	return group
}

// openNode starts a real member, alone in its group, which knows of a learner m2 that does not run.
func openNode(t testing.TB, limits node.Limits) *node.Node {
	t.Helper()
	n := openGroup(t, 1, limits)[0]
	// A port of loopback on which nothing listens.
	if err := n.AddLearner(testContext(t), "m2", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "m2 is known", func() bool { _, ok := n.Local().State.Member("m2"); return ok })
	return n
}

// harness is a server under test with what was audited.
type harness struct {
	*Server
	grpcAddress, httpAddress string

	mu      sync.Mutex
	records []AuditRecord
}

func (h *harness) audited() []AuditRecord {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]AuditRecord(nil), h.records...)
}

// serve starts a server; the test may have set anything of its configuration.
func serve(t testing.TB, config Config) *harness {
	t.Helper()
	h := &harness{}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	config.Version = "test"
	config.Audit = func(r AuditRecord) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.records = append(h.records, r)
	}
	var err error
	if h.Server, err = New(config); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	listen := func(serve func(net.Listener) error) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := serve(listener); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		return listener.Addr().String()
	}
	h.grpcAddress, h.httpAddress = listen(h.ServeGRPC), listen(h.ServeHTTP)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		running.Wait()
	})
	return h
}

// dial connects to the gRPC port, in plain text if credentials are nil.
func (h *harness) dial(t testing.TB, c *pki.Credentials) *grpc.ClientConn {
	t.Helper()
	transport := insecure.NewCredentials()
	if c != nil {
		transport = credentials.NewTLS(c.ClientTLS())
	}
	conn, err := grpc.NewClient("passthrough:///"+h.grpcAddress, grpc.WithTransportCredentials(transport), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// httpClient returns a client for the HTTP port and the URL to start from.
func (h *harness) httpClient(t *testing.T, c *pki.Credentials) (*http.Client, string) {
	t.Helper()
	transport := &http.Transport{}
	base := "http://" + h.httpAddress
	if c != nil {
		transport.TLSClientConfig = c.ClientTLS()
		base = "https://" + h.httpAddress
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}, base
}

// rest makes a REST call in dev and returns the status, the headers and the decoded answer.
func (h *harness) restCall(t *testing.T, method, path string, body any, headers ...string) (int, http.Header, map[string]any) {
	t.Helper()
	client, base := h.httpClient(t, nil)
	return restCall(t, client, method, base+path, body, headers...)
}

func restCall(t *testing.T, client *http.Client, method, url string, body any, headers ...string) (int, http.Header, map[string]any) {
	t.Helper()
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = bytes.NewReader([]byte(b))
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(testContext(t), method, url, content)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %q is not JSON: %v", method, url, text, err)
	}
	return response.StatusCode, response.Header, answer
}

// site is a development authority with a member and one person of each role.
type site struct {
	member, viewer, operator, administrator *pki.Credentials
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir() + "/pki"
	if err := pki.Init(dir, "demo"); err != nil {
		t.Fatal(err)
	}
	issue := func(request pki.IssueRequest) *pki.Credentials {
		certFile, keyFile, err := pki.Issue(dir, request)
		if err != nil {
			t.Fatal(err)
		}
		c, err := pki.Load(certFile, keyFile, dir+"/"+pki.AuthorityFile)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return &site{
		member:        issue(pki.IssueRequest{Member: "m1", Hosts: []string{"127.0.0.1"}}),
		viewer:        issue(pki.IssueRequest{Person: "vera", Role: pki.RoleViewer}),
		operator:      issue(pki.IssueRequest{Person: "otto", Role: pki.RoleOperator}),
		administrator: issue(pki.IssueRequest{Person: "anna", Role: pki.RoleAdministrator}),
	}
}

// lineA is a valid topology of the harness's group.
func lineA() *quoratev1.Topology {
	return &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{
		Id: "line-a", Mode: "WARM", Servers: []*quoratev1.RedundantServer{
			{Member: "m1", ApplicationUri: "urn:demo:m1", EndpointUrl: "opc.tcp://127.0.0.1:4841", HealthUrl: "http://127.0.0.1:7201/healthz", Role: "Primary"},
			{Member: "m2", ApplicationUri: "urn:demo:m2", EndpointUrl: "opc.tcp://127.0.0.1:4842", HealthUrl: "http://127.0.0.1:7202/healthz", Role: "Backup"},
		},
	}}}
}

func publish(id string, expected uint64, topology *quoratev1.Topology) *quoratev1.PublishTopologyRequest {
	return &quoratev1.PublishTopologyRequest{RequestId: id, ExpectedGeneration: &expected, Topology: topology}
}

func mustPublish(t *testing.T, conn *grpc.ClientConn, id string, expected uint64, topology *quoratev1.Topology) *quoratev1.Generation {
	t.Helper()
	answer, err := quoratev1.NewTopologyServiceClient(conn).PublishTopology(testContext(t), publish(id, expected, topology))
	if err != nil {
		t.Fatalf("publish %s: %v", id, err)
	}
	return answer.GetGeneration()
}

// details are what a status carries.
type details struct {
	info  *errdetails.ErrorInfo
	bad   *errdetails.BadRequest
	retry *errdetails.RetryInfo
}

func detailsOf(err error) (d details) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			d.info = detail
		case *errdetails.BadRequest:
			d.bad = detail
		case *errdetails.RetryInfo:
			d.retry = detail
		}
	}
	return d
}

func (d details) field() string {
	if len(d.bad.GetFieldViolations()) == 0 {
		return ""
	}
	return d.bad.GetFieldViolations()[0].GetField()
}

// assertRefused checks code, reason and, where it isn't empty, the field of an error.
func assertRefused(t *testing.T, err error, code codes.Code, reason, field string) {
	t.Helper()
	d := detailsOf(err)
	if status.Code(err) != code || d.info.GetReason() != reason || d.field() != field {
		t.Errorf("got %v, reason %q, field %q; want %v, %q, %q", err, d.info.GetReason(), d.field(), code, reason, field)
	}
	if d.info != nil && d.info.GetDomain() != Domain {
		t.Errorf("domain %q", d.info.GetDomain())
	}
}

// scripted is a node of which the test decides the answers, for what a real one does too rarely or never.
type scripted struct {
	Node
	propose func(context.Context, *logv1.Command) (*logv1.Outcome, error)
	read    func(context.Context) (node.View, error)
	renew   func(context.Context, *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error)
	ready   func() error
}

func (s *scripted) ID() string { return "m1" }

func (s *scripted) Ready() error { return s.ready() }

// before is the state of a group that has done nothing.
var before = fsm.New()

func (s *scripted) Local() node.View { return node.View{State: before, Member: "m1"} }

func (s *scripted) Read(ctx context.Context, _ *quoratev1.ReadOptions) (node.View, error) {
	return s.read(ctx)
}

func (s *scripted) Propose(ctx context.Context, c *logv1.Command) (*logv1.Outcome, error) {
	return s.propose(ctx, c)
}

func (s *scripted) RenewGate(ctx context.Context, request *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	return s.renew(ctx, request)
}

// contextExpired returns a context that has run out.
func contextExpired() (context.Context, context.CancelFunc) {
	return context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
}
