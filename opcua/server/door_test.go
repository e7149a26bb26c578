package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

const peerURI = "urn:demo:peer"

func exemptPeer(c *Config) { c.Exempt = func(uri string) bool { return uri == peerURI } }

func TestShutClosesSessionsAndRefusesOthers(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		r.v.cfg.Exempt = func(uri string) bool { return uri == peerURI }
		describe := func(uri string) *ua.CreateSessionRequest {
			return &ua.CreateSessionRequest{ClientDescription: &ua.ApplicationDescription{ApplicationURI: uri}}
		}
		s := &Server{services: r.v}
		peer, half := &fakeChannel{}, &fakeChannel{}
		peerAuth := want[*ua.CreateSessionResponse](t, r.ask(peer, nil, describe(peerURI))).AuthenticationToken
		want[*ua.ActivateSessionResponse](t, r.ask(peer, peerAuth, &ua.ActivateSessionRequest{}))
		r.create(half) // Never activated.
		r.subscribe()
		r.publish()

		if n := s.Shut(ua.StatusBadServerHalted); n != 2 {
			t.Errorf("%d sessions were closed, want 2", n)
		}
		// What was parked is answered before the connection ends.
		if answers := r.ch.take(); len(answers) != 1 {
			t.Errorf("%d answers, want that to the Publish request", len(answers))
		} else {
			wantFault(t, answers[0].resp, ua.StatusBadSessionClosed)
		}
		for name, ch := range map[string]*fakeChannel{"of an active session": r.ch, "of one that was never activated": half} {
			if !ch.gone || ch.reason != ua.StatusBadServerHalted {
				t.Errorf("the channel %s: gone %v with %v", name, ch.gone, ch.reason)
			}
		}
		if peer.gone {
			t.Error("the exempt session's channel was closed")
		}
		read := &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}}}
		want[*ua.ReadResponse](t, r.ask(peer, peerAuth, read))

		again := &fakeChannel{}
		wantFault(t, r.ask(again, nil, describe("urn:demo:client")), ua.StatusBadServerHalted)
		wantFault(t, r.ask(again, nil, &ua.CreateSessionRequest{}), ua.StatusBadServerHalted)
		wantFault(t, r.ask(again, r.auth, &ua.ActivateSessionRequest{}), ua.StatusBadSessionIDInvalid) // It is gone for good.
		want[*ua.FindServersResponse](t, r.ask(again, nil, &ua.FindServersRequest{}))
		want[*ua.CreateSessionResponse](t, r.ask(again, nil, describe(peerURI)))
		if n := s.Shut(ua.StatusBadServerHalted); n != 0 {
			t.Errorf("%d sessions were closed by shutting it again", n)
		}

		s.Open()
		r.auth = r.connect(again)
		r.ch = again
	})
}

// TestSparePlacesAreForTheExempt fills the table of sessions, and the connections: an exempt application gets in, as often as there are spare places, and nobody else.
func TestSparePlacesAreForTheExempt(t *testing.T) {
	inBubble(t, Limits{MaxSessions: 3, MaxSessionsPerClient: 3}, func(t *testing.T, r *rig) {
		r.v.cfg.Exempt, r.v.cfg.Spare = func(uri string) bool { return uri == peerURI }, 2
		describe := func(uri string) *ua.CreateSessionRequest {
			return &ua.CreateSessionRequest{ClientDescription: &ua.ApplicationDescription{ApplicationURI: uri}}
		}
		open := func(ch *fakeChannel, uri string) *ua.NodeID {
			t.Helper()
			auth := want[*ua.CreateSessionResponse](t, r.ask(ch, nil, describe(uri))).AuthenticationToken
			want[*ua.ActivateSessionResponse](t, r.ask(ch, auth, &ua.ActivateSessionRequest{}))
			return auth
		}
		for range 2 { // The rig has one.
			open(&fakeChannel{}, "urn:demo:client")
		}
		wantFault(t, r.ask(&fakeChannel{}, nil, describe("urn:demo:client")), ua.StatusBadTooManySessions)
		for range 2 {
			open(&fakeChannel{crowded: true}, peerURI)
		}
		wantFault(t, r.ask(&fakeChannel{}, nil, describe(peerURI)), ua.StatusBadTooManySessions)
	})
	// Where there is room in the table, a connection on a spare place makes no session, nor takes one that is there.
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		crowded := &fakeChannel{crowded: true}
		wantFault(t, r.ask(crowded, nil, &ua.CreateSessionRequest{}), ua.StatusBadTooManySessions)
		wantFault(t, r.ask(crowded, r.auth, &ua.ActivateSessionRequest{}), ua.StatusBadTooManySessions)
		want[*ua.FindServersResponse](t, r.ask(crowded, nil, &ua.FindServersRequest{}))
	})
}

