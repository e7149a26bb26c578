package redundancy

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// values collects each value of the level that subscribers are told, without repetition.
func values(m *Manager) (get func() []byte) {
	var mu sync.Mutex
	list := []byte{m.Level().Value}
	m.Subscribe(func() {
		mu.Lock()
		defer mu.Unlock()
		if v := m.Level().Value; v != list[len(list)-1] {
			list = append(list, v)
		}
	})
	return func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
}

// questions returns what the manager has asked since the last call.
func (g *group) questions() []*peerv1.RenewServingRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	asked := g.asked
	g.asked = nil
	return asked
}

// answers makes the group answer all questions with this.
func (g *group) answers(r *peerv1.RenewServingResponse) {
	g.set(func() {
		g.renew = func(context.Context, *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
			return r, nil
		}
	})
}

func maintain(active bool) *logv1.Command {
	return &logv1.Command{RequestId: fmt.Sprint("maintenance ", active), Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{Server: "m1", Active: active, Reason: "new disk"}}}
}

func TestFirstPublishShowsNothingBetweenNoDataAndTheBand(t *testing.T) {
	for role, want := range map[string][]byte{Primary: {1, 255}, Backup: {1, 100}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGroup(t, "m1", "m2")
			g.set(func() {
				g.renew = func(ctx context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
					time.Sleep(50 * time.Millisecond) // the way to the leader and into the log
					return generous(ctx, r)
				}
			})
			m := start(t, g, newFakeProber())
			told := values(m)
			other := map[string]string{Primary: Backup, Backup: Primary}[role]
			g.publish(server("m1", role), server("m2", other))
			time.Sleep(time.Second)
			synctest.Wait()
			if got := told(); !slices.Equal(got, want) {
				t.Errorf("a %s showed %d, want %d", role, got, want)
			}
		})
	}
}

func TestFirstGenerationWithoutAWordOfTheGroupIsUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		m := start(t, g, newFakeProber())
		g.set(func() { g.down = true })
		g.publish(server("m1", Primary), server("m2", Backup))
		time.Sleep(ServingLeaseTTL - refreshInterval)
		expect(t, m, 1, NoData)
		time.Sleep(2 * refreshInterval)
		expect(t, m, 190, Unconfirmed)
	})
}

func TestNewPrimaryWaitsForItsRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Backup), server("m2", Primary))
		m := start(t, g, newFakeProber())
		expect(t, m, 100, Authoritative)
		told := values(m)
		g.answers(&peerv1.RenewServingResponse{Generation: 2, Confirmed: true, Reason: "m2 has not stepped down"})
		g.publish(server("m1", Primary), server("m2", Backup))
		expect(t, m, 190, Unconfirmed)
		if r := m.Level().Reasons; !slices.Equal(r, []string{"unconfirmed: m2 has not stepped down"}) {
			t.Errorf("reasons %q", r)
		}
		g.set(func() { g.renew = generous })
		time.Sleep(servingInterval)
		expect(t, m, 255, Authoritative)
		if got := told(); !slices.Equal(got, []byte{100, 190, 255}) {
			t.Errorf("it showed %d", got)
		}
	})
}

func TestQuestionsSayWhatTheServerWantsAndHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		first := g.questions()[0]
		if first.GetMember() != "m1" || first.GetGeneration() != 1 || !first.GetWantsHealthy() || first.GetHoldsHealthy() || !first.GetFit() || first.GetLevel() != 1 {
			t.Errorf("the first question is %v", first)
		}
		time.Sleep(10 * servingInterval)
		synctest.Wait()
		renewals := g.questions()
		if len(renewals) != 10 {
			t.Errorf("%d questions in ten intervals", len(renewals))
		}
		for _, r := range renewals {
			if !r.GetWantsHealthy() || !r.GetHoldsHealthy() || r.GetLevel() != 255 {
				t.Errorf("a renewal is %v", r)
			}
		}
		// Maintenance: it gives the right back, and says so at once.
		g.apply(maintain(true))
		expect(t, m, 0, Maintenance)
		if r := g.questions(); len(r) == 0 || r[len(r)-1].GetWantsHealthy() || r[len(r)-1].GetHoldsHealthy() || r[len(r)-1].GetLevel() != 0 || r[len(r)-1].GetFit() {
			t.Errorf("in maintenance it asks %v", r)
		}
		g.apply(maintain(false))
		expect(t, m, 255, Authoritative)
	})
}

