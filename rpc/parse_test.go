package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// field is the field that a refused REST call names, with the details of every refused argument.
func field(t *testing.T, answer map[string]any) string {
	t.Helper()
	if answer["code"] != float64(codes.InvalidArgument) || detail(t, answer, "ErrorInfo")["reason"] != ReasonInvalidArgument {
		t.Errorf("not the refusal of an argument: %v", answer)
	}
	violations, _ := detail(t, answer, "BadRequest")["fieldViolations"].([]any)
	if len(violations) != 1 {
		t.Fatalf("violations of %v", answer)
	}
	violation := violations[0].(map[string]any)
	if want := fmt.Sprint(violation["field"], ": ", violation["description"]); answer["message"] != want {
		t.Errorf("message %q, want %q", answer["message"], want)
	}
	return violation["field"].(string)
}

func TestRESTNamesWhatItCanNotRead(t *testing.T) {
	// Neither reads nor changes: nothing that follows may get as far as the node.
	h := serve(t, Config{Node: &scripted{}})
	long := strings.Repeat("x", 300)
	for _, test := range []struct{ method, target, body, field, says string }{
		{"GET", "/v1/topology?generatoin=3", "", "generatoin", "no such parameter"},
		{"GET", "/v1/topology?generation=abc", "", "generation", `must be of type uint64, got "abc"`},
		{"GET", "/v1/topology?generation=" + long, "", "generation", `"` + long[:maxQuoted] + `"…`},
		{"GET", "/v1/topology?generation=1&generation=2", "", "generation", "given more than once"},
		{"GET", "/v1/topology?generation[3]=1", "", "query", `"generation[3]"`},
		{"GET", "/v1/topology?a%20b%0A=1", "", "query", `"a b\n"`},
		{"GET", "/v1/topology?%FF=1", "", "query", `"\xff"`},
		{"GET", "/v1/topology?" + long + "=1", "", "query", "…"},
		{"GET", "/v1/topology?generation.of=1", "", "generation.of", "no such parameter"},
		{"GET", "/v1/topology?read=1", "", "read", "must be of type quorate.v1.ReadOptions"},
		{"GET", "/v1/topology?read.consistency=NONSENSE", "", "read.consistency", "must be of type quorate.v1.Consistency"},
		{"GET", "/v1/topology?read.maxStaleness=soon", "", "read.max_staleness", "must be of type google.protobuf.Duration"},
		{"GET", "/v1/topology?read.maxStaleness=1s&read.max_staleness=2s", "", "read.max_staleness", "given more than once"},
		{"GET", "/v1/events?kind=leaseBegun", "", "kind", "no such parameter"},
		{"GET", "/v1/topology?read.consistency=%FF", "", "read.consistency", "must be of type quorate.v1.Consistency"},
		{"GET", "/v1/apply?set=a%FF", "", "set", `must be of type string, got "a\xff"`},
		{"GET", "/v1/events?partitions=p1&partitions=%FF", "", "partitions", "must be of type string"},
		// What stands in the path is not said again, and is text.
		{"GET", "/v1/gates/p1?partition=p2", "", "partition", "stands in the path already"},
		{"DELETE", "/v1/instances/i1?id=i2", "", "id", "stands in the path already"},
		{"GET", "/v1/gates/p%FF", "", "path", `"/v1/gates/p\xff" is not text`},
		// A DELETE has no body: its query is read as strictly.
		{"DELETE", "/v1/partitions/p1?requestid=d", "", "requestid", "no such parameter"},
		{"DELETE", "/v1/instances/i1?drained=perhaps", "", "drained", "must be of type bool"},
		{"DELETE", "/v1/instances/i1?session=%FF", "", "session", "must be of type string"},
		// What has its fields in the body or the path reads no query at all.
		{"POST", "/v1/leases:begin?server=m1", `{"requestId":"b","server":"m1"}`, "server", "no such parameter"},
		{"DELETE", "/v1/members/m2?force=true", "", "force", "no such parameter"},
		{"DELETE", "/v1/members/m2?%zz", "", "query", "DELETE takes none"},

		{"POST", "/v1/leases:begin", `{"requestId":"b","sever":"m1"}`, "sever", "unknown field"},
		{"POST", "/v1/leases:begin", `{"requestId":"b","a b":"m1"}`, "body", `unknown field "a b"`},
		{"POST", "/v1/leases:begin", `{"requestId":7}`, "request_id", `must be of type string, got "7"`},
		{"POST", "/v1/leases:begin", `{"request_id":"a","requestId":"b"}`, "body", "given more than once"},
		{"POST", "/v1/leases:begin", `{"server":"a","server":"b"}`, "body", "given more than once"},
		{"POST", "/v1/leases:begin", `{"generation":"` + long + `"}`, "generation", "must be of type uint64"},
		{"POST", "/v1/leases:begin", `{"requestId":`, "body", "is not a JSON object"},
		{"POST", "/v1/leases:begin", `{} {}`, "body", "is not a JSON object"},
		{"POST", "/v1/leases:begin", `[]`, "body", "is not a JSON object"},
		{"POST", "/v1/leases:begin", "{\"server\":\"\xff\"}", "server", "must be of type string"},
		{"POST", "/v1/topology:plan", `{"topology":[]}`, "topology", `must be a JSON object, got "[]"`},
		{"POST", "/v1/topology:plan", `{"topology":{"sets":{}}}`, "topology.sets", "must be a list"},
		{"POST", "/v1/topology:plan", `{"topology":{"sets":[{},null]}}`, "topology.sets[1]", "must be a JSON object"},
		{"POST", "/v1/topology:plan", `{"topology":{"sets":[{},{"servers":[{"port":1}]}]}}`, "topology.sets[1].servers[0].port", "unknown field"},
		{"POST", "/v1/topology:plan", `{"topology":{"sets":[{"policies":{"maxServers":-1}}]}}`, "topology.sets[0].policies.max_servers", "must be of type uint32"},
		{"POST", "/v1/maintenance", `{"estimatedReturn":"soon"}`, "estimated_return", "must be of type google.protobuf.Timestamp"},
	} {
		code, _, answer := h.restCall(t, test.method, test.target, test.body)
		message := fmt.Sprint(answer["message"])
		if got := field(t, answer); code != 400 || got != test.field || !strings.Contains(message, test.says) || len(message) > 200 {
			t.Errorf("%s %.80s %.80s: %d, field %q, %s; want %q, %s", test.method, test.target, test.body, code, got, message, test.field, test.says)
		}
	}
	// What is no field has the details of a refused argument all the same.
	code, _, answer := h.restCall(t, "GET", "/v1/topology?%zz", nil)
	if code != 400 || detail(t, answer, "ErrorInfo")["reason"] != ReasonInvalidArgument {
		t.Errorf("a query that is none: %d, %v", code, answer)
	}
}

