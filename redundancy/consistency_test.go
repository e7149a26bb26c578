package redundancy

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"
)

func (p *fakeProber) says(server string, s Sample) {
	s.ServiceLevel, s.State = 100, ua.ServerStateRunning
	p.set(func() { p.answer[server] = func(context.Context) (Sample, error) { return s, nil } })
}

func TestInvalidTopologyLastsUntilTheServersAgreeAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		sample func(digest string) Sample
		reason func(digest string) string // empty: it is none
	}{
		{"nothing is known", func(string) Sample { return Sample{} }, nil},
		{"agreement", func(d string) Sample {
			return Sample{ApplicationURI: "urn:demo:m2", Generation: 1, Digest: d, Role: Backup}
		}, nil},
		{"two claim Primary", func(d string) Sample {
			return Sample{ApplicationURI: "urn:demo:m2", Generation: 1, Digest: d, Role: Primary}
		}, func(string) string {
			return "invalid topology: m2 claims Primary under generation 1, as this server does"
		}},
		{"Primary of another generation", func(d string) Sample {
			return Sample{ApplicationURI: "urn:demo:m2", Generation: 7, Digest: "x", Role: Primary}
		}, nil},
		{"another digest", func(string) Sample {
			return Sample{ApplicationURI: "urn:demo:m2", Generation: 1, Digest: "abc", Role: Backup}
		}, func(d string) string {
			return "invalid topology: m2 has another topology as generation 1: digest abc, not " + d
		}},
		{"another ApplicationUri", func(string) Sample { return Sample{ApplicationURI: "urn:demo:m9"} }, func(string) string {
			return "invalid topology: generation 1 declares ApplicationUri urn:demo:m2 for m2, which answers as urn:demo:m9"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t, "m1", "m2")
				g.publish(server("m1", Primary), server("m2", Backup))
				p := newFakeProber()
				m := start(t, g, p)
				expect(t, m, 255, Authoritative)
				digest := g.Local().State.CurrentGeneration().GetDigest()
				p.says("m2", c.sample(digest))
				time.Sleep(m.settings.ProbeInterval)
				if c.reason == nil {
					expect(t, m, 255, Authoritative)
					return
				}
				expect(t, m, 2, InvalidTopology)
				if r := m.Level().Reasons; !slices.Contains(r, c.reason(digest)) {
					t.Errorf("reasons %q, want %q", r, c.reason(digest))
				}
				if peer := m.Peers()[0]; peer.GetApplicationUri() != c.sample(digest).ApplicationURI || peer.GetDigest() != c.sample(digest).Digest {
					t.Errorf("peer %v", peer)
				}
				// That the peer falls silent is no agreement.
				p.fail("m2", errRefused)
				time.Sleep(time.Minute)
				expect(t, m, 2, InvalidTopology)
				p.says("m2", Sample{ApplicationURI: "urn:demo:m2", Generation: 1, Digest: digest, Role: Backup})
				time.Sleep(maxBackoff)
				expect(t, m, 255, Authoritative) // With no Recovering: it was never at fault.
			})
		})
	}
}

func TestBothSidesOfAContradictionFindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		p1, p2 := newFakeProber(), newFakeProber()
		// The certificate of m2 is not the declared one: m2 knows by itself, m1 by what m2 answers.
		m1 := start(t, g, p1)
		m2 := start(t, g, p2, as("m2", nil), func(c *Config) { c.ApplicationURI = "urn:demo:m9" })
		p1.says("m2", Sample{ApplicationURI: "urn:demo:m9"})
		time.Sleep(m1.settings.ProbeInterval)
		expect(t, m1, 2, InvalidTopology)
		expect(t, m2, 2, InvalidTopology)
		// A topology that declares what is so ends it at once on both.
		declared := server("m2", Backup)
		declared.ApplicationUri = "urn:demo:m9"
		g.publish(server("m1", Primary), declared)
		expect(t, m1, 255, Authoritative)
		expect(t, m2, 100, Authoritative)
	})
}

// TestWhatAnotherAddressSaidIsForgotten corrects the URL of a peer at which somebody else answered, while the peer itself is down: what was said there is held
// against it no longer, and it is not taken for reachable.
func TestWhatAnotherAddressSaidIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		wrong := server("m2", Backup)
		wrong.EndpointUrl = "opc.tcp://somebody:4840"
		g.publish(server("m1", Primary), wrong)
		p := newFakeProber()
		p.says("m2", Sample{ApplicationURI: "urn:demo:m9"})
		m := start(t, g, p)
		expect(t, m, 2, InvalidTopology)
		p.fail("m2", errRefused)
		time.Sleep(time.Minute)
		expect(t, m, 2, InvalidTopology)
		g.publish(server("m1", Primary), server("m2", Backup))
		expect(t, m, 230, Isolated)
		if peer := m.Peers()[0]; peer.GetReachable() || peer.GetApplicationUri() != "" || peer.GetLastSeenAge() != nil {
			t.Errorf("peer %v", peer)
		}
	})
}
