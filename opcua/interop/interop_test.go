// Package interop lets OPC UA clients that others wrote talk to real members: what they see is what a plant sees.
package interop

import (
	"bytes"
	"context"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"quorate/devgroup"
)

const (
	basePort = 18100
	// nodeURI is the ApplicationUri of node-opcua's client in these tests.
	nodeURI = "urn:quorate:interop:node-opcua"
	// scenarioLimit bounds one run of the client.
	scenarioLimit = 2 * time.Minute
	// changes is how many times the level is made to change, changeInterval apart.
	changes        = 100
	changeInterval = 200 * time.Millisecond
	// tokenLife is the secure channel's, and renewFor how long it is read through renewals.
	tokenLife = 4 * time.Second
	// sideBySide is how many scenarios run at once: all of the long ones.
	sideBySide = 6
	renewFor   = time.Minute
)

type security struct{ Mode, Policy string }

// offeredPolicies are the policies that a member offers beside None.
var offeredPolicies = []string{"Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"}

// offers are the ways to connect that a member with an endpoint without security offers.
func offers() []security {
	all := []security{{"None", "None"}}
	for _, policy := range offeredPolicies {
		all = append(all, security{"Sign", policy}, security{"SignAndEncrypt", policy})
	}
	return all
}

// securities are the ways in which the client connects for the scenarios that are not about policies.
var securities = []security{
	{"None", "None"},
	{"SignAndEncrypt", "Basic256Sha256"},
}

func TestMain(m *testing.M) {
	flag.Parse()
	// The clients mostly wait, so more of them than there are cores go side by side.
	if err := flag.Set("test.parallel", strconv.Itoa(sideBySide)); err != nil {
		panic(err)
	}
	os.Exit(devgroup.RunTests(m))
}

// TestInterop runs all clients' scenarios against one group of three processes, and compares what ran with the table in docs.
func TestInterop(t *testing.T) {
	requireClient(t)
	dir := t.TempDir()
	binary, err := devgroup.Built()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	// Applications are to be trusted, as in a plant.
	data := filepath.Join(dir, "group")
	g, err := devgroup.Start(t.Context(), devgroup.Options{Binary: binary, Data: data, BasePort: basePort, Set: []string{"opcua.trustAll=false"}, Log: &log})
	if err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the members said:\n%s", log.Bytes())
		}
	})
	primary, err := g.Member("m1")
	if err != nil {
		t.Fatal(err)
	}
	backup, err := g.Member("m2")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := devgroup.Dial(primary)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	key := newKey(t, 2048)
	nodeApplication, gopcuaApplication := newIdentity(t, nodeURI, key, nil), newIdentity(t, gopcuaURI, key, nil)
	for _, m := range []devgroup.Member{primary, backup} {
		administrator{binary, filepath.Join(data, m.ID)}.trust(t, nodeApplication.cert, gopcuaApplication.cert)
	}
	options := func(s security) map[string]any {
		return map[string]any{"endpoint": primary.OPCUA, "mode": s.Mode, "policy": s.Policy, "pki": nodeApplication.pki, "applicationUri": nodeURI}
	}
	table := newCompatibility()
	for _, s := range securities {
		t.Run("inspect/"+s.Mode, func(t *testing.T) { inspect(t, options(s)) })
	}
	t.Run("discover", func(t *testing.T) { discover(t, table, g, primary, options(securities[0])) })
	t.Run("partitions", func(t *testing.T) { partitions(t, table, conn, options(securities[0])) })
	// These want a ServiceLevel that stays as it is.
	t.Run("services", func(t *testing.T) {
		for name, scenario := range map[string]func(t *testing.T){
			"node-opcua/matrix":   func(t *testing.T) { matrix(t, table, options(securities[0])) },
			"node-opcua/services": func(t *testing.T) { services(t, table, options(securities[1])) },
			"gopcua/matrix":       func(t *testing.T) { gopcuaMatrix(t, table, primary.OPCUA, gopcuaApplication) },
			"gopcua/services":     func(t *testing.T) { gopcuaServices(t, table, primary.OPCUA) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				scenario(t)
			})
		}
	})
	// The long ones go side by side: no renewal may disturb a subscription either.
	t.Run("long", func(t *testing.T) {
		for _, s := range securities {
			t.Run("renew/"+s.Mode, func(t *testing.T) {
				t.Parallel()
				renew(t, options(s))
				table.ran(nodeOPCUA, step{"SecureChannel", "OpenSecureChannel", "reads go on through renewals of the token, " + s.Mode})
			})
			t.Run("gopcua/renew/"+s.Mode, func(t *testing.T) {
				t.Parallel()
				gopcuaRenew(t, table, primary.OPCUA, s, gopcuaApplication)
			})
		}
		// The Backup is guessed at and sent into maintenance, so that nobody at the Primary is disturbed.
		t.Run("security", func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
			defer cancel()
			g := guarded{table: table, endpoint: backup.OPCUA, member: administrator{binary, filepath.Join(data, backup.ID)}}
			t.Run(nodeOPCUA, func(t *testing.T) {
				g.contender, g.known = nodeContender(ctx, t, g.endpoint), nodeApplication
				g.run(ctx, t)
			})
			t.Run(gopcua, func(t *testing.T) {
				g.contender, g.known = gopcuaContender(g.endpoint, "127.0.0.2"), gopcuaApplication
				g.run(ctx, t)
				guessFromOneAddress(ctx, t, g)
			})
		})
		t.Run("follow", func(t *testing.T) {
			t.Parallel()
			followAll(t, conn, primary.OPCUA, options)
			for _, client := range []string{nodeOPCUA, gopcua} {
				table.ran(client, step{"Subscription", "Publish", "every change of ServiceLevel, in order"})
				table.ran(client, step{"MonitoredItem", "CreateMonitoredItems", "events of the Server object, by fields and a where clause"})
				table.ran(client, step{"Subscription", "Publish", "an event for every change of ServiceLevel, in order"})
			}
		})
	})
	t.Run("compatibility", table.check)
}

