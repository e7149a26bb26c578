package server

import (
	"math"
	"testing"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

func folder() *ua.BrowseDescription {
	return &ua.BrowseDescription{NodeID: folderKey.NodeID(), ReferenceTypeID: space.Organizes.NodeID(), ResultMask: uint32(ua.BrowseResultMaskAll)}
}

func (r *rig) browse(most uint32, what ...*ua.BrowseDescription) []*ua.BrowseResult {
	r.t.Helper()
	return want[*ua.BrowseResponse](r.t, r.call(&ua.BrowseRequest{RequestedMaxReferencesPerNode: most, NodesToBrowse: what})).Results
}

func (r *rig) browseNext(release bool, points ...[]byte) []*ua.BrowseResult {
	r.t.Helper()
	return want[*ua.BrowseNextResponse](r.t, r.call(&ua.BrowseNextRequest{ReleaseContinuationPoints: release, ContinuationPoints: points})).Results
}

func TestBrowseByPages(t *testing.T) {
	inBubble(t, Limits{MaxReferencesPerNode: 100}, func(t *testing.T, r *rig) {
		for _, most := range []uint32{0, 1, 7, 100, 1000} {
			seen := map[string]bool{}
			res := r.browse(most, folder())[0]
			for pages := 0; ; pages++ {
				if res.StatusCode != ua.StatusOK || pages > manyChildren {
					t.Fatalf("max %d, page %d: %v", most, pages, res.StatusCode)
				}
				if n := len(res.References); n > 100 || most > 0 && n > int(most) {
					t.Fatalf("max %d: a page of %d", most, n)
				}
				for _, ref := range res.References {
					seen[ref.NodeID.NodeID.String()] = true
				}
				if len(res.ContinuationPoint) == 0 {
					break
				}
				res = r.browseNext(false, res.ContinuationPoint)[0]
			}
			if len(seen) != manyChildren {
				t.Errorf("max %d: saw %d children, want %d", most, len(seen), manyChildren)
			}
		}
	})
}

func TestContinuationPoints(t *testing.T) {
	inBubble(t, Limits{MaxContinuationPoints: 2}, func(t *testing.T, r *rig) {
		res := r.browse(1, folder(), folder(), folder())
		if res[2].StatusCode != ua.StatusBadNoContinuationPoints || res[0].StatusCode != ua.StatusOK || res[1].StatusCode != ua.StatusOK {
			t.Fatalf("three in one call: %v %v %v", res[0].StatusCode, res[1].StatusCode, res[2].StatusCode)
		}
		later := r.browse(1, folder())[0]
		next := r.browseNext(false, res[0].ContinuationPoint, res[1].ContinuationPoint, nil, []byte("12345678"))
		if next[0].StatusCode != ua.StatusBadContinuationPointInvalid {
			t.Errorf("the oldest had to make room: %v", next[0].StatusCode)
		}
		if next[1].StatusCode != ua.StatusOK || len(next[1].References) != 1 {
			t.Errorf("%+v", next[1])
		}
		if next[2].StatusCode != ua.StatusBadContinuationPointInvalid || next[3].StatusCode != ua.StatusBadContinuationPointInvalid {
			t.Errorf("made-up points: %v %v", next[2].StatusCode, next[3].StatusCode)
		}
		if again := r.browseNext(false, res[1].ContinuationPoint)[0]; again.StatusCode != ua.StatusBadContinuationPointInvalid {
			t.Errorf("a point was used twice: %v", again.StatusCode)
		}
		if gone := r.browseNext(true, later.ContinuationPoint)[0]; gone.StatusCode != ua.StatusOK || gone.References != nil {
			t.Errorf("release: %+v", gone)
		}
		if gone := r.browseNext(false, later.ContinuationPoint)[0]; gone.StatusCode != ua.StatusBadContinuationPointInvalid {
			t.Errorf("a released point: %v", gone.StatusCode)
		}
		other := &fakeChannel{}
		auth := r.connect(other)
		mine := r.browse(1, folder())[0]
		theirs := want[*ua.BrowseNextResponse](t, r.ask(other, auth, &ua.BrowseNextRequest{ContinuationPoints: [][]byte{mine.ContinuationPoint}}))
		if s := theirs.Results[0].StatusCode; s != ua.StatusBadContinuationPointInvalid {
			t.Errorf("another session's point: %v", s)
		}
	})
}

func TestViewRefusals(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		for _, req := range []ua.Request{&ua.BrowseRequest{}, &ua.BrowseNextRequest{}, &ua.TranslateBrowsePathsToNodeIDsRequest{}, &ua.RegisterNodesRequest{},
			&ua.UnregisterNodesRequest{}, &ua.ReadRequest{}, &ua.SetPublishingModeRequest{}, &ua.DeleteSubscriptionsRequest{}, &ua.SetMonitoringModeRequest{},
			&ua.ModifyMonitoredItemsRequest{}, &ua.DeleteMonitoredItemsRequest{}} {
			wantFault(t, r.call(req), ua.StatusBadNothingToDo)
		}
		wantFault(t, r.call(&ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewNumericNodeID(1, 5)}, NodesToBrowse: []*ua.BrowseDescription{folder()}}), ua.StatusBadViewIDUnknown)
		unknown := folder()
		unknown.NodeID = ua.NewNumericNodeID(1, 77)
		if res := r.browse(0, unknown)[0]; res.StatusCode != ua.StatusBadNodeIDUnknown {
			t.Errorf("%v", res.StatusCode)
		}
	})
}

