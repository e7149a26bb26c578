package opcua

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"google.golang.org/protobuf/types/known/timestamppb"

	"quorate/opcua/certstore"
	"quorate/opcua/session"
	logv1 "quorate/proto/quorate/log/v1"
	"quorate/redundancy"
)

var healthyPrimary = redundancy.Inputs{Generation: 1, Set: "line-a", Role: redundancy.Primary, Peers: []string{"m2"}, Lease: redundancy.Right}

// values reads nodes and returns their values; those that aren't Good are their status.
func values(t testing.TB, cfg ClientConfig, nodes ...string) []any {
	t.Helper()
	readings, err := Read(within(t), cfg, nodes...)
	if err != nil {
		t.Fatal(err)
	}
	var list []any
	for _, r := range readings {
		if r.Status != "Good" {
			list = append(list, r.Status)
			continue
		}
		list = append(list, r.Value)
	}
	return list
}

func expectValues(t testing.TB, cfg ClientConfig, want []any, nodes ...string) {
	t.Helper()
	if diff := cmp.Diff(want, values(t, cfg, nodes...)); diff != "" {
		t.Errorf("%v (-want +got):\n%s", nodes, diff)
	}
}

func TestStandardNodesOfAPrimary(t *testing.T) {
	g := newGroup(t, "m1", "m2", "m3")
	g.publish("WARM", serverNamed("m2", redundancy.Backup), serverNamed("m1", redundancy.Primary))
	f := &fitness{peers: map[string]redundancy.PeerView{
		"m2": {Server: "m2", Reachable: true, Known: true, Sample: redundancy.Sample{ServiceLevel: 100, State: ua.ServerStateRunning}},
	}}
	f.move(healthyPrimary)
	e, cfg := serve(t, listen(t), "m1", g, f)
	expectValues(t, cfg, []any{byte(255), []string{"urn:demo:m1", "urn:demo:m2"}, []string{"urn:demo:m1", "urn:demo:m2"}, int32(ua.RedundancySupportWarm), "m1", int32(0), nil, uint32(0)},
		"ServiceLevel", "i=2254", "ServerUriArray", "RedundancySupport", "CurrentServerId", "State", "EstimatedReturnTime", "SecondsTillShutdown")
	expectValues(t, cfg, []any{[]any{
		&ua.RedundantServerDataType{ServerID: "m1", ServiceLevel: 255, ServerState: ua.ServerStateRunning},
		&ua.RedundantServerDataType{ServerID: "m2", ServiceLevel: 100, ServerState: ua.ServerStateRunning},
	}, []string{"http://opcfoundation.org/UA/", "urn:demo:m1", "urn:quorate:state"}}, "RedundantServerArray", "NamespaceArray")

	v := values(t, cfg, "ServerStatus", "CurrentTime", "StartTime", "i=2264")
	status := v[0].(*ua.ServerStatusDataType)
	if now := v[1].(time.Time); time.Since(now).Abs() > time.Minute || now.Before(status.StartTime) {
		t.Errorf("current time %v, start time %v", now, status.StartTime)
	}
	if !status.StartTime.Equal(v[2].(time.Time)) || status.State != ua.ServerStateRunning || status.BuildInfo.SoftwareVersion != "1.2.3" || v[3] != "1.2.3" {
		t.Errorf("status %+v, start %v, version %v", status, v[2], v[3])
	}

	// The peer becomes unreachable: its last level must not draw clients to it.
	f.mu.Lock()
	f.peers["m2"] = redundancy.PeerView{Server: "m2", Known: true, Sample: redundancy.Sample{ServiceLevel: 100}}
	f.mu.Unlock()
	expectValues(t, cfg, []any{[]any{
		&ua.RedundantServerDataType{ServerID: "m1", ServiceLevel: 255, ServerState: ua.ServerStateRunning},
		&ua.RedundantServerDataType{ServerID: "m2", ServiceLevel: 1, ServerState: ua.ServerStateUnknown},
	}}, "RedundantServerArray")

	n, ok := e.space.Node(standard(id.Server_ServerRedundancy))
	if !ok || n.TypeDefinition != standard(id.NonTransparentRedundancyType) {
		t.Errorf("ServerRedundancy is %+v", n)
	}
	n, _ = e.space.Node(standard(id.Server_ServiceLevel))
	if n.AccessLevel != 1 || n.MinimumSamplingInterval != 0 || n.DataType != standard(id.Byte) {
		t.Errorf("ServiceLevel is %+v", n)
	}
}

