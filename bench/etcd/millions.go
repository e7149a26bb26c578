package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// creators is how many callers create partitions at once.
	creators = 4
	// snapshotLimit is how long it may take until a member has written a snapshot by itself: it wants 8192 entries, and looks every 30 to 60 s.
	snapshotLimit = 5 * time.Minute
	// restartLimit is how long a member may take to be back.
	restartLimit = 2 * time.Minute
)

// millions measures a group that holds very many partitions: to create and to list them, what they take of memory, snapshots, and a restart. It is Quorate's alone.
func (b *bench) millions(ctx context.Context) error {
	return b.measureAlone(ctx, 1, 0, func(ctx context.Context, g group) ([]sample, error) {
		return newMillion(b, g.(*quorate)).measure(ctx)
	})
}

// million is one such measurement.
type million struct {
	*bench
	group    *quorate
	conn     *grpc.ClientConn // to the leader
	leader   int
	follower int
	others   int // partitions that the demo has
	samples  []sample
}

func newMillion(b *bench, q *quorate) *million { return &million{bench: b, group: q} }

func (m *million) add(name string, value float64, unit string) {
	m.samples = append(m.samples, sample{name: name, value: value, unit: unit})
}

func (m *million) measure(ctx context.Context) (_ []sample, err error) {
	if m.leader, err = m.group.leader(ctx); err != nil {
		return nil, err
	}
	m.follower = (m.leader + 1) % len(m.group.Members)
	conns, err := dial(m.group.addresses()[m.leader])
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	m.conn = conns[0]
	if m.others, err = m.pages(ctx); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{m.fill, m.list, m.resolve, m.snapshot, m.restart} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return m.samples, nil
}

