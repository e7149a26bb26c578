package validate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"quorate/jepsen/history"
)

// past makes a history of lines, in milliseconds:
//
//	op client call return noun kind key outcome input output
//	mark at kind text member data
//
// "-" is nothing. The output of what was refused is its reason, with the details after a bar.
func past(t *testing.T, lines string) history.History {
	t.Helper()
	var h history.History
	ms := func(text string) time.Duration {
		var n float64
		if _, err := fmt.Sscan(text, &n); err != nil {
			t.Fatalf("%q is no time: %v", text, err)
		}
		return time.Duration(n * float64(time.Millisecond))
	}
	some := func(text string) json.RawMessage {
		if text == "-" {
			return nil
		}
		return json.RawMessage(text)
	}
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 10 && f[0] == "op":
			op := history.Op{
				ID: len(h.Ops), Client: f[1], Call: ms(f[2]), Return: ms(f[3]), Noun: f[4], Kind: f[5], Key: f[6], Outcome: history.Outcome(f[7]), Input: some(f[8]),
			}
			if op.Outcome == history.Refused {
				reason, details, _ := strings.Cut(f[9], "|")
				op.Error = reason + ": why"
				if details != "" {
					op.Output = json.RawMessage(details)
				}
			} else {
				op.Output = some(f[9])
			}
			h.Ops = append(h.Ops, op)
		case len(f) == 6 && f[0] == "mark":
			h.Marks = append(h.Marks, history.Mark{At: ms(f[1]), Kind: f[2], Text: strings.Trim(f[3], "-"), Member: strings.Trim(f[4], "-"), Data: some(f[5])})
		default:
			t.Fatalf("%q has %d fields", line, len(f))
		}
	}
	return h
}

// expect judges by one check: want is part of the only problem or of what is undecided, empty if the check holds.
func expect(t *testing.T, c check, lines, want string) {
	t.Helper()
	r, err := newRecord(past(t, lines))
	if err != nil {
		t.Fatal(err)
	}
	v := Verdict{Name: c.name}
	c.judge(r, &v)
	var told []string
	for _, p := range v.Problems {
		if p.Until < p.From {
			t.Errorf("%q ends before it begins", p.Text)
		}
		told = append(told, p.Text)
	}
	told = append(told, v.Undecided...)
	all := strings.Join(told, "\n")
	switch {
	case want == "" && (len(told) > 0 || v.Checked == 0):
		t.Errorf("%d checked, and it doesn't hold:\n%s", v.Checked, all)
	case want != "" && !strings.Contains(all, want):
		t.Errorf("%d checked, found %q, want %q", v.Checked, all, want)
	case want != "" && v.Holds():
		t.Error("it holds")
	}
}

type past1 struct{ name, lines, want string }

func run1(t *testing.T, c check, cases []past1) {
	t.Helper()
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) { expect(t, c, one.lines, one.want) })
	}
}

const document = `{"sets":[{"id":"s","mode":"WARM","servers":[{"member":"m1","role":"Primary"},{"member":"m2","role":"Backup"}]}]}`

// TestNothingToCheckIsNoSuccess gives every check a run with its traffic switched on and none recorded.
func TestNothingToCheckIsNoSuccess(t *testing.T) {
	verdicts := Judge(history.History{})
	if len(verdicts) != len(Names()) || len(verdicts) != 9 {
		t.Fatalf("%d verdicts of %d checks", len(verdicts), len(Names()))
	}
	for _, v := range verdicts {
		if v.Holds() || v.Claim == "" {
			t.Errorf("%s holds for nothing: %+v", v.Name, v)
		}
	}
	without := Judge(past(t, `mark 0 run - - {"workloads":["maintenance"]}`))
	for _, v := range without {
		if v.Name == "partitions" {
			t.Error("partitions are judged in a run without them")
		}
	}
}

// TestProblemsAreBounded reaches MaxProblems.
func TestProblemsAreBounded(t *testing.T) {
	v := Verdict{Checked: 1}
	for range MaxProblems + 7 {
		v.problem(2, 1, nil, "x")
	}
	if len(v.Problems) != MaxProblems || v.More != 7 || v.Holds() || v.Problems[0].Until != 2 {
		t.Errorf("%d problems and %d more", len(v.Problems), v.More)
	}
}

func TestUnreadableHistoryIsNoSuccess(t *testing.T) {
	verdicts := Judge(past(t, `mark 1 event - - {"event":{"revision":"x"}}`))
	if len(verdicts) != 1 || verdicts[0].Holds() {
		t.Errorf("%+v", verdicts)
	}
}

func TestLinearizability(t *testing.T) {
	run1(t, linearizability(), []past1{
		{"holds", `op c1 1 2 partition create p ok {"requestId":"r","placement":"a"} {"epoch":"1"}
			op c2 3 4 partition get p ok - {"partition":{"epoch":"1","phase":"PARTITION_PHASE_ACTIVE","placement":"a"}}`, ""},
		{"a lost write", `op c1 1 2 partition create p ok {"requestId":"r","placement":"a"} {"epoch":"1"}
			op c2 3 4 partition get p refused - UNKNOWN_PARTITION`, "partition p: no order"},
		{"unreadable", `op c1 1 2 partition create p ok {"requestId":5} {"epoch":"1"}`, "input"},
	})
}

