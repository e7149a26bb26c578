package server

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"math"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
)

// The Session service set (Part 4 §5.7).

// createSession makes a session that can't be used until it is activated.
func (v *services) createSession(ch secureChannel, r *ua.CreateSessionRequest) (ua.Response, ua.StatusCode) {
	if ch.DiscoveryOnly() {
		return nil, ua.StatusBadSecurityPolicyRejected
	}
	secured := ch.SecurityPolicyURI() != ua.SecurityPolicyURINone
	if secured {
		if status := checkClient(ch, r); status != ua.StatusOK {
			return nil, status
		}
	}
	if status := v.admits(applicationOf(r)); status != ua.StatusOK {
		return nil, status
	}
	spare := 0
	if v.exempt(applicationOf(r)) {
		spare = v.cfg.Spare
	} else if ch.Crowded() {
		return nil, ua.StatusBadTooManySessions
	}
	if len(r.SessionName) > v.limits.MaxSessionNameLength || len(r.EndpointURL) > v.limits.MaxEndpointURLLength {
		return nil, ua.StatusBadEncodingLimitsExceeded
	}
	chain, key := ch.ServerCertificate()
	leaf := leafOf(chain)
	signature := &ua.SignatureData{}
	if secured {
		ch.Yield()
		v.signing <- struct{}{}
		var err error
		signature, err = channel.Sign(ch.SecurityPolicyURI(), key, slices.Concat(leafOf(r.ClientCertificate), r.ClientNonce))
		<-v.signing
		if err != nil {
			v.logger.Error("CreateSession: the server's signature failed", "error", err)
			return nil, ua.StatusBadInternalError
		}
	}
	s, token := v.newSession(ch, r)
	s.serverCert = leaf
	evicted, status := v.sessions.add(s, spare)
	if status != ua.StatusOK {
		return nil, status
	}
	if evicted != nil {
		v.release(evicted, endSubscriptions)
	}
	if status := v.admits(s.application); status != ua.StatusOK { // The server was shut meanwhile, and may not have seen this session.
		v.close(s, endSubscriptions)
		return nil, status
	}
	v.engine.schedule.set(&s.timer, v.engine.schedule.now()+s.timeout)
	return &ua.CreateSessionResponse{
		SessionID:             s.id,
		AuthenticationToken:   token,
		RevisedSessionTimeout: milliseconds(s.timeout),
		ServerNonce:           s.nonce,
		ServerCertificate:     leaf,
		ServerEndpoints:       v.endpoints(ch, r.EndpointURL),
		ServerSignature:       signature,
		MaxRequestMessageSize: v.maxRequest,
	}, ua.StatusOK
}

// checkClient checks that the client of a secured channel is who it says in CreateSession (Part 4 §5.7.2.2).
func checkClient(ch secureChannel, r *ua.CreateSessionRequest) ua.StatusCode {
	if len(r.ClientNonce) < nonceLength {
		return ua.StatusBadNonceInvalid
	}
	leaf := leafOf(ch.ClientCertificate())
	if leaf == nil || !bytes.Equal(leaf, leafOf(r.ClientCertificate)) {
		return ua.StatusBadSecurityChecksFailed
	}
	cert, err := x509.ParseCertificate(leaf)
	if err != nil {
		return ua.StatusBadCertificateInvalid
	}
	if r.ClientDescription == nil {
		return ua.StatusBadCertificateURIInvalid
	}
	for _, uri := range cert.URIs {
		if uri.String() == r.ClientDescription.ApplicationURI {
			return ua.StatusOK
		}
	}
	return ua.StatusBadCertificateURIInvalid
}

func (v *services) newSession(ch secureChannel, r *ua.CreateSessionRequest) (*session, *ua.NodeID) {
	token, text := newToken()
	s := &session{
		id:          ua.NewNumericNodeID(1, nextID(&v.lastSession)),
		token:       text,
		client:      clientKey(ch),
		timeout:     v.reviseTimeout(r.RequestedSessionTimeout),
		origin:      ch,
		application: applicationOf(r),
		policy:      ch.SecurityPolicyURI(),
		mode:        ch.SecurityMode(),
		certificate: ch.ClientCertificate(),
		nonce:       newNonce(),
	}
	s.pub = v.engine.newPublisher(s)
	s.points.limit = v.limits.MaxContinuationPoints
	s.seen.Store(int64(v.engine.schedule.now()))
	s.timer = timer{order: orderExpire, fire: func(now time.Duration) { v.expire(s, now) }}
	return s, token
}

// applicationOf is the ApplicationUri that a client gave itself, which its certificate has to have where there is one (checkClient).
func applicationOf(r *ua.CreateSessionRequest) string {
	if r.ClientDescription == nil {
		return ""
	}
	return r.ClientDescription.ApplicationURI
}

