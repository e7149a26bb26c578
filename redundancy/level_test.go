package redundancy

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	quoratev1 "quorate/proto/quorate/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// peerCases are the ways in which peers can be there.
var peerCases = []struct {
	name               string
	peers, unreachable []string
}{
	{"alone", nil, nil},
	{"all", []string{"b", "c"}, nil},
	{"some", []string{"b", "c"}, []string{"c"}},
	{"none", []string{"b", "c"}, []string{"b", "c"}},
}

// policyCases are the policies that levels depend on, each by itself; hold goes with all but the stand-in.
var policyCases = []struct {
	name     string
	policies Policies
}{
	{"default", Policies{}},
	{"standIn=210", Policies{StandIn: 210}},
	{"hot", Policies{HotBackupsHealthy: true}},
	{"levels", PoliciesOf(&quoratev1.RedundantSet{Policies: &quoratev1.RedundancyPolicies{Levels: []*quoratev1.BandLevel{
		{Band: "Authoritative", Backup: 150}, {Band: "Isolated", Backup: 120}, {Band: "Unconfirmed", Primary: 170, Backup: 110}, {Band: "Recovering", Primary: 160},
	}}})},
	{"default hold", Policies{Hold: true}},
	{"hot hold", Policies{HotBackupsHealthy: true, Hold: true}},
}

var leaseNames = [leaseCount]string{NoLease: "none", Confirmed: "confirmed", Right: "right", StandIn: "standIn"}

// everyInput calls fn with every combination of inputs. row names those that a row of the golden table has, class is the worst of what wins over
// everything else, and column is which of the rest are set.
func everyInput(fn func(row, class string, column int, in Inputs)) {
	faults := [faultCount]string{NotInitialised: "fault", Unanswered: "fault", Diverged: "fault", Stale: "fault"}
	for _, role := range []string{"", Primary, Backup} {
		for _, policies := range policyCases {
			for lease, leaseName := range leaseNames {
				for _, p := range peerCases {
					for fault, faultClass := range faults {
						for bits := range 1 << 4 {
							in := Inputs{Generation: 7, Role: role, Peers: p.peers, Unreachable: p.unreachable, Fault: Fault(fault), Lease: Lease(lease),
								Policies: policies.policies, Recovering: bits&1 != 0, MidApply: bits&2 != 0, Maintenance: bits&4 != 0}
							class := ""
							if bits&8 != 0 {
								in.Inconsistencies, class = []string{"two servers claim Primary"}, "inconsistent"
							}
							if faultClass != "" {
								class = faultClass
							}
							if in.Maintenance {
								class = "maintenance"
							}
							if role == "" {
								fn("witness", class, bits&3, in)
								continue
							}
							in.Set = "line-a"
							fn(fmt.Sprintf("%-13s %-8s lease=%-10s peers=%-6s", policies.name, role, leaseName, p.name), class, bits&3, in)
						}
					}
				}
			}
		}
	}
}

// Each row of the table has the levels when neither recovering nor mid-apply, recovering, mid-apply, and both; and behind them all levels that there
// are in the row under an inconsistency, a fault, and maintenance.
func TestEveryCombinationHasTheLevelOfTheGoldenTable(t *testing.T) {
	type line struct {
		columns [4]map[int]bool
		classes map[string]map[int]bool
	}
	lines, order, n := map[string]*line{}, []string(nil), 0
	everyInput(func(row, class string, column int, in Inputs) {
		n++
		l := lines[row]
		if l == nil {
			l = &line{classes: map[string]map[int]bool{"inconsistent": {}, "fault": {}, "maintenance": {}}}
			for i := range l.columns {
				l.columns[i] = map[int]bool{}
			}
			lines[row], order = l, append(order, row)
		}
		into := l.columns[column]
		if class != "" {
			into = l.classes[class]
		}
		into[int(Evaluate(in).Value)] = true
	})
	if want := 3 * 6 * 4 * 4 * 5 * 16; n != want {
		t.Fatalf("%d combinations, want %d", n, want)
	}
	values := func(set map[int]bool) string {
		return strings.Trim(fmt.Sprint(slices.Sorted(maps.Keys(set))), "[]")
	}
	var got bytes.Buffer
	for _, row := range order {
		l := lines[row]
		fmt.Fprintf(&got, "%s ", row)
		for _, c := range l.columns {
			fmt.Fprintf(&got, " %3s", values(c))
		}
		fmt.Fprintf(&got, "  inconsistent=%s fault=%s maintenance=%s\n", values(l.classes["inconsistent"]), values(l.classes["fault"]), values(l.classes["maintenance"]))
	}
	golden := filepath.Join("testdata", "levels.golden")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	if len(gotLines) != len(wantLines) {
		t.Errorf("%d lines, the golden table has %d", len(gotLines), len(wantLines))
	}
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Errorf("line %d: got %q, want %q", i+1, gotLines[i], wantLines[i])
		}
	}
}

