package failover

import (
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

var noon = time.Date(2031, 2, 3, 12, 0, 0, 0, time.UTC)

// at is a value whose source timestamp is so many milliseconds after noon.
func at(ms int) *ua.DataValue {
	return &ua.DataValue{Value: ua.MustVariant(int64(ms)), SourceTimestamp: noon.Add(time.Duration(ms) * time.Millisecond)}
}

func TestFlow(t *testing.T) {
	regular := []int{0, 100, 200, 300, 400, 500}
	for _, c := range []struct {
		name                  string
		before, after         []int
		backlog               int
		handedOn              []int // of after
		lost, uncounted, wait int
	}{
		{"nothing is missing", regular, []int{600, 700}, 0, []int{600, 700}, 0, 0, 0},
		{"two are missing", regular, []int{800}, 0, []int{800}, 2, 0, 0},
		{"jitter is no loss", regular, []int{640}, 0, []int{640}, 0, 0, 0},
		{"the same value again", regular, []int{500, 600}, 0, []int{600}, 0, 0, 0},
		{"a queue with the gap in it", regular, []int{300, 400, 500, 600, 700}, 10, []int{600, 700}, 0, 0, 0},
		{"a queue of a server with timestamps of its own", regular, []int{333, 433, 533, 633}, 10, []int{533, 633}, 0, 0, 0},
		{"a queue that was too short", regular, []int{900, 1000}, 10, []int{900, 1000}, 3, 0, 0},
		{"a clock that is behind", regular, []int{-900, -800}, 0, []int{-900, -800}, 0, 0, 0},
		{"a clock that is behind, with a queue", regular, []int{-900, -800, -700}, 2, []int{-700}, 0, 0, 0},
		{"no rhythm", []int{0, 100, 5000, 5200, 90_000, 90_100}, []int{95_000}, 0, []int{95_000}, 0, 1, 0},
		{"too few to tell", []int{0, 100}, []int{900}, 0, []int{900}, 0, 1, 0},
		{"no rhythm, the same value", []int{0, 100}, []int{100}, 0, nil, 0, 0, 0},
		{"nothing comes", regular, nil, 0, nil, 0, 1, 1},
		{"there was nothing before", nil, []int{900}, 0, []int{900}, 0, 0, 0},
	} {
		f := newFlow(1)
		for _, ms := range c.before {
			if !f.take(0, at(ms), true) {
				t.Errorf("%s: %d before was not handed on", c.name, ms)
			}
		}
		f.cut(c.backlog)
		var got []int
		for _, ms := range c.after {
			if f.take(0, at(ms), true) {
				got = append(got, ms)
			}
		}
		lost, uncounted := f.lost()
		if len(got) != len(c.handedOn) {
			t.Errorf("%s: handed on %v, want %v", c.name, got, c.handedOn)
		}
		for i := range got {
			if i < len(c.handedOn) && got[i] != c.handedOn[i] {
				t.Errorf("%s: handed on %v, want %v", c.name, got, c.handedOn)
			}
		}
		if lost != c.lost || uncounted != c.uncounted || f.awaited != c.wait {
			t.Errorf("%s: lost %d, uncounted %d, awaited %d; want %d, %d, %d", c.name, lost, uncounted, f.awaited, c.lost, c.uncounted, c.wait)
		}
	}
}

// TestFlowOfTwoServers is HOT (b): everything comes twice, the second time late.
func TestFlowOfTwoServers(t *testing.T) {
	f := newFlow(1)
	handed := 0
	for ms := 0; ms < 100_000; ms += 100 {
		if f.take(0, at(ms), true) {
			handed++
		}
		if late := ms - 100*(seenWindow-1); late >= 0 && f.take(0, at(late), false) {
			t.Fatalf("%d came twice", late)
		}
	}
	if handed != 1000 {
		t.Errorf("handed on %d of 1000", handed)
	}
	if !f.take(0, at(99_950), false) {
		t.Error("what only the second server had was left out")
	}
}

func TestFlowOfAClockThatWasNeverSet(t *testing.T) {
	f := newFlow(1)
	epoch := &ua.DataValue{SourceTimestamp: time.Unix(0, 0)}
	if !f.take(0, epoch, true) || f.take(0, epoch, true) {
		t.Error("a value of 1970 is handed on once")
	}
}

func TestFlowWithoutTimestamps(t *testing.T) {
	f := newFlow(2)
	v := &ua.DataValue{Status: ua.StatusBadNodeIDUnknown}
	f.cut(5)
	for range 3 {
		if !f.take(0, v, true) {
			t.Error("a value without a timestamp is no duplicate")
		}
	}
	if f.awaited != 1 {
		t.Errorf("awaited %d", f.awaited)
	}
	f.cut(5)
	f.take(0, v, true)
	if lost, uncounted := f.lost(); lost != 0 || uncounted != 0 {
		t.Errorf("lost %d, uncounted %d", lost, uncounted)
	}
}
