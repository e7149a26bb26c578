package rpc

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"

	quoratev1 "quorate/proto/quorate/v1"
)

func TestTheAuditGoesToTheLogUnlessToldOtherwise(t *testing.T) {
	var log bytes.Buffer
	config := Config{Node: &scripted{}, Logger: slog.New(slog.NewJSONHandler(&log, nil))}
	if err := config.complete(); err != nil {
		t.Fatal(err)
	}
	config.Audit(AuditRecord{
		Actor: &quoratev1.Actor{Name: "otto", Role: "operator", Address: "127.0.0.1:9"}, Method: "/quorate.v1.LeaseService/BeginLease",
		Request: begin, RequestID: "b1", Outcome: Refused, Generation: 4, Code: codes.NotFound, Reason: "UNKNOWN_SERVER",
	})
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("%s: %v", log.String(), err)
	}
	for name, want := range map[string]any{
		"level": "WARN", "outcome": "refused", "actor": "otto", "role": "operator", "from": "127.0.0.1:9", "requestId": "b1",
		"method": "/quorate.v1.LeaseService/BeginLease", "generation": 4.0, "code": "NotFound", "reason": "UNKNOWN_SERVER",
	} {
		if line[name] != want {
			t.Errorf("%s is %v, want %v", name, line[name], want)
		}
	}
}
