package fsm

import (
	"net/netip"
	"strconv"
	"strings"
)

// The checks of single fields. They are written out here instead of using parsers of the standard library where those have
// changed what they accept between Go versions (net/url has): every member must judge alike during an upgrade.

// firstRefusal returns the first refusal that is one.
func firstRefusal(refusals ...*Refusal) *Refusal {
	for _, r := range refusals {
		if r != nil {
			return r
		}
	}
	return nil
}

// checkText refuses a text that is too long, in bytes.
func checkText(field, text string, limit int) *Refusal {
	if len(text) > limit {
		return invalid(ReasonTooLong, field, "%d bytes are more than the %d allowed", len(text), limit)
	}
	return nil
}

// validID says whether an id is 1 to 64 of a-z, 0-9, '-', '_', '.', and begins with a letter or digit.
func validID(id string) bool {
	if id == "" || len(id) > MaxIDBytes {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || isDigit(c) || i > 0 && (c == '-' || c == '_' || c == '.')) {
			return false
		}
	}
	return true
}

const idForm = "1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// graphic says whether a text is 1 to MaxURLBytes printable ASCII characters other than space.
func graphic(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] >= 0x7f {
			return false
		}
	}
	return text != "" && len(text) <= MaxURLBytes
}

// validApplicationURI says whether a text is an ApplicationUri in urn: or opc.tcp:// form.
func validApplicationURI(uri string) bool {
	if !graphic(uri) {
		return false
	}
	if rest, ok := strings.CutPrefix(uri, "urn:"); ok {
		// RFC 8141 §2: urn:NID:NSS, and neither is empty.
		nid, nss, ok := strings.Cut(rest, ":")
		return ok && nid != "" && nss != ""
	}
	rest, ok := strings.CutPrefix(uri, "opc.tcp://")
	return ok && rest != ""
}

// validEndpointURL says whether a text is opc.tcp://HOST:PORT[/PATH] (OPC 10000-6 §7.2).
func validEndpointURL(text string) bool {
	rest, ok := strings.CutPrefix(text, "opc.tcp://")
	if !ok || !graphic(text) {
		return false
	}
	authority, path, _ := strings.Cut(rest, "/")
	host, port, ok := splitPort(authority)
	return ok && validHost(host) && validPort(port) && !strings.ContainsAny(path, "?#")
}

// validHealthURL says whether a text is http://HOST[:PORT][/PATH][?QUERY] or the same with https.
func validHealthURL(text string) bool {
	rest, ok := strings.CutPrefix(text, "http://")
	if !ok {
		rest, ok = strings.CutPrefix(text, "https://")
	}
	if !ok || !graphic(text) || strings.Contains(rest, "#") {
		return false
	}
	authority := rest
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		authority = rest[:end]
	}
	if host, port, ok := splitPort(authority); ok {
		return validHost(host) && validPort(port)
	}
	return validHost(authority)
}

// splitPort splits HOST:PORT at the colon that does not belong to an IPv6 address in brackets.
func splitPort(authority string) (host, port string, ok bool) {
	colon := strings.LastIndexByte(authority, ':')
	if colon < 0 || strings.HasSuffix(authority, "]") {
		return "", "", false
	}
	return authority[:colon], authority[colon+1:], true
}

// validHost says whether a host is an IPv6 address in brackets, an IPv4 address, or a DNS name (RFC 1123 §2.1).
func validHost(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return ok && err == nil && addr.Is6() && addr.Zone() == ""
	}
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c) || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// validPort says whether a port is a decimal number from 1 to 65535.
func validPort(port string) bool {
	number := 0
	for i := range len(port) {
		if !isDigit(port[i]) || len(port) > 5 {
			return false
		}
		number = number*10 + int(port[i]-'0')
	}
	return number >= 1 && number <= 65535
}

// quote quotes what a client sent for a message: in ASCII, and shortened.
func quote(text string) string {
	const shown = 64
	if len(text) > shown {
		return strconv.QuoteToASCII(text[:shown]) + "…"
	}
	return strconv.QuoteToASCII(text)
}
