package server

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"
)

// An authentication token is an opaque NodeId of tokenBytes random bytes, of which gopcua shows us the base64 form. The first
// half of that finds the session. Only the second half is the secret: it is compared in constant time, so that nothing can be
// learned from how long a look-up takes.
const (
	tokenBytes  = 48
	tokenLength = tokenBytes / 3 * 4
	tokenPublic = tokenLength / 2
)

// nonceLength is that of server nonces in bytes. Part 4 §5.7.2.2 asks for 32 or more, and the same of clients.
const nonceLength = 32

// session is a session of a client (Part 4 §5.7).
type session struct {
	id          *ua.NodeID
	token       string // the base64 form of the authentication token
	client      string // by what the client is counted
	application string // the URI that the client gave itself
	timeout     time.Duration
	timer       timer
	seen        atomic.Int64 // the schedule's time of the last request
	gone        atomic.Bool  // no longer in the table
	pub         *publisher

	// bound is the channel on which the session is active; nil before the first ActivateSession.
	bound atomic.Pointer[binding]

	// What the channel was like on which the session was created: only one that is alike can take it over.
	origin      secureChannel
	policy      string
	mode        ua.MessageSecurityMode
	certificate []byte // of the client
	serverCert  []byte // the leaf that CreateSession gave to the client, which its signatures cover

	mu     sync.Mutex // serialises ActivateSession and the use of continuation points
	nonce  []byte     // the one that the client's next signature has to cover
	points continuations
}

// binding is a session's tie to a channel. It is never modified.
type binding struct {
	ch       secureChannel
	identity Identity
}

// sessions is the table of the sessions of a server. Its lock is a leaf but for channels' SetInUse.
type sessions struct {
	limits *Limits

	mu        sync.RWMutex
	byToken   map[string]*session // by the public half of the token
	byChannel map[secureChannel]map[*session]struct{}
	perClient map[string]int
}

func newSessions(limits *Limits) *sessions {
	return &sessions{
		limits:    limits,
		byToken:   make(map[string]*session),
		byChannel: make(map[secureChannel]map[*session]struct{}),
		perClient: make(map[string]int),
	}
}

// newToken returns an authentication token and its base64 form.
func newToken() (*ua.NodeID, string) {
	b := make([]byte, tokenBytes)
	rand.Read(b)
	return ua.NewByteStringNodeID(0, b), base64.StdEncoding.EncodeToString(b)
}

// find returns the session of a token, or nil.
func (t *sessions) find(token *ua.NodeID) *session {
	if token == nil || token.Type() != ua.NodeIDTypeByteString || token.Namespace() != 0 {
		return nil
	}
	text := token.StringID()
	if len(text) != tokenLength {
		return nil
	}
	t.mu.RLock()
	s := t.byToken[text[:tokenPublic]]
	t.mu.RUnlock()
	if s == nil || subtle.ConstantTimeCompare([]byte(text[tokenPublic:]), []byte(s.token[tokenPublic:])) != 1 {
		return nil
	}
	return s
}

// known is the session that was found last on a channel. A token that is the very same one has been compared already.
type known struct {
	token   *ua.NodeID
	session *session
}

// of returns the session of the token that a request on a channel has, or nil.
func (t *sessions) of(ch secureChannel, token *ua.NodeID) *session {
	if k, ok := ch.Attached().(*known); ok && k.token == token && !k.session.gone.Load() {
		return k.session
	}
	s := t.find(token)
	if s != nil {
		ch.Attach(&known{token, s})
	}
	return s
}

// add puts in a new session, tied to the channel that made it. Where a limit is reached, a session that was never activated makes
// room, the oldest first, and is returned to be closed: so nobody can keep others out with half-made sessions
// (Part 4 §5.7.2.1). If there is none, the new one is refused. The limits are higher by the spare places that are kept for such a session.
func (t *sessions) add(s *session, spare int) (evicted *session, status ua.StatusCode) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.perClient[s.client] >= t.limits.MaxSessionsPerClient+spare:
		evicted = t.oldestIdle(func(o *session) bool { return o.client == s.client })
	case len(t.byToken) >= t.limits.MaxSessions+spare:
		evicted = t.oldestIdle(func(*session) bool { return true })
	default:
		t.insert(s)
		return nil, ua.StatusOK
	}
	if evicted == nil {
		return nil, ua.StatusBadTooManySessions
	}
	t.delete(evicted)
	t.insert(s)
	return evicted, ua.StatusOK
}

func (t *sessions) oldestIdle(match func(*session) bool) (oldest *session) {
	for _, o := range t.byToken {
		if o.bound.Load() == nil && match(o) && (oldest == nil || o.seen.Load() < oldest.seen.Load()) {
			oldest = o
		}
	}
	return oldest
}

func (t *sessions) insert(s *session) {
	t.byToken[s.token[:tokenPublic]] = s
	t.perClient[s.client]++
	t.tie(s, s.origin)
}

func (t *sessions) delete(s *session) {
	s.gone.Store(true)
	delete(t.byToken, s.token[:tokenPublic])
	if t.perClient[s.client]--; t.perClient[s.client] == 0 {
		delete(t.perClient, s.client)
	}
	t.untie(s, s.channel())
}

// channel returns the one to which the session is tied.
func (s *session) channel() secureChannel {
	if b := s.bound.Load(); b != nil {
		return b.ch
	}
	return s.origin
}

func (t *sessions) tie(s *session, ch secureChannel) {
	if t.byChannel[ch] == nil {
		t.byChannel[ch] = make(map[*session]struct{})
	}
	t.byChannel[ch][s] = struct{}{}
}

func (t *sessions) untie(s *session, ch secureChannel) {
	delete(t.byChannel[ch], s)
	if len(t.byChannel[ch]) == 0 {
		delete(t.byChannel, ch)
	}
	t.mark(ch)
}

// mark tells a channel whether an active session is on it.
func (t *sessions) mark(ch secureChannel) {
	inUse := false
	for s := range t.byChannel[ch] {
		inUse = inUse || s.bound.Load() != nil
	}
	ch.SetInUse(inUse)
}

// bind activates a session on a channel, and returns the one that it leaves, if it was active on another.
// It reports false if the session has been closed.
func (t *sessions) bind(s *session, b *binding) (left secureChannel, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byToken[s.token[:tokenPublic]] != s {
		return nil, false
	}
	old := s.channel()
	s.bound.Store(b)
	t.tie(s, b.ch)
	t.mark(b.ch)
	if old == b.ch {
		return nil, true
	}
	t.untie(s, old)
	return old, true
}

// remove takes a session out, and reports whether it was in.
func (t *sessions) remove(s *session) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byToken[s.token[:tokenPublic]] != s {
		return false
	}
	t.delete(s)
	return true
}

// on returns the sessions that are tied to a channel.
func (t *sessions) on(ch secureChannel) []*session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.byChannel[ch]))
}

// all returns all sessions.
func (t *sessions) all() []*session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Values(t.byToken))
}

func (t *sessions) count() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byToken)
}

// clientKey is by what the client of a channel is counted: its certificate, or its host where it shows none.
func clientKey(ch secureChannel) string {
	if cert := ch.ClientCertificate(); len(cert) > 0 {
		sum := sha256.Sum256(cert)
		return string(sum[:])
	}
	addr := ch.RemoteAddr()
	if addr == nil {
		return ""
	}
	if host, _, err := net.SplitHostPort(addr.String()); err == nil {
		return host
	}
	return addr.String()
}
