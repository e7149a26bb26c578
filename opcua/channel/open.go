package channel

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"math"
	"net"
	"time"
	"unicode/utf8"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/wire"
)

// maxPolicyURI is the longest policy URI of an OpenSecureChannel message, in
// bytes (Part 6 §6.7.2.3).
const maxPolicyURI = 255

// asymmetricHeader is the security header of an OPN chunk (Part 6 §6.7.2.3).
type asymmetricHeader struct {
	policyURI   string
	certificate []byte // aliases the chunk
	thumbprint  []byte // aliases the chunk
	length      int    // of all headers up to the sequence number
}

func parseAsymmetric(chunk []byte) (h asymmetricHeader, ok bool) {
	rest := chunk[headerLength:]
	next := func() []byte {
		if !ok || len(rest) < 4 {
			ok = false
			return nil
		}
		n := int(int32(binary.LittleEndian.Uint32(rest)))
		rest = rest[4:]
		if n == -1 {
			return nil
		}
		if n < 0 || n > len(rest) {
			ok = false
			return nil
		}
		field := rest[:n]
		rest = rest[n:]
		return field
	}
	ok = true
	uri := next()
	h.certificate, h.thumbprint = next(), next()
	h.policyURI, h.length = string(uri[:min(len(uri), maxPolicyURI)]), len(chunk)-len(rest)
	return h, ok && len(uri) <= maxPolicyURI && utf8.Valid(uri)
}

// handleOpen issues or renews the token of the channel (Part 4 §5.5.2).
func (c *Channel) handleOpen(chunk []byte) error {
	h, ok := parseAsymmetric(chunk)
	if !ok {
		return ending{ua.StatusBadDecodingError, RejectMalformed, "security header is malformed"}
	}
	channelID := binary.LittleEndian.Uint32(chunk[8:])
	if c.opened && channelID != c.id || !c.opened && channelID != 0 {
		return ending{ua.StatusBadTCPSecureChannelUnknown, RejectSecurity, "unknown secure channel"}
	}
	if err := c.identify(&h); err != nil {
		return err
	}
	if c.policy.secure {
		// Cryptography with RSA costs milliseconds; whoever waits for its turn
		// does so until the handshake has to be over.
		c.Yield()
		release, err := c.server.enterHandshake()
		if err != nil {
			return err
		}
		defer release()
		// At a renewal too: who is no longer trusted, or has expired, goes no further.
		if err := c.verifyClient(h.certificate); err != nil {
			return err
		}
	}
	plain, err := c.openAsymmetric(chunk, h.length)
	if err != nil {
		return err
	}
	if err := c.checkSequence(binary.LittleEndian.Uint32(plain)); err != nil {
		return err
	}
	decoded, err := wire.DecodeRequest(plain[sequenceLength:], c.server.limits.Decoding)
	if err != nil {
		return ending{ua.StatusBadDecodingError, RejectMalformed, err.Error()}
	}
	req, ok := decoded.(*ua.OpenSecureChannelRequest)
	if !ok {
		return ending{ua.StatusBadTCPMessageTypeInvalid, RejectMalformed, "expected an OpenSecureChannel request"}
	}
	return c.issue(binary.LittleEndian.Uint32(plain[4:]), req)
}

// identify checks what of policy and certificates can be checked before anything costly is done.
func (c *Channel) identify(h *asymmetricHeader) error {
	if c.opened {
		// A renewal goes on with what the channel was opened with.
		if h.policyURI != c.policy.uri {
			return ending{ua.StatusBadSecurityPolicyRejected, RejectSecurity, "renewal with another policy"}
		}
		if c.policy.secure && !bytes.Equal(h.certificate, c.clientChain) {
			return ending{ua.StatusBadSecurityChecksFailed, RejectSecurity, "renewal with another certificate"}
		}
		return nil
	}
	p := policyByURI(h.policyURI)
	if p == nil || p.secure && !c.server.offersPolicy(p.uri) {
		return ending{ua.StatusBadSecurityPolicyRejected, RejectSecurity, "policy is not offered"}
	}
	c.policy = p
	if c.server.cfg.Certificate != nil {
		c.serverChain, c.serverKey = c.server.cfg.Certificate()
	}
	if !p.secure {
		return nil
	}
	key, thumbprint, status := leafKey(p, h.certificate)
	if status != ua.StatusOK {
		return ending{status, RejectSecurity, "client certificate cannot be used with this policy"}
	}
	ownKey, ownPrint, status := leafKey(p, c.serverChain)
	if status != ua.StatusOK || c.serverKey == nil || !ownKey.Equal(c.serverKey.Public()) {
		c.server.log.Error("the server's own certificate cannot be used", "policy", p.uri)
		return ending{ua.StatusBadTCPInternalError, RejectSecurity, "server certificate cannot be used with this policy"}
	}
	if !bytes.Equal(h.thumbprint, ownPrint[:]) {
		return ending{ua.StatusBadCertificateInvalid, RejectSecurity, "message is for another server certificate"}
	}
	c.clientChain = bytes.Clone(h.certificate)
	c.clientKey, c.clientPrint = key, thumbprint
	return nil
}

