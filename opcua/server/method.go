package server

import (
	"context"
	"maps"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// The Method service set (Part 4 §5.12).

// Method is what a client calls. The arguments are as many as the method's InputArguments, and fit their types; a method that
// doesn't answer Good has no outputs. BadUserAccessDenied says that the caller may not. It is called on the goroutine of the
// connection, which reads nothing else meanwhile, and must return when ctx ends: after Limits.MethodTimeout, or with the server.
type Method func(ctx context.Context, caller Identity, args []*ua.Variant) (outputs []*ua.Variant, status ua.StatusCode)

// method is a Method, or one of those that concern the session.
type method func(ctx context.Context, s *session, args []*ua.Variant) ([]*ua.Variant, ua.StatusCode)

var (
	getMonitoredItems = space.NumericKey(0, id.Server_GetMonitoredItems)
	resendData        = space.NumericKey(0, id.Server_ResendData)
	argumentsPath     = &ua.RelativePath{Elements: []*ua.RelativePathElement{{
		ReferenceTypeID: space.HasProperty.NodeID(), IncludeSubtypes: true, TargetName: &ua.QualifiedName{Name: "InputArguments"},
	}}}
)

func (v *services) allMethods() map[space.Key]method {
	all := map[space.Key]method{getMonitoredItems: monitoredItems, resendData: resend}
	for k, fn := range maps.All(v.cfg.Methods) {
		all[k] = func(ctx context.Context, s *session, args []*ua.Variant) ([]*ua.Variant, ua.StatusCode) {
			bound := s.bound.Load()
			if bound == nil {
				return nil, ua.StatusBadSessionNotActivated
			}
			bound.ch.Yield() // It may wait for a group.
			return fn(ctx, bound.identity, args)
		}
	}
	return all
}

// call calls methods, one after the other.
func (v *services) call(s *session, r *ua.CallRequest) (ua.Response, ua.StatusCode) {
	switch n := len(r.MethodsToCall); {
	case n == 0:
		return nil, ua.StatusBadNothingToDo
	case n > v.limits.MaxMethodsPerCall:
		return nil, ua.StatusBadTooManyOperations
	}
	limit := v.limits.MethodTimeout
	if hint := time.Duration(r.RequestHeader.TimeoutHint) * time.Millisecond; hint > 0 {
		limit = min(limit, hint)
	}
	ctx, cancel := context.WithTimeout(v.ctx, limit)
	defer cancel()
	results := make([]*ua.CallMethodResult, len(r.MethodsToCall))
	for i, m := range r.MethodsToCall {
		results[i] = v.callOne(ctx, s, m)
	}
	return &ua.CallResponse{Results: results}, ua.StatusOK
}

func (v *services) callOne(ctx context.Context, s *session, m *ua.CallMethodRequest) *ua.CallMethodResult {
	object, what := space.KeyOf(m.ObjectID), space.KeyOf(m.MethodID)
	if _, ok := v.space.Node(object); !ok {
		return &ua.CallMethodResult{StatusCode: ua.StatusBadNodeIDUnknown}
	}
	n, ok := v.space.Node(what)
	fn := v.methods[what]
	switch {
	case !ok || n.Class != ua.NodeClassMethod || !v.hasComponent(object, what):
		return &ua.CallMethodResult{StatusCode: ua.StatusBadMethodInvalid}
	case !n.Executable || fn == nil:
		return &ua.CallMethodResult{StatusCode: ua.StatusBadNotExecutable}
	}
	if status, each := v.checkArguments(what, m.InputArguments); status != ua.StatusOK {
		return &ua.CallMethodResult{StatusCode: status, InputArgumentResults: each}
	}
	if ctx.Err() != nil {
		return &ua.CallMethodResult{StatusCode: ua.StatusBadTimeout}
	}
	outputs, status := fn(ctx, s, m.InputArguments)
	if status != ua.StatusOK {
		outputs = nil
	}
	return &ua.CallMethodResult{StatusCode: status, OutputArguments: outputs}
}

// hasComponent reports whether an object has a method. There may be any number of other components, but only methods count.
func (v *services) hasComponent(object, what space.Key) bool {
	var at space.Position
	for {
		page, status := v.space.Browse(&ua.BrowseDescription{
			NodeID: object.NodeID(), ReferenceTypeID: space.HasComponent.NodeID(), IncludeSubtypes: true, NodeClassMask: uint32(ua.NodeClassMethod),
		}, at, v.limits.MaxReferencesPerNode)
		if status != ua.StatusOK {
			return false
		}
		for _, r := range page.References {
			if space.KeyOf(r.NodeID.NodeID) == what {
				return true
			}
		}
		if !page.More {
			return false
		}
		at = page.Next
	}
}

// checkArguments compares arguments with what the method's InputArguments ask for.
func (v *services) checkArguments(what space.Key, args []*ua.Variant) (status ua.StatusCode, each []ua.StatusCode) {
	wanted, ok := v.inputArguments(what)
	switch {
	case !ok:
		return ua.StatusBadInternalError, nil
	case len(args) < len(wanted):
		return ua.StatusBadArgumentsMissing, nil
	case len(args) > len(wanted):
		return ua.StatusBadTooManyArguments, nil
	}
	each = make([]ua.StatusCode, len(args))
	for i, a := range wanted {
		if !v.space.Fits(args[i], space.KeyOf(a.DataType), a.ValueRank) {
			status, each[i] = ua.StatusBadInvalidArgument, ua.StatusBadTypeMismatch
		}
	}
	return status, each
}

// inputArguments returns what a method takes. One without the property takes nothing.
func (v *services) inputArguments(what space.Key) ([]*ua.Argument, bool) {
	targets, status := v.space.Translate(what, argumentsPath)
	if status != ua.StatusOK || len(targets) == 0 {
		return nil, true
	}
	var dv ua.DataValue
	v.space.Read(space.ReadContext{Now: v.engine.wall()}, &dv, space.KeyOf(targets[0].TargetID.NodeID), ua.AttributeIDValue, "", nil, ua.TimestampsToReturnNeither)
	if dv.Value == nil {
		return nil, false
	}
	objects, ok := dv.Value.Value().([]*ua.ExtensionObject)
	list := make([]*ua.Argument, len(objects))
	for i, x := range objects {
		a, isArgument := x.Value.(*ua.Argument)
		list[i], ok = a, ok && isArgument
	}
	return list, ok
}

// withOwn does something to a subscription of the session, by the argument of a method of the Server object (Part 5 §9.1, §9.2),
// with its owner locked.
func (s *session) withOwn(arg *ua.Variant, do func(*subscription)) ua.StatusCode {
	id, _ := arg.Value().(uint32)
	sub := s.pub.engine.registry.find(id)
	if sub == nil {
		return ua.StatusBadSubscriptionIDInvalid
	}
	p := sub.lock()
	defer p.mu.Unlock()
	switch {
	case sub.ended:
		return ua.StatusBadSubscriptionIDInvalid
	case p != s.pub:
		return ua.StatusBadUserAccessDenied
	}
	do(sub)
	return ua.StatusOK
}

// monitoredItems is the method GetMonitoredItems (Part 5 §9.1): the ids of a subscription's items, and the client's handles.
func monitoredItems(_ context.Context, s *session, args []*ua.Variant) ([]*ua.Variant, ua.StatusCode) {
	var ids, handles []uint32
	status := s.withOwn(args[0], func(sub *subscription) {
		ids, handles = make([]uint32, 0, len(sub.items)), make([]uint32, 0, len(sub.items))
		sub.queueMu.Lock()
		defer sub.queueMu.Unlock()
		for _, it := range sub.items {
			ids, handles = append(ids, it.id), append(handles, it.handle)
		}
	})
	return []*ua.Variant{ua.MustVariant(ids), ua.MustVariant(handles)}, status
}

// resend is the method ResendData (Part 5 §9.2).
func resend(_ context.Context, s *session, args []*ua.Variant) ([]*ua.Variant, ua.StatusCode) {
	return nil, s.withOwn(args[0], (*subscription).resend)
}
