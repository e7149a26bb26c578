package wire

import (
	"unsafe"

	"github.com/gopcua/opcua/ua"
)

// This file codes by hand the messages of which a server sees thousands a
// second. A request is allocated in one block together with what it points to.

const (
	minRequestHeader       = minNodeID + 8 + 4 + 4 + minString + 4 + minExtension
	minResponseHeader      = 8 + 4 + 4 + 1 + 4 + minExtension
	minReadValueID         = minNodeID + 4 + minString + minQualifiedName
	sizeHeader             = int(unsafe.Sizeof(headerBlock{}))
	sizeReadItem           = int(unsafe.Sizeof(readItem{})) + sizePointer
	sizeAcknowledgement    = int(unsafe.Sizeof(ua.SubscriptionAcknowledgement{})) + sizePointer
	wireSizeAcknowledgment = 8
)

type headerBlock struct {
	hdr   ua.RequestHeader
	token ua.NodeID
	ext   extensionBlock
}

type readItem struct {
	value    ua.ReadValueID
	node     ua.NodeID
	encoding ua.QualifiedName
}

type readBlock struct {
	req     ua.ReadRequest
	hdr     headerBlock
	only    [1]readItem // the item of a request that has one, which is the usual one
	onlyPtr [1]*ua.ReadValueID
}

type publishBlock struct {
	req     ua.PublishRequest
	hdr     headerBlock
	only    [1]ua.SubscriptionAcknowledgement // that of a request that has one, which is the usual one
	onlyPtr [1]*ua.SubscriptionAcknowledgement
}

// requestHeader decodes the header that every request starts with (Part 4 §7.33).
func (d *decoder) requestHeader(h *headerBlock) *ua.RequestHeader {
	h.hdr.AuthenticationToken = d.token(h)
	h.hdr.Timestamp = d.time()
	h.hdr.RequestHandle = d.u32()
	h.hdr.ReturnDiagnostics = d.u32()
	h.hdr.AuditEntryID = d.str()
	h.hdr.TimeoutHint = d.u32()
	d.extensionObject(&h.ext)
	if d.failed {
		d.within("RequestHeader")
		return &h.hdr
	}
	h.hdr.AdditionalHeader = &h.ext.ext
	return &h.hdr
}

func (d *decoder) newRequestHeader() *ua.RequestHeader {
	if !d.charge(sizeHeader) {
		return nil
	}
	return d.requestHeader(new(headerBlock))
}

func (d *decoder) newResponseHeader() *ua.ResponseHeader {
	if !d.charge(sizeHeader) {
		return nil
	}
	h := &ua.ResponseHeader{
		Timestamp:          d.time(),
		RequestHandle:      d.u32(),
		ServiceResult:      ua.StatusCode(d.u32()),
		ServiceDiagnostics: d.newDiagnosticInfo(),
	}
	h.StringTable = elements[[]string](d, minString, d.str)
	h.AdditionalHeader = d.newExtensionObject()
	return h
}

func (d *decoder) readRequest() *ua.ReadRequest {
	r := new(readBlock)
	r.req.RequestHeader = d.requestHeader(&r.hdr)
	r.req.MaxAge = d.f64()
	r.req.TimestampsToReturn = ua.TimestampsToReturn(d.u32())
	n := d.count(minReadValueID, sizeReadItem)
	if n < 0 {
		return &r.req
	}
	items, ptrs := r.only[:], r.onlyPtr[:]
	if n != 1 {
		items, ptrs = make([]readItem, n), make([]*ua.ReadValueID, n)
	}
	for i := range items {
		it := &items[i]
		it.value.NodeID, it.value.DataEncoding = &it.node, &it.encoding
		d.nodeID(&it.node)
		it.value.AttributeID = ua.AttributeID(d.u32())
		it.value.IndexRange = d.str()
		d.qualifiedName(&it.encoding)
		if d.failed {
			d.within("NodesToRead")
			return &r.req
		}
		ptrs[i] = &it.value
	}
	r.req.NodesToRead = ptrs
	return &r.req
}

func (d *decoder) publishRequest() *ua.PublishRequest {
	p := new(publishBlock)
	p.req.RequestHeader = d.requestHeader(&p.hdr)
	n := d.count(wireSizeAcknowledgment, sizeAcknowledgement)
	if n < 0 {
		return &p.req
	}
	acks, ptrs := p.only[:], p.onlyPtr[:]
	if n != 1 {
		acks, ptrs = make([]ua.SubscriptionAcknowledgement, n), make([]*ua.SubscriptionAcknowledgement, n)
	}
	for i := range acks {
		acks[i].SubscriptionID = d.u32()
		acks[i].SequenceNumber = d.u32()
		ptrs[i] = &acks[i]
	}
	p.req.SubscriptionAcknowledgements = ptrs
	return &p.req
}