func TestServerThatRecoversOrIsInconsistentWantsNoHealthyLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		g.apply(&logv1.Command{Body: &logv1.Command_AdoptGeneration{AdoptGeneration: &logv1.AdoptGeneration{Member: "m1", Generation: 1}}})
		m := start(t, g, newFakeProber(), func(c *Config) { c.ApplicationURI = "urn:demo:m1" })
		expect(t, m, 180, Recovering)
		for _, r := range g.questions() {
			if r.GetWantsHealthy() || r.GetFit() {
				t.Errorf("a recovering server asks %v", r)
			}
		}
		time.Sleep(time.Minute + refreshInterval)
		expect(t, m, 255, Authoritative)
		g.questions()
		g.publish(&quoratev1.RedundantServer{Member: "m1", Role: Primary, ApplicationUri: "urn:demo:another", EndpointUrl: "opc.tcp://m1:4840", HealthUrl: "http://m1/healthz"}, server("m2", Backup))
		expect(t, m, 2, InvalidTopology)
		if r := g.questions(); r[len(r)-1].GetWantsHealthy() || r[len(r)-1].GetHoldsHealthy() {
			t.Errorf("an inconsistent server asks %v", r[len(r)-1])
		}
	})
}

func TestQuorumLossAndElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		told := values(m)
		g.set(func() { g.down = true })
		time.Sleep(ServingLeaseTTL - servingInterval - time.Millisecond) // An election, however slow: the lease was renewed a second ago at most.
		expect(t, m, 255, Authoritative)
		g.set(func() { g.down = false })
		time.Sleep(servingInterval)
		if got := told(); !slices.Equal(got, []byte{255}) {
			t.Errorf("an election moved the level: %d", got)
		}

		time.Sleep(10*time.Second - time.Duration(time.Now().Nanosecond())) // just before a renewal
		synctest.Wait()
		g.questions()
		var last time.Duration
		time.Sleep(servingInterval)
		synctest.Wait()
		g.set(func() { g.down = true })
		m.serving.mu.Lock()
		last = m.serving.lease.healthy
		m.serving.mu.Unlock()
		time.Sleep(last - m.elapsed() - time.Nanosecond)
		expect(t, m, 255, Authoritative)
		time.Sleep(time.Nanosecond)
		if l := m.Level(); l.Value != 190 || l.Band != Unconfirmed {
			t.Errorf("level %d the moment the lease has run out", l.Value)
		}
		synctest.Wait()
		if got := told(); !slices.Equal(got, []byte{255, 190}) {
			t.Errorf("subscribers were not told at once: %d", got)
		}
		g.set(func() { g.down = false })
		time.Sleep(retryInterval)
		expect(t, m, 255, Authoritative)
	})
}

func TestHoldNeedsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.policies = &quoratev1.RedundancyPolicies{QuorumLoss: "hold"}
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		g.set(func() { g.down = true })
		time.Sleep(time.Minute)
		expect(t, m, 255, Authoritative)
	})
}

// A lease counts from before it was asked for: the time on the way to the leader and back is the server's.
func TestLeaseCountsFromBeforeItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.set(func() {
			g.renew = func(ctx context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
				time.Sleep(time.Second)
				g.set(func() { g.down = true })
				return generous(ctx, r)
			}
		})
		g.publish(server("m1", Primary), server("m2", Backup))
		asked := time.Now()
		m := start(t, g, newFakeProber())
		time.Sleep(time.Second)
		expect(t, m, 255, Authoritative)
		time.Sleep(ServingLeaseTTL - time.Since(asked) - time.Nanosecond)
		expect(t, m, 255, Authoritative)
		time.Sleep(time.Nanosecond)
		if l := m.Level(); l.Value != 190 {
			t.Errorf("level %d %v after it was asked for", l.Value, time.Since(asked))
		}
	})
}

