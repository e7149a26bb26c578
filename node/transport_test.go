package node

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"quorate/pki"
	peerv1 "quorate/proto/quorate/peer/v1"
)

// silentPeers answers nothing but the term.
type silentPeers struct {
	peerv1.UnimplementedPeerServiceServer
}

func (silentPeers) ConfirmTerm(context.Context, *peerv1.ConfirmTermRequest) (*peerv1.ConfirmTermResponse, error) {
	return &peerv1.ConfirmTermResponse{Term: 7}, nil
}

func listen(t *testing.T, creds Credentials) *NetTransport {
	t.Helper()
	tr, err := Listen("127.0.0.1:0", "", creds, testLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := tr.Start(silentPeers{}, LAN); err != nil {
		t.Fatal(err)
	}
	return tr
}

func confirm(t *testing.T, from, to *NetTransport, id string) error {
	t.Helper()
	peer, err := from.Peer(id, to.Advertised())
	if err != nil {
		return err
	}
	resp, err := peer.ConfirmTerm(t.Context(), &peerv1.ConfirmTermRequest{})
	if err == nil && resp.GetTerm() != 7 {
		t.Errorf("term %d", resp.GetTerm())
	}
	return err
}

// TestJunkHoldsUpNobody leaves connections idle, says nonsense and goes on talking.
func TestJunkHoldsUpNobody(t *testing.T) {
	a, b := listen(t, nil), listen(t, nil)
	for i := range 20 {
		conn, err := net.Dial("tcp", a.Advertised())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			continue
		}
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, io.EOF) {
			// A reset is as good as an end.
			var op *net.OpError
			if !errors.As(err, &op) {
				t.Error(err)
			}
		}
	}
	if err := confirm(t, b, a, "m1"); err != nil {
		t.Error(err)
	}
}

