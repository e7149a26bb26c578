package opcua

import (
	"bytes"
	"crypto/x509"
	"errors"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/certstore"
	"quorate/opcua/channel"
	"quorate/opcua/login"
	"quorate/opcua/server"
	quoratev1 "quorate/proto/quorate/v1"
)

// offers are the endpoints. The strongest is offered first, since some clients take the first.
func (c *Config) offers() []channel.SecurityOffer {
	var offers []channel.SecurityOffer
	for _, mode := range []ua.MessageSecurityMode{ua.MessageSecurityModeSignAndEncrypt, ua.MessageSecurityModeSign} {
		for _, policy := range []string{
			ua.SecurityPolicyURIAes256Sha256RsaPss, ua.SecurityPolicyURIBasic256Sha256, ua.SecurityPolicyURIAes128Sha256RsaOaep,
		} {
			offers = append(offers, channel.SecurityOffer{PolicyURI: policy, Mode: mode})
		}
	}
	if c.AllowNone {
		offers = append(offers, channel.SecurityOffer{PolicyURI: ua.SecurityPolicyURINone, Mode: ua.MessageSecurityModeNone})
	}
	return offers
}

// isMember reports whether an application is this one, or a server of the topology: one whose certificate is trusted, and
// has the ApplicationUri of a server as its only one. Both are needed. By the topology alone, whoever makes a certificate of that
// name would be one; by trust alone, or by the authority that signed it, every client that an administrator trusts, or gives
// a certificate, would be (docs/decisions/0004). The topology is the current one and the one that this member has adopted, so
// that a member which comes or goes is known for as long as it probes.
func (c *Config) isMember(application []byte) bool {
	certificate, err := x509.ParseCertificate(application)
	if err != nil || len(certificate.URIs) != 1 {
		return false
	}
	if chain, _ := c.Certificate(); bytes.HasPrefix(chain, application) {
		return true
	}
	if c.Applications == nil {
		return false // Nobody has looked at the certificate.
	}
	return c.declares(certificate.URIs[0].String())
}

// declares reports whether an ApplicationUri is that of a server of the topology: of the current one, or of the one that this member has adopted.
func (c *Config) declares(applicationURI string) bool {
	state := c.Group.Local().State
	for _, g := range []*quoratev1.Generation{state.CurrentGeneration(), adopted(state, c.Member)} {
		for _, set := range g.GetTopology().GetSets() {
			for _, s := range set.GetServers() {
				if s.GetApplicationUri() == applicationURI {
					return true
				}
			}
		}
	}
	return false
}

// userTokens are the ways to log in. Anonymous is among them even if only members may: see authenticate.
func (c *Config) userTokens() []*ua.UserTokenPolicy {
	tokens := []*ua.UserTokenPolicy{{PolicyID: "anonymous", TokenType: ua.UserTokenTypeAnonymous}}
	if c.Users != nil {
		tokens = append(tokens, &ua.UserTokenPolicy{PolicyID: "username", TokenType: ua.UserTokenTypeUserName})
	}
	if c.UserCertificates != nil {
		tokens = append(tokens, &ua.UserTokenPolicy{PolicyID: "certificate", TokenType: ua.UserTokenTypeCertificate})
	}
	return tokens
}

// verify judges the certificate of a client application.
func (c *Config) verify(chain []byte) ua.StatusCode {
	if c.Applications == nil {
		return ua.StatusOK
	}
	// A member reads the witness through its own endpoint.
	if own, _ := c.Certificate(); bytes.Equal(own, chain) {
		return ua.StatusOK
	}
	return certstore.OnWire(c.Applications.Verify(chain))
}

// authenticate finds out who a user is. Who is anonymous may look, where the settings allow it. Where they don't, the group's other
// members still read, and do nothing else: they probe this one, and no user is at hand when they do.
func (c *Config) authenticate(given server.Credentials) (server.Identity, ua.StatusCode) {
	switch given.Kind {
	case ua.UserTokenTypeAnonymous:
		switch {
		case c.AllowAnonymous:
			return server.Identity{}, ua.StatusOK
		case c.isMember(given.Application):
			return server.Identity{OnlyRead: true}, ua.StatusOK
		}
		return server.Identity{}, ua.StatusBadIdentityTokenRejected
	case ua.UserTokenTypeUserName:
		user, err := c.Users.Password(given.UserName, given.Password, given.RemoteAddr)
		switch {
		case errors.Is(err, login.ErrBusy):
			return server.Identity{}, ua.StatusBadTCPServerTooBusy
		case err != nil:
			return server.Identity{}, ua.StatusBadUserAccessDenied
		}
		return identityOf(user)
	case ua.UserTokenTypeCertificate:
		return c.certifiedUser(given.Certificate)
	}
	return server.Identity{}, ua.StatusBadIdentityTokenRejected
}

// certifiedUser is who a certificate, of which the client has the key, says.
func (c *Config) certifiedUser(certificate []byte) (server.Identity, ua.StatusCode) {
	if c.UserCertificates.Verify(certificate) != ua.StatusOK {
		return server.Identity{}, ua.StatusBadIdentityTokenRejected
	}
	chain, err := x509.ParseCertificates(certificate)
	if err != nil || len(chain) == 0 {
		return server.Identity{}, ua.StatusBadIdentityTokenInvalid
	}
	if c.Users != nil {
		if user, ok := c.Users.Certificate(certstore.Fingerprint(chain[0].Raw)); ok {
			return identityOf(user)
		}
	}
	return server.Identity{Name: chain[0].Subject.CommonName, Role: server.RoleViewer}, ua.StatusOK
}

func identityOf(user login.User) (server.Identity, ua.StatusCode) {
	role, err := server.ParseRole(user.Role)
	if err != nil {
		return server.Identity{}, ua.StatusBadUserAccessDenied // The list was opened with other roles than the server's.
	}
	return server.Identity{Name: user.Name, Role: role}, ua.StatusOK
}
