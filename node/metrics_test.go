package node

import (
	"errors"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/telemetry"
)

// common are the labels that every series has.
var common = regexp.MustCompile(`(cluster|node)="[^"]*",?`)

// scrape returns the values of all series, each by its name and its labels but cluster and node.
func scrape(t *testing.T, m *telemetry.Metrics) map[string]float64 {
	t.Helper()
	answer := httptest.NewRecorder()
	m.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	values := map[string]float64{}
	for line := range strings.Lines(answer.Body.String()) {
		line = common.ReplaceAllString(strings.TrimSpace(line), "")
		line = strings.NewReplacer("{}", "", ",}", "}").Replace(line)
		if series, value, ok := strings.Cut(line, " "); ok && series != "#" {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			values[series] = n
		}
	}
	return values
}

func TestMemberMeasuresItself(t *testing.T) {
	metrics, err := telemetry.NewMetrics("site", "m1")
	if err != nil {
		t.Fatal(err)
	}
	g := startGroup(t, 1, func(c *Config) { c.Metrics = metrics })
	g.ready()
	n := g.leader()
	before := scrape(t, metrics)
	publish := publishCommand("a", 0)
	sets := publish.GetPublishTopology().GetTopology().GetSets()
	sets[0].Servers = sets[0].GetServers()[:1]
	if outcome, err := n.Propose(t.Context(), publish); err != nil || outcome.GetRefusal() != nil {
		t.Fatal(outcome, err)
	}
	if outcome, err := n.Propose(t.Context(), publishCommand("b", 7)); err != nil || outcome.GetRefusal() == nil {
		t.Fatal(outcome, err)
	}
	if _, err := n.Propose(t.Context(), &logv1.Command{}); err == nil {
		t.Fatal("a command without a body was taken")
	}
	for _, options := range []*quoratev1.ReadOptions{nil, bounded(time.Minute), {Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}} {
		if _, err := n.Read(t.Context(), options); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Read(t.Context(), bounded(-1)); err == nil {
		t.Fatal("a read of the future was answered")
	}
	watch, err := n.Watch(0)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	after := scrape(t, metrics)
	// The member proposes and reads for itself too, so some only have to have moved.
	for series, least := range map[string]float64{
		`quorate_proposals_total{result="accepted"}`:                  1,
		`quorate_proposals_total{result="refused"}`:                   1,
		`quorate_proposals_total{result="failed"}`:                    1,
		`quorate_proposal_duration_seconds_count`:                     3,
		`quorate_entries_total`:                                       1,
		`quorate_entry_commands_total`:                                1,
		`quorate_reads_total{consistency="linearizable",result="ok"}`: 1,
		`quorate_reads_total{consistency="bounded",result="ok"}`:      1,
		`quorate_reads_total{consistency="bounded",result="failed"}`:  1,
		`quorate_reads_total{consistency="local",result="ok"}`:        1,
		`quorate_watches`:                           1,
		`quorate_raft_commit_index`:                 1,
		`quorate_raft_applied_index`:                1,
		`quorate_state_revision`:                    1,
		`quorate_state_generation`:                  1,
		`quorate_snapshots_total{result="written"}`: 1,
		`quorate_snapshot_revision`:                 1,
		`quorate_snapshot_size_bytes`:               1,
	} {
		if moved := after[series] - before[series]; moved < least {
			t.Errorf("%s moved by %v from %v, want %v or more", series, moved, before[series], least)
		}
	}
	for series, want := range map[string]float64{
		"quorate_raft_leader": 1, "quorate_raft_leaderships_total": 1, "quorate_raft_last_contact_seconds": 0, "quorate_ready": 1, "quorate_diverged": 0,
		"quorate_storage_tight": 0, "quorate_proposals_waiting": 0, `quorate_raft_members{suffrage="voter"}`: 1, `quorate_raft_members{suffrage="learner"}`: 0,
		`quorate_proposals_total{result="unknown"}`: 0, "quorate_watches_compacted_total": 0, `quorate_snapshots_total{result="failed"}`: 0,
	} {
		if got, ok := after[series]; !ok || got != want {
			t.Errorf("%s is %v (shown: %t), want %v", series, got, ok, want)
		}
	}
	if term := after["quorate_raft_term"]; term != float64(n.raft.CurrentTerm()) {
		t.Errorf("term is %v", term)
	}
	watch.Close()
	watch.Close()
	if left := scrape(t, metrics)["quorate_watches"]; left != 0 {
		t.Errorf("%v watches are left", left)
	}
}

func TestResultsAreCounted(t *testing.T) {
	var c counts
	c.proposed(nil, &Error{Kind: UnknownOutcome}, time.Second)
	c.proposed(nil, &Error{Kind: Overloaded}, time.Second)
	c.proposed(&logv1.Outcome{}, nil, time.Second)
	c.proposed(&logv1.Outcome{Result: &logv1.Outcome_Refusal{Refusal: &logv1.Refusal{}}}, nil, time.Second)
	for i := range c.proposals {
		if n := c.proposals[i].Load(); n != 1 {
			t.Errorf("%s is %d, want 1", resultNames[i], n)
		}
	}
	c.compaction(nil)
	c.compaction(errors.New("other"))
	c.compaction(&CompactedError{})
	if n := c.compacted.Load(); n != 1 {
		t.Errorf("%d watches were compacted, want 1", n)
	}
}
