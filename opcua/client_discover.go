package opcua

import (
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
)

// MaxDiscovered is the most servers, and the most endpoints, that Discover returns.
const MaxDiscovered = 1000

// DiscoveredServer is a server that FindServers lists.
type DiscoveredServer struct {
	ApplicationURI string   `json:"applicationUri"`
	Name           string   `json:"name"`
	Type           string   `json:"type"`
	URLs           []string `json:"urls"`
}

// DiscoveredEndpoint is an endpoint that GetEndpoints lists.
type DiscoveredEndpoint struct {
	URL string `json:"url"`
	// Policy is the last part of the policy's URI, such as Basic256Sha256.
	Policy string `json:"policy"`
	// Mode is None, Sign or SignAndEncrypt.
	Mode string `json:"mode"`
	// Users are the kinds of user token: Anonymous, UserName, Certificate, IssuedToken.
	Users []string `json:"users"`
	// SecurityLevel ranks the endpoints of one server; 0 is not recommended.
	SecurityLevel byte `json:"securityLevel"`
	// Thumbprint is the SHA-1 of the certificate, in hex; empty without one.
	Thumbprint string `json:"thumbprint"`
	// NotAfter is when the certificate expires.
	NotAfter *time.Time `json:"notAfter,omitempty"`
}

// Discovery is what a server says before anybody has logged in.
type Discovery struct {
	Servers   []DiscoveredServer   `json:"servers"`
	Endpoints []DiscoveredEndpoint `json:"endpoints"`
	// More says that there were more than MaxDiscovered.
	More bool `json:"more,omitempty"`
}

// Discover asks a server for the servers that it knows, and for its own endpoints, without a session.
func Discover(ctx context.Context, endpointURL string) (Discovery, error) {
	servers, endpoints, err := session.Discover(ctx, endpointURL)
	if err != nil {
		return Discovery{}, err
	}
	d := Discovery{Servers: []DiscoveredServer{}, Endpoints: []DiscoveredEndpoint{}, More: len(servers) > MaxDiscovered || len(endpoints) > MaxDiscovered}
	for _, s := range servers[:min(len(servers), MaxDiscovered)] {
		if s == nil {
			continue
		}
		found := DiscoveredServer{ApplicationURI: s.ApplicationURI, Type: strings.TrimPrefix(s.ApplicationType.String(), "ApplicationType"), URLs: s.DiscoveryURLs}
		if s.ApplicationName != nil {
			found.Name = s.ApplicationName.Text
		}
		d.Servers = append(d.Servers, found)
	}
	for _, e := range endpoints[:min(len(endpoints), MaxDiscovered)] {
		if e != nil {
			d.Endpoints = append(d.Endpoints, discoveredEndpoint(e))
		}
	}
	return d, nil
}

func discoveredEndpoint(e *ua.EndpointDescription) DiscoveredEndpoint {
	found := DiscoveredEndpoint{
		URL:           e.EndpointURL,
		Policy:        e.SecurityPolicyURI[strings.LastIndex(e.SecurityPolicyURI, "#")+1:],
		Mode:          strings.TrimPrefix(e.SecurityMode.String(), "MessageSecurityMode"),
		Users:         []string{},
		SecurityLevel: e.SecurityLevel,
	}
	for _, t := range e.UserIdentityTokens {
		if t != nil {
			found.Users = append(found.Users, strings.TrimPrefix(t.TokenType.String(), "UserTokenType"))
		}
	}
	if len(e.ServerCertificate) > 0 {
		sum := sha1.Sum(e.ServerCertificate) // As Part 6 §6.7.2.3 has it: it names a certificate, and proves nothing.
		found.Thumbprint = hex.EncodeToString(sum[:])
		if certificate, err := x509.ParseCertificate(e.ServerCertificate); err == nil {
			found.NotAfter = &certificate.NotAfter
		}
	}
	return found
}