// matrix connects in every way that is offered.
func matrix(t *testing.T, table *compatibility, options map[string]any) {
	var offered []security
	for _, line := range runLines[struct{ Policy, Mode, Error string }](t, "matrix", options) {
		s := security{Mode: line.Mode, Policy: line.Policy}
		offered = append(offered, s)
		if line.Error != "" {
			t.Errorf("%s %s: %s", s.Policy, s.Mode, line.Error)
			continue
		}
		table.connected(nodeOPCUA, s)
	}
	wantOffered(t, offered)
}

// wantOffered wants the endpoints to be what a member with an endpoint without security offers.
func wantOffered(t *testing.T, offered []security) {
	t.Helper()
	want := make(map[security]bool)
	for _, s := range offers() {
		want[s] = true
	}
	got := make(map[security]bool)
	for _, s := range offered {
		got[s] = true
	}
	if !maps.Equal(got, want) || len(offered) != len(want) {
		t.Errorf("GetEndpoints offers %v, want each of %v once", offered, want)
	}
}

// services takes each step through the services.
func services(t *testing.T, table *compatibility, options map[string]any) {
	lines := runLines[struct {
		step
		Error string
	}](t, "services", options)
	if len(lines) == 0 {
		t.Error("no step was taken")
	}
	for _, line := range lines {
		if line.Error != "" {
			t.Errorf("%s, %s: %s", line.Service, line.What, line.Error)
			continue
		}
		table.ran(nodeOPCUA, line.step)
	}
}

