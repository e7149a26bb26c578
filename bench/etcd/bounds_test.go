package main

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
)

func TestJudge(t *testing.T) {
	lines, missed := judge(map[string]float64{"commits_256_ratio_to_etcd": 2.1, "hand_over_p50_bolt": 25, "gate_checks": 5_000_000, "something_else": 1})
	if want := []string{
		"BOUND commits_256_ratio_to_etcd 2.10 x at least 2 met, aim 2.4 missed",
		"BOUND gate_checks 5000000 checks/s at least 5e+06 met",
		"BOUND hand_over_p50_bolt 25.00 ms at most 20 missed, aim 10 missed",
	}; !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
	if want := []string{"hand_over_p50_bolt"}; !slices.Equal(missed, want) {
		t.Errorf("missed: %v, want %v", missed, want)
	}
}

// TestRatios compares what was measured in the same round, and takes the middle of the ratios.
func TestRatios(t *testing.T) {
	table := newTable()
	for round, rates := range [][2]float64{{10, 10}, {30, 10}, {4, 2}} {
		table.add(storeBolt, sample{name: "commits_256", value: rates[0], compare: true})
		if round < 2 {
			table.add(storeWAL, sample{name: "commits_256", value: rates[0] / 2, compare: true})
		}
		table.add(etcdName, sample{name: "commits_256", value: rates[1], compare: true})
	}
	got := map[string]float64{}
	table.print(func(name string, value float64, _ string) { got[name] = value })
	for name, want := range map[string]float64{
		"commits_256_bolt": 10, "commits_256_wal": 10, "commits_256_etcd": 10,
		"commits_256_ratio_to_etcd": 2, "commits_256_ratio_to_etcd_least": 1, "commits_256_ratio_to_etcd_most": 3, "commits_256_wal_ratio_to_etcd": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// TestRequestsAreOfOneLength: neither system has less to carry.
func TestRequestsAreOfOneLength(t *testing.T) {
	q := newQuorate(nil)
	for _, placement := range placements {
		if got, want := proto.Size(q.setPlacement(1234, placement)), requestSize(); got != want {
			t.Errorf("a write of Quorate has %d bytes, one of etcd %d", got, want)
		}
	}
}

func TestAnswersAreUnderstood(t *testing.T) {
	// A header of member 1, revision 300, term 2; one key with a value; a count of 1.
	b := []byte{0x0a, 0x07, 0x10, 0x01, 0x18, 0xac, 0x02, 0x20, 0x02, 0x12, 0x04, 0x2a, 0x02, 'h', 'i', 0x20, 0x01}
	a := answer{kind: methodRange}
	if err := a.decode(b); err != nil || a.member != 1 || a.revision != 300 || a.term != 2 || string(a.value) != "hi" || a.count != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	for n := 1; n < len(b); n++ {
		_ = new(answer).decode(b[:n]) // No panic.
	}
	if err := new(answer).decode([]byte{0x0a, 0xff}); err == nil {
		t.Error("a message that is cut off is understood")
	}
}

func TestFlags(t *testing.T) {
	for _, bad := range [][]string{{"x"}, {"-rows", "x"}, {"-systems", "x"}, {"-rounds", "0"}, {"-callers", "0"}, {"-keys", "10"}, {"-repeats", "-1"}, {"-duration", "0s"}, {"-patience", "-1s"}, {"-kills", "1"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
	o, err := parse([]string{"-quick", "-rounds", "2"})
	if err != nil || o.rounds != 2 || !slices.Equal(o.systems, []string{storeBolt, etcdName}) || !slices.Equal(o.rows, quickRows) {
		t.Errorf("%+v, %v", o, err)
	}
}
