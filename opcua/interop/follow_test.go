package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

// follower is a client that follows the Primary's ServiceLevel by a subscription, to its value or to the events that tell of it.
type follower struct {
	name   string
	levels chan int
	// hangUp has the client end, and so levels; ended says how that went.
	hangUp, ended func() error
}

func follow(ctx context.Context, t *testing.T, scenario, name string, options map[string]any) *follower {
	t.Helper()
	client := startTalk(ctx, t, scenario, options, os.Stderr)
	f := &follower{name: name, levels: make(chan int, changes+1), hangUp: client.in.Close, ended: client.Wait}
	go func() {
		defer close(f.levels)
		for client.lines.Scan() {
			var line struct {
				Value  int
				Status string
				Error  string
			}
			if err := json.Unmarshal(client.lines.Bytes(), &line); err != nil || line.Error != "" || line.Status != "Good" {
				t.Errorf("%s: the client said %s (%v)", name, client.lines.Text(), err)
				continue
			}
			f.levels <- line.Value
		}
	}()
	return f
}

// gopcuaFollow follows as follow does, with gopcua's client: the values, or the events that tell of them.
func gopcuaFollow(ctx context.Context, t *testing.T, endpoint string, events bool) *follower {
	t.Helper()
	c := gopcuaConnect(ctx, t, endpoint)
	flow, done := newFlow(ctx, t, c), make(chan struct{})
	f := &follower{name: gopcua, levels: make(chan int, changes+1), ended: func() error { return nil }}
	f.hangUp = func() error {
		defer close(done)
		return flow.Cancel(ctx)
	}
	if events {
		f.name = "gopcua, events"
		flow.monitor(ctx, t, id.Server, func(r *ua.MonitoredItemCreateRequest) {
			r.ItemToMonitor.AttributeID = ua.AttributeIDEventNotifier
			r.RequestedParameters.QueueSize, r.RequestedParameters.Filter = 1000, ua.NewExtensionObject(levelEvents())
		})
		level, _ := readValue(ctx, t, c, id.Server_ServiceLevel).(byte)
		f.levels <- int(level)
	} else {
		flow.monitor(ctx, t, id.Server_ServiceLevel, nil)
	}
	go func() {
		defer close(f.levels)
		for {
			select {
			case n := <-flow.notes:
				for _, level := range levelsOf(n) {
					if level < 0 {
						t.Errorf("%s: the client said %+v", f.name, n)
						continue
					}
					f.levels <- level
				}
			case <-done:
				return
			}
		}
	}()
	return f
}

// levelEvents asks for what levelsOf reads of the events that tell of a changed ServiceLevel.
func levelEvents() *ua.EventFilter {
	filter := &ua.EventFilter{WhereClause: &ua.ContentFilter{Elements: []*ua.ContentFilterElement{{
		FilterOperator: ua.FilterOperatorOfType,
		FilterOperands: []*ua.ExtensionObject{ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant(ua.NewStringNodeID(2, "types/LevelChangedEventType"))})},
	}}}}
	for _, name := range []*ua.QualifiedName{{Name: "SourceName"}, {NamespaceIndex: 2, Name: "Level"}} {
		filter.SelectClauses = append(filter.SelectClauses, &ua.SimpleAttributeOperand{
			TypeDefinitionID: serverNode(id.BaseEventType), BrowsePath: []*ua.QualifiedName{name}, AttributeID: ua.AttributeIDValue,
		})
	}
	return filter
}

// levelsOf are the levels that a notification tells of; one that is not as it should be is -1.
func levelsOf(n *opcua.PublishNotificationData) []int {
	var levels []int
	switch data := n.Value.(type) {
	case *ua.DataChangeNotification:
		for _, item := range data.MonitoredItems {
			level, ok := item.Value.Value.Value().(byte)
			if !ok || item.Value.Status != ua.StatusOK {
				return []int{-1}
			}
			levels = append(levels, int(level))
		}
	case *ua.EventNotificationList:
		for _, event := range data.Events {
			level, ok := event.EventFields[1].Value().(byte)
			if !ok || event.EventFields[0].Value() != "m1" {
				return []int{-1}
			}
			levels = append(levels, int(level))
		}
	default:
		if n.Error != nil {
			return []int{-1}
		}
	}
	return levels
}

// next wants the next notification to have a certain value.
func (f *follower) next(ctx context.Context, t *testing.T, want int, why string) {
	t.Helper()
	select {
	case got, ok := <-f.levels:
		if !ok {
			t.Fatalf("%s: the client ended; want %d (%s)", f.name, want, why)
		}
		if got != want {
			t.Fatalf("%s: the client saw %d, want %d (%s)", f.name, got, want, why)
		}
	case <-ctx.Done():
		t.Fatalf("%s: the client saw nothing more; want %d (%s)", f.name, want, why)
	}
}

// end wants no notification beyond those that were asked for.
func (f *follower) end(t *testing.T) {
	t.Helper()
	if err := f.hangUp(); err != nil {
		t.Fatal(err)
	}
	for extra := range f.levels {
		t.Errorf("%s: the client saw %d, which no change made", f.name, extra)
	}
	if err := f.ended(); err != nil {
		t.Errorf("%s: the client: %v", f.name, err)
	}
}

// followAll makes the Primary's level change again and again and wants every subscribed client to see each change.
func followAll(t *testing.T, conn *grpc.ClientConn, endpoint string, options func(security) map[string]any) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	var followers []*follower
	for _, s := range securities {
		followers = append(followers, follow(ctx, t, "follow", s.Mode, options(s)))
	}
	followers = append(followers, follow(ctx, t, "events", "events", options(securities[0])), gopcuaFollow(ctx, t, endpoint, false), gopcuaFollow(ctx, t, endpoint, true))
	for _, f := range followers {
		f.next(ctx, t, 255, "where it begins")
	}
	leases := quoratev1.NewLeaseServiceClient(conn)
	tick := time.NewTicker(changeInterval)
	defer tick.Stop()
	for i := range changes {
		<-tick.C
		request := fmt.Sprintf("interop-%d", i)
		var err error
		if i%2 == 0 {
			_, err = leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: request, Server: "m1"})
		} else {
			_, err = leases.EndLease(ctx, &quoratev1.EndLeaseRequest{RequestId: request, Server: "m1"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range followers {
		for i := range changes {
			f.next(ctx, t, []int{200, 255}[i%2], fmt.Sprintf("change %d", i))
		}
		f.end(t)
	}
}
