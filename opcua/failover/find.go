package failover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
)

// conn is a session at a server.
type conn interface {
	Send(context.Context, ua.Request) (ua.Response, error)
	Close()
}

// guarded is a conn to a real server.
type guarded struct{ *session.Session }

func (g guarded) Send(ctx context.Context, r ua.Request) (ua.Response, error) {
	return session.Call[ua.Response](ctx, g.Session, r)
}

func dial(ctx context.Context, endpointURL string, o session.Options) (conn, error) {
	s, err := session.Open(ctx, endpointURL, o)
	if err != nil {
		return nil, err
	}
	return guarded{s}, nil
}

// send sends a request, whose response is of type R or an error.
func send[R ua.Response](ctx context.Context, c conn, request ua.Request) (R, error) {
	var none R
	response, err := c.Send(ctx, request)
	service := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", request), "*ua."), "Request")
	if errors.Is(err, io.EOF) {
		return none, fmt.Errorf("%s: the connection was closed: %w", service, err)
	}
	if err != nil {
		return none, fmt.Errorf("%s: %w", service, err)
	}
	r, ok := response.(R)
	if !ok {
		return none, fmt.Errorf("%s answered with %T: %w", service, response, ua.StatusBadUnknownResponse)
	}
	return r, nil
}

func readValues(ctx context.Context, c conn, nodes ...*ua.NodeID) ([]*ua.DataValue, error) {
	request := &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnBoth}
	for _, n := range nodes {
		request.NodesToRead = append(request.NodesToRead, &ua.ReadValueID{NodeID: n, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}})
	}
	response, err := send[*ua.ReadResponse](ctx, c, request)
	if err != nil {
		return nil, err
	}
	if len(response.Results) != len(nodes) || slices.Contains(response.Results, nil) {
		return nil, fmt.Errorf("read of %d nodes gave %d results: %w", len(nodes), len(response.Results), ua.StatusBadUnknownResponse)
	}
	return response.Results, nil
}

// What a server says of itself (OPC 10000-5 §6.3).
var (
	serviceLevel        = ua.NewNumericNodeID(0, id.Server_ServiceLevel)
	estimatedReturnTime = ua.NewNumericNodeID(0, id.Server_EstimatedReturnTime)
	serverArray         = ua.NewNumericNodeID(0, id.Server_ServerArray)
	redundancySupport   = ua.NewNumericNodeID(0, id.Server_ServerRedundancy_RedundancySupport)
	serverURIArray      = ua.NewNumericNodeID(0, id.Server_ServerRedundancy_ServerURIArray)
)

// target is a server to connect to.
type target struct{ uri, url string }

// facts are what a server says of itself and of its set.
type facts struct {
	level   byte
	returns time.Time // zero where it doesn't say
	mode    Mode
	self    string   // its ApplicationUri, empty where it doesn't say
	set     []target // itself first, by the URL that led to it; then those that have a URL
}

// ask asks a server for its facts. One that is not redundant is a set of one, without an error.
func ask(ctx context.Context, c conn, own string) (facts, error) {
	values, err := readValues(ctx, c, serviceLevel, estimatedReturnTime, redundancySupport, serverArray, serverURIArray)
	if err != nil {
		return facts{}, err
	}
	f := facts{level: levelOf(values[0]), returns: timeOf(values[1])}
	if v, ok := valueOf(values[2]).(int32); ok {
		f.mode = modeOf(v)
	} else {
		f.mode = Cold
	}
	uris, _ := valueOf(values[4]).([]string)
	if names, ok := valueOf(values[3]).([]string); ok && len(names) > 0 {
		f.self = names[0] // Part 5 §6.3.1: the first is the server itself.
	}
	f.set = []target{{f.self, own}}
	others := slices.DeleteFunc(slices.Clone(uris), func(uri string) bool { return uri == f.self || uri == "" })
	if len(others) == 0 {
		return f, nil
	}
	others = others[:min(len(others), MaxServers-1)]
	// The others' URLs (Part 4 §6.6.2.4.5). A server that does not know them leaves us with itself.
	found, err := send[*ua.FindServersResponse](ctx, c, &ua.FindServersRequest{EndpointURL: own, ServerURIs: others})
	if err != nil {
		if ctx.Err() != nil {
			return facts{}, err
		}
		return f, nil
	}
	for _, uri := range others {
		for _, d := range found.Servers {
			if d != nil && d.ApplicationURI == uri {
				if at := discoveryURL(d); at != "" && !slices.Contains(f.set, target{uri, at}) {
					f.set = append(f.set, target{uri, at})
				}
				break
			}
		}
	}
	return f, nil
}

// discoveryURL returns the first URL of a server that can be used.
func discoveryURL(d *ua.ApplicationDescription) string {
	for _, s := range d.DiscoveryURLs {
		if u, err := url.Parse(s); err == nil && u.Scheme == "opc.tcp" && u.Host != "" {
			return s
		}
	}
	return ""
}

// valueOf is nil unless the value is Good.
func valueOf(v *ua.DataValue) any {
	const infoBits = 0xFFFF
	if v.Value == nil || v.Status&^infoBits != ua.StatusOK {
		return nil
	}
	return v.Value.Value()
}

// levelOf is the ServiceLevel in a value. A server that knows no ServiceLevel is as good as it ever will be; one that can't tell
// it for the moment has no data.
func levelOf(v *ua.DataValue) byte {
	if level, ok := valueOf(v).(byte); ok {
		return level
	}
	if v.Status == ua.StatusBadNodeIDUnknown {
		return 255
	}
	return noData
}

// timeOf is the zero time for a null or for no time.
func timeOf(v *ua.DataValue) time.Time {
	t, _ := valueOf(v).(time.Time)
	return t
}