func TestStoppedProcessServesNoLevelWhoseLeaseRanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		m := start(t, g, newFakeProber(), func(c *Config) { c.Now = now })
		expect(t, m, 255, Authoritative)
		ahead.Store(int64(ServingLeaseTTL)) // Shorter than what the watchdog looks for.
		if l := m.Level(); l.Value != 190 {
			t.Errorf("level %d at the first read after the process was stopped", l.Value)
		}
		time.Sleep(servingInterval)
		expect(t, m, 255, Authoritative)
	})
}

func TestSteppingDownIsToldBeforeItIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.policies = &quoratev1.RedundancyPolicies{StandIn: 210}
		g.publish(server("m1", Backup), server("m2", Primary))
		g.answers(&peerv1.RenewServingResponse{Generation: 1, Confirmed: true, Healthy: true, StandIn: true})
		m := start(t, g, newFakeProber())
		expect(t, m, 210, Authoritative)
		told := values(m)
		g.questions()
		var order []byte // what was told, at each question
		g.set(func() {
			g.renew = func(_ context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
				seen := told()
				order = append(order, seen[len(seen)-1])
				return &peerv1.RenewServingResponse{Generation: 1, Confirmed: true, StepDown: r.GetHoldsHealthy()}, nil
			}
		})
		time.Sleep(servingInterval)
		expect(t, m, 100, Authoritative)
		asked := g.questions()
		if len(asked) != 2 || !asked[0].GetHoldsHealthy() || asked[1].GetHoldsHealthy() || !asked[1].GetWantsHealthy() {
			t.Fatalf("it asked %v", asked)
		}
		if !slices.Equal(order, []byte{210, 100}) {
			t.Errorf("when it asked it had told %d", order)
		}
	})
}

// A leader that asks for a step down again and again, for whatever reason, gets no storm of questions.
func TestSteppingDownIsAskedAgainAtOnceOnlyOnce(t *testing.T) {
	for _, confirmed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			g := newGroup(t, "m1", "m2")
			g.publish(server("m1", Primary), server("m2", Backup))
			m := start(t, g, newFakeProber())
			expect(t, m, 255, Authoritative)
			g.questions()
			g.answers(&peerv1.RenewServingResponse{Generation: 9, Confirmed: confirmed, StepDown: true})
			time.Sleep(10 * time.Second)
			expect(t, m, 190, Unconfirmed)
			if n := len(g.questions()); n < 10 || n > 12 {
				t.Errorf("%d questions in ten seconds", n)
			}
		})
	}
}

// The answer to a question that was asked as a Primary doesn't count for who was a Backup since.
func TestAnswerOfAnotherRoleDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		asked, answer := make(chan struct{}, 10), make(chan struct{})
		g.set(func() {
			g.renew = func(ctx context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
				asked <- struct{}{}
				<-answer // It doesn't look at ctx, as if the answer were on its way already.
				if r.GetGeneration() == 1 {
					return generous(ctx, r)
				}
				return nil, errNoLeader
			}
		})
		<-asked
		g.publish(server("m1", Backup), server("m2", Primary))
		expect(t, m, 70, Unconfirmed)
		g.publish(server("m1", Primary), server("m2", Backup))
		expect(t, m, 190, Unconfirmed)
		close(answer)
		expect(t, m, 190, Unconfirmed)
	})
}

func TestLeaseOutlivesAPublishThatConcernsSomethingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2", "m3")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		told := values(m)
		g.set(func() { g.down = true })
		g.publish(server("m1", Primary), server("m2", Backup), server("m3", Backup))
		time.Sleep(ServingLeaseTTL / 2)
		expect(t, m, 255, Authoritative)
		if got := told(); !slices.Equal(got, []byte{255}) || m.Level().Generation != 2 {
			t.Errorf("it showed %d", got)
		}
	})
}

