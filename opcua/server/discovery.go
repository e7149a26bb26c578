package server

import (
	"net/url"
	"slices"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"quorate/opcua/channel"
)

// The Discovery service set (Part 4 §5.5). It needs no session and no security.

// transportProfile is UA TCP with UA binary encoding and UA secure conversation (Part 7).
const transportProfile = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"

// findServers lists the servers that clients can choose from, this one first among equals: by the URL that the client used.
func (v *services) findServers(ch secureChannel, r *ua.FindServersRequest) (ua.Response, ua.StatusCode) {
	if len(r.ServerURIs) > v.limits.MaxOperations {
		return nil, ua.StatusBadTooManyOperations
	}
	own := v.description(v.urlFor(ch, r.EndpointURL))
	servers := []*ua.ApplicationDescription{own}
	if v.cfg.Discovery != nil {
		for _, d := range v.cfg.Discovery() {
			if d.ApplicationURI != own.ApplicationURI {
				servers = append(servers, d)
			}
		}
	}
	if len(r.ServerURIs) > 0 {
		servers = slices.DeleteFunc(servers, func(d *ua.ApplicationDescription) bool {
			return !slices.Contains(r.ServerURIs, d.ApplicationURI)
		})
	}
	return &ua.FindServersResponse{Servers: servers}, ua.StatusOK
}

func (v *services) getEndpoints(ch secureChannel, r *ua.GetEndpointsRequest) (ua.Response, ua.StatusCode) {
	if len(r.ProfileURIs) > v.limits.MaxOperations {
		return nil, ua.StatusBadTooManyOperations
	}
	resp := &ua.GetEndpointsResponse{}
	if len(r.ProfileURIs) == 0 || slices.Contains(r.ProfileURIs, transportProfile) {
		resp.Endpoints = v.endpoints(ch, r.EndpointURL)
	}
	return resp, ua.StatusOK
}

// endpoints describes what is offered, by the URL that the client used.
func (v *services) endpoints(ch secureChannel, requested string) []*ua.EndpointDescription {
	endpointURL := v.urlFor(ch, requested)
	server := v.description(endpointURL)
	chain, _ := ch.ServerCertificate()
	list := make([]*ua.EndpointDescription, len(v.cfg.Offers))
	for i, o := range v.cfg.Offers {
		list[i] = &ua.EndpointDescription{
			EndpointURL:         endpointURL,
			Server:              server,
			ServerCertificate:   leafOf(chain),
			SecurityMode:        o.Mode,
			SecurityPolicyURI:   o.PolicyURI,
			UserIdentityTokens:  v.userTokens(o.PolicyURI),
			TransportProfileURI: transportProfile,
			SecurityLevel:       securityLevel(o),
		}
	}
	return list
}

// securityLevel ranks an offer for clients that choose by it; no security is 0, which says not to (Part 4 §7.14).
func securityLevel(o channel.SecurityOffer) uint8 {
	if o.PolicyURI == ua.SecurityPolicyURINone {
		return 0
	}
	return uapolicy.SecurityLevel(o.PolicyURI, o.Mode)
}

func (v *services) description(discoveryURL string) *ua.ApplicationDescription {
	return &ua.ApplicationDescription{
		ApplicationURI:  v.cfg.ApplicationURI,
		ProductURI:      v.cfg.ProductURI,
		ApplicationName: &ua.LocalizedText{EncodingMask: ua.LocalizedTextText, Text: v.cfg.ApplicationName},
		ApplicationType: ua.ApplicationTypeServer,
		DiscoveryURLs:   []string{discoveryURL},
	}
}

// urlFor returns the URL by which the client came, since that is the one that leads to us through its names, addresses and
// port forwards: what the request says, else what the connection said, else the address that was connected to.
func (v *services) urlFor(ch secureChannel, requested string) string {
	for _, s := range []string{requested, ch.EndpointURL()} {
		if len(s) > v.limits.MaxEndpointURLLength {
			continue
		}
		if u, err := url.Parse(s); err == nil && u.Scheme == "opc.tcp" && u.Hostname() != "" {
			return s
		}
	}
	return "opc.tcp://" + ch.LocalAddr().String()
}
