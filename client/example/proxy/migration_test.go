package main

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	quoratev1 "quorate/proto/quorate/v1"
)

// TestMigrationUnderWriters moves a partition from one backend to the other and back, while clients write through the proxy.
func TestMigrationUnderWriters(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) {
		w := start(t)
		w.eventually("the proxy has a lease", func() bool {
			return w.put("moved", "first", "0").status == http.StatusOK
		})
		stop := w.write([]string{"moved", "stays"})
		w.wrote(20, "moved", "stays")

		since := time.Now()
		cutover, completing, completed := w.migrate("moved", "b1", "b2", false, func() {
			// Reads go on in the cutover.
			if resp := must(http.Get(w.url + "/moved/first"))(t); resp.Header.Get("X-Backend") != "b1" {
				t.Errorf("a read in cutover went to %q", resp.Header.Get("X-Backend"))
			} else {
				resp.Body.Close()
			}
		})
		w.wrote(20, "moved", "stays")
		w.judge("moved", "b1", "b2", since, cutover, completing, completed, true)
		// The barrier counts from the first stamp after the cutover was applied, and completion takes two round trips. A machine that is busy is slower.
		if paused := completed.Sub(cutover); paused < barrier || paused > barrier+2*time.Second {
			t.Errorf("writes were paused for %v by a barrier of %v", paused, barrier)
		}
		if resp := must(http.Get(w.url + "/moved/first"))(t); resp.Header.Get("X-Backend") != "b2" {
			t.Errorf("a read after the completion went to %q", resp.Header.Get("X-Backend"))
		} else {
			resp.Body.Close()
		}

		// And back, as soon as nothing is in flight.
		since = time.Now()
		cutover, completing, completed = w.migrate("moved", "b2", "b1", true, func() { w.refusedOnce() })
		w.wrote(20, "moved", "stays")
		w.judge("moved", "b2", "b1", since, cutover, completing, completed, true)
		if paused := completed.Sub(cutover); paused > barrier {
			t.Errorf("writes were paused for %v, though nothing was in flight", paused)
		}

		// Once more, and the leader dies in the cutover.
		since = time.Now()
		cutover, completing, completed = w.migrate("moved", "b1", "b2", false, func() {
			leader := must(w.group.Leader(w.ctx))(t)
			if err := w.group.Kill(w.ctx, leader.ID); err != nil {
				t.Fatal(err)
			}
		})
		w.wrote(20, "moved", "stays")
		w.judge("moved", "b1", "b2", since, cutover, completing, completed, false)

		stop()
		w.callerCannotLie()
		w.endsAtDeadline()
		if resp := must(http.Get(w.url + "/nowhere/first"))(t); resp.StatusCode != http.StatusNotFound {
			t.Errorf("a read of no partition: status %d", resp.StatusCode)
		} else {
			resp.Body.Close()
		}
		w.endsInOrder()
	})
}

// callerCannotLie has a caller say things about partition and epoch that only the proxy may, or have them stripped: the backend hears what was checked.
func (w *world) callerCannotLie() {
	w.t.Helper()
	current := must(w.client.Partitions().GetPartition(w.ctx, &quoratev1.GetPartitionRequest{Partition: "stays"}))(w.t).GetPartition().GetEpoch()
	b := w.backends["b1"]
	for i, header := range []http.Header{
		{"Connection": {epochHeader + ", " + partitionHeader}},
		{epochHeader: {"99"}},
		{partitionHeader: {"stays"}, "Connection": {partitionHeader}, epochHeader: {"99", "100"}},
	} {
		b.mu.Lock()
		b.epochs["stays"], b.epochs["lie"] = map[uint64]bool{}, map[uint64]bool{}
		b.mu.Unlock()
		path := "/stays/lie"
		if header[partitionHeader] != nil {
			path = "/lie/lie"
		}
		req := must(http.NewRequestWithContext(w.ctx, http.MethodPut, w.url+path, strings.NewReader("0")))(w.t)
		req.Header = header
		resp := must(http.DefaultClient.Do(req))(w.t)
		resp.Body.Close()
		b.mu.Lock()
		if seen := b.epochs["stays"]; resp.StatusCode != http.StatusOK || len(seen) != 1 || !seen[current] || len(b.epochs["lie"]) != 0 {
			w.t.Errorf("lie %d: status %d, and the backend heard of epochs %v, want %d alone", i, resp.StatusCode, seen, current)
		}
		b.mu.Unlock()
	}
}

// hold keeps back the writes that come to a backend, until what it returns is closed.
func (w *world) hold(backend string) chan struct{} {
	b, hold := w.backends[backend], make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold, b.waiting = hold, 0
	return hold
}

// endsAtDeadline has a backend keep a write: the proxy gives it up at its deadline. How fast it says so is up to the machine.
func (w *world) endsAtDeadline() {
	w.t.Helper()
	hold := w.hold("b1")
	a := w.put("stays", "held", "0")
	close(hold)
	if took := a.ended.Sub(a.began); a.status != http.StatusBadGateway || !strings.Contains(a.text, context.DeadlineExceeded.Error()) || took < barrier/2 || took > barrier+2*time.Second {
		w.t.Errorf("a write that the backend keeps: status %d after %v, %s", a.status, took, a.text)
	}
}

// endsInOrder stops the proxy while a write is in flight: the write is answered, and only then is the instance gone.
func (w *world) endsInOrder() {
	w.t.Helper()
	b, hold := w.backends["b1"], w.hold("b1")
	last := make(chan attempt, 1)
	go func() { last <- w.put("stays", "last", "0") }()
	w.eventually("the write is at the backend", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.waiting > 0
	})
	w.stop()
	w.eventually("the proxy takes no more requests", func() bool {
		resp, err := http.Get(w.url + "/stays/first")
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	instances := func() int {
		return len(must(w.client.Gates().ListInstances(w.ctx, &quoratev1.ListInstancesRequest{}))(w.t).GetInstances())
	}
	if n := instances(); n != 1 || len(w.ended) > 0 {
		w.t.Errorf("%d instances are registered while a write is in flight", n)
	}
	close(hold)
	if a := <-last; a.status != http.StatusOK || a.backend != "b1" {
		w.t.Errorf("the write in flight got status %d, %s", a.status, a.text)
	}
	w.eventually("the proxy has ended", func() bool { return len(w.ended) > 0 })
	if n := instances(); n != 0 {
		w.t.Errorf("%d instances are registered after the end", n)
	}
}

// refusedOnce waits until a writer was refused, so that there is something to see in the cutover.
func (w *world) refusedOnce() {
	w.mu.Lock()
	from := len(w.attempts)
	w.mu.Unlock()
	w.eventually("a write is refused", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.attempts[from:], func(a attempt) bool { return a.status == http.StatusServiceUnavailable })
	})
}
