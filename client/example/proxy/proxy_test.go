package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/client"
	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// groupPort is where the ports of the test's group begin.
	groupPort = 21100
	// patience is how long the test waits for what must happen; reaching it is a failure.
	patience = 30 * time.Second
	// barrier is the drain barrier, and so for how long a write may last.
	barrier = 2 * time.Second
	writers = 8
)

func TestMain(m *testing.M) { os.Exit(devgroup.RunTests(m)) }

// backend is a real HTTP server that keeps what is written to it: PUT /PARTITION/KEY, and GET of the same.
type backend struct {
	*httptest.Server
	name string

	mu   sync.Mutex
	data map[string]string
	// landed has, for each partition, when the last write to it came, and the epochs under which writes came.
	landed map[string]time.Time
	epochs map[string]map[uint64]bool
	// mirror takes each write to a partition that is copied there, before that is answered.
	mirror map[string]*backend
	// hold, if it is not nil, keeps writes back until it is closed.
	hold    chan struct{}
	waiting int
}

func startBackend(t *testing.T, name string) *backend {
	b := &backend{name: name, data: map[string]string{}, landed: map[string]time.Time{}, epochs: map[string]map[uint64]bool{}, mirror: map[string]*backend{}}
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Backend", b.name)
	if r.Method == http.MethodGet {
		b.mu.Lock()
		defer b.mu.Unlock()
		io.WriteString(w, b.data[r.URL.Path])
		return
	}
	body, err := io.ReadAll(r.Body)
	epoch, bad := strconv.ParseUint(r.Header.Get(epochHeader), 10, 64)
	if err != nil || bad != nil {
		http.Error(w, "no body, or no epoch", http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	hold := b.hold
	if hold != nil {
		b.waiting++
	}
	b.mu.Unlock()
	if hold != nil {
		<-hold
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := partitionOf(r)
	b.data[r.URL.Path] = string(body)
	b.landed[p] = time.Now()
	if b.epochs[p] == nil {
		b.epochs[p] = map[uint64]bool{}
	}
	b.epochs[p][epoch] = true
	if to := b.mirror[p]; to != nil {
		to.put(r.URL.Path, string(body))
	}
}

func (b *backend) put(key, value string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data[key] = value
}

// copyTo copies what a backend has of a partition to another one, and from then on whatever comes, as an operator's tool does.
func (b *backend) copyTo(to *backend, partition string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mirror[partition] = to
	for key, value := range b.data {
		if strings.HasPrefix(key, "/"+partition+"/") {
			to.put(key, value)
		}
	}
}

// endCopy ends that.
func (b *backend) endCopy(partition string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mirror, partition)
}

func (b *backend) lastWrite(partition string) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.landed[partition]
}

// world is a group with a proxy in front of two backends, and a client for what an operator does.
type world struct {
	t        *testing.T
	ctx      context.Context
	group    *devgroup.Group
	client   *client.Client
	backends map[string]*backend
	url      string
	// stop stops the proxy, and ended tells how it ended.
	stop  context.CancelFunc
	ended chan error

	mu sync.Mutex
	// acked has what clients were told is written, and attempts what happened to each write.
	acked    map[string]string
	attempts []attempt
}

// attempt is one write as its client saw it.
type attempt struct {
	partition    string
	began, ended time.Time
	status       int
	// backend is who answered, empty if it was the proxy.
	backend, retryAfter, text string
}

// put writes once.
func (w *world) put(partition, key, value string) attempt {
	a := attempt{partition: partition, began: time.Now()}
	path := "/" + partition + "/" + key
	req, err := http.NewRequestWithContext(w.ctx, http.MethodPut, w.url+path, strings.NewReader(value))
	if err != nil {
		w.t.Error(err)
		return a
	}
	resp, err := http.DefaultClient.Do(req)
	a.ended = time.Now()
	if err != nil {
		a.text = err.Error()
	} else {
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		a.status, a.backend, a.retryAfter, a.text = resp.StatusCode, resp.Header.Get("X-Backend"), resp.Header.Get("Retry-After"), string(text)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attempts = append(w.attempts, a)
	if a.status == http.StatusOK {
		w.acked[path] = value
	}
	return a
}

// write writes to all partitions, from many clients, until the function that it returns is called.
func (w *world) write(partitions []string) (stop func()) {
	ctx, cancel := context.WithCancel(w.ctx)
	var running sync.WaitGroup
	for i := range writers {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				a := w.put(partitions[(i+n)%len(partitions)], fmt.Sprintf("w%d-%d", i, n), fmt.Sprint(n))
				pause := time.Duration(rand.IntN(4)) * time.Millisecond
				if a.status != http.StatusOK {
					pause = 10 * time.Millisecond // Less than Retry-After says, so that the test sees the first moment at which it works again.
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// wrote waits until each partition has got as many writes since now.
func (w *world) wrote(n int, partitions ...string) {
	w.t.Helper()
	w.mu.Lock()
	from := len(w.attempts)
	w.mu.Unlock()
	w.eventually("writes to "+strings.Join(partitions, ", "), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		count := map[string]int{}
		for _, a := range w.attempts[from:] {
			if a.status == http.StatusOK {
				count[a.partition]++
			}
		}
		return !slices.ContainsFunc(partitions, func(p string) bool { return count[p] < n })
	})
}

func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for !condition() {
		select {
		case <-every.C:
		case <-deadline.C:
			w.t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func must[R any](r R, err error) func(t *testing.T) R {
	return func(t *testing.T) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

func start(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, backends: map[string]*backend{"b1": startBackend(t, "b1"), "b2": startBackend(t, "b2")}, acked: map[string]string{}}
	binary, err := devgroup.Built()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if w.group, err = devgroup.Start(ctx, devgroup.Options{
		Binary: binary, Data: filepath.Join(t.TempDir(), "group"), BasePort: groupPort, Log: &log,
	}); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	t.Cleanup(func() {
		if err := w.group.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	var endpoints []string
	for _, m := range w.group.Members {
		endpoints = append(endpoints, m.GRPC)
	}
	w.client = must(client.Open(ctx, client.Options{Endpoints: endpoints}))(t)
	t.Cleanup(func() {
		if err := w.client.Close(); err != nil {
			t.Error(err)
		}
	})
	must(w.client.Partitions().SetPartitionSettings(ctx, &quoratev1.SetPartitionSettingsRequest{Settings: &quoratev1.PartitionSettings{
		DrainBarrier: durationpb.New(barrier), MinDrainBarrier: durationpb.New(barrier), EarlyFloor: durationpb.New(0),
	}}))(t)
	must(w.client.Partitions().CreatePartitions(ctx, &quoratev1.CreatePartitionsRequest{Ids: []string{"moved", "stays"}, Placement: "b1"}))(t)

	backends := map[string]*url.URL{}
	for name, b := range w.backends {
		backends[name] = must(url.Parse(b.URL))(t)
	}
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	w.url = "http://" + listener.Addr().String()
	running, stop := context.WithCancel(ctx)
	w.stop, w.ended = stop, make(chan error, 1)
	go func() {
		w.ended <- run(running, config{group: client.Options{Endpoints: endpoints}, gate: client.GateOptions{ID: "proxy-1", WriteTimeout: 10 * time.Second}, backends: backends}, listener)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-w.ended; err != nil {
			t.Errorf("the proxy: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return w
}

// migrate moves a partition with the writers at it, and returns when the cutover had returned, and when the completion was asked for and had returned.
func (w *world) migrate(partition, from, to string, early bool, inCutover func()) (cutover, completing, completed time.Time) {
	w.t.Helper()
	partitions := w.client.Partitions()
	must(partitions.BeginMigration(w.ctx, &quoratev1.BeginMigrationRequest{Partition: partition, To: to, EarlyCompletion: early}))(w.t)
	w.backends[from].copyTo(w.backends[to], partition)
	w.wrote(20, "moved", "stays")
	must(partitions.CutoverMigration(w.ctx, &quoratev1.CutoverMigrationRequest{Partition: partition}))(w.t)
	cutover = time.Now()
	inCutover()
	for {
		completing = time.Now()
		_, err := partitions.CompleteMigration(w.ctx, &quoratev1.CompleteMigrationRequest{Partition: partition})
		completed = time.Now()
		if err == nil {
			w.backends[from].endCopy(partition)
			return cutover, completing, completed
		}
		if client.ReasonOf(err) != client.ReasonBarrierPending {
			w.t.Fatal(err)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-w.ctx.Done():
			w.t.Fatal(w.ctx.Err())
		}
	}
}

// judge looks at what the clients were told from a moment on, of a partition that moved. In a calm group nothing is refused but in the cutover.
func (w *world) judge(partition, from, to string, since, cutover, completing, completed time.Time, calm bool) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	lost := 0
	for path, value := range w.acked {
		owner := "b1"
		if strings.HasPrefix(path, "/"+partition+"/") {
			owner = to
		}
		w.backends[owner].mu.Lock()
		if w.backends[owner].data[path] != value {
			lost++
		}
		w.backends[owner].mu.Unlock()
	}
	if lost > 0 {
		w.t.Errorf("%d of %d acknowledged writes are lost", lost, len(w.acked))
	}
	if last := w.backends[from].lastWrite(partition); last.After(completing) {
		w.t.Errorf("a write landed at %s %v after the completion was asked for", from, last.Sub(completing))
	}
	refused := 0
	for _, a := range w.attempts {
		switch {
		case a.ended.Before(since):
		case a.status == http.StatusOK && a.partition != partition && a.backend != "b1",
			a.status == http.StatusOK && a.partition == partition && a.backend != from && a.backend != to:
			w.t.Errorf("a write to %s went to %s", a.partition, a.backend)
		case a.status == http.StatusOK && a.partition == partition && a.backend == from && a.began.After(cutover):
			w.t.Errorf("a write that began %v after the cutover went to %s", a.began.Sub(cutover), from)
		case a.status == http.StatusOK && a.partition == partition && a.backend == to && a.ended.Before(completing):
			w.t.Errorf("a write went to %s %v before the completion was asked for", to, completing.Sub(a.ended))
		case a.status == http.StatusServiceUnavailable:
			refused++
			if !calm {
				continue
			}
			if a.partition != partition || a.retryAfter == "" {
				w.t.Errorf("a write to %s was refused with Retry-After %q: %s", a.partition, a.retryAfter, a.text)
			}
			if a.began.After(completed) {
				w.t.Errorf("a write was refused that began %v after the completion: %s", a.began.Sub(completed), a.text)
			}
		case a.status != http.StatusOK:
			w.t.Errorf("a write to %s: status %d, %s", a.partition, a.status, a.text)
		}
	}
	w.t.Logf("%s: %d writes acknowledged so far, %d refused in %v of cutover", partition, len(w.acked), refused, completed.Sub(cutover).Round(time.Millisecond))
	if refused == 0 {
		w.t.Error("no write was refused, so nobody wrote in the cutover, and this proves little")
	}
}
