package opcua

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
	"quorate/redundancy"
)

// browsable is a member with one small page of references at a time.
func browsable(t *testing.T) ClientConfig {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f, func(c *Config) { c.Limits.MaxReferencesPerNode = 3 })
	return cfg
}

// paths are the browse paths of a tree, and what they say of their children.
func paths(b *Branch, prefix string) (list []string) {
	path := prefix + "/" + b.BrowseName
	line := path
	if b.Elsewhere {
		line += " elsewhere"
	}
	if b.More {
		line += " more"
	}
	list = append(list, line)
	for _, c := range b.Children {
		list = append(list, paths(c, path)...)
	}
	return list
}

func TestBrowse(t *testing.T) {
	cfg := browsable(t)
	top, err := Browse(within(t), cfg, DefaultBrowseRoot, 1)
	if err != nil {
		t.Fatal(err)
	}
	if top.BrowseName != "0:Objects" || top.DisplayName != "Objects" || top.Class != "Object" {
		t.Errorf("top %+v", top)
	}
	i := slices.IndexFunc(top.Children, func(b *Branch) bool { return b.Node == "i=2253" })
	if i < 0 {
		t.Fatalf("no Server among %q", paths(top, ""))
	}
	if s := top.Children[i]; s.BrowseName != "0:Server" || s.Class != "Object" || s.Type != "i=2004" || s.Reference != "i=35" || s.Children != nil || s.More {
		t.Errorf("server %+v", s)
	}
	// Pages are put together, and deeper levels are there.
	top, err = Browse(within(t), cfg, "i=2253", 2)
	if err != nil {
		t.Fatal(err)
	}
	all := paths(top, "")
	for _, want := range []string{"/0:Server/0:ServiceLevel", "/0:Server/0:ServerStatus/0:State", "/0:Server/0:ServerRedundancy/0:ServerUriArray"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is missing of %q", want, all)
		}
	}
	// A variable alone.
	if top, err = Browse(within(t), cfg, "servicelevel", 0); err != nil || top.Class != "Variable" || top.Node != "i=2267" || top.Children != nil {
		t.Errorf("%+v, %v", top, err)
	}
}

func TestBrowseEndsInACircle(t *testing.T) {
	cfg := browsable(t)
	top, err := Browse(within(t), cfg, "i=84", MaxBrowseDepth)
	if err != nil {
		t.Fatal(err)
	}
	all := paths(top, "")
	seen := map[string]int{}
	var count func(b *Branch)
	count = func(b *Branch) {
		if !b.Elsewhere {
			seen[b.Node]++
		}
		for _, c := range b.Children {
			count(c)
		}
	}
	count(top)
	for node, n := range seen {
		if n != 1 {
			t.Errorf("%s is %d times in the tree", node, n)
		}
	}
	if len(all) > MaxBrowsedNodes || len(seen) < 500 {
		t.Errorf("%d nodes, %d of them different", len(all), len(seen))
	}
}

func TestBrowseStopsAtTheLimit(t *testing.T) {
	cfg := browsable(t)
	s, err := session.Open(within(t), cfg.Endpoint, cfg.Options)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, limit := range []int{1, 2, 4, 7, 50} {
		top, err := browse(within(t), s, ua.NewNumericNodeID(0, 2253), 3, limit)
		if err != nil {
			t.Fatal(err)
		}
		all := paths(top, "")
		if len(all) != limit || !slices.ContainsFunc(all, func(s string) bool { return strings.HasSuffix(s, " more") }) {
			t.Errorf("limit %d: %q", limit, all)
		}
	}
	// No continuation point was left behind: there are as many again as a session may have.
	for range 100 {
		if _, err := browse(within(t), s, ua.NewNumericNodeID(0, 2253), 1, 2); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBrowseRefusesWhatIsWrong(t *testing.T) {
	cfg := browsable(t)
	for _, c := range []struct {
		root  string
		depth int
		want  string
	}{
		{"nonsense", 1, "node "}, {"i=85", -1, "depth"}, {"i=85", MaxBrowseDepth + 1, "depth"}, {"i=999999", 1, "BadNodeIdUnknown"},
	} {
		if _, err := Browse(within(t), cfg, c.root, c.depth); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %d: %v", c.root, c.depth, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Browse(ctx, cfg, "i=85", 1); err == nil {
		t.Error("a browse without time succeeded")
	}
}

func TestDiscover(t *testing.T) {
	cfg := browsable(t)
	d, err := Discover(within(t), cfg.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Servers) != 2 || d.Servers[0].ApplicationURI != "urn:demo:m1" || d.Servers[0].URLs[0] != cfg.Endpoint ||
		d.Servers[1].ApplicationURI != "urn:demo:m2" || d.Servers[0].Type != "Server" || d.More {
		t.Errorf("servers %+v", d.Servers)
	}
	var offers []string
	for _, e := range d.Endpoints {
		offers = append(offers, e.Policy+" "+e.Mode)
		if e.URL != cfg.Endpoint || len(e.Users) == 0 || e.Users[0] != "Anonymous" || len(e.Thumbprint) != 40 || e.NotAfter == nil || (e.Policy == "None") != (e.SecurityLevel == 0) {
			t.Errorf("endpoint %+v", e)
		}
	}
	if !slices.Contains(offers, "Basic256Sha256 SignAndEncrypt") || !slices.Contains(offers, "None None") {
		t.Errorf("offers %q", offers)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Discover(ctx, cfg.Endpoint); err == nil {
		t.Error("a discovery without time succeeded")
	}
}
