package rpc

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quorate/node"
	quoratev1 "quorate/proto/quorate/v1"
)

// journal keeps everything that is logged, and may be written to from many goroutines.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// TestSecretsAreMarked finds fields whose name says what they are, and holds to what withoutSecrets relies on.
func TestSecretsAreMarked(t *testing.T) {
	telling := regexp.MustCompile(`session|secret|password|token|private|key$`)
	harmless := map[protoreflect.FullName]bool{}
	for _, name := range []string{"ListPartitionsRequest.page_token", "ListPartitionsResponse.next_page_token", "ListMigrationsRequest.page_token",
		"ListMigrationsResponse.next_page_token", "PageSelection.token", "ApplyLease.key"} {
		harmless[protoreflect.FullName("quorate.v1."+name)] = true
	}
	seen := map[protoreflect.FullName]bool{}
	secrets := 0
	var walk func(d protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			field := d.Fields().Get(i)
			if telling.MatchString(string(field.Name())) && !secret(field) && !harmless[field.FullName()] {
				t.Errorf("%s looks like a secret and is not marked debug_redact", field.FullName())
			}
			if secret(field) {
				if secrets++; field.Kind() != protoreflect.StringKind || field.Cardinality() == protoreflect.Repeated {
					t.Errorf("%s is a secret that is no single string", field.FullName())
				}
			}
			if field.IsMap() && field.MapValue().Message() != nil {
				t.Errorf("%s is a map of messages, in which nobody looks for secrets", field.FullName())
			}
			if field.Message() != nil {
				walk(field.Message())
			}
		}
	}
	for _, m := range methods(t) {
		walk(m.Input())
		before := secrets
		walk(m.Output())
		if secrets != before {
			t.Errorf("%s answers with a secret", m.FullName())
		}
	}
	if secrets != 3 {
		t.Errorf("%d secrets, want the sessions of three requests", secrets)
	}
}

func TestWithoutSecrets(t *testing.T) {
	plainRequest := publish("p", 0, lineA())
	if withoutSecrets(plainRequest) != proto.Message(plainRequest) {
		t.Error("a request without secrets was copied")
	}
	request := &quoratev1.RemoveInstanceRequest{RequestId: "r", Id: "i", Session: session, Drained: true}
	covered := withoutSecrets(request).(*quoratev1.RemoveInstanceRequest)
	if covered.GetSession() != redacted || covered.GetId() != "i" || !covered.GetDrained() || request.GetSession() != session {
		t.Errorf("covered %v, of %v", covered, request)
	}
	// By an operator: that there was no session is what a reader wants to know.
	if covered := withoutSecrets(&quoratev1.RemoveInstanceRequest{Id: "i"}).(*quoratev1.RemoveInstanceRequest); covered.GetSession() != "" {
		t.Errorf("covered %v", covered)
	}
}

// TestSessionsAreShownNowhere uses sessions in every way, right and wrong, and then looks for them in all that the member ever says.
func TestSessionsAreShownNowhere(t *testing.T) {
	log := &journal{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h := serve(t, Config{Node: openGroup(t, 1, node.Limits{})[0], Logger: logger})
	trail := auditTo(logger)
	gates := quoratev1.NewGateServiceClient(h.dial(t, nil))
	ctx := testContext(t)
	const mark = "Hush"
	good, other := mark+"-0123456789abcdef", mark+"-another-session-of-it"
	// said is what callers were told.
	var said []string
	tell := func(answer proto.Message, err error) {
		said = append(said, prototext.Format(answer))
		if err != nil {
			said = append(said, err.Error(), prototext.Format(status.Convert(err).Proto()))
		}
	}
	for i, session := range []string{good, good, other, mark, mark + " with a space and more", mark + strings.Repeat("x", 64), mark + "-ä-0123456789abcdef"} {
		id := fmt.Sprint("r", i)
		tell(gates.RegisterInstance(ctx, &quoratev1.RegisterInstanceRequest{RequestId: id, Id: "i1", Session: session}))
		tell(gates.RenewGate(ctx, &quoratev1.RenewGateRequest{Id: "i1", Session: session, NoWait: true}))
		tell(gates.RemoveInstance(ctx, &quoratev1.RemoveInstanceRequest{RequestId: id + "w", Id: "i1", Session: session + "-not"}))
		tell(gates.RemoveInstance(ctx, &quoratev1.RemoveInstanceRequest{RequestId: id + "u", Id: "i9", Session: session}))
		tell(gates.ListInstances(ctx, &quoratev1.ListInstancesRequest{}))
		if i > 0 {
			tell(gates.RemoveInstance(ctx, &quoratev1.RemoveInstanceRequest{RequestId: id + "r", Id: "i1", Session: session}))
		}
	}
	// The same request id for another session.
	tell(gates.RegisterInstance(ctx, &quoratev1.RegisterInstanceRequest{RequestId: "r0", Id: "i1", Session: other}))

	quoted := `"` + good + `"`
	for _, value := range []string{quoted, "[" + quoted + "]", `{"a":` + quoted + `}`, `"` + good + "\xff\"", quoted + "," + `"session":` + quoted} {
		_, _, answer := h.restCall(t, "POST", "/v1/instances", `{"requestId":"j","id":"i2","session":`+value+`}`)
		said = append(said, fmt.Sprint(answer))
		_, _, answer = h.restCall(t, "POST", "/v1/instances/i2:renew", `{"noWait":true,"session":`+value+`}`)
		said = append(said, fmt.Sprint(answer))
	}
	for _, query := range []string{"session=" + good, "session=" + good + "&session=" + other, "session=" + good + "%FF", "session=" + good + "&nonsense=1", "session=" + mark, "session.x=" + good} {
		_, _, answer := h.restCall(t, "DELETE", "/v1/instances/i2?"+query, nil, "X-Request-Id", "q"+url.QueryEscape(query)[:9])
		said = append(said, fmt.Sprint(answer))
	}
	stream, err := quoratev1.NewEventServiceClient(h.dial(t, nil)).WatchEvents(ctx, &quoratev1.WatchEventsRequest{FromRevision: 1, Kinds: []string{"instance_changed"}})
	if err != nil {
		t.Fatal(err)
	}
	events, err := stream.Recv()
	if err != nil || len(events.GetEvents()) == 0 {
		t.Fatalf("%v, %v", events, err)
	}
	tell(events, nil)

	records := h.audited()
	covered := 0
	for _, r := range records {
		trail(r)
		said = append(said, prototext.Format(r.Request), fmt.Sprintf("%+v", r))
		if strings.Contains(prototext.Format(r.Request), redacted) {
			covered++
		}
	}
	if covered == 0 || !strings.Contains(log.String(), "RegisterInstance") {
		t.Errorf("%d records of %d had a session; the log has %d bytes", covered, len(records), len(log.String()))
	}
	for _, text := range append(said, log.String()) {
		if at := strings.Index(text, mark); at >= 0 {
			t.Errorf("a session is shown: …%s…", text[max(at-200, 0):min(at+100, len(text))])
		}
	}
}
