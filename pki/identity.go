package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Role is what a caller may do; each role includes the ones before it.
type Role int

// The roles, in ascending order. The zero role may do nothing.
const (
	RoleNone Role = iota
	RoleViewer
	RoleOperator
	RoleAdministrator
)

var roleNames = map[Role]string{RoleViewer: "viewer", RoleOperator: "operator", RoleAdministrator: "administrator"}

// String returns the name of the role as it stands in certificates, "none" for the zero role.
func (r Role) String() string {
	if name, ok := roleNames[r]; ok {
		return name
	}
	return "none"
}

// ParseRole returns the role of that name: viewer, operator or administrator.
func ParseRole(name string) (Role, error) {
	for role, n := range roleNames {
		if n == name {
			return role, nil
		}
	}
	return RoleNone, fmt.Errorf("pki: role: %q is not viewer, operator or administrator", name)
}

// Identity is who a certificate says its holder is.
type Identity struct {
	// Site is the trust domain.
	Site string
	// Name is the id of a member, or the common name of a person.
	Name string
	// Role is what the holder may do at the public API. A member may look, so that members can probe each other.
	Role Role
	// Member says that the holder is a member of the group.
	Member bool
}

// URI returns the SPIFFE id that the identity has in a certificate.
func (i Identity) URI() *url.URL {
	path := "/role/" + i.Role.String()
	if i.Member {
		path = "/member/" + i.Name
	}
	return &url.URL{Scheme: "spiffe", Host: i.Site, Path: path}
}

// maxNameBytes is the bound of X.520 for a common name, and ours for member ids.
const maxNameBytes = 64

var (
	siteForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	memberForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	personForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)
)

// maxSiteBytes keeps a site within one certificate URI of modest size.
const maxSiteBytes = 64

// IdentityOf reads the identity out of a certificate. It verifies nothing: that the certificate is to be believed is for
// the TLS configurations of Credentials to establish first. As SPIFFE asks, a certificate has exactly one URI SAN.
func IdentityOf(certificate *x509.Certificate) (Identity, error) {
	if certificate == nil {
		return Identity{}, errors.New("pki: no certificate")
	}
	if len(certificate.URIs) != 1 {
		return Identity{}, fmt.Errorf("pki: the certificate has %d URI names, an identity has exactly one", len(certificate.URIs))
	}
	identity, err := parseURI(certificate.URIs[0])
	if err != nil {
		return Identity{}, err
	}
	if !identity.Member {
		if err := checkCommonName(certificate.Subject.CommonName); err != nil {
			return Identity{}, err
		}
		identity.Name = certificate.Subject.CommonName
	}
	return identity, nil
}

// parseURI accepts exactly the two forms of the package comment; a person's name is not in it.
func parseURI(u *url.URL) (Identity, error) {
	refuse := func(why string) (Identity, error) {
		return Identity{}, fmt.Errorf("pki: URI name %q %s", u.String(), why)
	}
	if u.Scheme != "spiffe" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "" {
		return refuse("is not of the form spiffe://SITE/member/ID or spiffe://SITE/role/ROLE")
	}
	if !validSite(u.Host) {
		return refuse("has no valid site")
	}
	kind, name, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	switch kind {
	case "member":
		if !memberForm.MatchString(name) {
			return refuse("has no valid member id")
		}
		return Identity{Site: u.Host, Name: name, Role: RoleViewer, Member: true}, nil
	case "role":
		role, err := ParseRole(name)
		if err != nil {
			return refuse("has no role that is viewer, operator or administrator")
		}
		return Identity{Site: u.Host, Role: role}, nil
	}
	return refuse("names neither a member nor a role")
}

func validSite(site string) bool {
	return len(site) <= maxSiteBytes && siteForm.MatchString(site)
}

// checkCommonName is wider than what Issue makes, because another authority may have signed; the name goes into the
// audit trail and logs, so nothing that could forge a line of them is let in.
func checkCommonName(name string) error {
	if name == "" || len(name) > maxNameBytes || !utf8.ValidString(name) {
		return fmt.Errorf("pki: a person's common name has 1 to %d bytes of UTF-8", maxNameBytes)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return errors.New("pki: a person's common name has only printable characters")
		}
	}
	return nil
}
