//go:build !race

// Not under the race detector, because gopcua's client adds to a WaitGroup while it waits for it when it renews by itself. There
// TestRenewalInFlight renews, with a client of our own.

package channel

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// TestRenewalUnderLoad renews every second while requests go back and forth.
func TestRenewalUnderLoad(t *testing.T) {
	for _, mode := range []ua.MessageSecurityMode{ua.MessageSecurityModeSign, ua.MessageSecurityModeSignAndEncrypt} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			renewed := make(chan struct{}, 100)
			h := &echo{}
			_, addr := start(t, Config{Events: Events{Opened: opened(renewed)}}, h)
			// gopcua renews after 75 % of the life time, in whole seconds.
			c := mustDial(t, addr, ua.SecurityPolicyURIBasic256Sha256, mode, 2*time.Second)
			const renewals, readers = 5, 4
			stop, failed := make(chan struct{}), make(chan error, readers)
			for i := range readers {
				go func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							failed <- nil
							return
						default:
						}
						if err := c.read(fmt.Sprintf("ns=%d;i=%d", i+1, n+70000)); err != nil {
							failed <- fmt.Errorf("read %d: %w", n, err)
							return
						}
					}
				}()
			}
			timeout := time.After(patience)
			for n := 0; n < renewals; n++ {
				select {
				case <-renewed:
				case err := <-failed:
					t.Fatal(err)
				case <-timeout:
					t.Fatalf("only %d renewals", n)
				}
			}
			close(stop)
			for range readers {
				if err := <-failed; err != nil {
					t.Error(err)
				}
			}
			if h.served.Load() < 100 {
				t.Errorf("only %d reads", h.served.Load())
			}
		})
	}
}

// TestTrustEndsWithTheToken proves that a client that is no longer trusted does
// not get another token.
func TestTrustEndsWithTheToken(t *testing.T) {
	var status atomic.Uint32
	got := make(rejects, 10)
	_, addr := start(t, Config{Verify: func([]byte) ua.StatusCode { return ua.StatusCode(status.Load()) }, Events: got.events()}, &echo{})
	// gopcua's client renews by itself, when three quarters of the second are over.
	c := mustDial(t, addr, ua.SecurityPolicyURIBasic256Sha256, ua.MessageSecurityModeSign, time.Second)
	if err := c.read("i=1"); err != nil {
		t.Fatal(err)
	}
	status.Store(uint32(ua.StatusBadSecurityChecksFailed))
	got.expect(t, "security BadSecurityChecksFailed")
}
