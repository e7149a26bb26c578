package validate

import (
	"fmt"
	"testing"
)

// TestLevels: no two servers of a set may be Healthy at one instant.
func TestLevels(t *testing.T) {
	published := `op c 0.1 0.2 topology publish topology ok {"topology":` + document + `} -` + "\n"
	read := func(server string, level, from, source, until int) string {
		return fmt.Sprintf("op o-%s %d %d level read %s ok - {\"level\":%d,\"source\":%d}\n", server, from, until, server, level, source*1_000_000)
	}
	run1(t, levels(), []past1{
		{"one Healthy", published + read("m1", 255, 10, 11, 12) + read("m1", 255, 20, 21, 22) + read("m2", 100, 15, 16, 17), ""},
		{"two Healthy", published + read("m1", 255, 10, 11, 12) + read("m1", 255, 20, 21, 22) + read("m2", 200, 15, 16, 17), "Healthy at once"},
		{"two Healthy, but far apart", published + read("m1", 255, 10, 11, 12) + read("m1", 255, 1020, 1021, 1022) + read("m2", 200, 515, 516, 517), ""},
		{"a swap", published + read("m1", 255, 10, 11, 12) + read("m1", 100, 14, 15, 16) + read("m2", 255, 17, 18, 19) + read("m1", 100, 20, 21, 22), ""},
		{"a swap there and back", published + read("m1", 255, 10, 11, 12) + read("m1", 100, 14, 15, 16) + read("m2", 255, 17, 18, 19) + read("m1", 255, 20, 21, 22), ""},
		{"an overlap at a swap", published + read("m1", 255, 10, 11, 12) + read("m2", 255, 14, 15, 16) + read("m1", 255, 16, 17, 18) + read("m1", 100, 19, 20, 21), "Healthy at once"},
		{"of unknown moment", published + read("m1", 255, 10, 9999, 30) + read("m2", 255, 15, 16, 17), ""},
		{"of unknown moments, with certainty between", published + read("m1", 255, 10, 9999, 12) + read("m1", 255, 20, 9999, 22) + read("m2", 255, 15, 16, 17), "Healthy at once"},
		{"lower at an unknown moment", published + read("m1", 255, 10, 11, 12) + read("m1", 100, 13, 9999, 40) + read("m1", 255, 20, 21, 22) + read("m2", 255, 15, 16, 17), ""},
	})
}

// TestExemptSetsProveNothing: a set that may have two Healthy servers is not counted as checked.
func TestExemptSetsProveNothing(t *testing.T) {
	r, err := newRecord(past(t, `op c 0.1 0.2 topology publish topology ok {"topology":{"sets":[{"id":"s","policies":{"quorumLoss":"hold"},"servers":[{"member":"m1"},{"member":"m2"}]}]}} -
		op o 10 12 level read m1 ok - {"level":255,"source":11000000}
		op o 10 12 level read m2 ok - {"level":255,"source":11000000}`))
	if err != nil {
		t.Fatal(err)
	}
	v := Verdict{}
	levels().judge(r, &v)
	if v.Checked != 0 || len(v.Problems) != 0 {
		t.Errorf("%+v", v)
	}
}
