package redundancy

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
)

// ledger is a leader that notes, from what a server tells it, when another server may be Healthy. An odd count is such a time.
type ledger struct {
	*group
	others    atomic.Uint64
	mu        sync.Mutex
	granted   uint64 // the generation of the last Healthy grant
	questions chan *peerv1.RenewServingRequest
}

func (l *ledger) may(others bool) {
	if now := l.others.Load()%2 == 1; now != others {
		l.others.Add(1)
	}
}

// Propose takes the adoption of a generation in which the server is no Primary as its word that it is Healthy no more.
func (l *ledger) Propose(ctx context.Context, c *logv1.Command) (*logv1.Outcome, error) {
	outcome, err := l.group.Propose(ctx, c)
	if a := c.GetAdoptGeneration(); a != nil && err == nil && outcome.GetRefusal() == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if g, _ := l.Local().State.Generation(a.GetGeneration()); g.GetTopology().GetSets()[0].GetServers()[0].GetRole() != Primary && a.GetGeneration() > l.granted {
			l.may(true)
		}
	}
	return outcome, err
}

// RenewServing has every second Healthy server step down, takes a question of one that doesn't hold the right as its word, and gives it the right after.
func (l *ledger) RenewServing(ctx context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
	defer func() {
		select {
		case l.questions <- r:
		case <-ctx.Done():
		}
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	response := &peerv1.RenewServingResponse{Generation: r.GetGeneration(), Confirmed: true}
	if r.GetHoldsHealthy() {
		response.StepDown = true
		return response, nil
	}
	l.may(true)
	if r.GetWantsHealthy() && r.GetGeneration() == l.Local().State.CurrentGeneration().GetNumber() {
		l.granted = r.GetGeneration()
		l.may(false)
		response.Healthy = true
	}
	return response, nil
}

// Readers that never pause look for a Healthy level at a time when the group has let another server be Healthy, while roles are swapped and the
// server is asked to step down.
func TestNoReadIsHealthyWhileAnotherServerMayBe(t *testing.T) {
	const rounds = 60
	l := &ledger{group: newGroup(t, "m1", "m2"), questions: make(chan *peerv1.RenewServingRequest)}
	m, err := New(Config{Member: "m1", Group: l, Prober: newFakeProber(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	var healthy, forbidden atomic.Uint64
	look := func() {
		before := l.others.Load()
		level := m.Level()
		switch others := before%2 == 1; {
		case level.Value >= Healthy && others && l.others.Load() == before:
			t.Errorf("level %d of generation %d while another server may be Healthy", level.Value, level.Generation)
		case level.Value >= Healthy:
			healthy.Add(1)
		case others:
			forbidden.Add(1)
		}
	}
	m.Subscribe(look)
	for range 3 {
		running.Go(func() {
			for ctx.Err() == nil {
				look()
			}
		})
	}
	for i := range rounds {
		roles := [2]string{Primary, Backup}
		if i%2 == 1 {
			roles = [2]string{Backup, Primary}
		}
		l.publish(server("m1", roles[0]), server("m2", roles[1]))
		for r := range l.questions {
			if r.GetGeneration() == uint64(i+1) {
				break
			}
		}
		if i%4 != 0 {
			continue // The next publish comes right after.
		}
		m.standings.set(standing{}) // It asks again, holding, and is told to step down.
		m.wake()
		for range 2 {
			<-l.questions
		}
	}
	cancel()
	running.Wait()
	if healthy.Load() == 0 || forbidden.Load() == 0 {
		t.Errorf("%d reads were Healthy, %d were when another server may be: the test saw nothing", healthy.Load(), forbidden.Load())
	}
	t.Logf("%d reads were Healthy, %d were when another server may be", healthy.Load(), forbidden.Load())
}
