package interop

import (
	"context"
	"slices"
	"testing"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// gopcuaReads are what can be asked of nodes.
var gopcuaReads = []gopcuaStep{
	{step{"Attribute", "Read", "every attribute of a variable"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		want := map[ua.AttributeID]func(any) bool{
			ua.AttributeIDNodeID:          func(v any) bool { n, ok := v.(*ua.NodeID); return ok && n.String() == "i=2267" },
			ua.AttributeIDNodeClass:       func(v any) bool { return v == int32(ua.NodeClassVariable) },
			ua.AttributeIDBrowseName:      func(v any) bool { n, ok := v.(*ua.QualifiedName); return ok && n.Name == "ServiceLevel" },
			ua.AttributeIDDisplayName:     func(v any) bool { n, ok := v.(*ua.LocalizedText); return ok && n.Text == "ServiceLevel" },
			ua.AttributeIDValue:           func(v any) bool { return v == byte(255) },
			ua.AttributeIDDataType:        func(v any) bool { n, ok := v.(*ua.NodeID); return ok && n.String() == "i=3" },
			ua.AttributeIDValueRank:       func(v any) bool { return v == int32(-1) },
			ua.AttributeIDAccessLevel:     func(v any) bool { b, ok := v.(byte); return ok && b&3 == 1 },
			ua.AttributeIDUserAccessLevel: func(v any) bool { b, ok := v.(byte); return ok && b&3 == 1 },
			ua.AttributeIDHistorizing:     func(v any) bool { return v == false },
		}
		for attribute, good := range want {
			v := readOne(ctx, t, c, &ua.ReadValueID{NodeID: serverNode(id.Server_ServiceLevel), AttributeID: attribute, DataEncoding: &ua.QualifiedName{}})
			if v.Status != ua.StatusOK || !good(v.Value.Value()) {
				t.Errorf("%v is %v, %v", attribute, v.Value, v.Status)
			}
		}
		v := readOne(ctx, t, c, &ua.ReadValueID{NodeID: serverNode(id.Server_ServiceLevel), AttributeID: ua.AttributeIDEventNotifier, DataEncoding: &ua.QualifiedName{}})
		if v.Status != ua.StatusBadAttributeIDInvalid {
			t.Errorf("EventNotifier is %v", v.Status)
		}
	}},
	{step{"Attribute", "Read", "data encodings: the default one, and refused ones"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		for _, r := range []struct {
			node     uint32
			encoding string
			want     ua.StatusCode
		}{
			{id.Server_ServerStatus, "Default Binary", ua.StatusOK},
			{id.Server_ServerStatus, "Default XML", ua.StatusBadDataEncodingUnsupported},
			{id.Server_ServiceLevel, "Default Binary", ua.StatusBadDataEncodingInvalid},
		} {
			asked := valueOf(r.node)
			asked.DataEncoding.Name = r.encoding
			if got := readOne(ctx, t, c, asked).Status; got != r.want {
				t.Errorf("%d as %s is %v, want %v", r.node, r.encoding, got, r.want)
			}
		}
	}},
	{step{"Attribute", "Read", "timestamps to return, and maxAge"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		for wanted, stamped := range map[ua.TimestampsToReturn][2]bool{
			ua.TimestampsToReturnBoth: {true, true}, ua.TimestampsToReturnSource: {true, false},
			ua.TimestampsToReturnServer: {false, true}, ua.TimestampsToReturnNeither: {false, false},
		} {
			r, err := c.Read(ctx, &ua.ReadRequest{MaxAge: 0, TimestampsToReturn: wanted, NodesToRead: []*ua.ReadValueID{valueOf(id.Server_ServerStatus_CurrentTime)}})
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Results[0]; [2]bool{!got.SourceTimestamp.IsZero(), !got.ServerTimestamp.IsZero()} != stamped {
				t.Errorf("%v: source %v, server %v", wanted, got.SourceTimestamp, got.ServerTimestamp)
			}
		}
	}},
	{step{"View", "Browse", "forwards, backwards, by reference type and by node class"}, func(ctx context.Context, t *testing.T, c *opcua.Client) {
		browse := func(direction ua.BrowseDirection, reference uint32, class ua.NodeClass) []string {
			r, err := c.Browse(ctx, &ua.BrowseRequest{
				View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)},
				NodesToBrowse: []*ua.BrowseDescription{{
					NodeID: serverNode(id.Server), BrowseDirection: direction, ReferenceTypeID: serverNode(reference), IncludeSubtypes: true,
					NodeClassMask: uint32(class), ResultMask: uint32(ua.BrowseResultMaskAll),
				}},
			})
			if err != nil || r.Results[0].StatusCode != ua.StatusOK {
				t.Fatalf("%v, %v", r, err)
			}
			var names []string
			for _, reference := range r.Results[0].References {
				names = append(names, reference.BrowseName.Name)
			}
			return names
		}
		if got := browse(ua.BrowseDirectionForward, id.HierarchicalReferences, 0); !slices.Contains(got, "ServiceLevel") {
			t.Errorf("forwards: %v", got)
		}
		if got := browse(ua.BrowseDirectionForward, id.HierarchicalReferences, ua.NodeClassObject); slices.Contains(got, "ServiceLevel") {
			t.Errorf("objects: %v", got)
		}
		if got := browse(ua.BrowseDirectionForward, id.HierarchicalReferences, ua.NodeClassMethod); !slices.Contains(got, "GetMonitoredItems") {
			t.Errorf("methods: %v", got)
		}
		if got := browse(ua.BrowseDirectionForward, id.HasTypeDefinition, 0); !slices.Equal(got, []string{"ServerType"}) {
			t.Errorf("type: %v", got)
		}
		if got := browse(ua.BrowseDirectionInverse, id.HierarchicalReferences, 0); !slices.Equal(got, []string{"Objects"}) {
			t.Errorf("backwards: %v", got)
		}
	}},
}

func readOne(ctx context.Context, t *testing.T, c *opcua.Client, asked *ua.ReadValueID) *ua.DataValue {
	t.Helper()
	r, err := c.Read(ctx, &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: []*ua.ReadValueID{asked}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Results[0]
}
