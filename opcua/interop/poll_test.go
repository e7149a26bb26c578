package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"testing"
)

// polling is a client that reads one server's ServiceLevel again and again, and goes to the next server of the set when it can't.
type polling struct {
	in   io.Closer
	from chan string // the endpoint of each read that showed something new
	done chan struct{}
}

func pollFrom(ctx context.Context, t *testing.T, endpoint string) *polling {
	t.Helper()
	cmd := client(ctx, t, "failover", map[string]any{"endpoint": endpoint, "interval": pollingInterval.Milliseconds()})
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
	p := &polling{in: in, from: make(chan string, 100), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line struct{ Endpoint, Status string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Status == "Good" {
				select {
				case p.from <- line.Endpoint:
				default: // Nobody asks any more.
				}
			}
		}
		_ = cmd.Wait()
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
