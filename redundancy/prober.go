package redundancy

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
)

const (
	// maxHealthBody is how much of a health answer is read: its status is what counts.
	maxHealthBody = 4 << 10
	// maxDescribedBytes is how much is kept of each text that a peer says of itself.
	maxDescribedBytes = 512
	// idleHealthConnection is how long the connection of a peer that is probed no more stays open.
	idleHealthConnection = 30 * time.Second
)

// ProberConfig says how peers are talked to.
type ProberConfig struct {
	// Certificate (DER) and Key are this member's OPC UA application's, for peers that don't offer None. A function, because
	// certificates are renewed without a restart; nil means there is none.
	Certificate func() (der []byte, key *rsa.PrivateKey)
	// TLS is for health URLs of scheme https; nil means the defaults of Go.
	TLS *tls.Config
}

// prober is the real Prober. All its probes share one HTTP client.
type prober struct {
	http        *http.Client
	certificate func() ([]byte, *rsa.PrivateKey)
}

// NewProber returns the Prober that asks /healthz by HTTP and then reads over an OPC UA session.
func NewProber(cfg ProberConfig) Prober {
	if cfg.Certificate == nil {
		cfg.Certificate = func() ([]byte, *rsa.PrivateKey) { return nil, nil }
	}
	return &prober{
		certificate: cfg.Certificate,
		http: &http.Client{
			// A redirect leads away from the peer that was asked about.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				TLSClientConfig:        cfg.TLS,
				MaxIdleConnsPerHost:    1,
				MaxResponseHeaderBytes: maxHealthBody,
				IdleConnTimeout:        idleHealthConnection,
			},
		},
	}
}

func (p *prober) Open(t Target) Probe { return &probe{prober: p, target: t} }

func (p *prober) Close() { p.http.CloseIdleConnections() }

func (p *prober) session(ctx context.Context, endpointURL, name string) (*session.Session, error) {
	certificate, key := p.certificate()
	return session.Open(ctx, endpointURL, session.Options{PreferNone: true, Certificate: certificate, Key: key, Name: name})
}

func (p *prober) Witness(ctx context.Context, endpointURL, node string) error {
	nodeID, err := ua.ParseNodeID(node)
	if err != nil {
		return fmt.Errorf("witness node %q: %w", node, err)
	}
	s, err := p.session(ctx, endpointURL, "quorate witness")
	if err != nil {
		return err
	}
	defer s.Close()
	values, err := s.Read(ctx, nodeID)
	if err != nil {
		return err
	}
	if status := values[0].Status; status != ua.StatusOK {
		return fmt.Errorf("witness node %s: %w", node, status)
	}
	return nil
}

func checkNodeID(node string) error {
	if _, err := ua.ParseNodeID(node); err != nil {
		return fmt.Errorf("%q is no NodeId: %w", node, err)
	}
	return nil
}

// stateNamespace is the namespace in which our servers say what they work under. Package opcua makes its nodes, and tests that probes find them.
const stateNamespace = "urn:quorate:state"

// probe keeps one OPC UA session to one peer for as long as it works.
type probe struct {
	prober  *prober
	target  Target
	session *session.Session
	nodes   []*ua.NodeID // what one probe reads through this session, in the order of interpret
}

// sampled are the nodes that every server has.
var sampled = []*ua.NodeID{
	ua.NewNumericNodeID(0, id.Server_ServiceLevel),
	ua.NewNumericNodeID(0, id.Server_ServerStatus_State),
	ua.NewNumericNodeID(0, id.Server_ServerArray),
}

// described are what our servers say of themselves. The generation is read before and after the rest: where both are the same, the rest is of it.
var described = []string{"ConfigGenerationId", "TopologyDigest", "Role", "ConfigGenerationId"}

// nodesOf returns what to read of a server with that NamespaceArray: the index of our namespace is each server's own matter.
func nodesOf(server string, namespaces []string) []*ua.NodeID {
	nodes := slices.Clone(sampled)
	index := slices.Index(namespaces, stateNamespace)
	if index < 0 || index > math.MaxUint16 {
		return nodes
	}
	for _, name := range described {
		nodes = append(nodes, ua.NewStringNodeID(uint16(index), "servers/"+server+"/"+name))
	}
	return nodes
}

func (p *probe) Sample(ctx context.Context) (Sample, error) {
	if err := p.health(ctx); err != nil {
		return Sample{}, err
	}
	kept := p.session != nil
	s, err := p.read(ctx)
	if err != nil && kept && ctx.Err() == nil {
		// The peer may have restarted since the last sample: that a session died with it says nothing about the peer of now.
		s, err = p.read(ctx)
	}
	return s, err
}

func (p *probe) Close() {
	if p.session != nil {
		p.session.Close()
		p.session = nil
	}
}

// health is the fast half: its failure is a failed sample.
func (p *probe) health(ctx context.Context) error {
	if p.target.HealthURL == "" {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.target.HealthURL, nil)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	response, err := p.prober.http.Do(request)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	// Reading to the end lets the connection be used again; what comes beyond the limit closes it.
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxHealthBody))
	response.Body.Close()
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("health: %s answered %s", p.target.HealthURL, response.Status)
	}
	return nil
}

// read is the half with authority. A session that failed is closed.
func (p *probe) read(ctx context.Context) (s Sample, err error) {
	if p.session == nil {
		if err := p.open(ctx); err != nil {
			return Sample{}, err
		}
	}
	values, err := p.session.Read(ctx, p.nodes...)
	if err != nil {
		p.Close()
		return Sample{}, fmt.Errorf("read %s: %w", p.target.EndpointURL, err)
	}
	return interpret(values)
}

// open opens the session, and asks how the namespaces are numbered in it.
func (p *probe) open(ctx context.Context) error {
	s, err := p.prober.session(ctx, p.target.EndpointURL, "quorate probe")
	if err != nil {
		return err
	}
	values, err := s.Read(ctx, ua.NewNumericNodeID(0, id.Server_NamespaceArray))
	if err != nil {
		s.Close()
		return fmt.Errorf("read the namespaces of %s: %w", p.target.EndpointURL, err)
	}
	namespaces, _ := content(values[0]).([]string)
	p.session, p.nodes = s, nodesOf(p.target.Server, namespaces)
	return nil
}

// interpret makes a sample of what was read. Only ServiceLevel is indispensable.
func interpret(values []*ua.DataValue) (Sample, error) {
	level, ok := content(values[0]).(byte)
	if !ok {
		return Sample{}, fmt.Errorf("ServiceLevel is no Byte but %T: %w", content(values[0]), values[0].Status)
	}
	s := Sample{ServiceLevel: level, State: ua.ServerStateUnknown}
	if state, ok := content(values[1]).(int32); ok {
		s.State = ua.ServerState(state)
	}
	if uris, ok := content(values[2]).([]string); ok && len(uris) > 0 {
		s.ApplicationURI = uris[0]
	}
	if own := values[len(sampled):]; len(own) == len(described) {
		before, _ := content(own[0]).(uint64)
		digest, _ := content(own[1]).(string)
		role, _ := content(own[2]).(string)
		after, _ := content(own[3]).(uint64)
		if before == after && before != 0 {
			s.Generation, s.Digest, s.Role = before, bounded(digest, maxDescribedBytes), bounded(role, maxDescribedBytes)
		}
	}
	s.ApplicationURI = bounded(s.ApplicationURI, maxDescribedBytes)
	return s, nil
}

// content returns a value that was read well, or nil.
func content(v *ua.DataValue) any {
	if v.Status != ua.StatusOK || v.Value == nil {
		return nil
	}
	return v.Value.Value()
}
