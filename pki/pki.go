// Package pki says who is who: it makes the development certificate authority of a site, issues certificates to members
// and people, reads the identity back out of a certificate, and keeps TLS settings that follow the files on disk.
//
// A site is one trust domain. Its authority signs two sorts of certificates, told apart by their single URI SAN:
//
//	spiffe://SITE/member/ID      a member of the group, which may speak raft
//	spiffe://SITE/role/ROLE      a person (the name is the common name) who is viewer, operator or administrator
//
// Identity, not the host name, is what members check of each other: a member expects the certificate of one named
// member of its own site, and nothing else will do. People's clients check the host name as well, as browsers do.
// Certificates are read again whenever their files change, so that renewing one needs no restart; what doesn't load or
// doesn't verify is refused and the certificate in use stays. TLS is version 1.3 everywhere, without session tickets,
// because every connection shall be judged by the certificates of now.
//
// The OPC UA application instance certificate is a thing of its own, with an RSA key. It is either signed by an authority
// for applications beside the site's, so that to trust all members is to trust one certificate, or self-signed, made once
// and then kept, since clients trust it by its thumbprint.
package pki

import "time"

// The limits of what is read and issued.
const (
	// MaxFileBytes bounds a certificate, key or authority file.
	MaxFileBytes = 1 << 20
	// MaxHosts bounds the host names and addresses in one certificate.
	MaxHosts = 32
	// MaxListed bounds the certificates that List returns.
	MaxListed = 4096
	// AuthorityValidity is how long a development authority lasts.
	AuthorityValidity = 10 * 365 * 24 * time.Hour
	// DefaultValidity is how long an issued certificate lasts unless it is told otherwise.
	DefaultValidity = 365 * 24 * time.Hour
	// MinValidity is the least that can be asked for.
	MinValidity = time.Minute
	// ApplicationValidity is how long an OPC UA application instance certificate lasts. Clients pin it by hand, so it is
	// long.
	ApplicationValidity = 10 * 365 * 24 * time.Hour
	// Backdating lets a certificate be used at once by a machine whose clock is behind.
	Backdating = 5 * time.Minute
)