// fill creates the partitions, and measures what memory that takes: of the process, and of its heap just after a collection, as far as it was seen.
func (m *million) fill(ctx context.Context) error {
	before, err := m.group.scrape(ctx, m.leader)
	if err != nil {
		return err
	}
	began := time.Now()
	var next atomic.Int64
	failures := make([]error, creators)
	var wg sync.WaitGroup
	for i := range creators {
		wg.Go(func() {
			for failures[i] == nil {
				first := int(next.Add(createBatch)) - createBatch
				if first >= m.partitions {
					return
				}
				failures[i] = m.group.create(ctx, m.conn, first, min(createBatch, m.partitions-first))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	m.group.elsewhere = make([]bool, m.partitions)
	took := time.Since(began)
	m.add("partitions", float64(m.partitions), "1")
	m.add("partitions_create", float64(m.partitions)/took.Seconds(), "partitions/s")
	m.add("partitions_create_time", took.Seconds(), "s")
	least, err := m.leastHeap(ctx)
	if err != nil {
		return err
	}
	rss, err := m.group.process(m.leader).RSS()
	m.add("partition_bytes", (least-before["go_memstats_heap_alloc_bytes"])/float64(m.partitions), "B")
	m.add("partitions_rss_leader", rss, "MB")
	return err
}

// leastHeap is the smallest heap that the leader has while its partitions are listed, which makes it collect what is dead.
func (m *million) leastHeap(ctx context.Context) (float64, error) {
	listing, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		_, err := m.pages(listing)
		done <- err
	}()
	least := 0.0
	for {
		now, err := m.group.scrape(ctx, m.leader)
		if err != nil {
			return 0, err
		}
		if heap := now["go_memstats_heap_alloc_bytes"]; least == 0 || heap < least {
			least = heap
		}
		select {
		case err := <-done:
			return least, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pages lists all partitions and returns how many there were.
func (m *million) pages(ctx context.Context) (seen int, err error) {
	partitions := quoratev1.NewPartitionServiceClient(m.conn)
	for token := ""; ; {
		page, err := partitions.ListPartitions(ctx, &quoratev1.ListPartitionsRequest{PageSize: createBatch, PageToken: token})
		if err != nil {
			return seen, err
		}
		seen += len(page.GetPartitions())
		if token = page.GetNextPageToken(); token == "" {
			return seen, nil
		}
	}
}

func (m *million) list(ctx context.Context) error {
	began := time.Now()
	seen, err := m.pages(ctx)
	if want := m.others + m.partitions; err == nil && seen != want {
		err = fmt.Errorf("%d partitions are listed instead of %d", seen, want)
	}
	m.add("partitions_list_time", time.Since(began).Seconds(), "s")
	return err
}

func (m *million) resolve(ctx context.Context) error {
	samples, err := m.bench.resolve(ctx, m.group, m.partitions)
	for _, s := range samples {
		s.name += "_of_all"
		m.samples = append(m.samples, s)
	}
	return err
}

// snapshot writes small entries until the leader and a follower have written a snapshot that holds all partitions.
func (m *million) snapshot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotLimit)
	defer cancel()
	start, err := m.group.scrape(ctx, m.leader)
	if err != nil {
		return err
	}
	writing, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() {
		c := m.group.link(m.conn)
		for key := 0; ; key = (key + 1) % m.partitions {
			if err := c.write(writing, key); err != nil {
				if writing.Err() != nil {
					err = nil
				}
				stopped <- err
				return
			}
		}
	}()
	for _, member := range []int{m.leader, m.follower} {
		var now metrics
		err := until(ctx, "a snapshot is written", func(ctx context.Context) (err error) {
			if now, err = m.group.scrape(ctx, member); err == nil && now["quorate_snapshot_revision"] < start["quorate_state_revision"] {
				err = errors.New("none was")
			}
			return err
		})
		if err != nil {
			stop()
			return errors.Join(err, <-stopped)
		}
		if member == m.leader {
			m.add("snapshot_capture", 1e3*now["quorate_snapshot_capture_duration_seconds"], "ms")
			m.add("snapshot_write", 1e3*now["quorate_snapshot_write_duration_seconds"], "ms")
			m.add("snapshot_size", now["quorate_snapshot_size_bytes"]/1e6, "MB")
		}
	}
	stop()
	return <-stopped
}

// restart ends a follower, which has a snapshot, and starts it again.
func (m *million) restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restartLimit)
	defer cancel()
	if err := m.group.kill(ctx, m.follower); err != nil {
		return err
	}
	began := time.Now()
	if err := m.group.restart(ctx, m.follower); err != nil {
		return err
	}
	m.add("restart_time", time.Since(began).Seconds(), "s")
	now, err := m.group.scrape(ctx, m.follower)
	if err == nil && now[`quorate_snapshots_total{result="restored"}`] == 0 {
		err = errors.New("the member that came back restored no snapshot")
	}
	m.add("snapshot_restore", 1e3*now["quorate_snapshot_restore_duration_seconds"], "ms")
	rss, rssErr := m.group.process(m.follower).RSS()
	m.add("partitions_rss_restarted", rss, "MB")
	return errors.Join(err, rssErr)
}

// metrics are series by name, with the labels that differ between series of one name.
type metrics map[string]float64

// scrape asks a member for its metrics.
func (q *quorate) scrape(ctx context.Context, member int) (metrics, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+q.Members[member].HTTP+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics: %s", response.Status)
	}
	all := metrics{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, ok := cutLast(lines.Text(), " ")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			all[withoutConstants(name)] = v
		}
	}
	return all, nil
}

func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}

// withoutConstants leaves out the labels that all series of a member have.
func withoutConstants(series string) string {
	name, labels, ok := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	if !ok {
		return series
	}
	var kept []string
	for label := range strings.SplitSeq(labels, ",") {
		if !strings.HasPrefix(label, "cluster=") && !strings.HasPrefix(label, "node=") {
			kept = append(kept, label)
		}
	}
	if len(kept) == 0 {
		return name
	}
	return name + "{" + strings.Join(kept, ",") + "}"
}