// verifyClient asks whether the client's certificate is trusted.
func (c *Channel) verifyClient(chain []byte) error {
	if c.server.cfg.Verify == nil {
		return nil
	}
	if status := c.server.cfg.Verify(chain); status != ua.StatusOK {
		return ending{status, RejectSecurity, "client certificate is not accepted"}
	}
	return nil
}

// openAsymmetric decrypts and verifies an OPN chunk, and returns it from its
// sequence number on. Every failure looks the same from outside.
func (c *Channel) openAsymmetric(chunk []byte, headers int) ([]byte, error) {
	failed := ending{ua.StatusBadSecurityChecksFailed, RejectSecurity, "OpenSecureChannel message is not authentic"}
	plain := chunk[headers:]
	if c.policy.secure {
		decrypted, err := c.policy.decrypt(c.serverKey, plain)
		sigLength := c.clientKey.Size()
		if err != nil || len(decrypted) < sequenceLength+1+sigLength {
			return nil, failed
		}
		// The signature covers the headers and what was encrypted.
		plain = decrypted[:len(decrypted)-sigLength]
		signed := append(bytes.Clone(chunk[:headers]), plain...)
		if c.policy.verify(c.clientKey, signed, decrypted[len(plain):]) != nil {
			return nil, failed
		}
		// Padding has a second byte of length where the key that encrypts is
		// longer than 2048 bits (Part 6 §6.7.2.5).
		padding := int(plain[len(plain)-1]) + 1
		if c.serverKey.Size() > 256 {
			padding = int(plain[len(plain)-1])<<8 + int(plain[len(plain)-2]) + 2
		}
		if len(plain)-padding < sequenceLength {
			return nil, failed
		}
		plain = plain[:len(plain)-padding]
	}
	if len(plain) < sequenceLength {
		return nil, ending{ua.StatusBadDecodingError, RejectMalformed, "chunk is too short"}
	}
	return plain, nil
}

// issue makes a token and answers the request with it.
func (c *Channel) issue(requestID uint32, req *ua.OpenSecureChannelRequest) error {
	renew := req.RequestType == ua.SecurityTokenRequestTypeRenew
	switch {
	case renew != c.opened || !renew && req.RequestType != ua.SecurityTokenRequestTypeIssue:
		return ending{ua.StatusBadRequestTypeInvalid, RejectMalformed, "request type does not fit the state of the channel"}
	case renew && req.SecurityMode != c.mode:
		return ending{ua.StatusBadSecurityModeRejected, RejectSecurity, "renewal with another security mode"}
	case req.ClientProtocolVersion != 0:
		return ending{ua.StatusBadProtocolVersionUnsupported, RejectMalformed, "unknown protocol version"}
	case c.policy.secure && len(req.ClientNonce) != c.policy.nonceLength:
		return ending{ua.StatusBadNonceInvalid, RejectSecurity, "client nonce has the wrong length"}
	}
	if !renew {
		if err := c.admit(req.SecurityMode); err != nil {
			return err
		}
	}
	limits, now := &c.server.limits, c.server.now()
	t := &token{id: 1, created: now, lifetime: time.Duration(req.RequestedLifetime) * time.Millisecond}
	if t.lifetime == 0 || t.lifetime > limits.MaxTokenLifetime {
		t.lifetime = limits.MaxTokenLifetime
	}
	t.lifetime = max(t.lifetime, limits.MinTokenLifetime)
	if renew {
		t.id = c.newestToken().id%math.MaxUint32 + 1
	}
	var serverNonce []byte
	if c.policy.secure {
		serverNonce = make([]byte, c.policy.nonceLength)
		_, _ = rand.Read(serverNonce) // never fails; see crypto/rand
	}
	if err := t.setKeys(c.policy, c.mode, req.ClientNonce, serverNonce); err != nil {
		return ending{ua.StatusBadTCPInternalError, RejectSecurity, err.Error()}
	}
	resp := &ua.OpenSecureChannelResponse{
		ResponseHeader: &ua.ResponseHeader{Timestamp: now, RequestHandle: req.RequestHeader.RequestHandle},
		SecurityToken: &ua.ChannelSecurityToken{
			ChannelID: c.id, TokenID: t.id, CreatedAt: now, RevisedLifetime: uint32(t.lifetime / time.Millisecond),
		},
		ServerNonce: serverNonce,
	}
	if err := c.answerOpen(requestID, resp, t); err != nil {
		return err
	}
	if renew {
		c.next = t
	} else {
		c.current, c.opened = t, true
	}
	c.deadline, c.tokenEnds = time.Time{}, time.Now().Add(t.grace())
	c.server.openedChannel(c, renew)
	return nil
}

