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
	block := make([]ua.DataValue, len(r.NodesToRead))
	results := make([]*ua.DataValue, len(block))
	for i, n := range r.NodesToRead {
		results[i] = &block[i]
		v.space.Read(ctx, &block[i], space.KeyOf(n.NodeID), n.AttributeID, n.IndexRange, n.DataEncoding, r.TimestampsToReturn)
	}
	return &ua.ReadResponse{Results: results}, ua.StatusOK
}
