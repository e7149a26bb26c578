package traffic

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/client"
	"quorate/jepsen/history"
	quoratev1 "quorate/proto/quorate/v1"
)

// call makes one operation and records it. It goes on when the run is over, for as long as an operation may take, so that no outcome is unknown for
// that reason alone.
func call[Q, R proto.Message](
	ctx context.Context, e *Env, op history.Op, request Q, send func(context.Context, Q, ...grpc.CallOption) (R, error),
) (R, *history.Op, error) {
	changes := identify(request)
	limit := readLimit
	if changes {
		limit = changeLimit
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	record := e.Log.Begin(op, encode(request))
	response, err := send(ctx, request)
	var output any
	outcome := outcomeOf(err, changes)
	switch outcome {
	case history.OK:
		output = encode(response)
	case history.Refused:
		output = details{client.AsError(err).Details}
	}
	e.Log.End(record, outcome, output, explain(err))
	return response, record, err
}

// details are those of a refusal, as a history has them.
type details struct {
	Details map[string]string `json:"details"`
}

// identify gives a change a request id, and says whether it is one.
func identify(request proto.Message) bool {
	m := request.ProtoReflect()
	field := m.Descriptor().Fields().ByName("request_id")
	if field == nil {
		return false
	}
	m.Set(field, protoreflect.ValueOfString(rand.Text()))
	return true
}

// encode is a message as a history has it.
func encode(m proto.Message) json.RawMessage {
	b, err := protojson.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("traffic: %T: %v", m, err)) // Every message of the API has a JSON form.
	}
	return b
}

// explain puts the stable reason before what is meant for people.
func explain(err error) error {
	e := client.AsError(err)
	if e == nil {
		return err
	}
	reason := e.Reason
	if reason == "" {
		reason = e.Code.String()
	}
	return fmt.Errorf("%s: %s", reason, e.Message)
}

// outcomeOf says what a failed call means.
func outcomeOf(err error, changes bool) history.Outcome {
	open := history.Failed
	if changes {
		open = history.Unknown
	}
	e := client.AsError(err)
	switch {
	case err == nil:
		return history.OK
	case e == nil || e.OutcomeUnknown || e.Reason == client.ReasonUnknownOutcome:
		return open
	}
	switch e.Code {
	case codes.Unavailable, codes.ResourceExhausted:
		if e.Reason != "" {
			return history.Failed // A member said that it did nothing.
		}
		return open
	case codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal, codes.DataLoss:
		return open
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented:
		return history.Failed
	}
	return history.Refused
}

// refusal is the stable reason for which something was refused, empty if it was not.
func refusal(err error) string {
	if err == nil || outcomeOf(err, true) != history.Refused {
		return ""
	}
	return client.ReasonOf(err)
}

// succeeded is nil if an operation was done, or refused by a rule of the state: the group works.
func succeeded(what string, err error) error {
	if outcome := outcomeOf(err, true); outcome == history.OK || outcome == history.Refused {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// someRead asks for a linearizable read most of the time.
func someRead(r *mathrand.Rand) *quoratev1.ReadOptions {
	switch r.IntN(8) {
	case 0:
		return &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL}
	case 1:
		return &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_BOUNDED, MaxStaleness: durationpb.New(5 * time.Second)}
	}
	return nil
}

// together runs all, and returns when all have ended.
func together(ctx context.Context, all ...func(ctx context.Context) error) error {
	errs := make(chan error, len(all))
	for _, one := range all {
		go func() { errs <- one(ctx) }()
	}
	var found []error
	for range all {
		found = append(found, <-errs)
	}
	return errors.Join(found...)
}
