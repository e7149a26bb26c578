package server

import (
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

// eventFilter says which events an item hears of, and what of them (Part 4 §7.22.3).
type eventFilter struct {
	selects []selection
	where   contentFilter
}

// selection is one field of an event. What does not exist is null.
type selection struct {
	typ   space.Key // the field is of events of this type only
	field ua.QualifiedName
	part  space.Range // of the field; nil is the whole
	null  bool        // it can never have a value
}

var nullVariant = &ua.Variant{}

// isNoFilter reports whether a client sent no filter.
func isNoFilter(x *ua.ExtensionObject) bool {
	return x == nil || x.Value == nil && (x.TypeID == nil || space.KeyOf(x.TypeID.NodeID).IsNull())
}

// parseEventFilter returns what an event filter asks for. The result says what is wrong with its parts, and is nil if nothing
// is. An event filter may select fields that there are not, as long as it selects one that there could be.
func (e *engine) parseEventFilter(x *ua.ExtensionObject) (*eventFilter, *ua.ExtensionObject, ua.StatusCode) {
	if isNoFilter(x) {
		return nil, nil, ua.StatusBadEventFilterInvalid // Events without a filter have no fields.
	}
	f, ok := x.Value.(*ua.EventFilter)
	switch {
	case !ok:
		return nil, nil, ua.StatusBadFilterNotAllowed
	case len(f.SelectClauses) == 0:
		return nil, nil, ua.StatusBadEventFilterInvalid
	case len(f.SelectClauses) > e.limits.MaxSelectClauses:
		return nil, nil, ua.StatusBadTooManyOperations
	}
	filter := &eventFilter{selects: make([]selection, len(f.SelectClauses))}
	result := &ua.EventFilterResult{SelectClauseResults: make([]ua.StatusCode, len(f.SelectClauses)), WhereClauseResult: &ua.ContentFilterResult{}}
	good := 0
	for i, c := range f.SelectClauses {
		filter.selects[i], result.SelectClauseResults[i] = e.parseSelection(c)
		if result.SelectClauseResults[i] == ua.StatusOK {
			good++
		}
	}
	status := ua.StatusOK
	if f.WhereClause != nil {
		filter.where, result.WhereClauseResult, status = e.parseWhere(f.WhereClause.Elements)
	}
	if good == 0 && status == ua.StatusOK {
		status = ua.StatusBadEventFilterInvalid
	}
	if good == len(filter.selects) && status == ua.StatusOK {
		return filter, nil, ua.StatusOK
	}
	return filter, extension(eventFilterResultType, result), status
}

var eventFilterResultType = ua.NewFourByteExpandedNodeID(0, id.EventFilterResult_Encoding_DefaultBinary)

func (e *engine) parseSelection(o *ua.SimpleAttributeOperand) (selection, ua.StatusCode) {
	s := selection{typ: baseEventType, null: true}
	if o == nil {
		return s, ua.StatusBadFilterOperandInvalid
	}
	if k := space.KeyOf(o.TypeDefinitionID); !k.IsNull() {
		s.typ = k
	}
	switch {
	case !e.space.IsSubtype(s.typ, baseEventType):
		return s, ua.StatusBadTypeDefinitionInvalid
	case o.AttributeID == ua.AttributeIDNodeID && len(o.BrowsePath) == 0:
		return s, ua.StatusOK // The id of a condition: no event here is one.
	case o.AttributeID != ua.AttributeIDValue:
		return s, ua.StatusBadAttributeIDInvalid
	case len(o.BrowsePath) == 0:
		return s, ua.StatusBadBrowseNameInvalid
	}
	for _, name := range o.BrowsePath {
		if name == nil || name.Name == "" {
			return s, ua.StatusBadBrowseNameInvalid
		}
	}
	if o.IndexRange != "" {
		var ok bool
		if s.part, ok = space.ParseRange(o.IndexRange); !ok {
			return s, ua.StatusBadIndexRangeInvalid
		}
	}
	s.field = *o.BrowsePath[0]
	s.null = len(o.BrowsePath) > 1 // No field has fields.
	return s, ua.StatusOK
}

// of returns the field of an event. What the event does not have is null; a status says why it can't be given otherwise.
func (s *selection) of(h *happening, types typeTests, sp *space.Space) (*ua.Variant, ua.StatusCode) {
	if s.null || !types.is(sp, h.typ, s.typ) {
		return nullVariant, ua.StatusOK
	}
	v := h.fields[s.field]
	switch {
	case v == nil:
		return nullVariant, ua.StatusOK
	case s.part != nil:
		return s.part.Slice(v)
	}
	return v, ua.StatusOK
}

// list returns what is sent of an event.
func (f *eventFilter) list(h *happening, handle uint32, sp *space.Space) *ua.EventFieldList {
	fields := make([]*ua.Variant, len(f.selects))
	types := make(typeTests)
	for i := range f.selects {
		v, status := f.selects[i].of(h, types, sp)
		if status != ua.StatusOK {
			v = ua.MustVariant(status) // In place of the value (Part 4 §7.22.3).
		}
		fields[i] = v
	}
	return &ua.EventFieldList{ClientHandle: handle, EventFields: fields}
}

// typeTests remembers, for one event, of which types it is: finding out means to climb the hierarchy of types.
type typeTests map[space.Key]bool

func (t typeTests) is(sp *space.Space, typ, of space.Key) bool {
	if of == baseEventType || of == typ {
		return true
	}
	is, known := t[of]
	if !known {
		is = sp.IsSubtype(typ, of)
		t[of] = is
	}
	return is
}