func inspect(t *testing.T, options map[string]any) {
	got := run[struct {
		Read map[string]struct {
			Status, Type string
			Value        any
		}
		Server, Redundancy map[string]struct{ NodeID, Type string }
		RedundancyType     string
	}](t, "inspect", options)
	for id, v := range got.Read {
		if v.Status != "Good" {
			t.Errorf("%s reads %s", id, v.Status)
		}
	}
	if v := got.Read["i=2267"]; v.Value != 255.0 || v.Type != "Byte" {
		t.Errorf("ServiceLevel is %v of type %s, want 255 of type Byte", v.Value, v.Type)
	}
	if v := got.Read["i=3709"]; v.Value != 2.0 {
		t.Errorf("RedundancySupport is %v, want 2 (WARM)", v.Value)
	}
	if v, ok := got.Read["i=11314"].Value.([]any); !ok || len(v) != 2 {
		t.Errorf("ServerUriArray is %v, want the two servers of the set", got.Read["i=11314"].Value)
	}
	if v, ok := got.Read["i=11313"].Value.([]any); !ok || len(v) != 2 {
		t.Errorf("RedundantServerArray is %v, want the two servers of the set", got.Read["i=11313"].Value)
	}
	if got.RedundancyType != "ns=0;i=2039" {
		t.Errorf("ServerRedundancy is of type %s, want NonTransparentRedundancyType, ns=0;i=2039", got.RedundancyType)
	}
	for _, name := range []string{"ServerArray", "NamespaceArray", "ServerStatus", "ServiceLevel", "ServerCapabilities", "ServerRedundancy"} {
		if _, ok := got.Server[name]; !ok {
			t.Errorf("browsing Server does not show %s", name)
		}
	}
	for _, name := range []string{"RedundancySupport", "ServerUriArray"} {
		if _, ok := got.Redundancy[name]; !ok {
			t.Errorf("browsing ServerRedundancy does not show %s", name)
		}
	}
}

// renew reads through several renewals of the channel's token.
func renew(t *testing.T, options map[string]any) {
	options["tokenLife"] = tokenLife.Milliseconds()
	options["duration"] = renewFor.Milliseconds()
	got := run[struct {
		Reads, Failures, Renewals int
		LastError                 string
	}](t, "renew", options)
	t.Logf("%d reads, %d renewals", got.Reads, got.Renewals)
	if got.Failures > 0 {
		t.Errorf("%d reads failed, the last with: %s", got.Failures, got.LastError)
	}
	if want := int(renewFor/tokenLife) - 1; got.Renewals < want {
		t.Errorf("the token was renewed %d times, want %d or more", got.Renewals, want)
	}
	if got.Reads < 100 {
		t.Errorf("only %d reads in %v", got.Reads, renewFor)
	}
}

func discover(t *testing.T, table *compatibility, g *devgroup.Group, primary devgroup.Member, options map[string]any) {
	got := run[struct {
		Servers []struct {
			URI  string
			URLs []string
		}
		Endpoints []struct{ URL, Policy, Mode, URI string }
	}](t, "discover", options)
	urls := make(map[string]bool)
	for _, s := range got.Servers {
		for _, u := range s.URLs {
			urls[strings.TrimSuffix(u, "/")] = true
		}
	}
	if len(got.Servers) != 2 {
		t.Errorf("FindServers gives %d servers, want the two of the set: %+v", len(got.Servers), got.Servers)
	}
	for _, id := range []string{"m1", "m2"} {
		m, err := g.Member(id)
		if err != nil {
			t.Fatal(err)
		}
		if !urls[m.OPCUA] {
			t.Errorf("FindServers does not give %s of %s: %+v", m.OPCUA, id, got.Servers)
		}
	}
	var offered []security
	for _, e := range got.Endpoints {
		offered = append(offered, security{Mode: e.Mode, Policy: e.Policy[strings.LastIndex(e.Policy, "#")+1:]})
		if !strings.HasPrefix(strings.TrimSuffix(e.URL, "/"), primary.OPCUA) {
			t.Errorf("GetEndpoints gives %s, which is not this server's %s", e.URL, primary.OPCUA)
		}
	}
	wantOffered(t, offered)
	if !t.Failed() {
		table.ran(nodeOPCUA, step{"Discovery", "FindServers", "the servers of the set"})
		table.ran(nodeOPCUA, step{"Discovery", "GetEndpoints", "every policy and mode, at the address that the client used"})
	}
}
