package traffic

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quorate/client"
	"quorate/jepsen/history"
	"quorate/jepsen/lab"
	quoratev1 "quorate/proto/quorate/v1"
)

// TestOutcomes says of each kind of failure whether the change may have happened.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		err     error
		changes bool
		want    history.Outcome
	}{
		{nil, true, history.OK},
		{&client.Error{Code: codes.Unavailable, Reason: client.ReasonNoLeader}, true, history.Failed},
		{&client.Error{Code: codes.Unavailable}, true, history.Unknown},
		{&client.Error{Code: codes.Unavailable, Reason: client.ReasonNoLeader, OutcomeUnknown: true}, true, history.Unknown},
		{&client.Error{Code: codes.Unknown, Reason: client.ReasonUnknownOutcome}, true, history.Unknown},
		{&client.Error{Code: codes.FailedPrecondition, Reason: client.ReasonBarrierPending}, true, history.Refused},
		{&client.Error{Code: codes.Aborted, Reason: client.ReasonStaleEpoch}, false, history.Refused},
		{&client.Error{Code: codes.DeadlineExceeded}, false, history.Failed},
		{status.Error(codes.DeadlineExceeded, "late"), true, history.Unknown},
		{context.DeadlineExceeded, true, history.Unknown},
	} {
		if got := outcomeOf(c.err, c.changes); got != c.want {
			t.Errorf("%v, changes %v: %s, want %s", c.err, c.changes, got, c.want)
		}
	}
}

// TestEachChangeHasARequestID names changes and leaves reads alone.
func TestEachChangeHasARequestID(t *testing.T) {
	change, again := &quoratev1.AbortMigrationRequest{}, &quoratev1.AbortMigrationRequest{}
	if !identify(change) || !identify(again) || change.GetRequestId() == "" || change.GetRequestId() == again.GetRequestId() {
		t.Errorf("%q, %q", change.GetRequestId(), again.GetRequestId())
	}
	if identify(&quoratev1.GetPartitionRequest{}) {
		t.Error("a read has a request id")
	}
}

// TestDocumentsExemptNobody makes many topologies: each has one Primary in each set and no policy under which two servers may be Healthy at once, and nobody who left.
func TestDocumentsExemptNobody(t *testing.T) {
	s := &shape{away: map[string]bool{}, members: []*lab.Member{{ID: "m1"}, {ID: "m2"}, {ID: "m3"}}}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		if i == 100 {
			s.leave("m2")
		}
		if i == 200 {
			s.leave("m1")
		}
		for _, set := range s.document(r).GetSets() {
			primaries := 0
			for _, server := range set.GetServers() {
				if s.away[server.GetMember()] {
					t.Fatalf("%s is in the topology", server.GetMember())
				}
				if server.GetRole() == "Primary" {
					primaries++
				}
			}
			if p := set.GetPolicies(); primaries != 1 || p.GetHotBackupsHealthy() || p.GetQuorumLoss() != "degrade" {
				t.Fatalf("%v", set)
			}
		}
	}
	s.leave("m3")
	if s.document(r) != nil {
		t.Error("a topology without servers")
	}
	s.stay("m2")
	if got := s.document(r).GetSets()[0].GetServers(); len(got) != 1 || got[0].GetMember() != "m2" {
		t.Errorf("%v", got)
	}
}

// TestNoWriteLandsLate sends writes of checks of now and of long ago: those land within the limit, and these never. Each ends once.
func TestNoWriteLandsLate(t *testing.T) {
	log, err := history.Create(filepath.Join(t.TempDir(), "h"))
	if err != nil {
		t.Fatal(err)
	}
	s, r := newStores(log), rand.New(rand.NewPCG(1, 2))
	ended := make(chan struct{}, 3*maxWrites)
	for range 50 {
		s.write(r, &history.Op{ID: 1, Call: log.Since()}, "p1", "b1", 7, func() { ended <- struct{}{} })
		s.write(r, &history.Op{ID: 2, Call: log.Since() - 2*WriteLimit}, "p1", "b1", 6, func() { ended <- struct{}{} })
	}
	s.wait()
	if len(ended) != 100 {
		t.Errorf("%d writes ended, want 100", len(ended))
	}
	landed := 0
	for _, op := range log.History().Ops {
		if op.Outcome == history.OK {
			landed++
		}
		if late := strings.Contains(string(op.Input), `"gate":2`); op.Key != "p1" || op.Client != "store-b1" || late != (op.Outcome == history.Failed) {
			t.Errorf("%+v", op)
		}
	}
	if landed != 50 {
		t.Errorf("%d writes landed, want 50", landed)
	}
	// One more than there is room for is not written.
	for range maxWrites {
		s.slots <- struct{}{}
	}
	s.write(r, &history.Op{Call: log.Since()}, "p1", "b1", 7, func() { ended <- struct{}{} })
	if len(ended) != 101 {
		t.Error("what was not written did not end")
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFailoverLines keeps what matters of what the failover client prints.
func TestFailoverLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "h")
	log, err := history.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	e := &Env{Log: log}
	last := e.tell([]byte(`{"type":"value"}`), 0)
	if next := e.tell([]byte(`{"type":"value"}`), last); next < last {
		t.Errorf("%v after %v", next, last)
	}
	e.tell([]byte(`{"type":"value"}`), last-2*time.Second)
	e.tell([]byte(`{"type":"cutOver","lost":3}`), last)
	e.tell([]byte(`oops`), last)
	var texts []string
	for _, m := range log.History().Marks {
		texts = append(texts, m.Text+" "+string(m.Data))
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if len(texts) != 4 || texts[2] != `cutOver {"type":"cutOver","lost":3}` || texts[3] != `unreadable "oops"` {
		b, _ := os.ReadFile(name)
		t.Errorf("%q\n%s", texts, b)
	}
}

// TestOwnLabelsAreLeftOut names series by those labels that differ between those of one member.
func TestOwnLabelsAreLeftOut(t *testing.T) {
	for text, want := range map[string]string{
		`go_goroutines{cluster="c",node="m1"}`:                                  `go_goroutines`,
		`quorate_snapshots_total{cluster="c",node="m1",result="restored"}`:      `quorate_snapshots_total{result="restored"}`,
		`quorate_parts_total{cluster="c",kind="a",node="m1"}`:                   `quorate_parts_total{kind="a"}`,
		`ot_opcua_peer_reachable{cluster="c",node="m1",peer="m2"}`:              `ot_opcua_peer_reachable{peer="m2"}`,
		`quorate_wait_seconds_bucket{cluster="c",node="m1",le="0.01",way="in"}`: `quorate_wait_seconds_bucket{le="0.01",way="in"}`,
	} {
		if got := ownLabels.ReplaceAllString(text, ""); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestRemovedTwice: the first attempt's outcome may be unknown, and then the second finds that it was done.
func TestRemovedTwice(t *testing.T) {
	if err := removed(&client.Error{Code: codes.NotFound, Reason: client.ReasonUnknownMember}); err != nil {
		t.Errorf("a member that is gone: %v", err)
	}
	for _, err := range []error{errors.New("anything"), &client.Error{Code: codes.Unknown, Reason: client.ReasonUnknownOutcome}} {
		if !errors.Is(removed(err), err) {
			t.Errorf("%v became %v", err, removed(err))
		}
	}
}
