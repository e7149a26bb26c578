package failover

import (
	"strings"
	"testing"
)

// parse makes servers of a text: a number is a level, ? is unknown, x is unreachable, m is away.
func parse(t *testing.T, s string) []Server {
	t.Helper()
	var list []Server
	for _, f := range strings.Fields(s) {
		switch f {
		case "?":
			list = append(list, Server{State: Unknown})
		case "x":
			list = append(list, Server{State: Unreachable})
		case "m":
			list = append(list, Server{State: Away})
		default:
			level := 0
			for _, c := range f {
				level = 10*level + int(c-'0')
			}
			list = append(list, Server{State: Reachable, Level: byte(level)})
		}
	}
	return list
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		servers string
		active  int
		waiting bool
		next    int
		why     Reason
	}{
		// A Healthy server is never left.
		{"255 100", 0, true, 0, Stay},
		{"200 255", 0, false, 0, Stay},
		{"255 200", 1, false, 1, Stay},
		{"230 ? x m", 0, true, 0, Stay},
		// A Degraded one is left for a Healthy one only.
		{"199 200", 0, true, 1, Degraded},
		{"199 198", 0, false, 0, Stay},
		{"2 199", 0, false, 0, Stay},
		{"100 ? ?", 0, false, 0, Stay},
		{"100 255 ?", 0, true, 1, Degraded},
		{"100 200 255", 0, true, 2, Degraded},
		{"100 m x", 0, false, 0, Stay},
		// No data: to the best there is, but not to one that is no better.
		{"1 100", 0, true, 1, NoData},
		{"1 2", 0, false, 1, NoData},
		{"1 1", 0, false, 0, Stay},
		{"1 x", 0, false, 0, Stay},
		{"1 100 ?", 0, true, 0, Stay},
		{"1 100 ?", 0, false, 1, NoData},
		{"1 255 ?", 0, true, 1, NoData},
		{"1 ? x", 0, true, 0, Stay},
		// Gone: to the best there is, even without data.
		{"x 100", 0, true, 1, Lost},
		{"x 100 255", 0, true, 2, Lost},
		{"x 100 ?", 0, true, -1, Lost},
		{"x 100 ?", 0, false, 1, Lost},
		{"x 255 ?", 0, true, 1, Lost},
		{"x 1", 0, false, 1, Lost},
		{"x x m", 0, false, -1, Lost},
		{"? 80", 0, false, 1, Lost},
		{"x 0", 0, false, -1, Lost},
		// Maintenance: away from it, even to nothing.
		{"m 80", 0, true, 1, Maintenance},
		{"m x", 0, false, -1, Maintenance},
		{"0 1", 0, false, 1, Maintenance},
		{"m ? 80", 0, true, -1, Maintenance},
		// No server in use: the best, after waiting for a Healthy one. Of equals the first.
		{"100 ?", -1, true, -1, Stay},
		{"100 ?", -1, false, 0, Lost},
		{"255 ?", -1, true, 0, Lost},
		{"100 180 x", -1, true, 1, Lost},
		{"255 255", -1, true, 0, Lost},
		{"m x ?", -1, false, -1, Stay},
		{"", -1, true, -1, Stay},
	} {
		next, why := decide(parse(t, c.servers), c.active, c.waiting)
		if next != c.next || next >= 0 && why != c.why && c.active >= 0 || next < 0 && c.active >= 0 && why != c.why {
			t.Errorf("decide(%q, %d, waiting %v) = %d, %v; want %d, %v", c.servers, c.active, c.waiting, next, why, c.next, c.why)
		}
	}
}

// TestDecideKeepsTheRules looks at every combination of three servers and says what must hold of each.
func TestDecideKeepsTheRules(t *testing.T) {
	all := strings.Fields("? x m 0 1 2 199 200 255")
	usable := func(s Server) bool { return s.State == Reachable && s.Level > maintenance }
	for _, a := range all {
		for _, b := range all {
			for _, c := range all {
				servers := parse(t, a+" "+b+" "+c)
				for active := -1; active < 3; active++ {
					for _, waiting := range []bool{true, false} {
						next, why := decide(servers, active, waiting)
						what := a + " " + b + " " + c
						if next < -1 || next > 2 || next >= 0 && !usable(servers[next]) {
							t.Fatalf("%q, %d: chose %d, which can't be used", what, active, next)
						}
						if (why == Stay) != (next == active) {
							t.Errorf("%q, %d: %d with %v", what, active, next, why)
						}
						if active >= 0 && usable(servers[active]) {
							if next < 0 {
								t.Errorf("%q, %d: a server that can be used was left for none", what, active)
							} else if servers[active].Level >= lowestHealthy && next != active || servers[next].Level < servers[active].Level {
								t.Errorf("%q, %d: left for %d", what, active, next)
							}
						}
						if !waiting && next < 0 {
							for i, s := range servers {
								if usable(s) {
									t.Errorf("%q, %d: nobody was chosen, though %d can be used", what, active, i)
								}
							}
						}
					}
				}
			}
		}
	}
}

func TestStandby(t *testing.T) {
	for _, c := range []struct {
		mode            Mode
		healthy, others role
	}{
		{Auto, watching, watching}, {Cold, off, watching}, {Warm, disabled, disabled}, {HotA, sampling, sampling}, {HotB, reporting, reporting},
	} {
		if h, o := c.mode.standby(true), c.mode.standby(false); h != c.healthy || o != c.others {
			t.Errorf("%v: %d, %d; want %d, %d", c.mode, h, o, c.healthy, c.others)
		}
	}
}

func TestNames(t *testing.T) {
	for i, name := range ModeNames() {
		m, err := ParseMode(strings.ToUpper(name))
		if err != nil || m != Mode(i) || m.String() != name {
			t.Errorf("%q: %v, %v", name, m, err)
		}
	}
	if m, err := ParseMode("hot"); err == nil {
		t.Errorf("hot is %v", m)
	}
	for support, want := range map[int32]Mode{0: Cold, 1: Cold, 2: Warm, 3: HotA, 4: Cold, 5: HotA, 9: Cold, -1: Cold} {
		if got := modeOf(support); got != want {
			t.Errorf("RedundancySupport %d: %v, want %v", support, got, want)
		}
	}
	for _, s := range []string{Mode(9).String(), State(-1).String(), Reason(9).String()} {
		if !strings.Contains(s, "(") {
			t.Error(s)
		}
	}
	if Away.String() != "away" || Degraded.String() != "degraded" || Lost.String() != "lost" {
		t.Error("names are in the wrong order")
	}
}
