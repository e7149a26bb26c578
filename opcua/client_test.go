package opcua

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/redundancy"
)

func TestParseNode(t *testing.T) {
	for in, want := range map[string]string{
		"ServiceLevel": "i=2267", "servicelevel": "i=2267", "RedundantServerArray": "i=11313", "i=2258": "i=2258",
		"ns=2;s=servers/m1/Role": "ns=2;s=servers/m1/Role",
	} {
		n, err := ParseNode(in)
		if err != nil || n.String() != want {
			t.Errorf("ParseNode(%q) = %v, %v; want %s", in, n, err, want)
		}
	}
	for _, in := range []string{"", "ServiceLevels", "ns=x;i=1", "i=-1", "ns=70000;i=1"} {
		if n, err := ParseNode(in); err == nil || !strings.Contains(err.Error(), "node ") {
			t.Errorf("ParseNode(%q) = %v, %v", in, n, err)
		}
	}
	if names := WellKnownNames(); !slices.IsSorted(names) || !slices.Contains(names, "servicelevel") {
		t.Errorf("names %q", names)
	}
}

func TestReadingsAreJSON(t *testing.T) {
	at := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	for _, c := range []struct {
		value *ua.DataValue
		want  string
	}{
		{&ua.DataValue{Value: ua.MustVariant(byte(255)), SourceTimestamp: at}, `{"node":"n","value":255,"status":"Good","sourceTimestamp":"2031-02-03T04:05:06Z"}`},
		{&ua.DataValue{Value: ua.MustVariant([]string{"a"})}, `{"node":"n","value":["a"],"status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant(math.NaN())}, `{"node":"n","value":"NaN","status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant([]float64{1, math.Inf(1)})}, `{"node":"n","value":[1,"+Inf"],"status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant(ua.NewLocalizedText("hello"))}, `{"node":"n","value":"hello","status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant([]*ua.QualifiedName{{NamespaceIndex: 2, Name: "m1"}})}, `{"node":"n","value":["2:m1"],"status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant(ua.NewNumericNodeID(0, 2267))}, `{"node":"n","value":"i=2267","status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant(ua.StatusBadNodeIDUnknown)}, `{"node":"n","value":"BadNodeIdUnknown","status":"Good"}`},
		{&ua.DataValue{Status: ua.StatusBadTCPEndpointURLInvalid}, `{"node":"n","value":null,"status":"BadTcpEndpointUrlInvalid"}`},
		{&ua.DataValue{Status: 0x480, Value: &ua.Variant{}}, `{"node":"n","value":null,"status":"Good"}`}, // with the overflow bit
		{&ua.DataValue{Value: ua.MustVariant(ua.NewExtensionObject(&ua.RedundantServerDataType{ServerID: "m1", ServiceLevel: 255}))},
			`{"node":"n","value":{"ServerID":"m1","ServiceLevel":255,"ServerState":0},"status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant([]*ua.ExtensionObject{nil, {}})}, `{"node":"n","value":[null,null],"status":"Good"}`},
		{&ua.DataValue{Value: ua.MustVariant(at.AddDate(20_000, 0, 0)), ServerTimestamp: at.AddDate(20_000, 0, 0)},
			`{"node":"n","value":"9999-12-31T23:59:59Z","status":"Good","serverTimestamp":"9999-12-31T23:59:59Z"}`},
		{&ua.DataValue{Value: ua.MustVariant(time.Time{})}, `{"node":"n","value":null,"status":"Good"}`},
	} {
		got, err := json.Marshal(ReadingOf("n", c.value))
		if err != nil || string(got) != c.want {
			t.Errorf("got %s, %v, want %s", got, err, c.want)
		}
	}
}

func TestReadRefusesWhatItCannotAsk(t *testing.T) {
	if _, err := Read(within(t), ClientConfig{Endpoint: "opc.tcp://127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "nodes: 0 given") {
		t.Errorf("no nodes: %v", err)
	}
	if _, err := Read(within(t), ClientConfig{}, slices.Repeat([]string{"i=1"}, MaxClientNodes+1)...); err == nil || !strings.Contains(err.Error(), "nodes: 1001 given") {
		t.Errorf("too many nodes: %v", err)
	}
	l := listen(t)
	closed := "opc.tcp://" + l.Addr().String()
	l.Close()
	if _, err := Read(within(t), ClientConfig{Endpoint: closed}, "i=2267"); err == nil {
		t.Error("a server that is not there was read")
	}
	if err := Watch(within(t), ClientConfig{Endpoint: closed}, 0, []string{"i=2267"}, func(Reading) {}); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that is not there was watched: %v", err)
	}
	if err := Watch(within(t), ClientConfig{}, time.Hour, []string{"i=2267"}, nil); err == nil || !strings.Contains(err.Error(), "interval: 1h0m0s") {
		t.Errorf("interval: %v", err)
	}
}

// watching watches a node until the test ends, and gives what it sees.
func watching(t *testing.T, cfg ClientConfig, nodes ...string) <-chan Reading {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan Reading, 10_000)
	done := make(chan error, 1)
	go func() { done <- Watch(ctx, cfg, 10*time.Millisecond, nodes, func(r Reading) { seen <- r }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
	})
	return seen
}

func next(t *testing.T, seen <-chan Reading) Reading {
	t.Helper()
	select {
	case r := <-seen:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was seen for 10 s")
		return Reading{}
	}
}

func TestWatchSeesEveryChangeOfTheLevel(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	seen := watching(t, cfg, "ServiceLevel")
	if r := next(t, seen); r.Value != byte(255) || r.Node != "ServiceLevel" || r.Status != "Good" || r.SourceTimestamp == nil || r.ServerTimestamp == nil {
		t.Fatalf("first value %+v", r)
	}
	for i := range 100 {
		in, want := healthyPrimary, byte(255)
		if in.MidApply = i%2 == 0; in.MidApply {
			want = 200
		}
		f.move(in)
		if r := next(t, seen); r.Value != want {
			t.Fatalf("change %d: %+v, want %d", i, r, want)
		}
	}
}

func TestWatchSeesWhatTheGroupApplies(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	seen := watching(t, cfg, "RedundancySupport")
	if r := next(t, seen); r.Value != int32(0) {
		t.Fatalf("before the first publish: %+v", r)
	}
	for i, mode := range []string{"WARM", "HOT", "COLD"} {
		g.publish(mode, serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
		if r := next(t, seen); r.Value != []int32{2, 3, 1}[i] {
			t.Errorf("after publishing %s: %+v", mode, r)
		}
	}
}

func TestWatchReconnects(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	f := &fitness{}
	f.move(healthyPrimary)
	l := listen(t)
	e, cfg := serve(t, l, "m1", g, f)
	seen := watching(t, cfg, "ServiceLevel", "i=99999")
	unknown := next(t, seen)
	if unknown.Status != "BadNodeIdUnknown" || unknown.Node != "i=99999" {
		t.Errorf("unknown node: %+v", unknown)
	}
	if r := next(t, seen); r.Value != byte(255) {
		t.Errorf("first value %+v", r)
	}
	if err := e.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"ServiceLevel", "i=99999"} {
		if r := next(t, seen); r.Status != "BadNoCommunication" || r.Node != node {
			t.Errorf("after the server's end: %+v", r)
		}
	}
	again, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	serve(t, again, "m1", g, f)
	if r := next(t, seen); r.Status != "BadNodeIdUnknown" {
		t.Errorf("after the restart: %+v", r)
	}
	if r := next(t, seen); r.Value != byte(255) {
		t.Errorf("after the restart: %+v", r)
	}
}

func TestShutdownIsAnnounced(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	f := &fitness{}
	f.move(healthyPrimary)
	e, cfg := serve(t, listen(t), "m1", g, f, func(c *Config) { c.ShutdownNotice = time.Second })
	seen := watching(t, cfg, "State", "ShutdownReason")
	got := map[string]any{}
	for range 2 {
		r := next(t, seen)
		got[r.Node] = r.Value
	}
	if got["State"] != int32(ua.ServerStateRunning) || got["ShutdownReason"] != "" {
		t.Errorf("before the end: %v", got)
	}
	ended := make(chan error, 1)
	ctx := within(t)
	go func() { ended <- e.Shutdown(ctx) }()
	for range 2 {
		r := next(t, seen)
		got[r.Node] = r.Value
	}
	if got["State"] != int32(ua.ServerStateShutdown) || got["ShutdownReason"] != "The member is stopping." {
		t.Errorf("at the end: %v", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
