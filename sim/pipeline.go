package sim

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// pipelineDepth bounds the entries under way in one pipeline, high enough for links of several seconds.
const pipelineDepth = 1024

// AppendEntriesPipeline implements raft.Transport.
func (t *Transport) AppendEntriesPipeline(_ raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	ctx, cancel := context.WithCancel(t.ctx)
	p := &pipeline{
		t: t, to: string(to), ctx: ctx, cancel: cancel,
		sent: make(chan *inFlight, pipelineDepth), served: make(chan *inFlight, pipelineDepth), done: make(chan raft.AppendFuture, pipelineDepth),
	}
	p.tasks.Go(p.deliver)
	p.tasks.Go(p.bringBack)
	return p, nil
}

// pipeline is one stream of AppendEntries: in order, with many under way. It breaks at the first that is lost.
type pipeline struct {
	t      *Transport
	to     string
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	sent   chan *inFlight
	served chan *inFlight
	done   chan raft.AppendFuture
}

type inFlight struct {
	start   time.Time
	request *raft.AppendEntriesRequest
	resp    *raft.AppendEntriesResponse
	asked   *Transport
	due     time.Time
	err     error
	settled chan struct{}
}

func (f *inFlight) Error() error                          { <-f.settled; return f.err }
func (f *inFlight) Start() time.Time                      { return f.start }
func (f *inFlight) Request() *raft.AppendEntriesRequest   { return f.request }
func (f *inFlight) Response() *raft.AppendEntriesResponse { return f.resp }

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	_, delay, _ := p.t.network.state(p.t, p.to)
	now := time.Now()
	f := &inFlight{start: now, request: a, resp: r, due: now.Add(delay), settled: make(chan struct{})}
	select {
	case p.sent <- f:
		return f, nil
	case <-p.ctx.Done():
		return nil, raft.ErrPipelineShutdown
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.cancel()
	p.tasks.Wait()
	return nil
}

// deliver takes requests to the other member one after the other, each when it is due.
func (p *pipeline) deliver() {
	for {
		var f *inFlight
		select {
		case f = <-p.sent:
		case <-p.ctx.Done():
			return
		}
		f.err = p.serveOne(f)
		// The answer's way begins now.
		if f.asked != nil {
			_, delay, _ := p.t.network.state(f.asked, p.t.address)
			f.due = time.Now().Add(delay)
		}
		select {
		case p.served <- f:
		case <-p.ctx.Done():
			return
		}
	}
}

func (p *pipeline) serveOne(f *inFlight) error {
	if err := errors.Join(sleep(p.ctx, time.Until(f.due)), p.t.network.wait(p.ctx, p.t.address, p.to)); err != nil {
		return err
	}
	target, _, lost := p.t.network.state(p.t, p.to)
	switch {
	case lost:
		return errors.Join(errTimeout, sleep(p.ctx, p.t.timing.RPC))
	case target == nil:
		return errRefused
	}
	f.asked = target
	request := *f.request
	ctx, cancel := context.WithTimeout(p.ctx, p.t.timing.RPC)
	defer cancel()
	got, err := target.serve(ctx, &request, nil)
	if r, ok := got.(*raft.AppendEntriesResponse); ok && r != nil {
		*f.resp = *r
	}
	return err
}

// bringBack hands the answers over, each when it is due.
func (p *pipeline) bringBack() {
	for {
		var f *inFlight
		select {
		case f = <-p.served:
		case <-p.ctx.Done():
			return
		}
		if err := sleep(p.ctx, time.Until(f.due)); err != nil {
			return
		}
		if f.asked != nil {
			if err := p.t.network.wait(p.ctx, f.asked.address, p.t.address); err != nil {
				return
			}
			if _, _, lost := p.t.network.state(f.asked, p.t.address); lost {
				f.err = errors.Join(errTimeout, sleep(p.ctx, p.t.timing.RPC))
			}
		}
		if f.err != nil {
			*f.resp = raft.AppendEntriesResponse{}
		}
		close(f.settled)
		select {
		case p.done <- f:
		case <-p.ctx.Done():
			return
		}
	}
}
