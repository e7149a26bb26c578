package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"quorate/fsm"
	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

// questions serves a stream on which the caller asks, and goes on asking while it waits for answers. The answers come in the order of the questions.
//
// What waits together is answered together: questions gather while one batch is being read for and answered, and then all of them share one confirmation
// of leadership, which begins after the last of them came. A caller that takes no answers is not read from beyond MaxQuestions, so that all it holds
// here are these and the answers of one batch; no view of the state is kept while anything is being sent.
type questions[Q, A any] struct {
	server *Server
	stream grpc.BidiStreamingServer[Q, A]
	// options and keys say how a question wants to be read for, and how much it asks for.
	options func(*Q) *quoratev1.ReadOptions
	keys    func(*Q) int
	answer  func(*Q, node.View) *A
}

// batchKeys is how many keys a batch may ask for before no further question joins it: it bounds the answers that are made before the first is sent.
const batchKeys = fsm.MaxPartitionBatch

// serve answers until the caller has asked all that it will, or the stream ends.
func (q *questions[Q, A]) serve() error {
	ctx := q.stream.Context()
	waiting := make(chan *Q, q.server.config.Limits.MaxQuestions)
	end := make(chan error, 1)
	// It ends with the stream, which ends when this returns.
	go func() {
		end <- q.receive(ctx, waiting)
		close(waiting)
	}()
	for {
		batch, err := gather(ctx, waiting, q.keys)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			return <-end
		}
		answers, err := q.answers(ctx, batch)
		if err != nil {
			return err
		}
		for _, answer := range answers {
			if err := q.stream.Send(answer); err != nil {
				return err
			}
		}
	}
}

// receive takes questions until there are no more, which is no error.
func (q *questions[Q, A]) receive(ctx context.Context, waiting chan<- *Q) error {
	for {
		question, err := q.stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case waiting <- question:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// gather returns the questions that wait, after waiting for the first; none once there will be no more.
func gather[Q any](ctx context.Context, waiting <-chan *Q, keys func(*Q) int) ([]*Q, error) {
	var batch []*Q
	select {
	case question, more := <-waiting:
		if !more {
			return nil, nil
		}
		batch = append(batch, question)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for asked := keys(batch[0]); asked < batchKeys; asked += keys(batch[len(batch)-1]) {
		select {
		case question, more := <-waiting:
			if !more {
				return batch, nil
			}
			batch = append(batch, question)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// answers answers a batch. A linearizable question is answered from the view of one before it, if that was confirmed for the batch and is as new as the
// question wants it: the confirmation began after all of the batch had come.
func (q *questions[Q, A]) answers(ctx context.Context, batch []*Q) ([]*A, error) {
	answers := make([]*A, 0, len(batch))
	var latest node.View
	confirmed := false
	for _, question := range batch {
		options := q.options(question)
		if !confirmed || !linearizable(options) || latest.State.Revision() < options.GetMinRevision() {
			view, err := q.server.config.Node.Read(ctx, options)
			if err != nil {
				return nil, err
			}
			// A member never goes back: whatever it read after a confirmation is confirmed as well.
			latest, confirmed = view, confirmed || linearizable(options)
		}
		answers = append(answers, q.answer(question, latest))
	}
	return answers, nil
}

func linearizable(options *quoratev1.ReadOptions) bool {
	c := options.GetConsistency()
	return c == quoratev1.Consistency_CONSISTENCY_UNSPECIFIED || c == quoratev1.Consistency_CONSISTENCY_LINEARIZABLE
}
