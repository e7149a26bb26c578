package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	"quorate/devgroup"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// electionAfter is how long a follower of a dev group waits for its leader before it stands for election: the lan profile's
	// heartbeat time-out. The leader beats every tenth of it, or up to two tenths, by raft's random spread.
	electionAfter = 300 * time.Millisecond
	beatEvery     = electionAfter / 10
	// missedAfter is when a heartbeat has certainly been missed: two of the longest pauses without any.
	missedAfter = 4 * beatEvery
	// sampleEvery is how often each follower is asked for the age of its last contact with the leader.
	sampleEvery = 5 * time.Millisecond
)

// beats is what was seen of the heartbeats.
type beats struct {
	samples int
	missed  int           // pauses longer than missedAfter
	most    time.Duration // the longest pause
	after   leading
}

// leading is who leads, and in which term.
type leading struct {
	member string
	term   uint64
}

// raftWatch asks members how they are with their leader.
type raftWatch struct {
	members map[string]*grpc.ClientConn
}

func (w *raftWatch) close() error {
	var errs []error
	for _, m := range w.members {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

func newRaftWatch(g *devgroup.Group) (*raftWatch, error) {
	w := &raftWatch{members: map[string]*grpc.ClientConn{}}
	for _, m := range g.Members {
		conn, err := devgroup.Dial(m)
		if err != nil {
			return nil, err
		}
		w.members[m.ID] = conn
	}
	return w, nil
}

// run samples the followers of a leader until ctx ends.
func (w *raftWatch) run(ctx context.Context, leader string) (b beats, err error) {
	parts := make([]beats, len(w.members))
	errs := make([]error, len(w.members))
	var all sync.WaitGroup
	i := 0
	for id, m := range w.members {
		if id != leader {
			at := i
			i++
			all.Go(func() { parts[at], errs[at] = sample(ctx, m) })
		}
	}
	all.Wait()
	for _, p := range parts {
		b.samples += p.samples
		b.missed += p.missed
		b.most = max(b.most, p.most)
	}
	var lastErr error
	b.after, lastErr = w.state(context.WithoutCancel(ctx))
	return b, errors.Join(errors.Join(errs...), lastErr)
}

// state says who leads, by the first member that answers.
func (w *raftWatch) state(ctx context.Context) (l leading, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	for _, m := range w.members {
		var list *quoratev1.ListMembersResponse
		if list, err = quoratev1.NewMemberServiceClient(m).ListMembers(ctx, &quoratev1.ListMembersRequest{}); err != nil {
			continue
		}
		for _, m := range list.GetMembers() {
			l.term = max(l.term, m.GetTerm())
			if m.GetLeader() {
				l.member = m.GetId()
			}
		}
		return l, nil
	}
	return l, fmt.Errorf("who leads: %w", err)
}

// sample asks one follower. A pause that goes on from one sample to the next counts once.
func sample(ctx context.Context, conn *grpc.ClientConn) (b beats, err error) {
	client := quoratev1.NewTopologyServiceClient(conn)
	local := &quoratev1.GetTopologyRequest{Read: &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}}
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	missing := false
	for {
		select {
		case <-ctx.Done():
			return b, nil
		case <-tick.C:
		}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectLimit)
		resp, err := client.GetTopology(call, local)
		cancel()
		if err != nil {
			return b, fmt.Errorf("a follower: %w", err)
		}
		age := resp.GetHeader().GetLeaderContactAge().AsDuration()
		b.samples++
		b.most = max(b.most, age)
		if late := age > missedAfter; late != missing {
			missing = late
			if late {
				b.missed++
			}
		}
	}
}