// TestEveryQueryIsReadOrRefused gives each method of REST a parameter that it does not know: one that ignores it would do so with any.
func TestEveryQueryIsReadOrRefused(t *testing.T) {
	h := serve(t, Config{Node: &scripted{}})
	var document struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(openAPI, &document); err != nil {
		t.Fatal(err)
	}
	for path, operations := range document.Paths {
		for verb := range operations {
			target := strings.NewReplacer("{id}", "m1", "{partition}", "p1").Replace(path) + "?nonsense=1"
			code, _, answer := h.restCall(t, strings.ToUpper(verb), target, nil)
			if got := field(t, answer); code != 400 || got != "nonsense" {
				t.Errorf("%s %s: %d, %v", verb, target, code, answer)
			}
		}
	}
}

func TestRESTReadsQueriesAndBodies(t *testing.T) {
	h := serve(t, Config{Node: &scripted{read: func(context.Context) (node.View, error) { return node.View{State: fsm.New()}, nil }}})
	for _, target := range []string{
		"/v1/topology?generation=0&read.minRevision=0&read.consistency=CONSISTENCY_BOUNDED&read.max_staleness=1.5s",
		"/v1/leases?include_ended=true&server=m1",
	} {
		if code, _, answer := h.restCall(t, "GET", target, nil); code != 200 {
			t.Errorf("%s: %d, %v", target, code, answer)
		}
	}
	message := &quoratev1.WatchEventsRequest{}
	values := url.Values{"fromRevision": {"7"}, "kinds": {"a", "b"}}
	if err := (strictQuery{}).Parse(message, values, utilities.NewDoubleArray(nil)); err != nil || message.GetFromRevision() != 7 || !slices.Equal(message.GetKinds(), []string{"a", "b"}) {
		t.Errorf("read as %v, %v", message, err)
	}
	for body, want := range map[string]*quoratev1.BeginLeaseRequest{
		`{"requestId":"b","generation":"7"}`:       {RequestId: "b", Generation: 7},
		"\n{\"request_id\":\"b\",\"server\":null}": {RequestId: "b"},
	} {
		got := &quoratev1.BeginLeaseRequest{}
		if err := (&jsonForm{}).NewDecoder(strings.NewReader(body)).Decode(got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%s is read as %v, %v", body, got, err)
		}
	}
}

