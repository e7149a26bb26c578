package interop

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"testing"
	"time"
)

// polling is a client that reads one server's ServiceLevel again and again, and goes to the next server of the set when it can't.
type polling struct {
	in   io.Closer
	from chan string // the endpoint of each read that showed something new
	done chan struct{}
}

func pollFrom(ctx context.Context, t *testing.T, endpoint string) *polling {
	t.Helper()
	return clientOfMany(ctx, t, "failover", map[string]any{"endpoint": endpoint, "interval": pollingInterval.Milliseconds()})
}

// consumeFrom is a client that is subscribed at the first of some servers, and goes to the next when it hears nothing any more.
func consumeFrom(ctx context.Context, t *testing.T, sessionTimeout, keepAlive time.Duration, endpoints ...string) *polling {
	t.Helper()
	return clientOfMany(ctx, t, "consumer", map[string]any{
		"endpoints": endpoints, "sessionTimeout": sessionTimeout.Milliseconds(), "publishingInterval": keepAlive.Milliseconds() / 2, "keepAliveCount": 2,
	})
}

func clientOfMany(ctx context.Context, t *testing.T, scenario string, options map[string]any) *polling {
	t.Helper()
	client := startTalk(ctx, t, scenario, options, os.Stderr)
	p := &polling{in: client.in, from: make(chan string, 100), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for client.lines.Scan() {
			var line struct{ Endpoint, Status string }
			if json.Unmarshal(client.lines.Bytes(), &line) == nil && line.Status == "Good" {
				select {
				case p.from <- line.Endpoint:
				default: // Nobody asks any more.
				}
			}
		}
		_ = client.Wait()
	}()
	return p
}

// await waits for a good read at an endpoint.
func (p *polling) await(ctx context.Context, t *testing.T, endpoint string) {
	t.Helper()
	for {
		select {
		case from := <-p.from:
			if from == endpoint {
				return
			}
		case <-ctx.Done():
			t.Fatalf("the client never read at %s", endpoint)
		}
	}
}

func (p *polling) end() {
	_ = p.in.Close()
	<-p.done
}