func TestTranslateAndRegister(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		path := func(names ...string) *ua.BrowsePath {
			p := &ua.BrowsePath{StartingNode: objectsKey.NodeID(), RelativePath: &ua.RelativePath{}}
			for _, n := range names {
				p.RelativePath.Elements = append(p.RelativePath.Elements, &ua.RelativePathElement{
					ReferenceTypeID: space.Organizes.NodeID(), TargetName: &ua.QualifiedName{NamespaceIndex: 1, Name: n}})
			}
			return p
		}
		res := want[*ua.TranslateBrowsePathsToNodeIDsResponse](t, r.call(&ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: []*ua.BrowsePath{path("Many", "Child007"), path("No")}})).Results
		if len(res[0].Targets) != 1 || res[0].Targets[0].TargetID.NodeID.IntID() != 1007 || res[1].StatusCode != ua.StatusBadNoMatch {
			t.Fatalf("%+v %+v", res[0], res[1])
		}
		reg := want[*ua.RegisterNodesResponse](t, r.call(&ua.RegisterNodesRequest{NodesToRegister: []*ua.NodeID{levelKey.NodeID()}}))
		if len(reg.RegisteredNodeIDs) != 1 || space.KeyOf(reg.RegisteredNodeIDs[0]) != levelKey {
			t.Fatalf("%+v", reg)
		}
		want[*ua.UnregisterNodesResponse](t, r.call(&ua.UnregisterNodesRequest{NodesToUnregister: reg.RegisteredNodeIDs}))
	})
}

func TestRead(t *testing.T) {
	inBubble(t, Limits{}, func(t *testing.T, r *rig) {
		r.demo.set(42)
		read := func(age float64, ts ua.TimestampsToReturn, what ...*ua.ReadValueID) ua.Response {
			return r.call(&ua.ReadRequest{MaxAge: age, TimestampsToReturn: ts, NodesToRead: what})
		}
		value := &ua.ReadValueID{NodeID: levelKey.NodeID(), AttributeID: ua.AttributeIDValue}
		res := want[*ua.ReadResponse](t, read(math.MaxFloat64, ua.TimestampsToReturnServer, value, &ua.ReadValueID{NodeID: ua.NewNumericNodeID(1, 77), AttributeID: ua.AttributeIDValue})).Results
		if res[0].Value.Int() != 42 || res[0].ServerTimestamp.IsZero() || res[1].Status != ua.StatusBadNodeIDUnknown {
			t.Fatalf("%+v %+v", res[0], res[1])
		}
		wantFault(t, read(-1, 0, value), ua.StatusBadMaxAgeInvalid)
		wantFault(t, read(math.NaN(), 0, value), ua.StatusBadMaxAgeInvalid)
		wantFault(t, read(0, 4, value), ua.StatusBadTimestampsToReturnInvalid)
	})
}