func TestRequestIDOfTheHeader(t *testing.T) {
	proposed := make(chan string, 1)
	h := serve(t, Config{Node: &scripted{
		propose: func(_ context.Context, c *logv1.Command) (*logv1.Outcome, error) {
			proposed <- c.GetRequestId()
			return &logv1.Outcome{Result: &logv1.Outcome_Lease{Lease: &quoratev1.ApplyLease{}}}, nil
		},
		read: func(context.Context) (node.View, error) { return node.View{State: fsm.New()}, nil },
	}})
	for _, test := range []struct{ body, want string }{
		{`{"server":"m1"}`, "of-header"},
		{`{"server":"m1","requestId":"of-body"}`, "of-body"},
	} {
		code, header, answer := h.restCall(t, "POST", "/v1/leases:begin", test.body, "X-Request-Id", "of-header")
		if code != 200 {
			t.Fatalf("%s: %d, %v", test.body, code, answer)
		}
		records := h.audited()
		if got := <-proposed; got != test.want || header.Get("X-Request-Id") != got || records[len(records)-1].RequestID != got {
			t.Errorf("%s: proposed %q, echoed %q, audited %+v; want %q", test.body, got, header.Get("X-Request-Id"), records, test.want)
		}
	}
	code, _, answer := h.restCall(t, "POST", "/v1/leases:begin", `{"server":"m1"}`)
	if got := field(t, answer); code != 400 || got != "request_id" {
		t.Errorf("no id at all: %d, %v", code, answer)
	}
	// An id that can't be one would be dropped without a word; the length at the limit is taken.
	longest := strings.Repeat("i", fsm.MaxRequestIDBytes)
	for _, id := range []string{"ä", longest + "i"} {
		code, _, answer := h.restCall(t, "GET", "/v1/leases", nil, "X-Request-Id", id)
		if got := field(t, answer); code != 400 || got != "X-Request-Id" {
			t.Errorf("%q: %d, %v", id, code, answer)
		}
	}
	if code, header, _ := h.restCall(t, "GET", "/v1/leases", nil, "X-Request-Id", longest); code != 200 || header.Get("X-Request-Id") != longest {
		t.Errorf("the longest id: %d, %v", code, header)
	}
	// Two of them, and one in the metadata of a gRPC call, which proxies make up.
	r := httptest.NewRequest("GET", "/v1/leases", nil)
	r.Header["X-Request-Id"] = []string{"a", "b"}
	if err := checkRequestID(r); err == nil {
		t.Error("two ids were taken")
	}
	ctx := metadata.AppendToOutgoingContext(testContext(t), requestIDKey, "of-a-proxy")
	_, err := quoratev1.NewLeaseServiceClient(h.dial(t, nil)).BeginLease(ctx, &quoratev1.BeginLeaseRequest{Server: "m1"})
	assertRefused(t, err, codes.InvalidArgument, ReasonInvalidArgument, "request_id")
}

// FuzzREST feeds the readers what a caller may send: they refuse it with a field, and never let the text of an answer break.
func FuzzREST(f *testing.F) {
	f.Add("read.maxStaleness=1s&generation=1", `{"topology":{"sets":[{"id":1}]}}`)
	f.Add("a=%00&a.b", "{\"\x00\":{}}")
	f.Fuzz(func(t *testing.T, query, body string) {
		check := func(err error) {
			if err == nil || !strings.Contains(err.Error(), fieldMark) {
				return
			}
			name, message, _ := strings.Cut(err.Error(), fieldMark)
			if name == "" || len(name) > 500 || len(message) > 500 || strings.ContainsAny(message, fieldMark+"\n") || strings.ContainsAny(name, " \n\"") {
				t.Fatalf("field %q, message %q", name, message)
			}
		}
		if values, err := url.ParseQuery(query); err == nil {
			check(strictQuery{}.Parse(&quoratev1.GetTopologyRequest{}, values, utilities.NewDoubleArray(nil)))
		}
		check((&jsonForm{}).NewDecoder(strings.NewReader(body)).Decode(&quoratev1.PlanTopologyRequest{}))
	})
}
