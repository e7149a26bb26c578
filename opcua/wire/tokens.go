package wire

import (
	"bytes"

	"github.com/gopcua/opcua/ua"
)

// maxToken is how long an authentication token may be, encoded, to be remembered: servers give out far shorter ones.
const maxToken = 256

// Tokens remembers the authentication token that came last on one connection. A client sends the same one with each request, so nearly
// all of them get the same NodeId again: it isn't made anew, and who sees the same pointer twice knows that the same bytes came. The zero
// value remembers nothing. One goroutine may use it at a time.
type Tokens struct {
	encoded []byte
	node    *ua.NodeID // never changed
}

// token decodes the authentication token of a request's header.
func (d *decoder) token(h *headerBlock) *ua.NodeID {
	t := d.tokens
	if t != nil && t.node != nil && !d.failed && bytes.HasPrefix(d.b[d.off:], t.encoded) {
		d.off += len(t.encoded)
		return t.node
	}
	start := d.off
	d.nodeID(&h.token)
	if t == nil || d.failed || h.token.Type() != ua.NodeIDTypeByteString || d.off-start > maxToken {
		return &h.token
	}
	node := h.token // A copy, so that the request's block isn't kept with it.
	t.encoded, t.node = append(t.encoded[:0], d.b[start:d.off]...), &node
	return t.node
}