func TestMaintenanceSuspendsAndSaysWhenTheServerReturns(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("HOT", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	back := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	g.apply(&logv1.Command{RequestId: "on", Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{
		Server: "m1", Active: true, EstimatedReturn: timestamppb.New(back),
	}}})
	down := healthyPrimary
	down.Maintenance = true
	f.move(down)
	expectValues(t, cfg, []any{byte(0), int32(ua.ServerStateSuspended), back, int32(ua.RedundancySupportHot)}, "ServiceLevel", "State", "EstimatedReturnTime", "RedundancySupport")
	f.move(redundancy.Inputs{Maintenance: true}) // It is a witness now.
	expectValues(t, cfg, []any{byte(1), int32(ua.ServerStateRunning), nil}, "ServiceLevel", "State", "EstimatedReturnTime")
	g.apply(&logv1.Command{RequestId: "off", Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1"}}})
	f.move(healthyPrimary)
	expectValues(t, cfg, []any{byte(255), int32(ua.ServerStateRunning), nil}, "ServiceLevel", "State", "EstimatedReturnTime")
}

// TestLevelThatRanOutIsNotPublished has a level wait to be published, and run out meanwhile with nobody there to tell of it, as when the process is stopped.
func TestLevelThatRanOutIsNotPublished(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("HOT", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	c, err := gopcua.NewClient(cfg.Endpoint, gopcua.AutoReconnect(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(within(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	notes := make(chan *gopcua.PublishNotificationData, 10)
	sub, err := c.Subscribe(within(t), &gopcua.SubscriptionParameters{Interval: 500 * time.Millisecond}, notes)
	if err != nil {
		t.Fatal(err)
	}
	level := gopcua.NewMonitoredItemCreateRequestWithDefaults(ua.NewNumericNodeID(0, id.Server_ServiceLevel), ua.AttributeIDValue, 1)
	level.RequestedParameters.QueueSize = 1
	if _, err := sub.Monitor(within(t), ua.TimestampsToReturnBoth, level); err != nil {
		t.Fatal(err)
	}
	next := func(want byte) {
		t.Helper()
		select {
		case n := <-notes:
			values, _ := n.Value.(*ua.DataChangeNotification)
			if values == nil || len(values.MonitoredItems) != 1 || values.MonitoredItems[0].Value.Value.Value() != want {
				t.Fatalf("published %+v, %v; want %d", values, n.Error, want)
			}
		case <-within(t).Done():
			t.Fatal("nothing was published")
		}
	}
	next(255)
	applying, cutOff := healthyPrimary, healthyPrimary
	applying.MidApply, cutOff.Lease = true, redundancy.NoLease
	f.move(applying)
	f.runOut(cutOff)
	next(190)
}

func TestWitnessServesItsEndpointWithoutASet(t *testing.T) {
	g := newGroup(t, "m1", "m2", "m3")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(redundancy.Inputs{Generation: 1, Lease: redundancy.Confirmed})
	_, cfg := serve(t, listen(t), "m3", g, f)
	expectValues(t, cfg, []any{byte(1), int32(0), []string{"urn:demo:m3"}, []string{}, []any{}, "Primary", "line-a", "BadNoCommunication"},
		"ServiceLevel", "RedundancySupport", "ServerArray", "ServerUriArray", "RedundantServerArray",
		"ns=2;s=servers/m1/Role", "ns=2;s=servers/m1/Set", "ns=2;s=servers/m1/Band")
	found, err := gopcua.FindServers(within(t), cfg.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].ApplicationURI != "urn:demo:m3" {
		t.Errorf("a witness finds %+v", found)
	}
}

func TestStateNamespaceFollowsTheGroup(t *testing.T) {
	g := newGroup(t, "m1", "m2", "m3")
	f := &fitness{}
	f.move(redundancy.Inputs{Lease: redundancy.Confirmed})
	_, cfg := serve(t, listen(t), "m1", g, f)
	expectValues(t, cfg, []any{uint64(0), nil, "BadNodeIdUnknown"}, "ns=2;s=topology/ConfigGenerationId", "ns=2;s=topology/TopologyDigest", "ns=2;s=servers/m1/Role")

	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	g.adopt("m1", 1)
	apply := healthyPrimary
	apply.MidApply = true
	f.move(apply)
	g.apply(&logv1.Command{RequestId: "b", Body: &logv1.Command_BeginLease{BeginLease: &logv1.BeginLease{Server: "m1"}}})
	digest := g.Local().State.CurrentGeneration().GetDigest()
	// The nodes follow the topology a moment after it was applied.
	awaitValue(t, cfg, "ns=2;s=servers/m1/Role", "Primary")
	expectValues(t, cfg, []any{uint64(1), digest, "ada", "line-a", uint64(1), digest, "Mid-apply", []string{"mid-apply: an apply lease is open"}, g.Local().State.Revision(), uint64(1), "Open", nil},
		"ns=2;s=topology/ConfigGenerationId", "ns=2;s=topology/TopologyDigest", "ns=2;s=topology/PublishedBy",
		"ns=2;s=servers/m1/Set", "ns=2;s=servers/m1/ConfigGenerationId", "ns=2;s=servers/m1/TopologyDigest", "ns=2;s=servers/m1/Band",
		"ns=2;s=servers/m1/BandReasons", "ns=2;s=servers/m1/Revision", "ns=2;s=servers/m1/LastApply/Generation", "ns=2;s=servers/m1/LastApply/State",
		"ns=2;s=servers/m1/LastApply/Duration")
	// m2 has adopted nothing yet, and has not been probed.
	expectValues(t, cfg, []any{uint64(0), nil, "Backup", "BadNoCommunication", nil},
		"ns=2;s=servers/m2/ConfigGenerationId", "ns=2;s=servers/m2/TopologyDigest", "ns=2;s=servers/m2/Role", "ns=2;s=servers/m2/Band", "ns=2;s=servers/m2/LastApply/State")
	g.apply(&logv1.Command{RequestId: "e", Body: &logv1.Command_EndLease{EndLease: &logv1.EndLease{Server: "m1", Outcome: "disk full"}}})
	expectValues(t, cfg, []any{"Ended", "disk full", 1.0}, "ns=2;s=servers/m1/LastApply/State", "ns=2;s=servers/m1/LastApply/Outcome", "ns=2;s=servers/m1/LastApply/Duration")

	// m2 leaves, m3 comes: with no restart.
	g.publish("WARM", serverNamed("m3", redundancy.Backup), serverNamed("m1", redundancy.Primary))
	awaitValue(t, cfg, "ns=2;s=servers/m3/Role", "Backup")
	expectValues(t, cfg, []any{"BadNodeIdUnknown", "BadNodeIdUnknown", []string{"urn:demo:m1", "urn:demo:m3"}},
		"ns=2;s=servers/m2/Role", "ns=2;s=servers/m2/LastApply/State", "ServerUriArray")
}

// awaitValue watches a node until it has a value.
func awaitValue(t testing.TB, cfg ClientConfig, node string, want any) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got := values(t, cfg, node)[0]
		if cmp.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v, want %v", node, got, want)
		}
	}
}

func TestPeersBandIsWhatTheProbesSaw(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	seen := time.Now().Add(-time.Second).UTC().Truncate(time.Millisecond)
	for _, c := range []struct {
		view   redundancy.PeerView
		status string
		value  any
	}{
		{redundancy.PeerView{Known: true, Reachable: true, LastSeen: seen, Sample: redundancy.Sample{ServiceLevel: 80}}, "Good", "Isolated"},
		{redundancy.PeerView{Known: true, LastSeen: seen, Sample: redundancy.Sample{ServiceLevel: 50}}, "UncertainNoCommunicationLastUsableValue", "Mid-apply"},
		{redundancy.PeerView{Known: true, Reachable: true, LastSeen: seen, Sample: redundancy.Sample{ServiceLevel: 255}}, "BadWaitingForInitialData", nil},
		{redundancy.PeerView{Reachable: true}, "BadNoCommunication", nil},
	} {
		f.mu.Lock()
		f.peers = map[string]redundancy.PeerView{"m2": c.view}
		f.mu.Unlock()
		r, err := Read(within(t), cfg, "ns=2;s=servers/m2/Band")
		if err != nil {
			t.Fatal(err)
		}
		if r[0].Status != c.status || !cmp.Equal(r[0].Value, c.value) {
			t.Errorf("%+v: %+v", c.view, r[0])
		}
		if c.value != nil && (r[0].SourceTimestamp == nil || !r[0].SourceTimestamp.Equal(seen)) {
			t.Errorf("source timestamp %v, want %v", r[0].SourceTimestamp, seen)
		}
	}
}

func TestNodeIDsAndBrowsePathsAreTheSameOnAllMembers(t *testing.T) {
	g := newGroup(t, "m1", "m2", "m3")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	var first []string
	for _, member := range []string{"m1", "m2", "m3"} {
		f := &fitness{}
		f.move(redundancy.Inputs{})
		_, cfg := serve(t, listen(t), member, g, f)
		c, err := gopcua.NewClient(cfg.Endpoint, gopcua.AutoReconnect(false))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Connect(within(t)); err != nil {
			t.Fatal(err)
		}
		var paths []string
		var walk func(n *gopcua.Node, path string)
		walk = func(n *gopcua.Node, path string) {
			refs, err := n.References(within(t), id.HierarchicalReferences, ua.BrowseDirectionForward, ua.NodeClassAll, true)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range refs {
				p := path + "/" + r.BrowseName.Name
				paths = append(paths, p+" "+r.NodeID.NodeID.String())
				walk(c.Node(r.NodeID.NodeID), p)
			}
		}
		walk(c.Node(ua.NewStringNodeID(stateIndex, "quorate")), "Quorate")
		target, err := c.Node(ua.NewNumericNodeID(0, id.ObjectsFolder)).TranslateBrowsePathInNamespaceToNodeID(within(t), stateIndex, "Quorate.Servers.m2.LastApply.State")
		if err != nil || target.String() != "ns=2;s=servers/m2/LastApply/State" {
			t.Errorf("%s: the browse path leads to %v, %v", member, target, err)
		}
		if err := c.Close(within(t)); err != nil {
			t.Error(err)
		}
		if first == nil {
			first = paths
		}
		if diff := cmp.Diff(first, paths); diff != "" {
			t.Errorf("%s differs from m1:\n%s", member, diff)
		}
	}
	for _, want := range []string{"Quorate/Topology/TopologyDigest ns=2;s=topology/TopologyDigest", "Quorate/Servers/m1/Band ns=2;s=servers/m1/Band"} {
		if !slices.Contains(first, want) {
			t.Errorf("no %s among %q", want, first)
		}
	}
}

func TestDiscovery(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	g.publish("WARM", serverNamed("m1", redundancy.Primary), serverNamed("m2", redundancy.Backup))
	f := &fitness{}
	f.move(healthyPrimary)
	_, cfg := serve(t, listen(t), "m1", g, f)
	found, err := gopcua.FindServers(within(t), cfg.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	urls := map[string][]string{}
	for _, s := range found {
		urls[s.ApplicationURI] = s.DiscoveryURLs
	}
	if diff := cmp.Diff(map[string][]string{"urn:demo:m1": {cfg.Endpoint}, "urn:demo:m2": {"opc.tcp://m2:4840"}}, urls); diff != "" {
		t.Errorf("FindServers (-want +got):\n%s", diff)
	}
	endpoints, err := gopcua.GetEndpoints(within(t), cfg.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var offers []string
	for _, e := range endpoints {
		if e.Server.ApplicationURI != "urn:demo:m1" || e.EndpointURL != cfg.Endpoint {
			t.Errorf("endpoint %s of %s", e.EndpointURL, e.Server.ApplicationURI)
		}
		offers = append(offers, e.SecurityPolicyURI[len(ua.SecurityPolicyURIPrefix):]+" "+e.SecurityMode.String())
	}
	want := []string{
		"Aes256_Sha256_RsaPss MessageSecurityModeSignAndEncrypt", "Basic256Sha256 MessageSecurityModeSignAndEncrypt", "Aes128_Sha256_RsaOaep MessageSecurityModeSignAndEncrypt",
		"Aes256_Sha256_RsaPss MessageSecurityModeSign", "Basic256Sha256 MessageSecurityModeSign", "Aes128_Sha256_RsaOaep MessageSecurityModeSign",
		"None MessageSecurityModeNone",
	}
	if diff := cmp.Diff(want, offers); diff != "" {
		t.Errorf("offers (-want +got):\n%s", diff)
	}
}

func TestSecurityIsAsTheSettingsSay(t *testing.T) {
	g := newGroup(t, "m1", "m2")
	f := &fitness{}
	f.move(redundancy.Inputs{})
	client := certificateOf(t, "urn:demo:client")
	store, err := certstore.Open(t.TempDir(), certstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	trust(t, store, client)
	_, closed := serve(t, listen(t), "m1", g, f, func(c *Config) { c.AllowNone = false })
	_, named := serve(t, listen(t), "m1", g, f, func(c *Config) { c.AllowAnonymous, c.Applications = false, store })
	for _, c := range []struct {
		name    string
		cfg     ClientConfig
		options session.Options
		refused bool
	}{
		{"no endpoint without security", closed, session.Options{Policy: session.None}, true},
		{"encrypted", closed, session.Options{Certificate: client.der, Key: client.key}, false},
		{"encrypted without a certificate", closed, session.Options{}, true},
		{"nobody without security", named, session.Options{Policy: session.None}, true},
		{"nobody, by an application that proved itself", named, session.Options{Policy: session.Basic256Sha256, Certificate: client.der, Key: client.key}, true},
		{"a user", named, session.Options{User: "ada", Password: "secret"}, true},
	} {
		c.cfg.Options = c.options
		if _, err := Read(within(t), c.cfg, "ServiceLevel"); (err != nil) != c.refused {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestNewRefusesWhatIsMissingByName(t *testing.T) {
	g := newGroup(t, "m1")
	for want, change := range map[string]func(*Config){
		"opcua: member is empty":         func(c *Config) { c.Member = "" },
		"opcua: applicationUri is empty": func(c *Config) { c.ApplicationURI = "" },
		"opcua: group is missing":        func(c *Config) { c.Group = nil },
		"opcua: redundancy is missing":   func(c *Config) { c.Redundancy = nil },
		"opcua: certificate is missing":  func(c *Config) { c.Certificate = nil },
		"opcua: allowAnonymous is off, and all applications are trusted: the members' probes, which have no user, could not be told from others": func(c *Config) {
			c.AllowAnonymous = false
		},
		"opcua: shutdownNotice: 2m0s is not within 0 and 1m0s": func(c *Config) { c.ShutdownNotice = 2 * time.Minute },
	} {
		cfg := Config{Member: "m1", AllowAnonymous: true, ApplicationURI: "urn:demo:m1", Group: g, Redundancy: &fitness{}, Certificate: certificateOf(t, "urn:demo:m1").give}
		change(&cfg)
		if _, err := New(cfg); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
