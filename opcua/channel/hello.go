package channel

import (
	"encoding/binary"
	"time"

	"github.com/gopcua/opcua/ua"
)

const (
	// maxEndpointURL is the longest URL of a Hello message, in bytes (Part 6
	// §7.1.2.3).
	maxEndpointURL = 4_096
	helloFixed     = prefixLength + 5*4 + 4
	maxHelloSize   = helloFixed + maxEndpointURL
)

// hello reads the Hello message, checks and negotiates its limits, and answers
// it (Part 6 §7.1.2.3).
func (c *Channel) hello() error {
	c.setDeadline(time.Now().Add(c.server.limits.HandshakeTimeout))
	b, err := c.readChunk()
	if err != nil {
		return err
	}
	defer c.releaseBig()
	switch string(b[:4]) {
	case "HELF":
	case "RHEF":
		// Part 6 §7.1.2.6 has the client listen for these and the server send
		// them. Following one would make the server dial whatever address it is told.
		return ending{ua.StatusBadTCPMessageTypeInvalid, RejectReverse, "reverse connections are not accepted"}
	default:
		return ending{ua.StatusBadTCPMessageTypeInvalid, RejectMalformed, "expected a Hello message"}
	}
	if len(b) < helloFixed {
		return ending{ua.StatusBadDecodingError, RejectMalformed, "Hello message is too short"}
	}
	// The protocol version may be any: a server answers with its own, which is
	// 0, and the client decides (Part 6 §7.1.2.3).
	field := func(i int) uint32 { return binary.LittleEndian.Uint32(b[prefixLength+4*i:]) }
	receive, send, maxMessage, maxChunks := field(1), field(2), field(3), field(4)
	url := b[helloFixed:]
	if n := int32(field(5)); n >= 0 && int(n) != len(url) || n < 0 && len(url) != 0 {
		return ending{ua.StatusBadTCPEndpointURLInvalid, RejectMalformed, "length of the endpoint URL is wrong"}
	}
	if receive < MinChunkSize || send < MinChunkSize {
		return ending{ua.StatusBadTCPNotEnoughResources, RejectMalformed, "buffer sizes are below 8192"}
	}
	limits := &c.server.limits
	c.endpointURL = string(url)
	c.receiveChunk = int(min(send, uint32(limits.MaxChunkSize)))
	c.sendChunkSize = int(min(receive, uint32(limits.MaxChunkSize)))
	c.peerMaxMessage, c.peerMaxChunks = int(maxMessage), int(maxChunks)

	ack := append(make([]byte, 0, prefixLength+5*4), "ACKF"...)
	for _, v := range []uint32{prefixLength + 5*4, 0, uint32(c.receiveChunk), uint32(c.sendChunkSize),
		uint32(limits.MaxMessageSize), uint32(limits.MaxChunkCount)} {
		ack = binary.LittleEndian.AppendUint32(ack, v)
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if !c.out.closed {
		c.out.buf = append(c.out.buf, ack...)
		c.flushLocked()
	}
	return nil
}
