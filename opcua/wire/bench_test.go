package wire

import (
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// oneRead is a ReadRequest as clients send it most: one node, numeric id, and a
// session token of 32 bytes.
func oneRead(t testing.TB) []byte {
	t.Helper()
	b, err := AppendMessage(nil, &ua.ReadRequest{
		RequestHeader: &ua.RequestHeader{
			AuthenticationToken: ua.NewByteStringNodeID(1, make([]byte, 32)), Timestamp: time.Now(), RequestHandle: 5, TimeoutHint: 1000,
		},
		TimestampsToReturn: ua.TimestampsToReturnBoth,
		NodesToRead:        []*ua.ReadValueID{{NodeID: ua.NewNumericNodeID(1, 70000), AttributeID: ua.AttributeIDValue}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func oneReadResponse() *ua.ReadResponse {
	return &ua.ReadResponse{
		ResponseHeader: &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: 5},
		Results: []*ua.DataValue{{
			EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueServerTimestamp,
			Value:        ua.MustVariant(3.5), SourceTimestamp: time.Now(), ServerTimestamp: time.Now(),
		}},
	}
}

func onePublishResponse() *ua.PublishResponse {
	return &ua.PublishResponse{
		ResponseHeader: &ua.ResponseHeader{Timestamp: time.Now(), RequestHandle: 5},
		NotificationMessage: &ua.NotificationMessage{SequenceNumber: 1, PublishTime: time.Now(), NotificationData: []*ua.ExtensionObject{
			ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: []*ua.MonitoredItemNotification{{ClientHandle: 1, Value: oneReadResponse().Results[0]}}}),
		}},
	}
}

// Allocations that the hot paths may make: the request in one block, and the
// bytes of the session token.
const (
	mostReadAllocs    = 2
	mostPublishAllocs = 2
)

// TestHotPathAllocations keeps the hot paths from becoming slow unnoticed.
func TestHotPathAllocations(t *testing.T) {
	read := oneRead(t)
	publish, err := AppendMessage(nil, &ua.PublishRequest{RequestHeader: &ua.RequestHeader{AuthenticationToken: ua.NewByteStringNodeID(1, make([]byte, 32))}})
	if err != nil {
		t.Fatal(err)
	}
	decode := func(b []byte) func() {
		return func() {
			if _, err := DecodeRequest(b, Limits{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	buf := make([]byte, 0, 1024)
	encode := func(msg any) func() {
		return func() {
			if _, err := AppendMessage(buf, msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name string
		most float64
		f    func()
	}{
		{"decode Read", mostReadAllocs, decode(read)},
		{"decode Publish", mostPublishAllocs, decode(publish)},
		{"encode Read", 0, encode(oneReadResponse())},
		{"encode Publish", 0, encode(onePublishResponse())},
	} {
		if got := testing.AllocsPerRun(200, tt.f); got > tt.most && !raceEnabled {
			t.Errorf("%s makes %v allocations, more than %v", tt.name, got, tt.most)
		}
	}
}

func BenchmarkDecodeRead(b *testing.B) {
	in := oneRead(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRequest(in, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeReadResponse(b *testing.B) {
	resp, buf := oneReadResponse(), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendMessage(buf, resp); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodePublishResponse(b *testing.B) {
	resp, buf := onePublishResponse(), make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendMessage(buf, resp); err != nil {
			b.Fatal(err)
		}
	}
}

// The same with ua, to compare.

func BenchmarkDecodeReadUA(b *testing.B) {
	in := oneRead(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ua.DecodeService(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeReadResponseUA(b *testing.B) {
	resp := oneReadResponse()
	resp.ResponseHeader.ServiceDiagnostics = &ua.DiagnosticInfo{}
	resp.ResponseHeader.AdditionalHeader = ua.NewExtensionObject(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ua.Encode(resp); err != nil {
			b.Fatal(err)
		}
	}
}
