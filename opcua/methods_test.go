package opcua

import (
	"context"
	"testing"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"quorate/opcua/server"
	quoratev1 "quorate/proto/quorate/v1"
)

func TestRequestServerStateChange(t *testing.T) {
	var got *quoratev1.SetMaintenanceRequest
	var fail error
	e := &Endpoint{cfg: Config{Member: "m1", SetMaintenance: func(_ context.Context, caller server.Identity, r *quoratev1.SetMaintenanceRequest) error {
		if caller.Name != "ada" {
			t.Errorf("called for %q", caller.Name)
		}
		got = r
		return fail
	}}}
	ada := server.Identity{Name: "ada", Role: server.RoleAdministrator}
	back := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	call := func(who server.Identity, state ua.ServerState, seconds uint32, restart bool) ua.StatusCode {
		got = nil
		_, status := e.methods()[standard(id.Server_RequestServerStateChange)](t.Context(), who, []*ua.Variant{
			ua.MustVariant(int32(state)), ua.MustVariant(back), ua.MustVariant(seconds), ua.MustVariant(ua.NewLocalizedText("new disk")), ua.MustVariant(restart),
		})
		return status
	}
	if s := call(ada, ua.ServerStateSuspended, 0, false); s != ua.StatusOK || !got.GetActive() || got.GetServer() != "m1" || got.GetReason() != "new disk" ||
		!got.GetEstimatedReturn().AsTime().Equal(back) || got.GetRequestId() == "" {
		t.Errorf("%v, %v", s, got)
	}
	first := got.GetRequestId()
	if s := call(ada, ua.ServerStateRunning, 0, false); s != ua.StatusOK || got.GetActive() || got.GetReason() != "" || got.GetEstimatedReturn() != nil {
		t.Errorf("%v, %v", s, got)
	}
	if got.GetRequestId() == first {
		t.Error("two requests have one id")
	}
	for name, c := range map[string]struct {
		who     server.Identity
		state   ua.ServerState
		seconds uint32
		restart bool
		want    ua.StatusCode
	}{
		"nobody":           {server.Identity{}, ua.ServerStateSuspended, 0, false, ua.StatusBadUserAccessDenied},
		"operator":         {server.Identity{Name: "bob", Role: server.RoleOperator}, ua.ServerStateSuspended, 0, false, ua.StatusBadUserAccessDenied},
		"shutdown":         {ada, ua.ServerStateShutdown, 0, false, ua.StatusBadInvalidState},
		"unknown state":    {ada, 99, 0, false, ua.StatusBadInvalidState},
		"restart":          {ada, ua.ServerStateSuspended, 0, true, ua.StatusBadInvalidArgument},
		"seconds till end": {ada, ua.ServerStateSuspended, 5, false, ua.StatusBadInvalidArgument},
	} {
		if s := call(c.who, c.state, c.seconds, c.restart); s != c.want || got != nil {
			t.Errorf("%s: %v, %v", name, s, got)
		}
	}
	for code, want := range map[codes.Code]ua.StatusCode{
		codes.PermissionDenied: ua.StatusBadUserAccessDenied, codes.InvalidArgument: ua.StatusBadInvalidArgument, codes.Unavailable: ua.StatusBadResourceUnavailable,
		codes.DeadlineExceeded: ua.StatusBadTimeout, codes.FailedPrecondition: ua.StatusBadInvalidState, codes.Internal: ua.StatusBadUnexpectedError,
		codes.NotFound: ua.StatusBadNotFound, codes.ResourceExhausted: ua.StatusBadTooManyOperations,
	} {
		fail = status.Error(code, "no")
		if s := call(ada, ua.ServerStateSuspended, 0, false); s != want {
			t.Errorf("%v: %v, want %v", code, s, want)
		}
	}
}

// TestStateChangeIsThereIfItCanBe reads the method's node with and without a way to the log.
func TestStateChangeIsThereIfItCanBe(t *testing.T) {
	for _, there := range []bool{false, true} {
		g := newGroup(t, "m1")
		e, client := serve(t, listen(t), "m1", g, &fitness{}, func(c *Config) {
			if there {
				c.SetMaintenance = func(context.Context, server.Identity, *quoratev1.SetMaintenanceRequest) error { return nil }
			}
		})
		if _, ok := e.space.Node(standard(id.Server_RequestServerStateChange)); ok != there {
			t.Errorf("the method is there: %v, want %v", ok, there)
		}
		// The real arguments pass the check against the node's InputArguments; an anonymous caller does not pass the method's own.
		c, err := gopcua.NewClient(client.Endpoint, gopcua.AutoReconnect(false))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Connect(within(t)); err != nil {
			t.Fatal(err)
		}
		res, err := c.Call(within(t), &ua.CallMethodRequest{ObjectID: ua.NewNumericNodeID(0, id.Server), MethodID: ua.NewNumericNodeID(0, id.Server_RequestServerStateChange),
			InputArguments: []*ua.Variant{
				ua.MustVariant(int32(ua.ServerStateSuspended)), ua.MustVariant(time.Now()), ua.MustVariant(uint32(0)), ua.MustVariant(ua.NewLocalizedText("new disk")), ua.MustVariant(false),
			}})
		if want := map[bool]ua.StatusCode{true: ua.StatusBadUserAccessDenied, false: ua.StatusBadMethodInvalid}[there]; err != nil || res.StatusCode != want {
			t.Errorf("%+v, %v, want %v", res, err, want)
		}
		if err := c.Close(within(t)); err != nil {
			t.Error(err)
		}
		for _, always := range []uint32{id.Server_GetMonitoredItems, id.Server_ResendData} {
			if _, ok := e.space.Node(standard(always)); !ok {
				t.Errorf("i=%d is not there", always)
			}
		}
	}
}
