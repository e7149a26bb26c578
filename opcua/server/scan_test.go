package server

import (
	"testing"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// TestScanPerCall proves that all nodes of one call together cost no more than the limit, and that nothing is lost by it.
func TestScanPerCall(t *testing.T) {
	inBubble(t, Limits{MaxScanPerCall: 50}, func(t *testing.T, r *rig) {
		results := r.browse(0, folder(), folder(), folder())
		for _, res := range results[1:] {
			if len(res.References) != 0 || len(res.ContinuationPoint) == 0 {
				t.Errorf("beyond the limit: %d references, continuation point %v, %v", len(res.References), res.ContinuationPoint, res.StatusCode)
			}
		}
		all := len(results[0].References)
		if all == 0 {
			t.Fatal("the first node was not browsed")
		}
		next := r.browseNext(false, results[1].ContinuationPoint)
		if got := len(next[0].References); got != all {
			t.Errorf("%d references afterwards, want %d", got, all)
		}
		path := &ua.BrowsePath{StartingNode: folder().NodeID, RelativePath: &ua.RelativePath{Elements: []*ua.RelativePathElement{{
			ReferenceTypeID: ua.NewNumericNodeID(0, id.References), IncludeSubtypes: true, TargetName: &ua.QualifiedName{Name: "nothing"},
		}}}}
		resp := want[*ua.TranslateBrowsePathsToNodeIDsResponse](t, r.call(&ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: []*ua.BrowsePath{path, path, path}}))
		if got := resp.Results[2].StatusCode; got != ua.StatusBadQueryTooComplex {
			t.Errorf("the last path: %v", got)
		}
	})
}
