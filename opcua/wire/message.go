package wire

import (
	"fmt"
	"reflect"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// messages are all service requests and responses (Part 4 §5), as nil pointers.
var messages = []any{
	(*ua.ServiceFault)(nil),
	(*ua.FindServersRequest)(nil), (*ua.FindServersResponse)(nil),
	(*ua.FindServersOnNetworkRequest)(nil), (*ua.FindServersOnNetworkResponse)(nil),
	(*ua.GetEndpointsRequest)(nil), (*ua.GetEndpointsResponse)(nil),
	(*ua.RegisterServerRequest)(nil), (*ua.RegisterServerResponse)(nil),
	(*ua.RegisterServer2Request)(nil), (*ua.RegisterServer2Response)(nil),
	(*ua.OpenSecureChannelRequest)(nil), (*ua.OpenSecureChannelResponse)(nil),
	(*ua.CloseSecureChannelRequest)(nil), (*ua.CloseSecureChannelResponse)(nil),
	(*ua.CreateSessionRequest)(nil), (*ua.CreateSessionResponse)(nil),
	(*ua.ActivateSessionRequest)(nil), (*ua.ActivateSessionResponse)(nil),
	(*ua.CloseSessionRequest)(nil), (*ua.CloseSessionResponse)(nil),
	(*ua.CancelRequest)(nil), (*ua.CancelResponse)(nil),
	(*ua.AddNodesRequest)(nil), (*ua.AddNodesResponse)(nil),
	(*ua.AddReferencesRequest)(nil), (*ua.AddReferencesResponse)(nil),
	(*ua.DeleteNodesRequest)(nil), (*ua.DeleteNodesResponse)(nil),
	(*ua.DeleteReferencesRequest)(nil), (*ua.DeleteReferencesResponse)(nil),
	(*ua.BrowseRequest)(nil), (*ua.BrowseResponse)(nil),
	(*ua.BrowseNextRequest)(nil), (*ua.BrowseNextResponse)(nil),
	(*ua.TranslateBrowsePathsToNodeIDsRequest)(nil), (*ua.TranslateBrowsePathsToNodeIDsResponse)(nil),
	(*ua.RegisterNodesRequest)(nil), (*ua.RegisterNodesResponse)(nil),
	(*ua.UnregisterNodesRequest)(nil), (*ua.UnregisterNodesResponse)(nil),
	(*ua.QueryFirstRequest)(nil), (*ua.QueryFirstResponse)(nil),
	(*ua.QueryNextRequest)(nil), (*ua.QueryNextResponse)(nil),
	(*ua.ReadRequest)(nil), (*ua.ReadResponse)(nil),
	(*ua.HistoryReadRequest)(nil), (*ua.HistoryReadResponse)(nil),
	(*ua.WriteRequest)(nil), (*ua.WriteResponse)(nil),
	(*ua.HistoryUpdateRequest)(nil), (*ua.HistoryUpdateResponse)(nil),
	(*ua.CallRequest)(nil), (*ua.CallResponse)(nil),
	(*ua.CreateMonitoredItemsRequest)(nil), (*ua.CreateMonitoredItemsResponse)(nil),
	(*ua.ModifyMonitoredItemsRequest)(nil), (*ua.ModifyMonitoredItemsResponse)(nil),
	(*ua.SetMonitoringModeRequest)(nil), (*ua.SetMonitoringModeResponse)(nil),
	(*ua.SetTriggeringRequest)(nil), (*ua.SetTriggeringResponse)(nil),
	(*ua.DeleteMonitoredItemsRequest)(nil), (*ua.DeleteMonitoredItemsResponse)(nil),
	(*ua.CreateSubscriptionRequest)(nil), (*ua.CreateSubscriptionResponse)(nil),
	(*ua.ModifySubscriptionRequest)(nil), (*ua.ModifySubscriptionResponse)(nil),
	(*ua.SetPublishingModeRequest)(nil), (*ua.SetPublishingModeResponse)(nil),
	(*ua.PublishRequest)(nil), (*ua.PublishResponse)(nil),
	(*ua.RepublishRequest)(nil), (*ua.RepublishResponse)(nil),
	(*ua.TransferSubscriptionsRequest)(nil), (*ua.TransferSubscriptionsResponse)(nil),
	(*ua.DeleteSubscriptionsRequest)(nil), (*ua.DeleteSubscriptionsResponse)(nil),
}

var (
	messageIDs   = map[reflect.Type]uint16{} // pointer type → id of the binary encoding
	requestTypes = map[uint16]reflect.Type{} // id of the binary encoding → structure type
)

func init() {
	for _, m := range messages {
		typeID := ua.ServiceTypeID(m)
		messageIDs[reflect.TypeOf(m)] = typeID
		if _, ok := m.(ua.Request); ok {
			requestTypes[typeID] = reflect.TypeOf(m).Elem()
		}
	}
}

// DecodeRequest decodes the body of one whole service message: the type id and
// the request. It never keeps a reference to b, never panics, and allocates no
// more than lim and the length of b allow. An error is an [*Error].
func DecodeRequest(b []byte, lim Limits) (ua.Request, error) {
	return (*Tokens)(nil).DecodeRequest(b, lim)
}

// DecodeRequest is [DecodeRequest] on the connection whose tokens these are.
func (t *Tokens) DecodeRequest(b []byte, lim Limits) (ua.Request, error) {
	d := newDecoder(b, lim)
	d.tokens = t
	defer d.release()
	var typeID ua.NodeID
	d.nodeID(&typeID)
	if d.failed {
		d.within("TypeId")
		return nil, d.err()
	}
	isNumeric := typeID.Namespace() == 0 && typeID.Type() <= ua.NodeIDTypeNumeric
	switch {
	case isNumeric && typeID.IntID() == id.ReadRequest_Encoding_DefaultBinary:
		return finish(d, d.readRequest())
	case isNumeric && typeID.IntID() == id.PublishRequest_Encoding_DefaultBinary:
		return finish(d, d.publishRequest())
	}
	typ, ok := requestTypes[uint16(typeID.IntID())]
	if !ok || !isNumeric || typeID.IntID() > 0xffff {
		// Every request starts with a header, so that even an unknown one can be
		// answered with its handle (Part 4 §7.33).
		hdr := d.newRequestHeader()
		if d.failed {
			hdr = nil
		}
		return nil, &Error{ua.StatusBadServiceUnsupported, hdr, "no request has the type id " + typeID.String()}
	}
	v := reflect.New(typ)
	planOf(typ).dec(d, v.Elem())
	return finish(d, v.Interface().(ua.Request))
}

// finish returns the request if it was decoded to the last byte.
func finish(d *decoder, req ua.Request) (ua.Request, error) {
	if !d.failed && d.left() > 0 {
		d.fail(ua.StatusBadDecodingError, "bytes left over after the request")
	}
	if !d.failed {
		return req, nil
	}
	err := d.err()
	// A header that failed itself has no additional header yet.
	if hdr := req.Header(); hdr != nil && hdr.AdditionalHeader != nil && hdr.AuthenticationToken != nil {
		err.Header = hdr
	}
	return nil, err
}

// AppendMessage appends the body of a service message, that is the type id and
// the structure, to dst. The message is a pointer to a request or response
// structure of ua, not nil. On an error the contents of dst beyond its length are undefined.
func AppendMessage(dst []byte, msg any) ([]byte, error) {
	switch m := msg.(type) {
	case *ua.ReadResponse:
		return appendReadResponse(appendTypeID(dst, id.ReadResponse_Encoding_DefaultBinary), m)
	case *ua.PublishResponse:
		return appendPublishResponse(appendTypeID(dst, id.PublishResponse_Encoding_DefaultBinary), m)
	}
	typ := reflect.TypeOf(msg)
	typeID, ok := messageIDs[typ]
	if !ok {
		return dst, fmt.Errorf("wire: %T is not a service message", msg)
	}
	b, err := planOf(typ).enc(appendTypeID(dst, typeID), reflect.ValueOf(msg))
	if err != nil {
		return dst, fmt.Errorf("wire: %T: %w", msg, err)
	}
	return b, nil
}

func appendTypeID(b []byte, typeID uint16) []byte {
	return append(b, byte(ua.NodeIDTypeFourByte), 0, byte(typeID), byte(typeID>>8))
}

// Append appends the binary form of v to dst. v is a structure of ua or a
// pointer to one, a Variant, DataValue, ExtensionObject or other built-in type
// by pointer, or a basic type or slice.
func Append(dst []byte, v any) ([]byte, error) {
	if v == nil {
		return dst, fmt.Errorf("wire: cannot encode nil")
	}
	p, err := tryPlan(reflect.TypeOf(v))
	if err != nil {
		return dst, err
	}
	return p.enc(dst, reflect.ValueOf(v))
}

// Decode decodes b into v, a non-nil pointer to what [Append] was given a
// pointer to. Bytes that are left over are an error. An error is an [*Error], unless
// v cannot be decoded into.
func Decode(b []byte, v any, lim Limits) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return fmt.Errorf("wire: cannot decode into %T", v)
	}
	p, err := tryPlan(rv.Type())
	if err != nil {
		return err
	}
	d := newDecoder(b, lim)
	defer d.release()
	// The plan of a pointer replaces it, so what it made is copied.
	made := reflect.New(rv.Type()).Elem()
	p.dec(d, made)
	if !d.failed && d.left() > 0 {
		d.fail(ua.StatusBadDecodingError, "bytes left over")
	}
	if d.failed {
		return d.err()
	}
	rv.Elem().Set(made.Elem())
	return nil
}

// tryPlan is planOf for types that callers choose.
func tryPlan(t reflect.Type) (p *plan, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("%v", r)
		}
	}()
	return planOf(t), nil
}
