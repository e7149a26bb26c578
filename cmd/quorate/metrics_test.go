package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md anew from what a member shows")

// metricsTable is the document that lists all metrics.
const metricsTable = "../../docs/metrics.md"

// commonLabels are those of every series.
var commonLabels = regexp.MustCompile(`(cluster|node)="[^"]*",?`)

// scraped is what a member shows at /metrics.
type scraped struct {
	values map[string]float64  // by name and labels, without those that are common
	kinds  map[string]string   // by name of the metric
	help   map[string]string   // by name of the metric
	labels map[string][]string // by name of the metric
}

func scrapeMember(ctx context.Context, t *testing.T, s *settings) scraped {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTP.Address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", response.Status, err, body)
	}
	got := scraped{map[string]float64{}, map[string]string{}, map[string]string{}, map[string][]string{}}
	name := ""
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, text, _ = strings.Cut(text, " ")
			got.help[name] = text
			continue
		}
		if text, ok := strings.CutPrefix(line, "# TYPE "); ok {
			_, got.kinds[name], _ = strings.Cut(text, " ")
			continue
		}
		if !strings.Contains(line, `cluster="`+s.Site+`"`) || !strings.Contains(line, `node="`+s.Member+`"`) {
			t.Errorf("not labelled with cluster and node: %s", line)
		}
		line = strings.NewReplacer("{}", "", ",}", "}").Replace(commonLabels.ReplaceAllString(line, ""))
		series, value, _ := strings.Cut(line, "} ")
		if series == line {
			series, value, _ = strings.Cut(line, " ")
		} else {
			series += "}"
		}
		if got.values[series], err = strconv.ParseFloat(value, 64); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		for _, label := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(series, -1) {
			if l := label[1]; l != "le" && l != "quantile" && !slices.Contains(got.labels[name], l) {
				got.labels[name] = append(got.labels[name], l)
			}
		}
	}
	return got
}

// table is how docs/metrics.md lists what a member shows.
func (s scraped) table() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
	for _, name := range sortedKeys(s.help) {
		labels := make([]string, len(s.labels[name]))
		for i, l := range s.labels[name] {
			labels[i] = "`" + l + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, s.kinds[name], strings.Join(labels, ", "), strings.ReplaceAll(s.help[name], "|", `\|`))
	}
	return b.String()
}

// eventually waits for what nothing announces.
func eventually(ctx context.Context, t *testing.T, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if !sleep(ctx, readyPoll) {
			t.Fatalf("never: %s", what)
		}
	}
}

// demoGroup runs two members in this process, with the demo topology.
func demoGroup(ctx context.Context, t *testing.T) *localGroup {
	t.Helper()
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planDev(&devFlags{members: 2, basePort: base, data: t.TempDir(), demo: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.write(); err != nil {
		t.Fatal(err)
	}
	group := newLocalGroup(plan)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := group.stop(); err != nil {
			t.Error(err)
		}
	})
	if err := group.start(); err != nil {
		t.Fatal(err)
	}
	if err := plan.ready(ctx, true); err != nil {
		t.Fatal(err)
	}
	return group
}

