package model

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// digest is that of the document.
func digest(t *testing.T) string {
	t.Helper()
	topology := &quoratev1.Topology{}
	if err := protojson.Unmarshal([]byte(document), topology); err != nil {
		t.Fatal(err)
	}
	s := fsm.New()
	if err := must(s, members([]string{"m1", "m2"}), &logv1.Command{RequestId: "x", Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{Topology: topology}}}); err != nil {
		t.Fatal(err)
	}
	return s.CurrentGeneration().GetDigest()
}
