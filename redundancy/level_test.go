package redundancy

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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

// everyInput calls fn with every combination of inputs.
func everyInput(fn func(name string, in Inputs)) {
	flags := []struct {
		name string
		set  func(*Inputs)
	}{
		{"maintenance", func(in *Inputs) { in.Maintenance = true }},
		{"inconsistent", func(in *Inputs) { in.Inconsistencies = []string{"two servers claim Primary"} }},
		{"recovering", func(in *Inputs) { in.Recovering = true }},
		{"apply", func(in *Inputs) { in.MidApply = true }},
		{"hold", func(in *Inputs) { in.Hold = true }},
		{"confirmed", func(in *Inputs) { in.Confirmed = true }},
	}
	faults := []string{NoFault: "sound", NotInitialised: "uninitialised", Diverged: "diverged", Stale: "stale"}
	for _, role := range []string{"", Primary, Backup} {
		for _, p := range peerCases {
			for fault, faultName := range faults {
				for bits := range 1 << len(flags) {
					in := Inputs{Generation: 7, Role: role, Peers: p.peers, Unreachable: p.unreachable, Fault: Fault(fault)}
					words := []string{"witness", p.name, faultName}
					if role != "" {
						in.Set, words[0] = "line-a", role
					}
					for i, f := range flags {
						if bits&(1<<i) != 0 {
							f.set(&in)
							words = append(words, f.name)
						}
					}
					fn(strings.Join(words, " "), in)
				}
			}
		}
	}
}

func TestEveryCombinationHasTheLevelOfTheGoldenTable(t *testing.T) {
	var got bytes.Buffer
	n := 0
	everyInput(func(name string, in Inputs) {
		l := Evaluate(in)
		fmt.Fprintf(&got, "%s: %d %s\n", name, l.Value, l.Band)
		n++
	})
	if want := 3 * 4 * 4 * 64; n != want {
		t.Fatalf("%d combinations, want %d", n, want)
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
	everyInput(func(name string, in Inputs) {
		primary := in.Role == Primary
		value := func(p, b byte) byte {
			if primary {
				return p
			}
			return b
		}
		applies := []byte{value(255, 100)}
		if len(in.Peers) > 0 && len(in.Peers) == len(in.Unreachable) {
			applies = append(applies, value(230, 80))
		}
		if in.MidApply {
			applies = append(applies, value(200, 50))
		}
		if !in.Confirmed && !in.Hold {
			applies = append(applies, value(190, 70))
		}
		if in.Recovering {
			applies = append(applies, value(180, 30))
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
		if (l.Band == Authoritative) != (l.Value == value(255, 100)) {
			t.Errorf("%s: band %s with value %d", name, l.Band, l.Value)
		}
		if want := l.Band.Value(l.Role); l.Value != want {
			t.Errorf("%s: value %d, its band %s has %d", name, l.Value, l.Band, want)
		}
		if l.Band != Authoritative && len(l.Reasons) == 0 {
			t.Errorf("%s: %s without a reason", name, l.Band)
		}
		if l.Generation != in.Generation || l.Set != in.Set || l.Role != in.Role {
			t.Errorf("%s: level of generation %d, set %q, role %q", name, l.Generation, l.Set, l.Role)
		}
	})
}

func TestReasonsNameEverythingThatAppliesLowestFirst(t *testing.T) {
	for _, c := range []struct {
		in   Inputs
		want []string
	}{
		{Inputs{Set: "s", Role: Primary, Peers: []string{"b"}, Confirmed: true}, nil},
		{Inputs{Set: "s", Role: Backup, Peers: []string{"a", "c"}, Unreachable: []string{"a"}, Confirmed: true}, []string{"unreachable: a"}},
		{Inputs{Set: "s", Role: Backup, Peers: []string{"a"}, Unreachable: []string{"a"}, Confirmed: true},
			[]string{"isolated: no peer of the set is reachable: a"}},
		{Inputs{Set: "s", Role: Primary, Maintenance: true, MaintenanceReason: "new disk", Recovering: true, MidApply: true}, []string{
			"maintenance: new disk", "recovering: back from a fault", "unconfirmed: the group cannot confirm this server's role",
			"mid-apply: an apply lease is open",
		}},
		{Inputs{Set: "s", Role: Primary, Maintenance: true, Confirmed: true}, []string{"maintenance: declared by an operator"}},
		{Inputs{Set: "s", Role: Primary, Fault: Diverged, Confirmed: true, Inconsistencies: []string{"x", "y"}}, []string{
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
	for b := range bandCount {
		for _, role := range []string{Primary, Backup} {
			if got, ok := BandOf(b.Value(role), role); !ok || got != b {
				t.Errorf("BandOf(%d, %s) = %s, %v; want %s", b.Value(role), role, got, ok, b)
			}
		}
	}
	if b, ok := BandOf(99, Backup); ok {
		t.Errorf("BandOf(99, Backup) = %s", b)
	}
}
