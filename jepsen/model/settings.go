package model

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// settings are those of partitions: one key.
func settings() noun {
	return noun{
		name: "settings", read: readSettings,
		begin: func(string, []*call, *facts) (*fsm.State, error) { return fsm.New(), nil },
		view:  func(_ string, s *fsm.State, _ *logv1.Command) string { return fmt.Sprint(s.PartitionSettings()) },
	}
}

func readSettings(op *history.Op, _ string) (*call, error) {
	answer := &quoratev1.GetPartitionSettingsResponse{} // A set's has the settings in the same field.
	switch op.Kind {
	case "set":
		r := &quoratev1.SetPartitionSettingsRequest{}
		if err := decode(op, r, answer); err != nil {
			return nil, err
		}
		return write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_SetPartitionSettings{SetPartitionSettings: &logv1.SetPartitionSettings{
			Settings: r.GetSettings(),
		}}}, func(o *logv1.Outcome) bool { return proto.Equal(o.GetPartitionSettings(), answer.GetSettings()) }), nil
	case "get":
		r := &quoratev1.GetPartitionSettingsRequest{}
		c := newCall(op, false)
		if err := decode(op, r, answer); err != nil || c == nil || !linearizable(r.GetRead()) || op.Outcome != history.OK {
			return nil, err
		}
		c.look = func(s *fsm.State) bool { return proto.Equal(s.PartitionSettings(), answer.GetSettings()) }
		return c, nil
	}
	return nil, nil
}
