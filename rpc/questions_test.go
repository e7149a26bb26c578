package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/fsm"
	"quorate/node"
	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

func question(ids ...string) *quoratev1.StreamResolveRequest {
	return &quoratev1.StreamResolveRequest{Request: &quoratev1.ResolveRequest{Partitions: ids}}
}

func openResolve(t *testing.T, h *harness) quoratev1.PartitionService_StreamResolveClient {
	t.Helper()
	stream, err := quoratev1.NewPartitionServiceClient(h.dial(t, nil)).StreamResolve(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func ask[Q any](t *testing.T, stream interface{ Send(*Q) error }, questions ...*Q) {
	t.Helper()
	for _, q := range questions {
		// A stream that ended says why when it is read from.
		if err := stream.Send(q); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}

func TestAnswersComeInTheOrderOfTheQuestions(t *testing.T) {
	h, _ := openPartitions(t, Limits{}, "p1", "p2", "p3")
	conn := h.dial(t, nil)
	stream, err := quoratev1.NewPartitionServiceClient(conn).StreamResolve(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	const asked = 300
	go func() {
		for i := range asked {
			q := question(fmt.Sprint("p", i%4), "p1")
			if i%3 == 0 {
				q.Request.Read = &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}
			}
			ask(t, stream, q)
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
	}()
	revision := uint64(0)
	for i := range asked {
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		found := answer.GetResponse().GetResolutions()
		if len(found) != 2 || found[0].GetPartition() != fmt.Sprint("p", i%4) || (found[0].GetWritePlacement() == "a") != (i%4 > 0) || found[1].GetEpoch() != 1 {
			t.Fatalf("answer %d: %v", i, answer)
		}
		if now := answer.GetResponse().GetHeader().GetRevision(); now < revision {
			t.Errorf("revision %d after %d", now, revision)
		} else {
			revision = now
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}

	verdicts, err := quoratev1.NewGateServiceClient(conn).StreamGates(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for epoch := range uint64(3) {
		ask(t, verdicts, &quoratev1.StreamGatesRequest{Request: &quoratev1.CheckGatesRequest{Checks: []*quoratev1.GateCheck{{Partition: "p1", Epoch: epoch}}}})
	}
	for epoch := range uint64(3) {
		answer, err := verdicts.Recv()
		if err != nil || answer.GetResponse().GetVerdicts()[0].GetPass() != (epoch == 1) {
			t.Errorf("at epoch %d: %v, %v", epoch, answer, err)
		}
	}
}

// line is a stream of questions whose ends the test holds: it sees when the member reads and when it sends.
type line struct {
	quoratev1.PartitionService_StreamResolveServer
	ctx context.Context
	// asked gives the member its questions, and reads counts how often it wanted one.
	asked chan *quoratev1.StreamResolveRequest
	reads atomic.Int64
	// answers takes the answers; one that nobody takes holds up the member, as a window that is full does.
	answers chan *quoratev1.StreamResolveResponse
}

func (l *line) Context() context.Context { return l.ctx }

func (l *line) Recv() (*quoratev1.StreamResolveRequest, error) {
	l.reads.Add(1)
	select {
	case q, more := <-l.asked:
		if !more {
			return nil, io.EOF
		}
		return q, nil
	case <-l.ctx.Done():
		return nil, l.ctx.Err()
	}
}

func (l *line) Send(answer *quoratev1.StreamResolveResponse) error {
	select {
	case l.answers <- answer:
		return nil
	case <-l.ctx.Done():
		return l.ctx.Err()
	}
}

// openLine has a member with these limits serve a line, until the test ends.
func openLine(t *testing.T, limits Limits, read func(context.Context) (node.View, error)) *line {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &line{ctx: ctx, asked: make(chan *quoratev1.StreamResolveRequest, 1000), answers: make(chan *quoratev1.StreamResolveResponse)}
	s := &Server{config: Config{Node: &scripted{read: read}, Limits: limits.withDefaults()}}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := (&partitionService{server: s}).StreamResolve(l); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the stream ended with %v", err)
		}
	})
	t.Cleanup(serving.Wait)
	t.Cleanup(cancel)
	return l
}

// TestQuestionsThatWaitTogetherShareOneConfirmation has ten more come while the first is read for.
func TestQuestionsThatWaitTogetherShareOneConfirmation(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	reads := 0
	l := openLine(t, Limits{}, func(context.Context) (node.View, error) {
		if reads++; reads == 1 {
			close(entered)
			<-leave
		}
		return node.View{State: before}, nil
	})
	l.asked <- question("p0")
	<-entered
	for i := 1; i < 10; i++ {
		l.asked <- question(fmt.Sprint("p", i))
	}
	local := question("p10")
	local.Request.Read = &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}
	l.asked <- local
	eventually(t, "all have been read", func() bool { return l.reads.Load() == 12 })
	close(leave)
	for i := range 11 {
		if answer := <-l.answers; answer.GetResponse().GetResolutions()[0].GetPartition() != fmt.Sprint("p", i) {
			t.Fatalf("answer %d: %v", i, answer)
		}
	}
	// One for the first, one for the nine, and one for that which is not linearizable.
	if reads != 3 {
		t.Errorf("%d reads for 11 questions", reads)
	}
	close(l.asked)
}

// TestQuestionsInFlightAreLimited has a caller that asks on and on: while the member reads for the first question, and while it can't send the answer.
func TestQuestionsInFlightAreLimited(t *testing.T) {
	const most = 4
	leave := make(chan struct{})
	l := openLine(t, Limits{MaxQuestions: most}, func(context.Context) (node.View, error) {
		<-leave
		return node.View{State: before}, nil
	})
	for range 100 {
		l.asked <- question("p1")
	}
	eventually(t, "as many were read as may be", func() bool { return l.reads.Load() == most })
	leave <- struct{}{}
	for taken := int64(1); taken <= 96; taken++ {
		if n := l.reads.Load(); n > most+taken-1 {
			t.Fatalf("%d questions were read, and %d answers taken", n, taken-1)
		}
		for pending := true; pending; {
			select {
			case <-l.answers:
				pending = false
			case leave <- struct{}{}:
			}
		}
		eventually(t, "the next is read", func() bool { return l.reads.Load() == most+taken })
	}
	close(leave)
	for range 4 {
		<-l.answers
	}
	close(l.asked)
}

func TestAWrongQuestionEndsTheStreamAfterTheAnswersBeforeIt(t *testing.T) {
	h, _ := openPartitions(t, Limits{}, "p1")
	bounded := &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_BOUNDED}
	for name, test := range map[string]struct {
		wrong *quoratev1.StreamResolveRequest
		field string
	}{
		"nothing":          {&quoratev1.StreamResolveRequest{}, "request"},
		"no partition":     {question(), "request.partitions"},
		"an empty name":    {question("p1", ""), "request.partitions[1]"},
		"a long name":      {question(strings.Repeat("x", fsm.MaxIDBytes+1)), "request.partitions[0]"},
		"bounded by none":  {&quoratev1.StreamResolveRequest{Request: &quoratev1.ResolveRequest{Read: bounded, Partitions: []string{"p1"}}}, "request.read.max_staleness"},
		"too many of them": {question(make([]string, fsm.MaxPartitionBatch+1)...), "request.partitions"},
	} {
		t.Run(name, func(t *testing.T) {
			stream := openResolve(t, h)
			ask(t, stream, question("p1"), question("p1"), test.wrong, question("p1"))
			for range 2 {
				if answer, err := stream.Recv(); err != nil || answer.GetResponse().GetResolutions()[0].GetEpoch() != 1 {
					t.Fatalf("before it: %v, %v", answer, err)
				}
			}
			_, err := stream.Recv()
			d := detailsOf(err)
			if d.info.GetReason() != ReasonInvalidArgument || d.field() != test.field {
				t.Errorf("%v, field %q; want %q", err, d.field(), test.field)
			}
		})
	}
}

func TestAReadThatFailsEndsTheStream(t *testing.T) {
	h := serve(t, Config{Node: &scripted{read: func(context.Context) (node.View, error) {
		return node.View{}, &node.Error{Op: "read", Kind: node.NoLeader}
	}}})
	stream := openResolve(t, h)
	ask(t, stream, question("p1"))
	_, err := stream.Recv()
	assertRefused(t, err, codes.Unavailable, ReasonNoLeader, "")
}

func TestStreamsOfQuestionsAreLimitedAndEndWithTheServer(t *testing.T) {
	h, _ := openPartitions(t, Limits{MaxQuestionStreams: 1, MaxWatches: 1}, "p1")
	first := openResolve(t, h)
	ask(t, first, question("p1"))
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	second := openResolve(t, h)
	ask(t, second, question("p1"))
	_, err := second.Recv()
	assertRefused(t, err, codes.ResourceExhausted, ReasonTooManyStreams, "")
	// Watches are counted for themselves.
	watch, err := quoratev1.NewEventServiceClient(h.dial(t, nil)).WatchEvents(testContext(t), &quoratev1.WatchEventsRequest{FromRevision: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Errorf("a watch beside it: %v", err)
	}
	h.stop()
	_, err = first.Recv()
	assertRefused(t, err, codes.Unavailable, ReasonShuttingDown, "")
	eventually(t, "the stream is counted out", func() bool { return h.questions.Load() == 0 })
}

// TestAnExpiredCertificateEndsItsStreams asks once before the certificate expires, and once after.
func TestAnExpiredCertificateEndsItsStreams(t *testing.T) {
	people := newSite(t)
	n, _ := remembering()
	var ahead atomic.Int64
	h := serve(t, Config{Node: n, Credentials: people.member, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	stream, err := quoratev1.NewPartitionServiceClient(h.dial(t, people.viewer)).StreamResolve(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	ask(t, stream, question("p1"))
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(pki.DefaultValidity + time.Hour))
	ask(t, stream, question("p1"))
	_, err = stream.Recv()
	assertRefused(t, err, codes.Unauthenticated, ReasonUnauthenticated, "")
}

// TestGather fills a batch up to what it may ask for.
func TestGather(t *testing.T) {
	keys := func(n *int) int { return *n }
	waiting := make(chan *int, 10)
	for _, n := range []int{400, 400, 400, 1, 1000, 1} {
		waiting <- &n
	}
	for _, want := range []int{3, 2, 1} {
		if batch, err := gather(t.Context(), waiting, keys); err != nil || len(batch) != want {
			t.Errorf("%d questions, %v; want %d", len(batch), err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("over"))
	if _, err := gather(ctx, waiting, keys); err == nil || err.Error() != "over" {
		t.Errorf("after the end: %v", err)
	}
	close(waiting)
	if batch, err := gather(t.Context(), waiting, keys); err != nil || len(batch) != 0 {
		t.Errorf("of nothing: %v, %v", batch, err)
	}
}

// TestAnOldViewIsReadAgain asks for a revision that the batch's view does not have.
func TestAnOldViewIsReadAgain(t *testing.T) {
	reads := 0
	state := manyPartitions(t, 2)
	q := &questions[quoratev1.ResolveRequest, quoratev1.ResolveResponse]{
		server: &Server{config: Config{Node: &scripted{read: func(context.Context) (node.View, error) {
			if reads++; reads == 1 {
				return node.View{State: fsm.New()}, nil
			}
			return node.View{State: state}, nil
		}}}},
		options: (*quoratev1.ResolveRequest).GetRead,
		answer: func(_ *quoratev1.ResolveRequest, v node.View) *quoratev1.ResolveResponse {
			return &quoratev1.ResolveResponse{Header: headerOf(v)}
		},
	}
	bounded := &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_BOUNDED, MaxStaleness: durationpb.New(time.Second)}
	answers, err := q.answers(t.Context(), []*quoratev1.ResolveRequest{{}, {}, {Read: &quoratev1.ReadOptions{MinRevision: 1}}, {}, {Read: bounded}, {}})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, answer := range answers {
		got = append(got, answer.GetHeader().GetRevision())
	}
	// Read for: the first, the third for its revision, and the bounded one.
	if want := state.Revision(); fmt.Sprint(got) != fmt.Sprint([]uint64{0, 0, want, want, want, want}) || reads != 3 {
		t.Errorf("revisions %v from %d reads", got, reads)
	}
}