// The specification's own words, as another way to the same numbers: so the golden table cannot be wrong by repetition.
func TestTheLowestBandThatAppliesWins(t *testing.T) {
	everyInput(func(row, class string, column int, in Inputs) {
		name := fmt.Sprint(row, class, column)
		primary := in.Role == Primary
		value := func(p, b byte) byte {
			if primary {
				return p
			}
			return b
		}
		// Of the policies, those that change the table.
		authoritative, isolated, unconfirmed, recovering := value(255, 100), value(230, 80), value(190, 70), value(180, 30)
		switch {
		case in.Policies.HotBackupsHealthy:
			authoritative = value(255, 200)
		case in.Policies.custom != Policies{}.custom:
			authoritative, isolated, unconfirmed, recovering = value(255, 150), value(230, 120), value(170, 110), value(160, 30)
		}
		if !primary && in.Lease == StandIn && in.Policies.StandIn != 0 {
			authoritative, isolated = in.Policies.StandIn, in.Policies.StandIn
		}
		applies := []byte{authoritative}
		if len(in.Peers) > 0 && len(in.Peers) == len(in.Unreachable) {
			applies = append(applies, isolated)
		}
		if in.MidApply {
			applies = append(applies, value(200, 50))
		}
		if !in.Policies.Hold && (in.Lease == NoLease || primary && in.Lease == Confirmed) {
			applies = append(applies, unconfirmed)
		}
		if in.Recovering {
			applies = append(applies, recovering)
		}
		if len(in.Inconsistencies) > 0 {
			applies = append(applies, 2)
		}
		if in.Fault != NoFault {
			applies = append(applies, 1)
		}
		if in.Maintenance {
			applies = append(applies, 0)
		}
		want := slices.Min(applies)
		if in.Set == "" {
			want = 1
		}
		l := Evaluate(in)
		if l.Value != want {
			t.Errorf("%s: %d, want %d", name, l.Value, want)
		}
		if l.Value == 0 && !in.Maintenance {
			t.Errorf("%s: 0 without maintenance", name)
		}
		if exempt := in.Policies.Hold || !primary && in.Policies.HotBackupsHealthy; l.Value >= Healthy && in.Lease < Right && !exempt {
			t.Errorf("%s: %d without the right to it", name, l.Value)
		}
		if standsIn := !primary && l.Value == in.Policies.StandIn && l.Value != 0; standsIn != (l.Band <= Isolated && in.Set != "" && l.Value != in.Policies.Value(l.Band, l.Role)) {
			t.Errorf("%s: value %d, its band %s has %d", name, l.Value, l.Band, in.Policies.Value(l.Band, l.Role))
		}
		if l.Band != Authoritative && len(l.Reasons) == 0 {
			t.Errorf("%s: %s without a reason", name, l.Band)
		}
		if l.Generation != in.Generation || l.Set != in.Set || l.Role != in.Role && in.Set != "" {
			t.Errorf("%s: level of generation %d, set %q, role %q", name, l.Generation, l.Set, l.Role)
		}
	})
}

