package rpc

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

func setTLS(client *http.Client, config *tls.Config) {
	client.Transport.(*http.Transport).TLSClientConfig = config
}

// detail returns the detail of a JSON error with that type.
func detail(t *testing.T, answer map[string]any, name string) map[string]any {
	t.Helper()
	list, _ := answer["details"].([]any)
	for _, item := range list {
		if d := item.(map[string]any); d["@type"] == "type.googleapis.com/google.rpc."+name {
			return d
		}
	}
	t.Errorf("no %s in %v", name, answer)
	return map[string]any{}
}

func TestREST(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{})})
	document, err := json.Marshal(lineAJSON("WARM"))
	if err != nil {
		t.Fatal(err)
	}
	code, header, answer := h.restCall(t, "POST", "/v1/topology:publish", fmt.Sprintf(`{"requestId":"p1","expectedGeneration":"0","topology":%s}`, document))
	if code != 200 || answer["generation"].(map[string]any)["number"] != "1" {
		t.Fatalf("publish: %d, %v", code, answer)
	}
	if header.Get("X-Request-Id") != "p1" || header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", header)
	}
	for name := range header {
		if strings.HasPrefix(name, "Grpc-") {
			t.Errorf("header %s is of the inside", name)
		}
	}
	code, header, answer = h.restCall(t, "GET", "/v1/topology", nil, "X-Request-Id", "look-1")
	servers := answer["generation"].(map[string]any)["topology"].(map[string]any)["sets"].([]any)[0].(map[string]any)["servers"].([]any)
	if code != 200 || len(servers) != 2 || servers[0].(map[string]any)["applicationUri"] != "urn:demo:m1" || header.Get("X-Request-Id") != "look-1" {
		t.Errorf("get: %d, %v, %v", code, answer, header)
	}

	// The same errors as over gRPC, details and all.
	code, _, answer = h.restCall(t, "POST", "/v1/topology:publish", fmt.Sprintf(`{"requestId":"p2","expectedGeneration":"0","topology":%s}`, document))
	info := detail(t, answer, "ErrorInfo")
	if code != 400 || answer["code"] != float64(codes.FailedPrecondition) || info["reason"] != "GENERATION_CONFLICT" ||
		info["metadata"].(map[string]any)["current_generation"] != "1" {
		t.Errorf("conflict: %d, %v", code, answer)
	}
	if document, err = json.Marshal(lineAJSON("TRANSPARENT")); err != nil {
		t.Fatal(err)
	}
	code, _, answer = h.restCall(t, "POST", "/v1/topology:plan", fmt.Sprintf(`{"topology":%s}`, document))
	violations := detail(t, answer, "BadRequest")["fieldViolations"].([]any)
	if code != 400 || violations[0].(map[string]any)["field"] != "topology.sets[0].mode" {
		t.Errorf("TRANSPARENT: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "POST", "/v1/leases:begin", `{"server":"m1"}`)
	if code != 400 || detail(t, answer, "BadRequest")["fieldViolations"].([]any)[0].(map[string]any)["field"] != "request_id" {
		t.Errorf("no request id: %d, %v", code, answer)
	}
	code, _, answer = h.restCall(t, "DELETE", "/v1/members/m2", nil)
	if code != 400 || detail(t, answer, "ErrorInfo")["reason"] != "MEMBER_IN_TOPOLOGY" {
		t.Errorf("removing a member of the topology: %d, %v", code, answer)
	}
	for path, want := range map[string]int{
		"/v1/leases?server=m1&includeEnded=true":                                   200,
		"/v1/members?read.consistency=CONSISTENCY_LOCAL":                           200,
		"/v1/topology?read.consistency=CONSISTENCY_BOUNDED&read.maxStaleness=1.5s": 200,
		"/v1/topology?read.consistency=NONSENSE":                                   400,
		"/v1/nothing":                                                              404,
		"/":                                                                        404,
	} {
		if code, _, answer := h.restCall(t, "GET", path, nil); code != want {
			t.Errorf("%s: %d, %v", path, code, answer)
		}
	}
}

// lineAJSON is the demo topology as a person would write it.
func lineAJSON(mode string) map[string]any {
	server := func(n int, role string) map[string]any {
		return map[string]any{
			"member": fmt.Sprint("m", n), "applicationUri": fmt.Sprint("urn:demo:m", n), "endpointUrl": fmt.Sprint("opc.tcp://127.0.0.1:484", n),
			"healthUrl": fmt.Sprintf("http://127.0.0.1:720%d/healthz", n), "role": role,
		}
	}
	return map[string]any{"sets": []any{map[string]any{"id": "line-a", "mode": mode, "servers": []any{server(1, "Primary"), server(2, "Backup")}}}}
}

func TestRESTRefusesWhatItDoesNotUnderstand(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}, Limits: Limits{MaxBodyBytes: 100}})
	code, _, answer := h.restCall(t, "POST", "/v1/leases:begin", `{"requestId":"b","server":"m1","sever":"m1"}`)
	if code != 400 || !strings.Contains(fmt.Sprint(answer["message"]), "sever") {
		t.Errorf("an unknown field: %d, %v", code, answer)
	}
	long := fmt.Sprintf(`{"requestId":"b","server":"m1","reason":"%s"}`, strings.Repeat("x", 100))
	if code, _, answer := h.restCall(t, "POST", "/v1/leases:begin", long); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a long body: %d, %v", code, answer)
	}
	// Without a length, the limit is met while reading.
	client, base := h.httpClient(t, nil)
	request, err := http.NewRequestWithContext(testContext(t), "POST", base+"/v1/leases:begin", struct{ *strings.Reader }{strings.NewReader(long)})
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = -1
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("a long body of unknown length: %d", response.StatusCode)
	}
	for _, headers := range [][]string{{"Origin", "http://evil.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		request, err := http.NewRequestWithContext(testContext(t), "POST", base+"/v1/leases:begin", strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set(headers[0], headers[1])
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("a page of another origin, by %s: %d", headers[0], response.StatusCode)
		}
	}
	// A form must not become a GET, nor a header another method.
	if code, _, _ := h.restCall(t, "POST", "/v1/leases", "", "Content-Type", "application/x-www-form-urlencoded"); code == 200 {
		t.Error("a form was taken for a GET")
	}
	request, err = http.NewRequestWithContext(testContext(t), "GET", base+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Long", strings.Repeat("x", 1<<20))
	if response, err := client.Do(request); err == nil {
		response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("headers of a megabyte: %d", response.StatusCode)
		}
	}
}