// TestAdministratorsStay has an administrator's session outlive the closing of the door, and a move to another channel, but no change to a user who is none.
func TestAdministratorsStay(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		who := Identity{Name: "ada", Role: RoleAdministrator}
		r.v.cfg.Authenticate = func(Credentials) (Identity, ua.StatusCode) { return who, ua.StatusOK }
		s := &Server{services: r.v}
		boss := &fakeChannel{}
		auth := r.create(boss)
		want[*ua.ActivateSessionResponse](t, r.ask(boss, auth, &ua.ActivateSessionRequest{}))
		if n := s.Shut(ua.StatusBadServerHalted); n != 1 || boss.gone || !r.ch.gone {
			t.Errorf("%d sessions were closed, want that of the viewer; the administrator's is gone: %t", n, boss.gone)
		}
		read := &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}}}}
		want[*ua.ReadResponse](t, r.ask(boss, auth, read))
		moved := &fakeChannel{}
		want[*ua.ActivateSessionResponse](t, r.ask(moved, auth, &ua.ActivateSessionRequest{}))
		want[*ua.ReadResponse](t, r.ask(moved, auth, read))
		wantFault(t, r.ask(&fakeChannel{}, nil, &ua.CreateSessionRequest{}), ua.StatusBadServerHalted)
		who = Identity{Name: "bob", Role: RoleOperator}
		wantFault(t, r.ask(moved, auth, &ua.ActivateSessionRequest{}), ua.StatusBadServerHalted)
		wantFault(t, r.ask(moved, auth, read), ua.StatusBadSessionIDInvalid)
	})
}

// TestSessionsThatComeWhileItIsShut makes sessions while the door moves: none is left, whichever came first.
func TestSessionsThatComeWhileItIsShut(t *testing.T) {
	r := newRig(t, Limits{})
	defer r.v.shutdown()
	s := &Server{services: r.v}
	for range 100 {
		var both sync.WaitGroup
		both.Go(func() {
			ch := &fakeChannel{}
			req := &ua.CreateSessionRequest{}
			req.SetHeader(&ua.RequestHeader{})
			r.v.serve(ch, 1, req)
		})
		both.Go(func() { s.Shut(ua.StatusBadServerHalted) })
		both.Wait()
		if n := r.v.sessions.count(); n != 0 {
			t.Fatalf("%d sessions of a server that is shut", n)
		}
		s.Open()
	}
}

// TestShutBreaksConnections has a real client, which is to notice.
func TestShutBreaksConnections(t *testing.T) {
	s := serve(t, exemptPeer)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	connect := func(opts ...opcua.Option) (*opcua.Client, error) {
		c, err := opcua.NewClient(s.url, append(opts, opcua.AutoReconnect(false))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		return c, c.Connect(ctx)
	}
	client, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	peer, err := connect(opcua.ApplicationURI(peerURI))
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Shut(ua.StatusBadServerHalted); n != 1 {
		t.Errorf("%d sessions were closed, want 1", n)
	}
	if _, err := client.Node(levelKey.NodeID()).Value(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("a read by the client whose session was closed: %v", err)
	}
	if _, err := peer.Node(levelKey.NodeID()).Value(ctx); err != nil {
		t.Errorf("a read by the exempt client: %v", err)
	}
	if _, err := connect(); !errors.Is(err, ua.StatusBadServerHalted) {
		t.Errorf("another session: %v", err)
	}
	s.Open()
	if _, err := connect(); err != nil {
		t.Errorf("after it was opened again: %v", err)
	}
}
