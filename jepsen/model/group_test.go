package model

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"quorate/jepsen/history"
)

// event is a mark of an event that a watch was told.
func event(at time.Duration, text string) history.Mark {
	return history.Mark{At: at, Kind: "event", Data: json.RawMessage(`{"watch":"w","event":` + text + `}`)}
}

func judged(t *testing.T, noun string, past history.History) Verdict {
	t.Helper()
	verdicts, err := Check(past, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verdicts {
		if v.Noun == noun {
			return v
		}
	}
	t.Fatalf("nothing was judged of %s", noun)
	return Verdict{}
}

// TestOwnWrites: what the group itself puts into the log is known by its events.
func TestOwnWrites(t *testing.T) {
	published := `c0 1 2 topology publish topology ok {"requestId":"g1","expectedGeneration":"0","topology":` + document + `} {"header":{"revision":"10"},"generation":{"number":"1","digest":"` + digest(t) + `","publishRequestId":"g1"}}` + "\n"
	key := `{"server":"m1","generation":"1","publishRequestId":"g1"}`
	begun := func(at time.Duration) history.Mark {
		return event(at, `{"revision":"20","leaseBegun":{"key":`+key+`,"set":"s","rollout":true,"windows":1}}`)
	}
	refused := published + `c1 30 31 lease begin m2 refused {"requestId":"l1","server":"m2","publishRequestId":"x"} APPLY_IN_PROGRESS` + "\n"
	listed := published + `c1 30 31 lease list all ok {} {"header":{"revision":"20"},"leases":[{"key":` + key + `,"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}]}` + "\n"
	empty := published + `c1 50 51 lease list all ok {} {"header":{"revision":"40"}}` + "\n"
	ended := event(45, `{"revision":"30","leaseEnded":{"key":`+key+`,"set":"s"}}`)
	abandoned := event(45, `{"revision":"30","leaseAbandoned":{"key":`+key+`,"set":"s"}}`)
	two := `c1 22 23 lease begin m1 ok {"requestId":"l1","server":"m1","publishRequestId":"x"} {"lease":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}}
		c1 24 25 lease begin m1 ok {"requestId":"l2","server":"m1","publishRequestId":"x"} {"lease":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":2,"set":"s"}}` + "\n"
	watchdog := event(45, `{"revision":"30","leaseAbandoned":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"set":"s"}}`)
	// The second generation is in force, and doesn't change the set: the roll-out of the first goes on.
	second := published + `c0 21 22 lease begin m2 ok {"requestId":"l0","server":"m2","publishRequestId":"y"} {"lease":{"key":{"server":"m2","generation":"2","publishRequestId":"y"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}}
		c0 23 24 lease end m2 ok {"requestId":"l00","server":"m2","generation":"2","publishRequestId":"y"} {"lease":{"key":{"server":"m2","generation":"2","publishRequestId":"y"},"state":"LEASE_STATE_ENDED","set":"s"}}` + "\n"
	late := event(25, `{"revision":"20","generation":"2","leaseBegun":{"key":`+key+`,"set":"s","rollout":true,"windows":1}}`)
	// The same server has a lease under either generation; the group lists them by their keys.
	client := `{"key":{"server":"m1","generation":"2","publishRequestId":"a"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}`
	both := second + `c0 26 27 lease begin m1 ok {"requestId":"l3","server":"m1","publishRequestId":"a"} {"lease":` + client + `}
		c1 30 31 lease list all ok {} {"header":{"revision":"20"},"leases":[{"key":` + key + `,"state":"LEASE_STATE_OPEN","windows":1,"set":"s"},` + client + `]}` + "\n"
	// A client was not told that its lease began, under a generation of which no call of leases tells before.
	untold := published + `c0 5 0 lease begin m2 unknown {"requestId":"u0","server":"m2","publishRequestId":"y"} -
		c0 21 0 lease begin m2 unknown {"requestId":"u1","server":"m2","publishRequestId":"y"} -
		c1 30 31 lease list all ok {} {"header":{"revision":"20"},"leases":[{"key":{"server":"m2","generation":"2","publishRequestId":"y"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}]}` + "\n"
	begunByEvent := event(25, `{"revision":"20","generation":"2","requestId":"u1","leaseBegun":{"key":{"server":"m2","generation":"2","publishRequestId":"y"},"set":"s","windows":1}}`)
	// Watches were told of everything.
	watched := history.Mark{Kind: "run", Data: json.RawMessage(`{"workloads":["lease","watch"]}`)}
	mine := `{"server":"m2","generation":"1","publishRequestId":"y"}`
	unsure := published + `c0 5 0 lease begin m2 unknown {"requestId":"u0","server":"m2","publishRequestId":"y"} -
		c1 30 31 lease list all ok {} {"header":{"revision":"20"},"leases":[{"key":` + mine + `,"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}]}` + "\n"
	began := event(25, `{"revision":"20","requestId":"u0","leaseBegun":{"key":`+mine+`,"set":"s","windows":1}}`)
	unsureEnd := published + two + `c1 26 0 lease end m1 unknown {"requestId":"u2","server":"m1","generation":"1","publishRequestId":"x"} -
		c1 27 0 lease end m1 unknown {"requestId":"u3","server":"m1","generation":"1","publishRequestId":"x"} -` + "\n"
	oneLeft := `c1 30 31 lease list all ok {} {"header":{"revision":"28"},"leases":[{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"state":"LEASE_STATE_OPEN","windows":1,"set":"s"}]}` + "\n"
	endedByEvent := event(45, `{"revision":"30","requestId":"u3","leaseEnded":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"set":"s"}}`)
	for name, c := range map[string]struct {
		lines string
		marks []history.Mark
		want  Result
	}{
		"a client's lease may have begun":              {unsure, nil, Holds},
		"a client's lease began without an event":      {unsure, []history.Mark{watched}, Broken},
		"a client's lease began with an event":         {unsure, []history.Mark{watched, began}, Holds},
		"a client's lease may have ended":              {unsureEnd + empty[len(published):], nil, Holds},
		"a client's lease ended without an event":      {unsureEnd + empty[len(published):], []history.Mark{watched}, Broken},
		"a client's lease ended with an event":         {unsureEnd + oneLeft + empty[len(published):], []history.Mark{watched, endedByEvent}, Holds},
		"a client's lease goes on though it ended":     {unsureEnd + empty[len(published):] + strings.ReplaceAll(oneLeft, "30 31", "60 61"), []history.Mark{watched, endedByEvent}, Broken},
		"one of a client's windows ends without event": {unsureEnd + oneLeft, []history.Mark{watched}, Holds},
		"an event tells of a client's lease":           {untold, []history.Mark{begunByEvent}, Holds},
		"nothing tells of a client's lease":            {untold, nil, Broken},
		"a late roll-out beside a client's":            {both, []history.Mark{late}, Holds},
		"a late roll-out holds a lease":                {second + refused[len(published):], []history.Mark{late}, Holds},
		"a late roll-out's lease is listed":            {second + listed[len(published):], []history.Mark{late}, Holds},
		"a late roll-out ends":                         {second + empty[len(published):], []history.Mark{late, ended}, Holds},
		"a late roll-out doesn't end":                  {second + empty[len(published):], []history.Mark{late}, Broken},
		"the watchdog closes a late roll-out's":        {second + empty[len(published):], []history.Mark{late, abandoned}, Holds},
		"a roll-out holds a lease":                     {refused, []history.Mark{begun(25)}, Holds},
		"nobody holds a lease":                         {refused, nil, Broken},
		"a roll-out's lease is listed":                 {listed, []history.Mark{begun(35)}, Holds},
		"nobody's lease is listed":                     {listed, nil, Broken},
		"a roll-out ends":                              {empty, []history.Mark{begun(25), ended}, Holds},
		"a roll-out doesn't end":                       {empty, []history.Mark{begun(25)}, Broken},
		"the watchdog closes a roll-out's":             {empty, []history.Mark{begun(25), abandoned}, Holds},
		"the watchdog closes a client's":               {published + two + empty[len(published):], []history.Mark{watchdog}, Holds},
		"a client's lease of two windows stays":        {published + two + empty[len(published):], nil, Broken},
	} {
		t.Run(name, func(t *testing.T) {
			past := h(t, c.lines)
			past.Marks = c.marks
			if v := judged(t, "lease", past); v.Result != c.want {
				t.Errorf("%s, want %s: %s", v.Result, c.want, v.Text)
			}
		})
	}
}

// TestSwaps: generations that the group itself published.
func TestSwaps(t *testing.T) {
	published := `c0 1 2 topology publish topology ok {"requestId":"g1","expectedGeneration":"0","topology":` + document + `} {"header":{"revision":"10"},"generation":{"number":"1","digest":"` + digest(t) + `","publishRequestId":"g1"}}
		c1 30 31 topology publish topology refused {"requestId":"g2","expectedGeneration":"1","topology":` + document + `} GENERATION_CONFLICT` + "\n"
	past := h(t, published)
	if v := judged(t, "topology", past); v.Result != Broken {
		t.Errorf("a conflict with nothing: %s", v.Result)
	}
	past.Marks = []history.Mark{event(20, `{"revision":"20","topologyPublished":{"number":"2","digest":"`+digest(t)+`","revision":"20","swappedBy":"failover","topology":`+document+`}}`)}
	if v := judged(t, "topology", past); v.Result != Holds {
		t.Errorf("a swap: %s: %s", v.Result, v.Text)
	}
}

// TestWithdrawals: a member that leaves takes the maintenance of its server with it.
func TestWithdrawals(t *testing.T) {
	past := h(t, `c0 1 2 topology publish topology ok {"requestId":"g1","expectedGeneration":"0","topology":`+document+`} {"header":{"revision":"10"},"generation":{"number":"1","digest":"`+digest(t)+`"}}
		c1 3 4 maintenance set m1 ok {"requestId":"x1","server":"m1","active":true,"reason":"r"} {"maintenance":{"server":"m1","active":true,"reason":"r"}}
		c2 50 51 maintenance list all ok {} {}`)
	if v := judged(t, "maintenance", past); v.Result != Broken {
		t.Errorf("lost without a reason: %s", v.Result)
	}
	past.Marks = []history.Mark{event(45, `{"revision":"30","maintenanceChanged":{"server":"m1"}}`)}
	if v := judged(t, "maintenance", past); v.Result != Holds {
		t.Errorf("withdrawn: %s: %s", v.Result, v.Text)
	}
	past = h(t, `c1 3 4 maintenance set m9 refused {"requestId":"x1","server":"m9","active":true} UNKNOWN_SERVER`)
	if v := judged(t, "maintenance", past); v.Result != Holds {
		t.Errorf("of no server: %s: %s", v.Result, v.Text)
	}
}

// TestUndecidedIsSaid reaches both limits: the time for a key, and the worlds that can be at one moment.
func TestUndecidedIsSaid(t *testing.T) {
	var lines strings.Builder
	fmt.Fprintln(&lines, `c0 1 2 partition create p ok {"requestId":"r0","placement":"a"} {"epoch":"1"}`)
	for i := range 24 {
		fmt.Fprintf(&lines, "c%d 10 0 partition set_placement p unknown {\"requestId\":\"u%d\",\"placement\":\"b%d\"} -\n", i, i, i)
	}
	fmt.Fprintln(&lines, `c1 20 21 partition get p ok {"partition":"p"} {"partition":{"epoch":"9","phase":"PARTITION_PHASE_ACTIVE","placement":"never"}}`)
	past := h(t, lines.String())
	verdicts, err := Check(past, 20*time.Millisecond)
	if err != nil || len(verdicts) != 1 || verdicts[0].Result != Undecided || verdicts[0].Text == "" || verdicts[0].Unknown != 24 {
		t.Errorf("%v, %v", verdicts, err)
	}

	verdicts, err = Check(past, time.Hour)
	if err != nil || len(verdicts) != 1 || verdicts[0].Result != Undecided || !strings.Contains(verdicts[0].Text, fmt.Sprint(MaxWorlds)) {
		t.Errorf("%v, %v", verdicts, err)
	}
}

// TestUnreadableIsAnError: a history that can't be read isn't judged.
func TestUnreadableIsAnError(t *testing.T) {
	for _, lines := range []string{
		`c0 1 2 partition begin p ok {"requestId":7} {}`, `c0 1 2 topology publish topology ok 7 {}`, `c0 1 2 partition resolve p ok {} {"resolutions":[]}`,
	} {
		if _, err := Check(h(t, lines), time.Minute); err == nil {
			t.Errorf("%s was judged", lines)
		}
	}
}