func appendRequestHeader(b []byte, h *ua.RequestHeader) ([]byte, error) {
	if h == nil {
		h = new(ua.RequestHeader)
	}
	b, err := appendNodeID(b, h.AuthenticationToken)
	if err != nil {
		return b, err
	}
	b = appendTime(b, h.Timestamp)
	b = appendU32(b, h.RequestHandle)
	b = appendU32(b, h.ReturnDiagnostics)
	b = appendString(b, h.AuditEntryID)
	b = appendU32(b, h.TimeoutHint)
	return appendExtensionObject(b, h.AdditionalHeader)
}

func appendResponseHeader(b []byte, h *ua.ResponseHeader) ([]byte, error) {
	if h == nil {
		h = new(ua.ResponseHeader)
	}
	b = appendTime(b, h.Timestamp)
	b = appendU32(b, h.RequestHandle)
	b = appendU32(b, uint32(h.ServiceResult))
	b = appendDiagnosticInfo(b, h.ServiceDiagnostics)
	b, err := appendCount(b, len(h.StringTable), h.StringTable == nil)
	if err != nil {
		return b, err
	}
	for _, s := range h.StringTable {
		b = appendString(b, s)
	}
	return appendExtensionObject(b, h.AdditionalHeader)
}

func appendDiagnosticInfos(b []byte, s []*ua.DiagnosticInfo) ([]byte, error) {
	b, err := appendCount(b, len(s), s == nil)
	if err != nil {
		return b, err
	}
	for _, v := range s {
		b = appendDiagnosticInfo(b, v)
	}
	return b, nil
}

func appendReadResponse(b []byte, r *ua.ReadResponse) ([]byte, error) {
	b, err := appendResponseHeader(b, r.ResponseHeader)
	if err != nil {
		return b, err
	}
	if b, err = appendCount(b, len(r.Results), r.Results == nil); err != nil {
		return b, err
	}
	for _, v := range r.Results {
		if b, err = appendDataValue(b, v); err != nil {
			return b, err
		}
	}
	return appendDiagnosticInfos(b, r.DiagnosticInfos)
}

func appendPublishResponse(b []byte, r *ua.PublishResponse) ([]byte, error) {
	b, err := appendResponseHeader(b, r.ResponseHeader)
	if err != nil {
		return b, err
	}
	b = appendU32(b, r.SubscriptionID)
	if b, err = appendCount(b, len(r.AvailableSequenceNumbers), r.AvailableSequenceNumbers == nil); err != nil {
		return b, err
	}
	for _, n := range r.AvailableSequenceNumbers {
		b = appendU32(b, n)
	}
	b = appendBool(b, r.MoreNotifications)
	if b, err = appendNotificationMessage(b, r.NotificationMessage); err != nil {
		return b, err
	}
	if b, err = appendCount(b, len(r.Results), r.Results == nil); err != nil {
		return b, err
	}
	for _, s := range r.Results {
		b = appendU32(b, uint32(s))
	}
	return appendDiagnosticInfos(b, r.DiagnosticInfos)
}

func appendNotificationMessage(b []byte, m *ua.NotificationMessage) ([]byte, error) {
	if m == nil {
		m = new(ua.NotificationMessage)
	}
	b = appendTime(appendU32(b, m.SequenceNumber), m.PublishTime)
	b, err := appendCount(b, len(m.NotificationData), m.NotificationData == nil)
	if err != nil {
		return b, err
	}
	for _, e := range m.NotificationData {
		if b, err = appendExtensionObject(b, e); err != nil {
			return b, err
		}
	}
	return b, nil
}

func appendDataChangeNotification(b []byte, n *ua.DataChangeNotification) ([]byte, error) {
	b, err := appendCount(b, len(n.MonitoredItems), n.MonitoredItems == nil)
	if err != nil {
		return b, err
	}
	for _, it := range n.MonitoredItems {
		if it == nil {
			it = new(ua.MonitoredItemNotification)
		}
		if b, err = appendDataValue(appendU32(b, it.ClientHandle), it.Value); err != nil {
			return b, err
		}
	}
	return appendDiagnosticInfos(b, n.DiagnosticInfos)
}
