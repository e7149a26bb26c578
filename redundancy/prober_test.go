package redundancy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestInterpretTakesWhateverAPeerAnswers(t *testing.T) {
	value := func(v any) *ua.DataValue { return &ua.DataValue{Value: ua.MustVariant(v)} }
	level, state, uris := value(byte(200)), value(int32(3)), value([]string{"urn:demo:m2", "urn:demo:m1"})
	generation, digest, role := value(uint64(7)), value("abc"), value("Primary")
	for _, c := range []struct {
		name   string
		values []*ua.DataValue
		want   Sample
		err    string
	}{
		{"everything", []*ua.DataValue{level, state, uris, generation, digest, role, generation}, Sample{200, ua.ServerStateSuspended, "urn:demo:m2", 7, "abc", "Primary"}, ""},
		{"no server of ours", []*ua.DataValue{level, state, uris}, Sample{ServiceLevel: 200, State: ua.ServerStateSuspended, ApplicationURI: "urn:demo:m2"}, ""},
		{"between two generations", []*ua.DataValue{level, state, uris, value(uint64(6)), digest, role, generation},
			Sample{ServiceLevel: 200, State: ua.ServerStateSuspended, ApplicationURI: "urn:demo:m2"}, ""},
		{"no generation yet", []*ua.DataValue{level, state, uris, value(uint64(0)), {}, role, value(uint64(0))},
			Sample{ServiceLevel: 200, State: ua.ServerStateSuspended, ApplicationURI: "urn:demo:m2"}, ""},
		{"described by other types", []*ua.DataValue{level, state, uris, generation, value(int32(1)), value([]string{"Primary"}), generation},
			Sample{ServiceLevel: 200, State: ua.ServerStateSuspended, ApplicationURI: "urn:demo:m2", Generation: 7}, ""},
		{"endless texts", []*ua.DataValue{level, state, value([]string{strings.Repeat("u", 1<<16)}), generation, value(strings.Repeat("d", 1<<16)), role, generation},
			Sample{200, ua.ServerStateSuspended, strings.Repeat("u", maxDescribedBytes), 7, strings.Repeat("d", maxDescribedBytes), "Primary"}, ""},
		{"the level only", []*ua.DataValue{level, {Status: ua.StatusBadNodeIDUnknown}, {}}, Sample{ServiceLevel: 200, State: ua.ServerStateUnknown}, ""},
		{"other types", []*ua.DataValue{level, value("running"), value([]string{})}, Sample{ServiceLevel: 200, State: ua.ServerStateUnknown}, ""},
		{"no level", []*ua.DataValue{{Status: ua.StatusBadNotReadable}, state, uris}, Sample{}, "ServiceLevel"},
		{"an uncertain level", []*ua.DataValue{{Status: ua.StatusUncertain, Value: ua.MustVariant(byte(255))}, state, uris}, Sample{}, "ServiceLevel"},
		{"a level without a value", []*ua.DataValue{{}, state, uris}, Sample{}, "ServiceLevel"},
		{"a level of another type", []*ua.DataValue{value(int32(255)), state, uris}, Sample{}, "ServiceLevel"},
	} {
		got, err := interpret(c.values)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestNodesAreThoseOfThePeersOwnNamespaceTable(t *testing.T) {
	names := func(nodes []*ua.NodeID) (list []string) {
		for _, n := range nodes {
			list = append(list, n.String())
		}
		return list
	}
	standard := []string{"i=2267", "i=2259", "i=2254"}
	if got := names(nodesOf("m2", []string{"http://opcfoundation.org/UA/", "urn:other"})); !slices.Equal(got, standard) {
		t.Errorf("of a server that is none of ours %v are read", got)
	}
	want := append(standard, "ns=3;s=servers/m2/ConfigGenerationId", "ns=3;s=servers/m2/TopologyDigest", "ns=3;s=servers/m2/Role", "ns=3;s=servers/m2/ConfigGenerationId")
	if got := names(nodesOf("m2", []string{"", "urn:a", "urn:b", stateNamespace})); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := nodesOf("m2", append(make([]string, 1<<16), stateNamespace)); len(got) != len(standard) {
		t.Errorf("an index that no NodeId has is read: %v", names(got))
	}
}

func TestHealthMustAnswerItselfAndWell(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"/ok":       func(http.ResponseWriter, *http.Request) {},
		"/large":    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 10*maxHealthBody)) },
		"/sick":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"/redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) },
		"/header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHealthBody))
		},
		"/slow": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answers[r.URL.Path](w, r) }))
	defer server.Close()
	p := NewProber(ProberConfig{})
	defer p.Close()
	for path, want := range map[string]string{
		"/ok": "", "/large": "", "/sick": "503", "/redirect": "302", "/header": "exceed", "/slow": context.DeadlineExceeded.Error(),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if path == "/slow" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		}
		err := p.Open(Target{HealthURL: server.URL + path}).(*probe).health(ctx)
		cancel()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if err := p.Open(Target{HealthURL: "http://[::1"}).(*probe).health(t.Context()); err == nil {
		t.Error("a URL that does not parse is healthy")
	}
	if err := p.Open(Target{}).(*probe).health(t.Context()); err != nil {
		t.Errorf("without a health URL: %v", err)
	}
}

func TestSampleFailsFastOnHealth(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	p := NewProber(ProberConfig{})
	defer p.Close()
	// The OPC UA half would hang until the deadline.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	probe := p.Open(Target{HealthURL: server.URL, EndpointURL: "opc.tcp://192.0.2.1:4840"})
	defer probe.Close()
	if _, err := probe.Sample(ctx); err == nil || !strings.Contains(err.Error(), "404") || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
