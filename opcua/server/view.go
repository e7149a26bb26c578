package server

import (
	"encoding/binary"
	"slices"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// The View service set (Part 4 §5.8).

// continuations are the continuation points of a session (Part 4 §7.9).
type continuations struct {
	limit int
	last  uint64
	call  uint64          // counts the calls, to tell earlier points from those of the call that is under way
	list  []*continuation // oldest first
}

// continuation is where a Browse stopped. It can be used once.
type continuation struct {
	id   uint64
	call uint64
	what *ua.BrowseDescription
	at   space.Position
	max  int
}

// put keeps a place. Points of earlier calls make room for it; it returns nil if only points of this call are left.
func (c *continuations) put(k *continuation) []byte {
	if len(c.list) == c.limit {
		if c.list[0].call == c.call {
			return nil
		}
		c.list = slices.Delete(c.list, 0, 1)
	}
	c.last++
	k.id, k.call = c.last, c.call
	c.list = append(c.list, k)
	return binary.BigEndian.AppendUint64(nil, k.id)
}

// take removes and returns the place of a point, or nil.
func (c *continuations) take(point []byte) *continuation {
	if len(point) != 8 {
		return nil
	}
	id := binary.BigEndian.Uint64(point)
	i := slices.IndexFunc(c.list, func(k *continuation) bool { return k.id == id })
	if i < 0 {
		return nil
	}
	k := c.list[i]
	c.list = slices.Delete(c.list, i, i+1)
	return k
}

func (v *services) browse(s *session, r *ua.BrowseRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.NodesToBrowse)); status != ua.StatusOK {
		return nil, status
	}
	if r.View != nil && !space.KeyOf(r.View.ViewID).IsNull() {
		return nil, ua.StatusBadViewIDUnknown // There are no views.
	}
	most := v.limits.MaxReferencesPerNode
	if r.RequestedMaxReferencesPerNode > 0 {
		most = int(min(uint32(most), r.RequestedMaxReferencesPerNode))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.points.call++
	budget := v.limits.MaxScanPerCall
	results := make([]*ua.BrowseResult, len(r.NodesToBrowse))
	for i, d := range r.NodesToBrowse {
		results[i] = v.page(s, &continuation{what: d, max: most}, &budget)
	}
	return &ua.BrowseResponse{Results: results}, ua.StatusOK
}

func (v *services) browseNext(s *session, r *ua.BrowseNextRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.ContinuationPoints)); status != ua.StatusOK {
		return nil, status
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.points.call++
	budget := v.limits.MaxScanPerCall
	results := make([]*ua.BrowseResult, len(r.ContinuationPoints))
	for i, point := range r.ContinuationPoints {
		k := s.points.take(point)
		switch {
		case k == nil:
			results[i] = &ua.BrowseResult{StatusCode: ua.StatusBadContinuationPointInvalid}
		case r.ReleaseContinuationPoints:
			results[i] = &ua.BrowseResult{}
		default:
			results[i] = v.page(s, k, &budget)
		}
	}
	return &ua.BrowseNextResponse{Results: results}, ua.StatusOK
}

// page browses one node from where k stands, and keeps the place where it stops. What the budget does not reach is for the next
// call. The session's lock is held.
func (v *services) page(s *session, k *continuation, budget *int) *ua.BrowseResult {
	page := space.Page{More: true, Next: k.at}
	if *budget > 0 {
		var status ua.StatusCode
		if page, status = v.space.Browse(k.what, k.at, k.max); status != ua.StatusOK {
			return &ua.BrowseResult{StatusCode: status}
		}
		*budget -= page.Scanned
	}
	result := &ua.BrowseResult{References: page.References}
	if page.More {
		k.at = page.Next
		if result.ContinuationPoint = s.points.put(k); result.ContinuationPoint == nil {
			return &ua.BrowseResult{StatusCode: ua.StatusBadNoContinuationPoints}
		}
	}
	return result
}

func (v *services) translate(r *ua.TranslateBrowsePathsToNodeIDsRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.BrowsePaths)); status != ua.StatusOK {
		return nil, status
	}
	budget := v.limits.MaxScanPerCall
	results := make([]*ua.BrowsePathResult, len(r.BrowsePaths))
	for i, p := range r.BrowsePaths {
		targets, status := v.space.TranslateWithin(space.KeyOf(p.StartingNode), p.RelativePath, &budget)
		results[i] = &ua.BrowsePathResult{StatusCode: status, Targets: targets}
	}
	return &ua.TranslateBrowsePathsToNodeIDsResponse{Results: results}, ua.StatusOK
}

// registerNodes gives every node its own id back: they are as fast to find as any other would be.
func (v *services) registerNodes(r *ua.RegisterNodesRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.NodesToRegister)); status != ua.StatusOK {
		return nil, status
	}
	return &ua.RegisterNodesResponse{RegisteredNodeIDs: r.NodesToRegister}, ua.StatusOK
}

func (v *services) unregisterNodes(r *ua.UnregisterNodesRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.NodesToUnregister)); status != ua.StatusOK {
		return nil, status
	}
	return &ua.UnregisterNodesResponse{}, ua.StatusOK
}