// dialRaw opens a connection that ends with the test.
func dialRaw(t *testing.T, to *NetTransport, say ...byte) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", to.Advertised())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write(say); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestStrangersKeepNoMemberOut opens more connections that say nothing than there are places: the oldest has to go, and members talk on.
func TestStrangersKeepNoMemberOut(t *testing.T) {
	a, b := listen(t, nil), listen(t, nil)
	oldest := dialRaw(t, a)
	for range maxStrangers {
		dialRaw(t, a)
	}
	if _, err := oldest.Read(make([]byte, 1)); err == nil {
		t.Error("the oldest stranger was served")
	}
	if err := confirm(t, b, a, "m1"); err != nil {
		t.Error(err)
	}
	a.strangers.mu.Lock()
	defer a.strangers.mu.Unlock()
	if n := a.strangers.conns.Len(); n > maxStrangers {
		t.Errorf("%d strangers, at most %d", n, maxStrangers)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	a := listen(t, nil)
	var conns []net.Conn
	for range maxConnections {
		conns = append(conns, dialRaw(t, a, streamLife))
	}
	eventually(t, "all slots taken", func() bool { return len(a.slots) == maxConnections })
	extra := dialRaw(t, a, streamLife)
	if _, err := extra.Read(make([]byte, 1)); err == nil {
		t.Error("one connection too many was served")
	}
	for _, c := range conns {
		_ = c.Close()
	}
	eventually(t, "slots given back", func() bool { return len(a.slots) == 0 })
	if err := confirm(t, listen(t, nil), a, "m1"); err != nil {
		t.Error(err)
	}
}

func TestPeersAreBounded(t *testing.T) {
	a := listen(t, nil)
	id := func(i int) string { return string(rune('a'+i/26)) + string(rune('a'+i%26)) }
	for i := range maxPeers {
		if _, err := a.Peer(id(i), "127.0.0.1:1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Peer("more", "127.0.0.1:1"); err == nil {
		t.Error("one peer too many")
	}
	a.Retain([]string{id(0)})
	if _, err := a.Peer("more", "127.0.0.1:1"); err != nil {
		t.Error(err)
	}
}

// TestNotSentIsTold: a request that found no connection is known not to have happened, one that was cut off isn't.
func TestNotSentIsTold(t *testing.T) {
	a, b := listen(t, nil), listen(t, nil)
	peer, err := a.Peer("m9", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = peer.Propose(t.Context(), &peerv1.ProposeRequest{})
	expectKind(t, fromPeer(t.Context(), "propose", err), NoLeader)
	if err := confirm(t, a, b, "m2"); err != nil {
		t.Fatal(err)
	}
	peer, err = a.Peer("m2", b.Advertised())
	if err != nil {
		t.Fatal(err)
	}
	_, err = peer.Propose(t.Context(), &peerv1.ProposeRequest{})
	expectKind(t, fromPeer(t.Context(), "propose", err), UnknownOutcome)
}

func TestGoneMeansGone(t *testing.T) {
	a, b := listen(t, nil), listen(t, nil)
	done, answered := make(chan error, 1), make(chan struct{}, 1)
	watch := func(ctx context.Context) {
		done <- a.gone(ctx, "m2", b.Advertised(), func() { answered <- struct{}{} })
	}
	ctx, cancel := context.WithCancel(t.Context())
	go watch(ctx)
	<-answered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("a living process is gone: %v", err)
	}
	go watch(t.Context())
	<-answered
	select {
	case err := <-done:
		t.Errorf("a living process is gone: %v", err)
	default:
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// credentials issues a member's certificate from an authority in dir.
func credentials(t *testing.T, dir string, request pki.IssueRequest) *pki.Credentials {
	t.Helper()
	cert, key, err := pki.Issue(dir, request)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pki.Load(cert, key, filepath.Join(dir, pki.AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestOnlyMembersTalk: whoever has no certificate of a member of this site gets nowhere on the raft port, and a member isn't taken for another.
func TestOnlyMembersTalk(t *testing.T) {
	dir, foreign := t.TempDir(), t.TempDir()
	if err := errors.Join(pki.Init(dir, "plant"), pki.Init(foreign, "plant")); err != nil {
		t.Fatal(err)
	}
	m1 := credentials(t, dir, pki.IssueRequest{Member: "m1", Hosts: []string{"127.0.0.1"}})
	m2 := credentials(t, dir, pki.IssueRequest{Member: "m2", Hosts: []string{"127.0.0.1"}})
	person := credentials(t, dir, pki.IssueRequest{Person: "ada", Role: pki.RoleAdministrator})
	stranger := credentials(t, foreign, pki.IssueRequest{Member: "m2", Hosts: []string{"127.0.0.1"}})
	server := listen(t, m1)
	if err := confirm(t, listen(t, m2), server, "m1"); err != nil {
		t.Errorf("a member: %v", err)
	}
	if err := confirm(t, listen(t, m2), server, "m3"); err == nil {
		t.Error("m1 was taken for m3")
	}
	if err := confirm(t, listen(t, person), server, "m1"); err == nil {
		t.Error("a person was served")
	}
	if err := confirm(t, listen(t, stranger), server, "m1"); err == nil {
		t.Error("a stranger was served")
	}
	if err := confirm(t, listen(t, nil), server, "m1"); err == nil {
		t.Error("plain text was served")
	}
	// Raft's own streams too.
	for kind := range map[byte]bool{streamRaft: true, streamLife: true} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		conn, err := listen(t, person).dial(ctx, "m1", server.Advertised(), kind)
		if err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			var alert *tls.CertificateVerificationError
			if _, err = conn.Read(make([]byte, 1)); err == nil || errors.As(err, &alert) {
				t.Errorf("stream %c was opened to a person: %v", kind, err)
			}
			_ = conn.Close()
		}
		cancel()
	}
}

// startSecuredGroup starts three members with real certificates.
func startSecuredGroup(t *testing.T) *group {
	t.Helper()
	dir := t.TempDir()
	if err := pki.Init(dir, "plant"); err != nil {
		t.Fatal(err)
	}
	g := startGroupWith(t, 3, func(id string) Credentials {
		return credentials(t, dir, pki.IssueRequest{Member: id, Hosts: []string{"127.0.0.1"}})
	}, nil)
	g.ready()
	return g
}

// TestGroupOverMutualTLS runs a group with real certificates.
func TestGroupOverMutualTLS(t *testing.T) {
	g := startSecuredGroup(t)
	if _, err := g.follower().Propose(t.Context(), publishCommand("r1", 0)); err != nil {
		t.Fatal(err)
	}
	// A follower hears of the commit a moment after the answer.
	if _, err := g.follower().Read(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	members, err := g.follower().Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leaders := 0
	for _, m := range members {
		if !m.Reachable || m.Version != "test" || m.GrpcAddress == "" || m.Term == 0 {
			t.Errorf("%v", m)
		}
		if m.Leader {
			leaders++
		}
	}
	if leaders != 1 || len(members) != 3 || members[0].Set != "line-a" || members[0].Role != "Primary" {
		t.Errorf("%v", members)
	}
}
