package model

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// unmarshal reads what was recorded: requests and answers of the public API as JSON. What a later version records besides is no reason to refuse the rest.
func unmarshal(raw json.RawMessage, m proto.Message) error {
	if len(raw) == 0 {
		return nil
	}
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m)
}

// decode reads the request of an operation, and its answer if it has one.
func decode(op *history.Op, request, response proto.Message) error {
	if err := unmarshal(op.Input, request); err != nil {
		return fmt.Errorf("input: %w", err)
	}
	if op.Outcome != history.OK {
		return nil
	}
	if err := unmarshal(op.Output, response); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	return nil
}

// reason is why an operation was refused.
func reason(op *history.Op) string {
	text, _, _ := strings.Cut(op.Error, ":")
	return strings.TrimSpace(text)
}

// linearizable says whether a read asked for what only a linearizable one gives; it is the default.
func linearizable(o *quoratev1.ReadOptions) bool {
	return o.GetConsistency() == quoratev1.Consistency_CONSISTENCY_UNSPECIFIED || o.GetConsistency() == quoratev1.Consistency_CONSISTENCY_LINEARIZABLE
}

// write makes a call of a write whose answer, where it was accepted, has to pass fits. Reasons in elsewhere are those of other keys.
func write(op *history.Op, request string, command *logv1.Command, fits func(*logv1.Outcome) bool, elsewhere ...string) *call {
	c := newCall(op, true)
	command.RequestId, c.request, c.command = request, request, command
	switch op.Outcome {
	case history.OK:
		c.fits = func(o *logv1.Outcome) bool { return fsm.RefusalOf(o) == nil && fits(o) }
	case history.Refused:
		why := reason(op)
		for _, other := range elsewhere {
			c.elsewhere = c.elsewhere || other == why
		}
		c.fits = func(o *logv1.Outcome) bool { return fsm.RefusalOf(o).GetReason() == why }
	}
	return c
}

// must applies an entry that can't be refused.
func must(s *fsm.State, commands ...*logv1.Command) error {
	for _, c := range commands {
		outcomes, _, err := s.ApplyEntry(s.Revision()+1, &logv1.Entry{Commands: []*logv1.Command{c}, LeaderApplied: s.Revision()})
		if err != nil {
			return err
		}
		if r := fsm.RefusalOf(outcomes[0]); r != nil {
			return fmt.Errorf("the first state: %w", r)
		}
	}
	return nil
}

// members are a group of these members.
func members(ids []string) *logv1.Command {
	group := &logv1.SyncMembers{}
	for i, id := range ids {
		group.Members = append(group.Members, &logv1.SyncMembers_Member{Id: id, RaftAddress: fmt.Sprintf("10.77.0.%d:7400", i+1), Voter: true})
	}
	return &logv1.Command{Body: &logv1.Command_SyncMembers{SyncMembers: group}}
}