// What validation refuses can't make a server Healthy without the right to it, should it ever come to stand in a topology.
func TestNoPolicyMakesAServerHealthyByItself(t *testing.T) {
	p := PoliciesOf(&quoratev1.RedundantSet{Mode: "WARM", Policies: &quoratev1.RedundancyPolicies{HotBackupsHealthy: true, Levels: []*quoratev1.BandLevel{
		{Band: "Authoritative", Primary: 100, Backup: 255}, {Band: "Unconfirmed", Primary: 240, Backup: 230}, {Band: "Recovering", Primary: 200}, {Band: "NoData", Primary: 250},
	}}})
	for b := range bandCount {
		for _, role := range []string{Primary, Backup} {
			if got, want := p.Value(b, role), b.Value(role); got != want {
				t.Errorf("%s of a %s is %d, want %d", b, role, got, want)
			}
		}
	}
}

func TestReasonsNameEverythingThatAppliesLowestFirst(t *testing.T) {
	for _, c := range []struct {
		in   Inputs
		want []string
	}{
		{Inputs{Set: "s", Role: Primary, Peers: []string{"b"}, Lease: Right}, nil},
		{Inputs{Set: "s", Role: Backup, Peers: []string{"a", "c"}, Unreachable: []string{"a"}, Lease: Confirmed}, []string{"unreachable: a"}},
		{Inputs{Set: "s", Role: Backup, Peers: []string{"a"}, Unreachable: []string{"a"}, Lease: Confirmed},
			[]string{"isolated: no peer of the set is reachable: a"}},
		{Inputs{Set: "s", Role: Primary, Maintenance: true, MaintenanceReason: "new disk", Recovering: true, MidApply: true}, []string{
			"maintenance: new disk", "recovering: back from a fault", "unconfirmed: the group cannot confirm this server's role",
			"mid-apply: an apply lease is open",
		}},
		{Inputs{Set: "s", Role: Primary, Lease: Confirmed}, []string{"unconfirmed: the right to a Healthy level is not given yet"}},
		{Inputs{Set: "s", Role: Primary, Lease: Confirmed, Denied: "m2 has not stepped down"}, []string{"unconfirmed: m2 has not stepped down"}},
		{Inputs{Set: "s", Role: Backup, Peers: []string{"a"}, Unreachable: []string{"a"}, Lease: StandIn, Policies: Policies{StandIn: 210}}, []string{
			"isolated: no peer of the set is reachable: a", "stand-in: the group confirms that the Primary is gone",
		}},
		{Inputs{Set: "s", Role: Primary, Maintenance: true, Lease: Right}, []string{"maintenance: declared by an operator"}},
		{Inputs{Set: "s", Role: Primary, Fault: Diverged, Lease: Right, Inconsistencies: []string{"x", "y"}}, []string{
			"diverged: this member's state differs from the group's", "x", "y",
		}},
		{Inputs{}, []string{"witness: in no redundant set"}},
		{Inputs{Fault: NotInitialised}, []string{"not initialised: the state of the group is not known yet", "witness: in no redundant set"}},
	} {
		if got := Evaluate(c.in).Reasons; !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestBandOfIsTheInverseOfValue(t *testing.T) {
	for _, c := range policyCases {
		for b := range bandCount {
			for _, role := range []string{Primary, Backup} {
				if got, ok := c.policies.BandOf(c.policies.Value(b, role), role); !ok || got != b {
					t.Errorf("%s: BandOf(%d, %s) = %s, %v; want %s", c.name, c.policies.Value(b, role), role, got, ok, b)
				}
			}
		}
	}
	if b, ok := (Policies{}).BandOf(99, Backup); ok {
		t.Errorf("BandOf(99, Backup) = %s", b)
	}
	if b, ok := (Policies{StandIn: 210}).BandOf(210, Backup); !ok || b != Isolated {
		t.Errorf("a stand-in is %s, %v", b, ok)
	}
}
