package server

import (
	"context"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/ua"
)

// TestThousandSessions has a thousand sessions with phases of their own watch a value at 100 ms. Each gets a fresh value in each
// cycle, and the value is read once for all of them.
func TestThousandSessions(t *testing.T) {
	const sessions, cycles = 1000, 20
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		channels := make([]*fakeChannel, sessions)
		for i := range channels {
			ch := &fakeChannel{}
			channels[i] = ch
			r.ch, r.auth = ch, r.connect(ch)
			sub := r.subscribe().SubscriptionID
			r.monitor(sub, clockKey.NodeID(), 1, func(c *ua.MonitoredItemCreateRequest) { c.RequestedParameters.SamplingInterval = 100 })
			for range cycles {
				r.publish()
			}
			<-time.After(100 * time.Microsecond)
		}
		r.ch = &fakeChannel{} // Nobody's: after takes what its channel has.
		before := r.demo.reads.Load()
		r.after(cycles * 100 * time.Millisecond)
		if n := r.demo.reads.Load() - before; n < cycles-1 || n > cycles+1 {
			t.Errorf("read %d times in %d intervals", n, cycles)
		}
		for i, ch := range channels {
			messages := ch.take()
			if len(messages) != cycles {
				t.Fatalf("session %d got %d messages in %d cycles", i, len(messages), cycles)
			}
			for j := 1; j < cycles; j++ {
				if gap := messages[j].at.Sub(messages[j-1].at); gap != 100*time.Millisecond {
					t.Fatalf("session %d: %v between two messages", i, gap)
				}
				if ints(t, messages[j].resp)[0] == ints(t, messages[j-1].resp)[0] {
					t.Fatalf("session %d: a stale value", i)
				}
			}
		}
	})
}

func TestShutdownWithLiveClients(t *testing.T) {
	s := serve(t)
	for range 3 {
		c := s.connect(t)
		if _, err := c.Subscribe(t.Context(), &opcua.SubscriptionParameters{Interval: 20 * time.Millisecond}, make(chan *opcua.PublishNotificationData, 100)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st != (Stats{}) {
		t.Errorf("left behind: %+v", st)
	}
}