// admit settles mode and id of a new channel.
func (c *Channel) admit(mode ua.MessageSecurityMode) error {
	offered := c.server.offers(c.policy.uri, mode)
	if c.policy.secure {
		if !offered || mode == ua.MessageSecurityModeNone {
			return ending{ua.StatusBadSecurityModeRejected, RejectSecurity, "security mode is not offered"}
		}
	} else {
		if mode != ua.MessageSecurityModeNone {
			return ending{ua.StatusBadSecurityModeRejected, RejectSecurity, "policy None has no such mode"}
		}
		c.discoveryOnly = !offered
	}
	c.mode, c.id = mode, c.server.nextChannelID()
	return nil
}

func (c *Channel) newestToken() *token {
	if c.next != nil {
		return c.next
	}
	return c.current
}

// answerOpen sends the response, and from then on has the token for sending.
func (c *Channel) answerOpen(requestID uint32, resp *ua.OpenSecureChannelResponse, t *token) error {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return net.ErrClosed
	}
	base := len(o.buf)
	b := append(o.buf, "OPNF\x00\x00\x00\x00"...)
	b = binary.LittleEndian.AppendUint32(b, c.id)
	b = appendField(b, []byte(c.policy.uri))
	if c.policy.secure {
		b = appendField(appendField(b, c.serverChain), c.clientPrint[:])
	} else {
		b = appendField(appendField(b, nil), nil)
	}
	headers := len(b) - base
	b = binary.LittleEndian.AppendUint32(b, o.nextSequence())
	b = binary.LittleEndian.AppendUint32(b, requestID)
	b, err := wire.AppendMessage(b, resp)
	if err == nil {
		b, err = c.sealAsymmetric(b, base, headers)
	}
	if err != nil {
		return ending{ua.StatusBadTCPInternalError, RejectSecurity, err.Error()}
	}
	if len(b)-base > c.sendChunkSize {
		return ending{ua.StatusBadTCPMessageTooLarge, RejectTooLarge, "server certificate does not fit in the client's buffer"}
	}
	o.buf = b
	o.messages++
	if o.token == nil {
		o.token = t
	} else {
		o.renewed = t
	}
	c.flushLocked()
	return nil
}

func appendField(b, field []byte) []byte {
	if field == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(field))), field...)
}

// sealAsymmetric pads, signs and encrypts the OPN chunk that starts at base
// (Part 6 §6.7.2.5).
func (c *Channel) sealAsymmetric(b []byte, base, headers int) ([]byte, error) {
	if !c.policy.secure {
		binary.LittleEndian.PutUint32(b[base+4:], uint32(len(b)-base))
		return b, nil
	}
	var (
		block     = c.policy.plainBlock(c.clientKey)
		sigLength = c.serverKey.Size()
		lengths   = 1 // bytes that hold the length of the padding
	)
	if c.clientKey.Size() > 256 {
		lengths = 2
	}
	padding := (block - (len(b)-base-headers+lengths+sigLength)%block) % block
	b = append(b, byte(padding))
	b = append(b, bytes.Repeat([]byte{byte(padding)}, padding)...)
	if lengths == 2 {
		b = append(b, byte(padding>>8))
	}
	blocks := (len(b) - base - headers + sigLength) / block
	binary.LittleEndian.PutUint32(b[base+4:], uint32(headers+blocks*c.clientKey.Size()))
	sig, err := c.policy.sign(c.serverKey, b[base:])
	if err != nil {
		return b, err
	}
	encrypted, err := c.policy.encrypt(c.clientKey, append(b[base+headers:len(b):len(b)], sig...))
	if err != nil {
		return b, err
	}
	return append(b[:base+headers], encrypted...), nil
}