// TestMetricsOfARunningMember scrapes a member as Prometheus does, and compares with the table in the documentation, both ways.
func TestMetricsOfARunningMember(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	group := demoGroup(ctx, t)
	m, s := group.members[0], group.plan.members[0].settings
	placePartition(ctx, t, m)
	before := scrapeMember(ctx, t, s)
	for _, known := range m.metrics.Known() {
		if before.kinds[known.Name] != string(known.Kind) || !slices.Equal(slices.Sorted(slices.Values(before.labels[known.Name])), slices.Sorted(slices.Values(known.Labels))) {
			t.Errorf("%s is registered as a %s by %v, and shown as a %q by %v",
				known.Name, known.Kind, known.Labels, before.kinds[known.Name], before.labels[known.Name])
		}
	}
	document, err := os.ReadFile(metricsTable)
	if err != nil {
		t.Fatal(err)
	}
	listed := regexp.MustCompile(`(?m)^\| metric \|.*\n(\|.*\n)+`)
	if *update {
		document = listed.ReplaceAllLiteral(document, []byte(before.table()))
		if err := os.WriteFile(metricsTable, document, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := string(listed.Find(document)); got != before.table() {
		t.Errorf("docs/metrics.md lists\n%s\na member shows\n%s\nrun go test ./cmd/quorate -run Metrics -update", got, before.table())
	}

	for series, want := range map[string]float64{
		"ot_opcua_service_level": 255, "ot_opcua_apply_in_progress": 0, `ot_opcua_peer_reachable{peer="m2"}`: 1, "quorate_ready": 1,
		"quorate_gate_wait_duration_seconds_count": 1,
		`quorate_raft_members{suffrage="voter"}`:   2, "quorate_redundancy_adopted_generation": 1, `quorate_opcua_limit{of="sessions"}`: 4000,
	} {
		if got, ok := before.values[series]; !ok || got != want {
			t.Errorf("%s is %v (shown: %t), want %v", series, got, ok, want)
		}
	}
	for _, series := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if before.values[series] < 1 {
			t.Errorf("%s is %v", series, before.values[series])
		}
	}
	metricsMove(ctx, t, m, s, before)
}

// placePartition makes a member the leader and lets it make a transition of a partition: what a leader measures of those has no series before.
func placePartition(ctx context.Context, t *testing.T, m *member) {
	t.Helper()
	if leader, err := m.node.TransferLeadership(ctx, m.node.ID()); err != nil || leader != m.node.ID() {
		t.Fatal(leader, err)
	}
	for i, c := range []*logv1.Command{
		{Body: &logv1.Command_CreatePartitions{CreatePartitions: &logv1.CreatePartitions{Ids: []string{"metrics"}, Placement: "b1"}}},
		{Body: &logv1.Command_SetPlacement{SetPlacement: &logv1.SetPlacement{Partition: "metrics", Placement: "b2"}}},
	} {
		c.RequestId, c.Actor = fmt.Sprint("metrics-", i), &quoratev1.Actor{Name: "test"}
		if outcome, err := m.node.Propose(ctx, c); err != nil || outcome.GetRefusal() != nil {
			t.Fatal(outcome, err)
		}
	}
}

// metricsMove does one of each and looks for it.
func metricsMove(ctx context.Context, t *testing.T, m *member, s *settings, before scraped) {
	t.Helper()
	client, err := session.Open(ctx, s.OPCUA.EndpointURL, session.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(ctx, ua.NewNumericNodeID(0, id.Server_ServiceLevel)); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Call[*ua.CreateSubscriptionResponse](ctx, client, &ua.CreateSubscriptionRequest{RequestedPublishingInterval: 1000}); err != nil {
		t.Fatal(err)
	}
	stranger, err := net.Dial("tcp", s.OPCUA.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := io.WriteString(stranger, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	lease := &logv1.Command{RequestId: "metrics", Actor: &quoratev1.Actor{Name: "test"},
		Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: s.Member}}}
	if outcome, err := m.node.Propose(ctx, lease); err != nil || outcome.GetRefusal() != nil {
		t.Fatal(outcome, err)
	}
	var now scraped
	eventually(ctx, t, "the stranger is rejected", func() bool {
		now = scrapeMember(ctx, t, s)
		const malformed, tooLarge = `quorate_opcua_connections_rejected_total{reason="malformed"}`, `quorate_opcua_connections_rejected_total{reason="too_large"}`
		return now.values[malformed]+now.values[tooLarge] > before.values[malformed]+before.values[tooLarge]
	})
	for series, least := range map[string]float64{
		"quorate_opcua_connections": 1, "quorate_opcua_connections_total": 2, "quorate_opcua_sessions": 1, "quorate_opcua_subscriptions": 1,
		`quorate_opcua_requests_total{result="good",service="Read"}`: 1, `quorate_opcua_requests_total{result="good",service="CreateSession"}`: 1,
		`quorate_proposals_total{result="accepted"}`: 1, "quorate_proposal_duration_seconds_count": 1, "quorate_state_revision": 1,
		"quorate_raft_commit_index": 1, "ot_opcua_apply_in_progress": 1, "ot_opcua_service_level": 200 - 255,
	} {
		if moved := now.values[series] - before.values[series]; moved < least {
			t.Errorf("%s moved by %v from %v, want %v or more", series, moved, before.values[series], least)
		}
	}
	if level := now.values["ot_opcua_service_level"]; level != 200 {
		t.Errorf("the level of the server that is mid-apply is shown as %v", level)
	}
	client.Close()
	eventually(ctx, t, "the session is gone", func() bool {
		now = scrapeMember(ctx, t, s)
		return now.values["quorate_opcua_sessions"] == before.values["quorate_opcua_sessions"]
	})
}
