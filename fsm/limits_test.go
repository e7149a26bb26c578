package fsm

import (
	"fmt"
	"strings"
	"testing"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
)

// Limits that a transcript reaches (sets, servers, texts, bytes of a topology, leases and windows of a server) are not repeated here.

// TestGenerationsAreBounded publishes until the oldest digest goes.
func TestGenerationsAreBounded(t *testing.T) {
	s := New()
	apply(t, s, 0, sync("m1", "m2"))
	const most = MaxGenerationsWhole + MaxGenerationDigests
	for i := range uint64(most + 2) {
		apply(t, s, time.Duration(i)*time.Hour, publish(fmt.Sprint("p", i), i, pair("m1", "m2")))
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if n := s.topology.kept.Len(); n != most {
		t.Errorf("%d generations are kept, want %d", n, most)
	}
	for number, want := range map[uint64]struct{ kept, whole bool }{
		0: {}, 2: {}, 3: {true, false}, MaxGenerationDigests + 2: {true, false}, MaxGenerationDigests + 3: {true, true},
		most + 2: {true, true}, most + 3: {},
	} {
		if g, ok := s.Generation(number); ok != want.kept || (g.GetTopology() != nil) != want.whole {
			t.Errorf("generation %d is kept %t, whole %t; want %v", number, ok, g.GetTopology() != nil, want)
		}
	}
	// An answer is remembered by the number of its generation: what has left the history comes back without its document.
	if _, r := s.WholeGeneration(2); r.GetReason() != ReasonGenerationCompacted {
		t.Errorf("generation 2 is refused with %v", r)
	}
	roundTrip(t, s)
}

// TestAnswerOfCompactedGeneration repeats a publish whose document is no longer kept.
func TestAnswerOfCompactedGeneration(t *testing.T) {
	s := New()
	apply(t, s, 0, sync("m1", "m2"))
	first, _ := apply(t, s, 0, publish("first", 0, pair("m1", "m2")))
	for i := range uint64(MaxGenerationsWhole) {
		apply(t, s, 0, publish(fmt.Sprint("p", i), i+1, pair("m1", "m2")))
	}
	again, events := apply(t, s, 0, publish("first", 0, pair("m1", "m2")))
	g := again[0].GetGenerationPublished()
	if g.GetNumber() != 1 || g.GetDigest() != first[0].GetGenerationPublished().GetDigest() || g.GetTopology() != nil || len(events) > 0 {
		t.Errorf("the answer is %v with %d events", again[0], len(events))
	}
	if again[0].GetRevision() != first[0].GetRevision() || again[0].GetGeneration() != 1 {
		t.Errorf("the answer is of revision %d, generation %d", again[0].GetRevision(), again[0].GetGeneration())
	}
}

// TestRequestsAreBounded fills the request memory beyond MaxRequests: the oldest are forgotten, the newest are not.
func TestRequestsAreBounded(t *testing.T) {
	s := New()
	refused := func(i int) *logv1.Command { return begin(fmt.Sprint("r", i), "m1") }
	e := &logv1.Entry{}
	for i := range MaxRequests + 10 {
		e.Commands = append(e.Commands, refused(i))
	}
	if _, _, err := s.ApplyEntry(1, e); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	if n := s.requests.byAge.Len(); n != MaxRequests {
		t.Errorf("%d answers are remembered, want %d", n, MaxRequests)
	}
	for i, want := range map[int]uint64{9: 2, 10: 3, MaxRequests + 9: 1} {
		fork := s.Snapshot()
		if i == 10 {
			// The answer of 9 was remembered anew just before, which pushed out 10.
			apply(t, fork, 0, refused(9))
		}
		if outcomes, _ := apply(t, fork, 0, refused(i)); outcomes[0].GetRevision() != want {
			t.Errorf("request %d has the answer of revision %d, want %d", i, outcomes[0].GetRevision(), want)
		}
	}
	roundTrip(t, s)
}

// TestForgettingIsBounded lets a full memory grow old: each entry removes at most MaxForgetPerEntry, and none is used meanwhile.
func TestForgettingIsBounded(t *testing.T) {
	s := New()
	e := &logv1.Entry{}
	for i := range MaxForgetPerEntry + 100 {
		e.Commands = append(e.Commands, begin(fmt.Sprint("r", i), "m1"))
	}
	if _, _, err := s.ApplyEntry(1, e); err != nil {
		t.Fatal(err)
	}
	late := RequestMemory + 1
	last := begin(fmt.Sprint("r", MaxForgetPerEntry+99), "m1")
	outcomes, _ := apply(t, s, late, last)
	if n := s.requests.byAge.Len(); n != 100 || outcomes[0].GetRevision() != 2 {
		t.Errorf("%d answers are left, and the outdated one was answered from revision %d", n, outcomes[0].GetRevision())
	}
	apply(t, s, late, last)
	if n := s.requests.byAge.Len(); n != 1 {
		t.Errorf("%d answers are left, want 1", n)
	}
}

// TestEndedLeasesAreBounded ends more leases of one server than are kept.
func TestEndedLeasesAreBounded(t *testing.T) {
	s := New()
	apply(t, s, 0, sync("m1", "m2"), publish("p", 0, pair("m1", "m2")))
	for i := range MaxEndedLeases + 5 {
		apply(t, s, time.Duration(i)*time.Second, begin(fmt.Sprint("b", i), "m1"), end(fmt.Sprint("e", i), "m1"))
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	ended := s.Leases("m1", true)
	if len(ended) != MaxEndedLeases || ended[0].GetBegun().AsDuration() != 5*time.Second {
		t.Errorf("%d ended leases are kept, the first of %v", len(ended), ended[0].GetBegun().AsDuration())
	}
	roundTrip(t, s)
}

// TestMembersAreBounded syncs one member too many.
func TestMembersAreBounded(t *testing.T) {
	ids := make([]string, MaxMembers+1)
	for i := range ids {
		ids[i] = fmt.Sprint("m", i)
	}
	s := New()
	outcomes, _ := apply(t, s, 0, sync(ids...), sync(ids[:MaxMembers]...))
	if RefusalOf(outcomes[0]).GetReason() != ReasonInvalidMembers || RefusalOf(outcomes[1]) != nil || len(s.Members()) != MaxMembers {
		t.Errorf("%v, %v, %d members", outcomes[0], outcomes[1], len(s.Members()))
	}
}

// TestCommandVersion is the lowest that any member of the group has announced.
func TestCommandVersion(t *testing.T) {
	s := New()
	apply(t, s, 0, sync("m1", "m2"), announce("m1", CommandVersion))
	for i, c := range []struct{ announced, want uint32 }{{0, 1}, {1, 1}, {CommandVersion, CommandVersion}, {CommandVersion + 1, CommandVersion}} {
		apply(t, s, 0, announce("m2", c.announced))
		if got := s.CommandVersion(); got != c.want {
			t.Errorf("case %d: command version %d, want %d", i, got, c.want)
		}
	}
}

// TestUnknownCommandStops applies an entry with a command that this version does not know: nothing changes, not even the clock.
func TestUnknownCommandStops(t *testing.T) {
	s := sample(t)
	before := s.Digest()
	for name, c := range map[string]*logv1.Command{"no body": {RequestId: "x"}, "nil": nil} {
		_, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Clock: uint64(time.Hour), Commands: []*logv1.Command{publish("y", 2, pair("m1", "m3")), c}})
		if err == nil || !strings.Contains(err.Error(), "command 1: unknown command") {
			t.Errorf("%s: error %v", name, err)
		}
		if s.Digest() != before {
			t.Errorf("%s: the state changed", name)
		}
	}
}