// expire closes a session whose client was silent for its time-out. Its subscriptions live on (Part 4 §5.14.1.1).
func (v *services) expire(s *session, now time.Duration) {
	if end := time.Duration(s.seen.Load()) + s.timeout; now < end {
		v.engine.schedule.set(&s.timer, end)
		return
	}
	v.close(s, keepSubscriptions)
}

func (v *services) reviseTimeout(ms float64) time.Duration {
	switch {
	case !(ms > 0): // NaN too
		return v.limits.DefaultSessionTimeout
	case ms >= milliseconds(v.limits.MaxSessionTimeout):
		return v.limits.MaxSessionTimeout
	}
	return max(time.Duration(math.Ceil(ms))*time.Millisecond, v.limits.MinSessionTimeout)
}

// activateSession ties a session to the channel on which it is called: for the first time to that on which it was created, later
// to any that is secured in the same way by the same client, which is how a client goes on after its connection broke.
func (v *services) activateSession(ch secureChannel, r *ua.ActivateSessionRequest) (ua.Response, ua.StatusCode) {
	s := v.sessions.find(r.RequestHeader.AuthenticationToken)
	if s == nil {
		return nil, ua.StatusBadSessionIDInvalid
	}
	if status := v.admitsSession(s); status != ua.StatusOK {
		return nil, status
	}
	if ch.Crowded() && !v.exempt(s.application) {
		return nil, ua.StatusBadTooManySessions
	}
	ch.Yield() // What follows may wait for a signature, or for the user to be judged.
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.bound.Load()
	if old == nil && ch != s.origin {
		return nil, ua.StatusBadSecureChannelIDInvalid
	}
	if ch.DiscoveryOnly() || ch.SecurityPolicyURI() != s.policy || ch.SecurityMode() != s.mode || !bytes.Equal(ch.ClientCertificate(), s.certificate) {
		return nil, ua.StatusBadSecurityChecksFailed
	}
	if s.policy != ua.SecurityPolicyURINone {
		v.signing <- struct{}{}
		err := channel.Verify(s.policy, s.certificate, slices.Concat(s.serverCert, s.nonce), r.ClientSignature)
		<-v.signing
		if err != nil {
			return nil, ua.StatusBadApplicationSignatureInvalid
		}
	}
	identity, status := v.authenticate(s, ch, r)
	if status != ua.StatusOK {
		return nil, status
	}
	if old != nil && old.ch != ch && old.identity != identity {
		return nil, ua.StatusBadIdentityTokenRejected // Part 4 §5.7.3.1: a new channel does not change the user.
	}
	left, ok := v.sessions.bind(s, &binding{ch: ch, identity: identity})
	if !ok {
		return nil, ua.StatusBadSessionClosed
	}
	if left != nil {
		s.pub.forsake(left)
	}
	if status := v.admitsSession(s); status != ua.StatusOK { // The user is an administrator no more, or the server was shut meanwhile.
		v.close(s, endSubscriptions)
		return nil, status
	}
	s.seen.Store(int64(v.engine.schedule.now()))
	s.nonce = newNonce() // A signature is good for one activation.
	return &ua.ActivateSessionResponse{ServerNonce: s.nonce}, ua.StatusOK
}

// What becomes of the subscriptions of a session that is closed.
const (
	endSubscriptions  = true
	keepSubscriptions = false // until their lifetime is over, for another session to take them (Part 4 §5.14.7)
)

// closeSession ends a session, activated or not, and its subscriptions, if the client says so.
func (v *services) closeSession(s *session, r *ua.CloseSessionRequest) (ua.Response, ua.StatusCode) {
	v.close(s, r.DeleteSubscriptions)
	return &ua.CloseSessionResponse{}, ua.StatusOK
}

// close takes a session out of the server. What it has parked is answered.
func (v *services) close(s *session, subscriptions bool) {
	if v.sessions.remove(s) {
		v.release(s, subscriptions)
	}
}

// release frees what a session has that is no longer in the table.
func (v *services) release(s *session, subscriptions bool) {
	v.engine.schedule.stop(&s.timer)
	s.pub.close(subscriptions)
}

// leafOf returns the first certificate of a chain in DER, or nil. A chain is certificates one after the other (Part 6 §6.2.6).
func leafOf(chain []byte) []byte {
	if len(chain) == 0 {
		return nil
	}
	certs, err := x509.ParseCertificates(chain)
	if err != nil || len(certs) == 0 {
		return nil
	}
	return certs[0].Raw
}

func newNonce() []byte {
	b := make([]byte, nonceLength)
	rand.Read(b)
	return b
}
