package failover

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"
)

// rig is a client at a plant.

func inBubble(t *testing.T, p *plant, change func(*Config), fn func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{plant: p, t: t, done: make(chan error, 1)}
		cfg := Config{
			URL: "opc.tcp://a", Nodes: []*ua.NodeID{ua.NewNumericNodeID(1, 1), ua.NewNumericNodeID(1, 2)},
			OnValue:   func(v Value) { r.values = append(r.values, v) },
			OnCutOver: func(c CutOver) { r.cuts = append(r.cuts, c) },
			OnLost:    func(_ Server, n int) { r.lost += n },
		}
		if change != nil {
			change(&cfg)
		}
		var err error
		if r.client, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		r.client.dial = p.dial
		r.client.jitter = func(d time.Duration) time.Duration { return d }
		ctx, cancel := context.WithCancel(t.Context())
		r.cancel = cancel
		go func() { r.done <- r.client.Run(ctx) }()
		synctest.Wait()
		fn(r)
		cancel()
		synctest.Wait()
		select {
		case <-r.done:
		default:
			t.Error("Run did not end")
		}
		for url, f := range p.servers {
			if len(f.conns) > 0 {
				t.Errorf("%d connections to %s were left behind", len(f.conns), url)
			}
		}
	})
}

func (r *rig) active() string {
	for _, s := range r.client.Servers() {
		if s.Active {
			return strings.TrimPrefix(s.URI, "urn:")
		}
	}
	return ""
}

func (r *rig) wantActive(name string) {
	r.t.Helper()
	synctest.Wait()
	if got := r.active(); got != name {
		r.t.Fatalf("server %q is in use, want %q; known: %+v", got, name, r.client.Servers())
	}
}

func (r *rig) cut(reason Reason, from, to string) CutOver {
	r.t.Helper()
	synctest.Wait()
	if len(r.cuts) != 1 {
		r.t.Fatalf("%d cut-overs, want one: %+v", len(r.cuts), r.cuts)
	}
	c := r.cuts[0]
	r.cuts = nil
	name := func(n string) string {
		if n == "" {
			return ""
		}
		return "urn:" + n
	}
	if c.Reason != reason || c.From.URI != name(from) || c.To.URI != name(to) {
		r.t.Fatalf("cut-over %v from %q to %q; want %v from %q to %q", c.Reason, c.From.URI, c.To.URI, reason, from, to)
	}
	return c
}

func (r *rig) wantModes(modes map[string]string) {
	r.t.Helper()
	synctest.Wait()
	for name, want := range modes {
		if got := strings.Join(r.modes(name), ","); got != want {
			r.t.Errorf("server %s has %q, want %q", name, got, want)
		}
	}
}

func (r *rig) wantEach() (missing int) {
	r.t.Helper()
	var last time.Time
	for _, v := range r.values {
		if v.Node != 0 {
			continue
		}
		at := v.Data.SourceTimestamp
		switch step := at.Sub(last); {
		case last.IsZero():
		case step <= 0:
			r.t.Errorf("the sample of %v came after that of %v", at, last)
		default:
			missing += int(step/(100*time.Millisecond)) - 1
		}
		last = at
	}
	return missing
}
