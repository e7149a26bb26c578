package channel

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"
)

// secured is a client with security that, unlike gopcua's, has requests under
// way while it renews its token.
type secured struct {
	*raw
	mirror *Channel // seals and opens OPN messages from the client's side
	tokens map[uint32]*token
}

func newSecured(t *testing.T, addr string, policyURI string, mode ua.MessageSecurityMode) *secured {
	t.Helper()
	client, server := newIdentity(t, "client", 2048), newIdentity(t, "server", 2048)
	p := policyByURI(policyURI)
	_, thumbprint, status := leafKey(p, server.cert)
	if status != ua.StatusOK {
		t.Fatal(status)
	}
	return &secured{
		raw: dialRaw(t, addr).hello(),
		mirror: &Channel{
			policy: p, mode: mode, clientKey: &server.key.PublicKey, serverKey: client.key, serverChain: client.cert, clientPrint: thumbprint,
		},
		tokens: map[uint32]*token{},
	}
}

// openRequest makes the OPN message that asks for a token.
func (s *secured) openRequest(requestID uint32, nonce []byte, typ ua.SecurityTokenRequestType) []byte {
	b := append([]byte("OPNF\x00\x00\x00\x00"), u32s(s.channelID)...)
	b = appendField(appendField(appendField(b, []byte(s.mirror.policy.uri)), s.mirror.serverChain), s.mirror.clientPrint[:])
	headers := len(b)
	b = append(b, u32s(s.nextSequence(), requestID)...)
	b = append(b, encode(s.t, &ua.OpenSecureChannelRequest{RequestType: typ, SecurityMode: s.mirror.mode, ClientNonce: nonce, RequestedLifetime: 60_000})...)
	b, err := s.mirror.sealAsymmetric(b, 0, headers)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// accept takes the OPN message that gives a token.
func (s *secured) accept(rest, nonce []byte) (*token, error) {
	chunk := frame("OPNF", rest)
	h, ok := parseAsymmetric(chunk)
	if !ok {
		return nil, fmt.Errorf("header is malformed")
	}
	plain, err := s.mirror.openAsymmetric(chunk, h.length)
	if err != nil {
		return nil, err
	}
	_, v, err := ua.DecodeService(plain[sequenceLength:])
	if err != nil {
		return nil, err
	}
	resp := v.(*ua.OpenSecureChannelResponse)
	// To the client, what the server sends is what it receives.
	t := &token{id: resp.SecurityToken.TokenID}
	if err := t.setKeys(s.mirror.policy, s.mirror.mode, resp.ServerNonce, nonce); err != nil {
		return nil, err
	}
	s.channelID = resp.SecurityToken.ChannelID
	return t, nil
}

func (s *secured) request(t *token, requestID uint32, body []byte) []byte {
	chunk := append(frame("MSGF", u32s(s.channelID, t.id, s.nextSequence(), requestID)), body...)
	return t.send.seal(chunk, 0)
}

// TestRenewalInFlight renews again and again with requests under way, and
// expects an answer to each, in order, under a token that the client knows.
func TestRenewalInFlight(t *testing.T) {
	const renewals, between = 20, 50
	for _, mode := range []ua.MessageSecurityMode{ua.MessageSecurityModeSign, ua.MessageSecurityModeSignAndEncrypt} {
		t.Run(mode.String(), func(t *testing.T) {
			_, addr := start(t, Config{}, &echo{})
			s := newSecured(t, addr, ua.SecurityPolicyURIBasic256Sha256, mode)
			nonce := make([]byte, s.mirror.policy.nonceLength)
			_, _ = rand.Read(nonce)
			s.send(s.openRequest(0, nonce, ua.SecurityTokenRequestTypeIssue))
			current, err := s.accept(s.expect("OPNF"), nonce)
			if err != nil {
				t.Fatal(err)
			}
			s.tokens[current.id] = current
			id := uint32(0)
			answered := func(want uint32) {
				t.Helper()
				rest := s.expect("MSGF")
				tok := s.tokens[binary.LittleEndian.Uint32(rest[4:])]
				if tok == nil {
					t.Fatalf("answered under an unknown token")
				}
				plain, ok := tok.receive.open(frame("MSGF", rest))
				if !ok || binary.LittleEndian.Uint32(plain[4:]) != want {
					t.Fatalf("request %d answered with %x, %v", want, plain, ok)
				}
			}
			for range renewals {
				var burst []byte
				first := id
				for range between {
					id++
					burst = append(burst, s.request(current, id, readRequest(t, id, "i=1"))...)
				}
				burst = append(burst, s.openRequest(id+1, nonce, ua.SecurityTokenRequestTypeRenew)...)
				last := id
				id++
				// More under the old token, which the client still has to use.
				for range between {
					id++
					burst = append(burst, s.request(current, id, readRequest(t, id, "i=1"))...)
				}
				s.send(burst)
				for n := first + 1; n <= last; n++ {
					answered(n)
				}
				next, err := s.accept(s.expect("OPNF"), nonce)
				if err != nil {
					t.Fatal(err)
				}
				if s.tokens[next.id] != nil {
					t.Fatalf("token id %d came twice", next.id)
				}
				s.tokens[next.id] = next
				for n := last + 2; n <= id; n++ {
					answered(n)
				}
				current = next
			}
		})
	}
}

// TestSendFromEverywhere sends from many goroutines at a time, and expects
// chunks whose sequence numbers follow each other.
func TestSendFromEverywhere(t *testing.T) {
	const senders, each = 8, 100
	h := &echo{}
	_, addr := start(t, Config{}, h)
	r := connect(t, addr)
	r.alive()
	ch := h.last.Load()
	for i := range uint32(senders) {
		go func() {
			for n := range uint32(each) {
				if err := ch.Send(i*each+n, &ua.ReadResponse{}); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	_ = r.SetDeadline(time.Now().Add(patience))
	next := [senders]uint32{}
	for n := range uint32(senders * each) {
		rest := r.expect("MSGF")
		if got, want := binary.LittleEndian.Uint32(rest[8:]), n+3; got != want { // after the token and the first answer
			t.Fatalf("sequence number %d, want %d", got, want)
		}
		id := binary.LittleEndian.Uint32(rest[12:])
		if id%each != next[id/each] {
			t.Fatalf("sender %d: %d before %d", id/each, id%each, next[id/each])
		}
		next[id/each]++
	}
}
