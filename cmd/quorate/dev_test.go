package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestDefaultPorts(t *testing.T) {
	plan, err := planDev(&devFlags{members: 2, data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(plan.members)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"grpc":"127.0.0.1:7101","http":"127.0.0.1:7201","opcua":"opc.tcp://127.0.0.1:4841"}`,
		`"grpc":"127.0.0.1:7102","http":"127.0.0.1:7202","opcua":"opc.tcp://127.0.0.1:4842"}`,
	} {
		if !strings.Contains(string(line), want) {
			t.Errorf("%s lacks %s", line, want)
		}
	}
	if got := plan.members[1].settings.Raft.Address; got != "127.0.0.1:7302" {
		t.Errorf("raft address %s", got)
	}
}

func TestDemoTopology(t *testing.T) {
	for members, want := range map[int]string{1: "m1 Primary", 2: "m1 Primary, m2 Backup", 3: "m1 Primary, m2 Backup"} {
		plan, err := planDev(&devFlags{members: members, data: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		sets := plan.topology(false).GetSets()
		for _, server := range sets[0].GetServers() {
			got = append(got, server.GetMember()+" "+server.GetRole())
		}
		if len(sets) != 1 || sets[0].GetId() != "line-a" || sets[0].GetMode() != "WARM" || strings.Join(got, ", ") != want {
			t.Errorf("%d members: %v", members, sets)
		}
		if swapped := plan.topology(true); proto.Equal(swapped, plan.topology(false)) != (members == 1) {
			t.Errorf("%d members, swapped: %v", members, swapped)
		}
	}
}

func TestLocalGroupLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	defer http.DefaultClient.CloseIdleConnections()
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	f := &devFlags{members: 3, basePort: base, data: t.TempDir(), demo: true}
	plan, err := planDev(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.write(); err != nil {
		t.Fatal(err)
	}
	group := newLocalGroup(plan)
	if err := group.start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), devStartLimit)
	defer cancel()
	begun := time.Now()
	if err := plan.ready(ctx, f.demo); err != nil {
		t.Error(err)
	}
	t.Logf("ready after %s", time.Since(begun))

	// A second group in the same place fails, says why, and takes nothing with it.
	if err := newLocalGroup(plan).start(); err == nil || !strings.Contains(err.Error(), "member m1: grpc.address: ") {
		t.Errorf("error %v", err)
	}
	if err := plan.members[0].ready(ctx, http.DefaultClient); err != nil {
		t.Error(err)
	}
	// A page that is open ends with its member, and holds it up as little as it likes.
	stream := followPage(t, plan.members[0].HTTP)
	begun = time.Now()
	if err := group.stop(); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		t.Errorf("the page's stream ended with %v", err)
	}
	if took := time.Since(begun); took > devStopLimit/2 {
		t.Errorf("the group stopped after %v", took)
	}
	for _, m := range plan.members {
		if conn, err := net.Dial("tcp", m.GRPC); err == nil {
			conn.Close()
			t.Errorf("%s still listens", m.GRPC)
		}
	}
}

func TestReadyGivesUpWithTheReason(t *testing.T) {
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planDev(&devFlags{members: 1, basePort: base, data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := plan.ready(ctx, true); err == nil || !strings.Contains(err.Error(), "member m1, whose log is ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
}

func TestTablesAlignAndStayOnTheirLines(t *testing.T) {
	var out bytes.Buffer
	p := &printer{w: &out, colour: true}
	p.table([]string{"A", "B"}, [][]cell{text("é", cell{text: "x\x1b[31my\nz", colour: good}), text("long", "")})
	if err := p.flush(); err != nil {
		t.Fatal(err)
	}
	want := faint + "A" + reset + "     " + faint + "B" + reset + "\n" +
		"é     " + good + "x [31my z" + reset + "\n" +
		"long  -\n"
	if out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{"/a/b-c.yaml": "/a/b-c.yaml", "": "''", "a b": "'a b'", "it's": `'it'\''s'`} {
		if got := quote(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

// followPage opens a page's stream as a browser would, and returns it once something came.
func followPage(t *testing.T, address string) io.Reader {
	t.Helper()
	get := func(path string) io.ReadCloser {
		t.Helper()
		response, err := http.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", path, response.Status)
		}
		return response.Body
	}
	page, err := io.ReadAll(get("/"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), `hx-sse:connect="`)
	path, _, _ := strings.Cut(rest, `"`)
	stream := bufio.NewReader(get(path))
	if line, err := stream.ReadString('\n'); err != nil || line != "event: beat\n" {
		t.Fatalf("the stream of %q begins with %q, %v", path, line, err)
	}
	return stream
}