func TestRESTStreamsEvents(t *testing.T) {
	h := serve(t, Config{Node: openNode(t, node.Limits{WatchProgress: 20 * time.Millisecond}), Limits: Limits{WriteTimeout: patience}})
	published := mustPublish(t, h.dial(t, nil), "p1", 0, lineA())
	client, base := h.httpClient(t, nil)
	request, err := http.NewRequestWithContext(testContext(t), "GET", fmt.Sprintf("%s/v1/events?fromRevision=%d", base, published.GetRevision()), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	var all strings.Builder
	for !strings.Contains(all.String(), `"topologyPublished"`) || !strings.Contains(all.String(), `"events":[]`) {
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v after %s", lines.Err(), all.String())
		}
		var message struct {
			Result *struct{ Header map[string]any }
		}
		if err := json.Unmarshal(lines.Bytes(), &message); err != nil || message.Result == nil {
			t.Fatalf("line %s: %v", lines.Text(), err)
		}
		all.Write(lines.Bytes())
	}
	h.stop()
	for lines.Scan() {
		all.Write(lines.Bytes())
	}
	if !strings.Contains(all.String(), ReasonShuttingDown) {
		t.Errorf("the stream ended without saying why: %s", all.String())
	}
}

func TestHealth(t *testing.T) {
	var ready atomic.Bool
	ready.Store(true)
	h := serve(t, Config{Node: &scripted{ready: func() error {
		if ready.Load() {
			return nil
		}
		return errors.New(`no "leader"`)
	}}})
	conn := h.dial(t, nil)
	client := healthpb.NewHealthClient(conn)
	stream, err := client.Watch(testContext(t), &healthpb.HealthCheckRequest{Service: "quorate.v1.TopologyService"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthpb.HealthCheckResponse_ServingStatus, code int, state string) {
		t.Helper()
		if answer, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{}); err != nil || answer.GetStatus() != want {
			t.Errorf("check: %v, %v; want %s", answer, err, want)
		}
		if answer, err := client.List(testContext(t), &healthpb.HealthListRequest{}); err != nil || len(answer.GetStatuses()) != len(services)+1 || answer.GetStatuses()["quorate.v1.LeaseService"].GetStatus() != want {
			t.Errorf("list: %v, %v; want %s", answer, err, want)
		}
		if answer, err := stream.Recv(); err != nil || answer.GetStatus() != want {
			t.Errorf("watch: %v, %v; want %s", answer, err, want)
		}
		got, _, answer := h.restCall(t, "GET", "/readyz", nil)
		if got != code || answer["status"] != state {
			t.Errorf("/readyz: %d, %v", got, answer)
		}
		// Alive is not ready: whoever probes this restarts a process, which helps nobody who waits for a leader.
		if got, _, _ := h.restCall(t, "GET", "/healthz", nil); got != 200 {
			t.Errorf("/healthz: %d", got)
		}
	}
	expect(healthpb.HealthCheckResponse_SERVING, 200, "ready")
	ready.Store(false)
	expect(healthpb.HealthCheckResponse_NOT_SERVING, 503, "not ready")
	if _, _, answer := h.restCall(t, "GET", "/readyz", nil); answer["reason"] != `no "leader"` {
		t.Errorf("/readyz says %v", answer)
	}
	if _, err := client.Check(testContext(t), &healthpb.HealthCheckRequest{Service: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v", err)
	}
	ready.Store(true)
	expect(healthpb.HealthCheckResponse_SERVING, 200, "ready")
}

func TestReflectionAndOpenAPI(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	stream, err := reflectionpb.NewServerReflectionClient(h.dial(t, nil)).ServerReflectionInfo(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	if all := strings.Join(names, " "); !strings.Contains(all, "quorate.v1.TopologyService") || strings.Contains(all, "peer") {
		t.Errorf("services %v", names)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	code, _, document := h.restCall(t, "GET", "/openapi.json", nil)
	info, _ := document["info"].(map[string]any)
	if code != 200 || info["title"] != "Quorate" || info["version"] != "test" || document["paths"].(map[string]any)["/v1/topology:publish"] == nil {
		t.Errorf("%d, info %v", code, info)
	}
}

func TestShutdownCutsOffWhatDoesNotEnd(t *testing.T) {
	n, _ := remembering()
	h := serve(t, Config{Node: n})
	// A reflection stream has no end of its own, and this client holds on to it.
	stream, err := reflectionpb.NewServerReflectionClient(h.dial(t, nil)).ServerReflectionInfo(testContext(t), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	expired, cancel := contextExpired()
	defer cancel()
	if err := h.Shutdown(expired); err == nil {
		t.Error("the shutdown says that all ended by itself")
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	if _, err := quoratev1.NewLeaseServiceClient(h.dial(t, nil)).ListLeases(testContext(t), &quoratev1.ListLeasesRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("after the shutdown: %v", err)
	}
}

// TestASlowReaderIsCutOff has a client that takes nothing of an answer without an end.
func TestASlowReaderIsCutOff(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	server := &http.Server{ReadTimeout: 10 * time.Millisecond, WriteTimeout: 10 * time.Millisecond}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		stream := newStreamWriter(w, 50*time.Millisecond)
		chunk := make([]byte, 1<<20)
		for {
			if _, err := stream.Write(chunk); err != nil {
				ended <- err
				return
			}
			stream.Flush()
		}
	})
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	defer running.Wait()
	defer server.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the stream ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("the stream goes on")
	}
}