// A right to stand in is gone with the policy, also if the policy comes back before the server has looked twice.
func TestStandInIsGoneWithItsPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.policies = &quoratev1.RedundancyPolicies{StandIn: 210}
		g.publish(server("m1", Backup), server("m2", Primary))
		g.answers(&peerv1.RenewServingResponse{Generation: 1, Confirmed: true, Healthy: true, StandIn: true})
		m := start(t, g, newFakeProber())
		expect(t, m, 210, Authoritative)
		told := values(m)
		g.set(func() { g.down = true })
		g.policies = &quoratev1.RedundancyPolicies{}
		g.publish(server("m1", Backup), server("m2", Primary))
		if l := m.Level(); l.Value != 100 {
			t.Errorf("level %d without the policy", l.Value)
		}
		g.policies = &quoratev1.RedundancyPolicies{StandIn: 210}
		g.publish(server("m1", Backup), server("m2", Primary))
		expect(t, m, 100, Authoritative)
		if got := told(); !slices.Equal(got, []byte{210, 100}) {
			t.Errorf("it showed %d: a policy must not cost the confirmation of the role", got)
		}
	})
}

func TestNothingIsSaidOfAGenerationBeforeItsLevelWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		// A subscriber that takes its time with the news of the second generation.
		release := make(chan struct{})
		var blocked atomic.Bool
		m.Subscribe(func() {
			if m.Level().Generation == 2 && blocked.CompareAndSwap(false, true) {
				<-release
			}
		})
		g.publish(server("m1", Backup), server("m2", Primary))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for _, r := range g.questions() {
			if r.GetGeneration() != 1 {
				t.Errorf("it asked under generation %d while subscribers were being told", r.GetGeneration())
			}
		}
		if n := m.Status().GetAdoptedGeneration(); n != 1 {
			t.Errorf("it adopted generation %d while subscribers were being told", n)
		}
		close(release)
		expect(t, m, 100, Authoritative)
		if n := m.Status().GetAdoptedGeneration(); n != 2 {
			t.Errorf("it adopted generation %d", n)
		}
	})
}

func TestNothingIsSaidOfAStepDownBeforeItWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		g.publish(server("m1", Primary), server("m2", Backup))
		m := start(t, g, newFakeProber())
		expect(t, m, 255, Authoritative)
		release := make(chan struct{})
		var blocked atomic.Bool
		m.Subscribe(func() {
			if m.Level().Value < Healthy && blocked.CompareAndSwap(false, true) {
				<-release
			}
		})
		g.set(func() {
			g.renew = func(ctx context.Context, r *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error) {
				if r.GetHoldsHealthy() {
					return &peerv1.RenewServingResponse{Generation: 1, Confirmed: true, StepDown: true}, nil
				}
				return generous(ctx, r)
			}
		})
		g.questions()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if !blocked.Load() {
			t.Fatal("it did not step down")
		}
		for _, r := range g.questions() {
			if !r.GetHoldsHealthy() {
				t.Errorf("it asked %v while subscribers were being told", r)
			}
		}
		close(release)
		expect(t, m, 255, Authoritative)
	})
}

func TestStatusShowsWhatIsLeftOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, "m1", "m2")
		m := start(t, g, newFakeProber())
		if s := m.Status(); s.ServingLease != nil {
			t.Errorf("a witness has a lease of %v", s.GetServingLease())
		}
		g.publish(server("m1", Primary), server("m2", Backup))
		synctest.Wait()
		if left := m.Status().GetServingLease().AsDuration(); left != ServingLeaseTTL {
			t.Errorf("%v left of a new lease", left)
		}
		g.set(func() { g.down = true })
		time.Sleep(2 * ServingLeaseTTL)
		if s := m.Status(); s.ServingLease != nil {
			t.Errorf("%v left of a lease that has run out", s.GetServingLease())
		}
	})
}
