package server

import (
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// The Attribute service set (Part 4 §5.10).

// read reads attributes. Values are always read from their source, so every MaxAge is satisfied.
func (v *services) read(r *ua.ReadRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.NodesToRead)); status != ua.StatusOK {
		return nil, status
	}
	if !(r.MaxAge >= 0) { // NaN too
		return nil, ua.StatusBadMaxAgeInvalid
	}
	if !validTimestamps(r.TimestampsToReturn) {
		return nil, ua.StatusBadTimestampsToReturnInvalid
	}
	ctx := space.ReadContext{Now: v.engine.wall()}
	if len(r.NodesToRead) > 1 {
		ctx.Shared = new(any)
	}
	block := make([]ua.DataValue, len(r.NodesToRead))
	results := make([]*ua.DataValue, len(block))
	for i, n := range r.NodesToRead {
		results[i] = &block[i]
		v.space.Read(ctx, &block[i], space.KeyOf(n.NodeID), n.AttributeID, n.IndexRange, n.DataEncoding, r.TimestampsToReturn)
	}
	return &ua.ReadResponse{Results: results}, ua.StatusOK
}

// write writes values.
func (v *services) write(s *session, r *ua.WriteRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.NodesToWrite)); status != ua.StatusOK {
		return nil, status
	}
	bound := s.bound.Load()
	if bound == nil {
		return nil, ua.StatusBadSessionNotActivated
	}
	ctx := space.WriteContext{Now: v.engine.wall(), User: bound.identity}
	results := make([]ua.StatusCode, len(r.NodesToWrite))
	for i, w := range r.NodesToWrite {
		results[i] = v.space.Write(ctx, space.KeyOf(w.NodeID), w.AttributeID, w.IndexRange, w.Value)
	}
	return &ua.WriteResponse{Results: results}, ua.StatusOK
}

// historyRead says of every node that it has no history.
func (v *services) historyRead(r *ua.HistoryReadRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.NodesToRead)); status != ua.StatusOK {
		return nil, status
	}
	if !validTimestamps(r.TimestampsToReturn) {
		return nil, ua.StatusBadTimestampsToReturnInvalid
	}
	results := make([]*ua.HistoryReadResult, len(r.NodesToRead))
	for i, n := range r.NodesToRead {
		results[i] = &ua.HistoryReadResult{StatusCode: v.noHistory(n.NodeID)}
	}
	return &ua.HistoryReadResponse{Results: results}, ua.StatusOK
}

// historyUpdate says so too. What an update wants with which node is not looked at.
func (v *services) historyUpdate(r *ua.HistoryUpdateRequest) (ua.Response, ua.StatusCode) {
	if status := v.engine.operations(len(r.HistoryUpdateDetails)); status != ua.StatusOK {
		return nil, status
	}
	results := make([]*ua.HistoryUpdateResult, len(r.HistoryUpdateDetails))
	for i := range results {
		results[i] = &ua.HistoryUpdateResult{StatusCode: ua.StatusBadHistoryOperationUnsupported}
	}
	return &ua.HistoryUpdateResponse{Results: results}, ua.StatusOK
}

func (v *services) noHistory(node *ua.NodeID) ua.StatusCode {
	if _, ok := v.space.Node(space.KeyOf(node)); !ok {
		return ua.StatusBadNodeIDUnknown
	}
	return ua.StatusBadHistoryOperationUnsupported
}
