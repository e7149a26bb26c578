package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"quorate/bench/client"
)

// manyStrangers is how many different certificates one attacker shows.
const manyStrangers = 400

// An OpenSecureChannel message may be sent again and again on new connections: the attacker pays for its cryptography once, and
// the server each time.
func replay(build func(*attacker) ([]byte, error)) func(context.Context, *attacker) error {
	var once sync.Once
	var message []byte
	var failed error
	return func(ctx context.Context, a *attacker) error {
		once.Do(func() { message, failed = build(a) })
		if failed != nil {
			return failed
		}
		return a.sendOPN(ctx, message)
	}
}

// sendOPN opens a connection, sends a message to open its channel, and waits for the answer. It counts when there was one,
// whatever it is.
func (a *attacker) sendOPN(ctx context.Context, message []byte) error {
	from := attackerAddress
	if a.Attack == "opn_trusted_from_everywhere" {
		from = anyAddress()
	}
	c, err := dial(ctx, a.Endpoint, from)
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	if err := errors.Join(c.patience(), c.Hello(), c.write(message)); err != nil {
		return err
	}
	_, err = c.In.Peek(8)
	_ = c.SetLinger(0) // Or the ports run out.
	if err == nil {
		a.rounds.Add(1)
	}
	return err
}

func trustedOPN(a *attacker) ([]byte, error)   { return client.OpenMessage(a.Trusted, a.Server) }
func strangersOPN(a *attacker) ([]byte, error) { return client.OpenMessage(a.Stranger, a.Server) }

// invalidOPN is of a trusted application, as anybody may say who has seen its certificate.
func invalidOPN(a *attacker) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return client.OpenMessage(&client.Identity{Certificate: a.Trusted.Certificate, Key: key}, a.Server)
}

// strangers are messages with a different certificate each.
var strangers struct {
	once     sync.Once
	messages [][]byte
	err      error
}

func manyCertificates(ctx context.Context, a *attacker) error {
	strangers.once.Do(func() {
		template, err := x509.ParseCertificate(a.Stranger.Certificate)
		for i := 0; err == nil && i < manyStrangers; i++ {
			template.SerialNumber = big.NewInt(int64(i + 1))
			who := &client.Identity{Key: a.Stranger.Key}
			if who.Certificate, err = x509.CreateCertificate(rand.Reader, template, template, who.Key.Public(), who.Key); err != nil {
				break
			}
			var m []byte
			m, err = client.OpenMessage(who, a.Server)
			strangers.messages = append(strangers.messages, m)
		}
		strangers.err = err
	})
	if strangers.err != nil {
		return strangers.err
	}
	for _, m := range strangers.messages {
		if err := a.sendOPN(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// downgrade asks for channels with less security than there is, or with none that anybody knows.
func downgrade(ctx context.Context, a *attacker) error {
	for _, policy := range []string{ua.SecurityPolicyURIBasic128Rsa15, ua.SecurityPolicyURIBasic256, ua.SecurityPolicyURIPrefix + "Nothing"} {
		if err := a.sendOPN(ctx, client.Frame("OPNF", client.Words(0), client.Field([]byte(policy)), client.Field(a.Trusted.Certificate), client.Field(uapolicy.Thumbprint(a.Server)),
			make([]byte, 512))); err != nil {
			return err
		}
	}
	return nil
}

// secureRenewals renews a channel with security again and again. The attacker pays for each, as the server does.
func secureRenewals(ctx context.Context, a *attacker) error {
	s, err := secureClient(a.Endpoint, a.Trusted, a.Server)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.Dial(ctx); err != nil {
		return err
	}
	defer func() { _ = s.Close(context.WithoutCancel(ctx)) }() // An attacker doesn't care.
	for ctx.Err() == nil {
		if err := s.SecureChannel().Renew(ctx); err != nil {
			return err
		}
		a.rounds.Add(1)
	}
	return nil
}

// wrongPasswords tries to log in by names and passwords that nobody has, from everywhere, on channels without security.
func wrongPasswords(ctx context.Context, a *attacker) error {
	c, err := open(ctx, a.Endpoint, anyAddress())
	if err != nil {
		return err
	}
	defer closing(ctx, c)()
	created, err := c.createSession()
	if err != nil {
		return err
	}
	key, err := uapolicy.PublicKey(a.Server)
	if err != nil {
		return err
	}
	alg, err := uapolicy.Asymmetric(ua.SecurityPolicyURIBasic256Sha256, nil, key)
	if err != nil {
		return err
	}
	nonce := created.ServerNonce
	for ctx.Err() == nil {
		var name [8]byte
		rand.Read(name[:])
		secret := append(client.Words(uint32(len(name)+len(nonce))), name[:]...)
		encrypted, err := alg.Encrypt(append(secret, nonce...))
		if err != nil {
			return err
		}
		err = c.call(&ua.ActivateSessionRequest{
			RequestHeader: c.Header(), ClientSignature: &ua.SignatureData{},
			UserIdentityToken: ua.NewExtensionObject(&ua.UserNameIdentityToken{
				PolicyID: "username-basic256sha256", UserName: fmt.Sprintf("%x", name), Password: encrypted,
				EncryptionAlgorithm: alg.EncryptionURI(),
			}),
		}, new(ua.ActivateSessionResponse))
		switch {
		case errors.Is(err, ua.StatusBadUserAccessDenied), errors.Is(err, ua.StatusBadTCPServerTooBusy):
			a.rounds.Add(1)
		case err != nil:
			return err
		default:
			return errors.New("nobody was let in")
		}
		// Another address after a few tries, before this one has to wait.
		if a.rounds.Load()%4 == 0 {
			return nil
		}
	}
	return nil
}
