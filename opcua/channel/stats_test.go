package channel

import (
	"go/ast"
	"go/parser"
	source "go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

func TestStats(t *testing.T) {
	h := &echo{}
	h.serve = func(ch *Channel, requestID uint32, req ua.Request) {
		if req.Header().RequestHandle == 13 {
			panic("unlucky")
		}
		_ = ch.Send(requestID, readResponse(req))
	}
	s, addr := start(t, Config{Limits: Limits{MaxConnections: 2}}, h)
	renewed := connect(t, addr)
	renewed.open(ua.SecurityTokenRequestTypeRenew, time.Hour)
	unlucky := connect(t, addr)
	if now := s.Stats(); now.Connections != 2 || now.Accepted != 2 {
		t.Errorf("with two connections: %+v", now)
	}
	unlucky.send(unlucky.chunk("MSGF", 1, readRequest(t, 13)))
	unlucky.expectError(ua.StatusBadTCPInternalError)
	eventually(t, "the place is free", func() bool { return s.Stats().Connections == 1 })
	reverse := dialRaw(t, addr)
	reverse.send([]byte("RHEF\x08\x00\x00\x00"))
	reverse.expectError(ua.StatusBadTCPMessageTypeInvalid)
	eventually(t, "the place is free again", func() bool { return s.Stats().Connections == 1 })
	got := s.Stats()
	if got.Accepted != 3 || got.Panics != 1 || got.PartialBytes != 0 {
		t.Errorf("stats %+v", got)
	}
	if len(got.Rejected) != len(RejectReasons) {
		t.Errorf("%d reasons, want %d", len(got.Rejected), len(RejectReasons))
	}
	for reason, n := range got.Rejected {
		if want := uint64(strings.Count("panic reverse_hello", string(reason))); n != want {
			t.Errorf("%s: %d, want %d", reason, n, want)
		}
	}
	for i, c := range got.Channels {
		want := PolicyStats{PolicyURI: Policies()[i]}
		if i == 0 {
			want.Opened, want.Renewed = 2, 1
		}
		if c != want {
			t.Errorf("channels %+v, want %+v", c, want)
		}
	}
}

// TestEveryReasonIsCounted finds the constants in the source: one that is missing in the list would never be counted.
func TestEveryReasonIsCounted(t *testing.T) {
	f, err := parser.ParseFile(source.NewFileSet(), "config.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Reject") {
			found++
			reason, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if !slices.Contains(RejectReasons, RejectReason(reason)) {
				t.Errorf("RejectReasons lacks %s", spec.Names[0].Name)
			}
		}
		return true
	})
	if found != len(RejectReasons) {
		t.Errorf("%d reasons in the source, %d in the list", found, len(RejectReasons))
	}
}
