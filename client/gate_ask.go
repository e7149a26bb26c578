package client

import (
	"context"
	"errors"
	"fmt"

	quoratev1 "quorate/proto/quorate/v1"
)

// batch is a question to the group that others join until it is sent.
type batch struct {
	partitions []string
	places     map[string]int
	waiting    []int64
	// asOf is the revision of the lease that was in force when it was sent.
	asOf uint64
	// late has the places of which the answer may be older than what a grant said since, and overtaken says that all of them are.
	late      map[int]bool
	overtaken bool
	done      chan struct{}
	entries   []*entry
	err       error
}

// overtake marks what is asked of a partition as late.
func (b *batch) overtake(partition string) {
	if place, known := b.places[partition]; known {
		b.late[place] = true
	}
}

// ask gets the answer of a linearizable read that begins after the call, and counts one write in flight of it.
func (g *Gate) ask(ctx context.Context, partition string) (*entry, error) {
	g.misses.Add(1)
	if !isPartitionID(partition) {
		// The group would refuse the whole question, and with it what others ask.
		return nil, &UnknownPartitionError{Partition: partition}
	}
	for range gateReads {
		e, err := g.askOnce(ctx, partition)
		if err != nil || e != nil {
			return e, err
		}
	}
	return nil, fmt.Errorf("client: partition %q changed faster than it can be read", partition)
}

// isPartitionID says whether a partition may be called so: 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit.
func isPartitionID(id string) bool {
	for i := range len(id) {
		c := id[i]
		letter := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return false
		}
	}
	return id != "" && len(id) <= maxPartitionID
}

// askOnce is one such read; nil means that the partition changed while it was read. Callers that come at one time share it.
func (g *Gate) askOnce(ctx context.Context, partition string) (*entry, error) {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return nil, ErrClosed
	}
	b, place := g.join(partition)
	g.mu.Unlock()
	select {
	case <-b.done:
	case <-ctx.Done():
		// The answer is counted as this caller's once it comes.
		g.mu.Lock()
		defer g.mu.Unlock()
		if b.waiting[place]--; b.entries != nil && b.entries[place] != nil {
			b.entries[place].leave()
		}
		return nil, ctx.Err()
	}
	if b.err != nil {
		return nil, b.err
	}
	e := b.entries[place]
	if e != nil && !e.exists() {
		e.leave()
		return nil, &UnknownPartitionError{Partition: partition}
	}
	return e, nil
}

// join adds a partition to the question that is being gathered, or begins one. The gate is locked.
func (g *Gate) join(partition string) (b *batch, place int) {
	b = g.batch
	if b == nil || len(b.partitions) == gateBatch {
		b = &batch{places: map[string]int{}, late: map[int]bool{}, done: make(chan struct{})}
		g.batch = b
		g.done.Go(func() { g.send(b) })
	}
	place, known := b.places[partition]
	if !known {
		place = len(b.partitions)
		b.places[partition] = place
		b.partitions = append(b.partitions, partition)
		b.waiting = append(b.waiting, 0)
	}
	b.waiting[place]++
	return b, place
}

// send asks the group for a batch, after closing it to newcomers: only so does the read begin after each of them came.
func (g *Gate) send(b *batch) {
	g.asks <- struct{}{} // Each question ends within gateTry, or with the gate.
	defer func() { <-g.asks }()
	g.begin(b)
	ctx, cancel := context.WithTimeout(g.ctx, gateTry)
	defer cancel()
	found, revision, err := g.link.Resolve(ctx, b.partitions)
	g.end(b, found, revision, err)
}

// begin notes that a question is about to be sent.
func (g *Gate) begin(b *batch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.batch == b {
		g.batch = nil
	}
	b.asOf = g.grant.GetRevision()
	g.reading[b] = struct{}{}
}

// end gives those who wait for a question what became of it.
func (g *Gate) end(b *batch, found []*quoratev1.Resolution, revision uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer close(b.done)
	delete(g.reading, b)
	switch {
	case err != nil && g.ended:
		b.err = ErrClosed
	case err != nil:
		b.err = fmt.Errorf("client: the gate could not ask the group: %w", err)
	case len(found) != len(b.partitions):
		b.err = errors.New("client: the group answered for another number of partitions than were asked for")
	default:
		g.answer(b, found, revision)
	}
}

// answer gives those who wait for a question what was found. What came too late they have to ask for again. The gate is locked.
func (g *Gate) answer(b *batch, found []*quoratev1.Resolution, revision uint64) {
	b.entries = make([]*entry, len(found))
	if b.overtaken || revision < b.asOf {
		return
	}
	for place, r := range found {
		if !b.late[place] {
			b.entries[place] = g.remember(r, b.waiting[place])
		}
	}
}
