package interop

import (
	"os"
	"strings"
	"testing"
)

// TestGuideTellsOfEveryClient looks that the tables of clients in the guide have every client that redundancy.md §8 asks for, and say of each whether it was run or only
// read of, and what it does at each level. Those that were run are those that this package, or opcua/failover, runs.
func TestGuideTellsOfEveryClient(t *testing.T) {
	content, err := os.ReadFile("../../docs/redundancy.md")
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]map[string][]string{} // by the first heading behind "client"
	var current map[string][]string
	for line := range strings.Lines(string(content)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			current = nil
		case cells[0] == "client":
			current = map[string][]string{}
			tables[cells[1]] = current
		case current != nil && cells[0] != "---":
			current[cells[0]] = cells[1:]
		}
	}
	choose, levels := tables["how we know"], tables["200 to 255: Authoritative, Isolated and Mid-apply of a Primary, a stand-in"]
	for _, name := range []string{"quorate ua failover", "node-opcua", "gopcua", "asyncua", ".NET", "Milo", "Ignition", "Kepware", "AVEVA", "WinCC"} {
		found := false
		for client, cells := range choose {
			if !strings.Contains(client, name) {
				continue
			}
			found = true
			how, _, _ := strings.Cut(cells[0], " ")
			run := name == "quorate ua failover" || name == "node-opcua" || name == "gopcua"
			if want := map[bool]string{true: "run", false: "read"}[run]; how != want {
				t.Errorf("%s: how we know is %q, want %s", client, how, want)
			}
			if by := levels[client]; len(by) != 4 || strings.Join(by, "") == "" {
				t.Errorf("%s: at each level %q", client, by)
			}
		}
		if !found {
			t.Errorf("the guide says nothing of %s", name)
		}
	}
	if len(choose) != len(levels) {
		t.Errorf("%d clients, of %d it is said what they do at each level", len(choose), len(levels))
	}
}
