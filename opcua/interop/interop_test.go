// Package interop lets OPC UA clients that others wrote talk to real members: what they see is what a plant sees.
package interop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	basePort = 18100
	// scenarioLimit bounds one run of the client.
	scenarioLimit = time.Minute
	// changes is how many times the level is made to change, changeInterval apart.
	changes        = 100
	changeInterval = 200 * time.Millisecond
	// tokenLife is the secure channel's, and renewFor how long it is read through renewals.
	tokenLife = 4 * time.Second
	renewFor  = 30 * time.Second
)

// nodeBinary is the Node.js that npm installed beside the client: Debian's is older than node-opcua needs.
const nodeBinary = "node_modules/.bin/node"

type security struct{ Mode, Policy string }

// securities are the ways in which the client connects.
var securities = []security{
	{"None", "None"},
	{"SignAndEncrypt", "Basic256Sha256"},
}

func TestMain(m *testing.M) {
	flag.Parse()
	// The clients mostly wait, so more of them than there are cores go side by side.
	if err := flag.Set("test.parallel", strconv.Itoa(2*len(securities))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func requireClient(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(nodeBinary); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("node-opcua is not installed: run `make test`, or `npm ci` in opcua/interop")
		}
		t.Skip("node-opcua is not installed: run `make test`, or `npm ci` in opcua/interop")
	}
}

// client prepares one run of the JavaScript client.
func client(ctx context.Context, t *testing.T, scenario string, options map[string]any) *exec.Cmd {
	t.Helper()
	options["pki"] = filepath.Join(t.TempDir(), "pki")
	b, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(ctx, nodeBinary, "client.mjs", scenario, string(b))
}

// run runs a scenario and decodes the last line that it printed.
func run(t *testing.T, scenario string, options map[string]any, into any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	cmd := client(ctx, t, scenario, options)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", scenario, err, out, errOut.Bytes())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), into); err != nil {
		t.Fatalf("%s: %v in %q", scenario, err, out)
	}
}

// TestNodeOPCUA runs the main job's client scenarios against one group of three processes.
func TestNodeOPCUA(t *testing.T) {
	requireClient(t)
	dir := t.TempDir()
	binary, err := devgroup.Build(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	g, err := devgroup.Start(t.Context(), devgroup.Options{Binary: binary, Data: filepath.Join(dir, "group"), BasePort: basePort, Log: &log})
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
	conn, err := devgroup.Dial(primary)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	options := func(s security) map[string]any {
		return map[string]any{"endpoint": primary.OPCUA, "mode": s.Mode, "policy": s.Policy}
	}
	for _, s := range securities {
		t.Run("inspect/"+s.Mode, func(t *testing.T) { inspect(t, options(s)) })
	}
	t.Run("discover", func(t *testing.T) { discover(t, g, primary) })
	// The long ones go side by side: no renewal may disturb a subscription either.
	t.Run("long", func(t *testing.T) {
		for _, s := range securities {
			t.Run("renew/"+s.Mode, func(t *testing.T) {
				t.Parallel()
				renew(t, options(s))
			})
		}
		t.Run("follow", func(t *testing.T) {
			t.Parallel()
			followAll(t, conn, options)
		})
	})
}

func inspect(t *testing.T, options map[string]any) {
	var got struct {
		Read map[string]struct {
			Status, Type string
			Value        any
		}
		Server, Redundancy map[string]struct{ NodeID, Type string }
		RedundancyType     string
	}
	run(t, "inspect", options, &got)
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
	var got struct {
		Reads, Failures, Renewals int
		LastError                 string
	}
	run(t, "renew", options, &got)
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

// follower is a client that follows the Primary's ServiceLevel by a subscription.
type follower struct {
	name   string
	cmd    *exec.Cmd
	in     io.Closer
	levels chan int
}

func follow(ctx context.Context, t *testing.T, name string, options map[string]any) *follower {
	t.Helper()
	cmd := client(ctx, t, "follow", options)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &follower{name: name, cmd: cmd, in: in, levels: make(chan int, changes+1)}
	go func() {
		defer close(f.levels)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line struct {
				Value  int
				Status string
				Error  string
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Error != "" || line.Status != "Good" {
				t.Errorf("%s: the client said %s (%v)", name, lines.Text(), err)
				continue
			}
			f.levels <- line.Value
		}
	}()
	return f
}

// next wants the next notification to have a certain value.
func (f *follower) next(ctx context.Context, t *testing.T, want int, why string) {
	t.Helper()
	select {
	case got, ok := <-f.levels:
		if !ok {
			t.Fatalf("%s: the client ended; want %d (%s)", f.name, want, why)
		}
		if got != want {
			t.Fatalf("%s: the client saw %d, want %d (%s)", f.name, got, want, why)
		}
	case <-ctx.Done():
		t.Fatalf("%s: the client saw nothing more; want %d (%s)", f.name, want, why)
	}
}

// end wants no notification beyond those that were asked for.
func (f *follower) end(t *testing.T) {
	t.Helper()
	if err := f.in.Close(); err != nil {
		t.Fatal(err)
	}
	for extra := range f.levels {
		t.Errorf("%s: the client saw %d, which no change made", f.name, extra)
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("%s: the client: %v", f.name, err)
	}
}

// followAll makes the Primary's level change again and again and wants every subscribed client to see each change.
func followAll(t *testing.T, conn *grpc.ClientConn, options func(security) map[string]any) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	var followers []*follower
	for _, s := range securities {
		f := follow(ctx, t, s.Mode, options(s))
		f.next(ctx, t, 255, "the first notification")
		followers = append(followers, f)
	}
	leases := quoratev1.NewLeaseServiceClient(conn)
	tick := time.NewTicker(changeInterval)
	defer tick.Stop()
	for i := range changes {
		<-tick.C
		id := fmt.Sprintf("interop-%d", i)
		var err error
		if i%2 == 0 {
			_, err = leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: id, Server: "m1"})
		} else {
			_, err = leases.EndLease(ctx, &quoratev1.EndLeaseRequest{RequestId: id, Server: "m1"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range followers {
		for i := range changes {
			f.next(ctx, t, []int{200, 255}[i%2], fmt.Sprintf("change %d", i))
		}
		f.end(t)
	}
}

func discover(t *testing.T, g *devgroup.Group, primary devgroup.Member) {
	var got struct {
		Servers []struct {
			URI  string
			URLs []string
		}
		Endpoints []struct{ URL, Policy, Mode, URI string }
	}
	run(t, "discover", map[string]any{"endpoint": primary.OPCUA}, &got)
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
	offered := make(map[string]bool)
	for _, e := range got.Endpoints {
		offered[e.Mode+" "+e.Policy[strings.LastIndex(e.Policy, "#")+1:]] = true
		if !strings.HasPrefix(strings.TrimSuffix(e.URL, "/"), primary.OPCUA) {
			t.Errorf("GetEndpoints gives %s, which is not this server's %s", e.URL, primary.OPCUA)
		}
	}
	for _, want := range []string{"None None", "SignAndEncrypt Basic256Sha256"} {
		if !offered[want] {
			t.Errorf("GetEndpoints does not offer %s: %+v", want, got.Endpoints)
		}
	}
}