func TestGenerations(t *testing.T) {
	first := `op c1 1 2 topology publish topology ok {"requestId":"r1","expectedGeneration":"0"} {"generation":{"number":"1","digest":"d1","publishRequestId":"r1","revision":"10"}}` + "\n"
	run1(t, generations(), []past1{
		{"holds", first + `op c1 3 4 topology rollback topology ok {"requestId":"r2","expectedGeneration":"1"} {"generation":{"number":"2","digest":"d2","publishRequestId":"r2","revision":"20"}}
			op c2 5 6 topology history topology ok - {"generations":[{"number":"2","digest":"d2","publishRequestId":"r2","revision":"20"},{"number":"1","digest":"d1","publishRequestId":"r1","revision":"10"}]}`, ""},
		{"a number is left out", first + `op c1 3 4 topology publish topology ok {"requestId":"r2","expectedGeneration":"1"} {"generation":{"number":"3","digest":"d2","publishRequestId":"r2","revision":"20"}}`, "in place of generation 1"},
		{"published twice", first + strings.ReplaceAll(first, "r1", "r2"), "published twice"},
		{"another digest", first + `op c2 5 6 topology get topology ok - {"generation":{"number":"1","digest":"dX","publishRequestId":"r1","revision":"10"}}`, "generation 1 is dX"},
		{"another digest in a watch", first + `mark 5 event - m1 {"watch":"w","event":{"revision":"10","topologyPublished":{"number":"1","digest":"dX","publishRequestId":"r1","revision":"10"}}}`, "generation 1 is dX"},
		{"a lost compare and swap", first + `op c2 5 6 topology get topology ok - {"generation":{"number":"1","digest":"d1","publishRequestId":"rX","revision":"10"}}`, `of request "rX"`},
		{"back in time", `op c1 5 6 topology publish topology ok {"requestId":"r1","expectedGeneration":"0"} {"generation":{"number":"1","digest":"d1","publishRequestId":"r1","revision":"10"}}
			op c1 1 2 topology publish topology ok {"requestId":"r2","expectedGeneration":"1"} {"generation":{"number":"2","digest":"d2","publishRequestId":"r2","revision":"20"}}`, "before generation 1 was asked for"},
		{"revisions", first + `op c2 5 6 topology get topology ok - {"generation":{"number":"2","digest":"d2","publishRequestId":"r2","revision":"9"}}`, "is of revision 10"},
	})
}

func TestApplies(t *testing.T) {
	begun := func(server string, revision int, set string) string {
		return fmt.Sprintf(`mark %d event - m1 {"watch":"w","event":{"revision":"%d","leaseBegun":{"key":{"server":"%s","generation":"1","publishRequestId":"x"},"set":"%s","begun":"10s"}}}`+"\n", revision, revision, server, set)
	}
	ended := strings.NewReplacer("leaseBegun", "leaseEnded")
	run := `mark 0 run - - {"applyMaxDuration":600000000000}` + "\n"
	abandoned := func(at int, ended string) string {
		return run + begun("m1", 1, "s") + fmt.Sprintf(`mark %d event - m1 {"watch":"w","event":{"revision":"5","leaseAbandoned":{"key":{"server":"m1","generation":"1","publishRequestId":"x"},"set":"s","begun":"10s","ended":"%s"}}}`+"\n", at, ended)
	}
	hold := func(client, server string, from, until int) string {
		key := fmt.Sprintf(`{"key":{"server":"%s","generation":"1","publishRequestId":"x"},"set":"s","state":"LEASE_STATE_OPEN","windows":1}`, server)
		return fmt.Sprintf("op %s %d %d lease begin %s ok {\"server\":\"%s\"} {\"lease\":%s}\nop %s %d %d lease end %s ok {\"server\":\"%s\"} {\"lease\":%s}\n",
			client, from-1, from, server, server, key, client, until, until+1, server, server, key)
	}
	run1(t, applies(), []past1{
		{"in turn", begun("m1", 1, "s") + ended.Replace(begun("m1", 2, "s")) + begun("m2", 3, "s"), ""},
		{"at once", begun("m1", 1, "s") + begun("m2", 2, "s"), "began at revision 2 while m1"},
		{"of two sets", begun("m1", 1, "s") + begun("m2", 2, "t"), ""},
		{"twice", begun("m1", 1, "s") + begun("m1", 2, "s"), "began twice"},
		{"abandoned in time", abandoned(600_011, "610s"), ""},
		{"abandoned early", abandoned(600_011, "609.9s"), "abandoned after"},
		{"abandoned late", abandoned(700_011, "700s"), "abandoned after"},
		{"abandoned early by our clock", "op c 5000 5001 lease begin m1 ok {\"server\":\"m1\"} {\"lease\":{\"key\":{\"server\":\"m1\",\"generation\":\"1\",\"publishRequestId\":\"x\"},\"windows\":1,\"set\":\"s\"}}\n" + abandoned(604_000, "610s"), "after it was asked for"},
		{"never abandoned", run + `op c 1 2 lease list all ok - {"header":{"clusterTime":"700s"},"leases":[{"key":{"server":"m1"},"set":"s","state":"LEASE_STATE_OPEN","begun":"10s"}]}`, "is open since"},
		{"a list with one", `op c 1 2 lease list all ok - {"leases":[{"key":{"server":"m1"},"set":"s","state":"LEASE_STATE_OPEN"},{"key":{"server":"m2"},"set":"s","state":"LEASE_STATE_ENDED"}]}`, ""},
		{"a list with two", `op c 1 2 lease list all ok - {"leases":[{"key":{"server":"m1"},"set":"s","state":"LEASE_STATE_OPEN"},{"key":{"server":"m2"},"set":"s","state":"LEASE_STATE_OPEN"}]}`, "both mid-apply"},
		{"held in turn", hold("c1", "m1", 10, 20) + hold("c2", "m2", 30, 40), ""},
		{"held at once", hold("c1", "m1", 10, 20) + hold("c2", "m2", 15, 40), "held at once"},
	})
}