// TestEndpoints tries the forms of URLs and ApplicationUris.
func TestEndpoints(t *testing.T) {
	long := strings.Repeat("x", MaxURLBytes)
	for text, want := range map[string]bool{
		"opc.tcp://m1:4841": true, "opc.tcp://m1.plant.example:4841/Quorate/Server": true, "opc.tcp://10.0.0.1:1": true,
		"opc.tcp://[fe80::1]:65535": true, "opc.tcp://my_host-2:4841/": true,
		"": false, "opc.tcp://": false, "opc.tcp://:4841": false, "opc.tcp://m1": false, "opc.tcp://m1:": false, "opc.tcp://m1:0": false,
		"opc.tcp://m1:65536": false, "opc.tcp://m1:999999": false, "opc.tcp://m1:48x1": false, "opc.tcp://m1:+484": false,
		"http://m1:4841": false, "OPC.TCP://m1:4841": false,
		"opc.tcp://m1 :4841": false, "opc.tcp://-m1:4841": false, "opc.tcp://m1..x:4841": false, "opc.tcp://user@m1:4841": false,
		"opc.tcp://[::1:4841": false, "opc.tcp://[::1]": false, "opc.tcp://[::1%eth0]:4841": false, "opc.tcp://[1.2.3.4]:4841": false,
		"opc.tcp://m1:4841/a?b": false, "opc.tcp://m1:4841/a#b": false, "opc.tcp://m1:4841/\x00": false, "opc.tcp://mü:4841": false,
		"opc.tcp://m1:4841/" + long: false, "opc.tcp://" + strings.Repeat("a.", 150) + "a:4841": false, "opc.tcp://" + long[:64] + ":4841": false,
	} {
		if got := validEndpointURL(text); got != want {
			t.Errorf("endpoint URL %q: %t, want %t", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"http://m1/healthz": true, "https://m1:8443/healthz": true, "http://[::1]:7201/healthz": true, "http://[::1]/healthz": true,
		"http://m1:7201": true, "http://m1?full=1": true, "http://m1:80/x?y=z": true,
		"": false, "m1/healthz": false, "http://": false, "http:///healthz": false, "http://m1:x/healthz": false, "http://m1/#top": false,
		"ftp://m1/healthz": false, "http://m1 /": false, "http://m1:/healthz": false, "http://u:p@m1/": false,
	} {
		if got := validHealthURL(text); got != want {
			t.Errorf("health URL %q: %t, want %t", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"urn:plant:m1": true, "urn:quorate:site:m1": true, "opc.tcp://m1": true, "opc.tcp://m1:4841/x": true,
		"": false, "urn:": false, "urn:plant": false, "urn::m1": false, "urn:plant:": false, "urn:plant:m 1": false, "opc.tcp://": false,
		"http://m1": false, "plant:m1": false, "urn:plant:" + long: false,
	} {
		if got := validApplicationURI(text); got != want {
			t.Errorf("ApplicationUri %q: %t, want %t", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"a": true, "line-a": true, "0.x_y-z": true, long[:64]: true, "": false, "-a": false, ".a": false, "A": false, "a b": false, "ä": false, long[:65]: false,
	} {
		if got := validID(text); got != want {
			t.Errorf("id %q: %t, want %t", text, got, want)
		}
	}
}
