package channel

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// TestPolicies opens a channel with each policy and mode, with keys of lengths
// that need one and two bytes of padding length, and sends requests and
// responses of one and of many chunks.
func TestPolicies(t *testing.T) {
	long := "ns=1;s=" + strings.Repeat("x", 4000)
	var many []string
	for range 100 {
		many = append(many, long)
	}
	for _, o := range allOffers() {
		for _, bits := range []int{2048, 3072} {
			if bits > 2048 && o.Mode != ua.MessageSecurityModeSignAndEncrypt {
				continue
			}
			name := fmt.Sprint(o.PolicyURI[strings.Index(o.PolicyURI, "#")+1:], o.Mode, bits)
			t.Run(name, func(t *testing.T) {
				server, cli := newIdentity(t, "server", bits), newIdentity(t, "client", bits)
				h := &echo{}
				_, addr := start(t, Config{Certificate: server.certificate}, h)
				c, err := dial(t, addr, o.PolicyURI, o.Mode, time.Hour, cli, server)
				if err != nil {
					t.Fatal(err)
				}
				for _, nodes := range [][]string{{"i=2258"}, {}, {long}, many, {"ns=3;s=a", "ns=3;s=b"}} {
					if err := c.read(nodes...); err != nil {
						t.Fatalf("%d nodes: %v", len(nodes), err)
					}
				}
				ch := h.last.Load()
				if ch.SecurityPolicyURI() != o.PolicyURI || ch.SecurityMode() != o.Mode || ch.DiscoveryOnly() || ch.ID() == 0 {
					t.Errorf("channel has %q %v %v %d", ch.SecurityPolicyURI(), ch.SecurityMode(), ch.DiscoveryOnly(), ch.ID())
				}
				if ch.EndpointURL() != "opc.tcp://"+addr || ch.LocalAddr().String() != addr || ch.RemoteAddr() == nil {
					t.Errorf("channel has URL %q, address %v", ch.EndpointURL(), ch.LocalAddr())
				}
				want := string(cli.cert)
				if o.Mode == ua.MessageSecurityModeNone {
					want = ""
				}
				if got := string(ch.ClientCertificate()); got != want {
					t.Errorf("client certificate has %d bytes, want %d", len(got), len(want))
				}
			})
		}
	}
}
