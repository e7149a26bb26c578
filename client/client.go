package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	quoratev1 "quorate/proto/quorate/v1"
)

// MaxEndpoints bounds the endpoints of a client, those included that it learns.
const MaxEndpoints = 32

// Defaults of Options.
const (
	DefaultDialTimeout    = 2 * time.Second
	DefaultAttemptTimeout = 3 * time.Second
	DefaultTimeout        = 10 * time.Second
)

// Options say how to reach a group. Only Endpoints is required.
type Options struct {
	// Endpoints are the gRPC addresses of members, HOST:PORT: 1 to 32. Any member takes any call, so one is enough for as long as it is there.
	Endpoints []string

	// CAFile, CertFile and KeyFile are PEM files: the site's authority, and the certificate that says who calls. They are given together. The certificate
	// is read again when its file changes.
	CAFile, CertFile, KeyFile string
	// TLS takes their place. Where neither is given the connections are in plain text, which only `quorate dev` takes.
	TLS *tls.Config

	// DialTimeout is how long one member may take to accept a connection; 0 means 2 s.
	DialTimeout time.Duration
	// AttemptTimeout is how long one member may take to answer a call where there are others to ask; 0 means 3 s.
	AttemptTimeout time.Duration
	// Timeout bounds a call whose context has no deadline, with all its attempts; 0 means 10 s.
	Timeout time.Duration

	// RefreshEvery makes the client learn the addresses of further members from the group, at once and in this interval: 1 s or more, 0 means never.
	// The Endpoints given are kept all the same. It makes sense where members can be reached at the addresses that they tell each other.
	RefreshEvery time.Duration

	// Logger is told when a member is lost or found, and how calls go on. Nil means that nobody is.
	Logger *slog.Logger
}

func (o *Options) complete() error {
	if len(o.Endpoints) == 0 || len(o.Endpoints) > MaxEndpoints {
		return fmt.Errorf("client: Options.Endpoints: %d are given, and 1 to %d are needed", len(o.Endpoints), MaxEndpoints)
	}
	for i, address := range o.Endpoints {
		if address == "" || slices.Contains(o.Endpoints[:i], address) {
			return fmt.Errorf("client: Options.Endpoints[%d]: %q is empty or given twice", i, address)
		}
	}
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{{"DialTimeout", &o.DialTimeout, DefaultDialTimeout}, {"AttemptTimeout", &o.AttemptTimeout, DefaultAttemptTimeout}, {"Timeout", &o.Timeout, DefaultTimeout}} {
		if *d.value < 0 {
			return fmt.Errorf("client: Options.%s: %v is negative", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	if o.RefreshEvery != 0 && o.RefreshEvery < time.Second {
		return fmt.Errorf("client: Options.RefreshEvery: %v is less than 1 s", o.RefreshEvery)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func (o *Options) transport() (credentials.TransportCredentials, error) {
	files := o.CAFile != "" || o.CertFile != "" || o.KeyFile != ""
	switch {
	case files && o.TLS != nil:
		return nil, errors.New("client: Options.TLS: it is given, and files as well")
	case files:
		config, err := tlsFromFiles(o.CAFile, o.CertFile, o.KeyFile)
		if err != nil {
			return nil, err
		}
		return credentials.NewTLS(config), nil
	case o.TLS != nil:
		return credentials.NewTLS(o.TLS), nil
	}
	return insecure.NewCredentials(), nil
}

// Client is a group as its users see it. It may be used from many goroutines, and is a grpc.ClientConnInterface: generated clients stand on it.
type Client struct {
	options   Options
	transport credentials.TransportCredentials

	mu        sync.Mutex
	endpoints []*endpoint
	// current is the endpoint that reads are sent to for as long as it answers, so that what they see doesn't go back.
	current *endpoint
	// leader is the id of the member that leads, empty while that is not known.
	leader string
	// changed is closed when a connection comes to stand or is lost.
	changed chan struct{}
	closed  bool

	ctx  context.Context
	stop context.CancelFunc
	done sync.WaitGroup
	// look asks for a search for the leader.
	look chan struct{}
}

// Open prepares a client, and begins to connect. It doesn't wait for that: ctx bounds nothing but the reading of files, and a group that can't be
// reached is found out by the first call.
func Open(ctx context.Context, options Options) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	options.Endpoints = slices.Clone(options.Endpoints)
	if err := options.complete(); err != nil {
		return nil, err
	}
	transport, err := options.transport()
	if err != nil {
		return nil, err
	}
	c := &Client{options: options, transport: transport, changed: make(chan struct{}), look: make(chan struct{}, 1)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for _, address := range options.Endpoints {
		if err := c.addEndpoint(address, "", true); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	// Clients with one configuration shall not all ask one member.
	c.mu.Lock()
	c.current = c.endpoints[startAt(len(c.endpoints))]
	c.mu.Unlock()
	c.done.Go(c.keepLooking)
	return c, nil
}

// Close ends all connections, and with them the calls and watches under way. A gate has to be closed before.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	endpoints := c.endpoints
	c.mu.Unlock()
	c.stop()
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, e.close())
	}
	c.done.Wait()
	return errors.Join(errs...)
}

// Topology is the service for topologies.
func (c *Client) Topology() quoratev1.TopologyServiceClient {
	return quoratev1.NewTopologyServiceClient(c)
}

// Leases is the service for apply leases.
func (c *Client) Leases() quoratev1.LeaseServiceClient { return quoratev1.NewLeaseServiceClient(c) }

// Applies is the service for roll-outs.
func (c *Client) Applies() quoratev1.ApplyServiceClient { return quoratev1.NewApplyServiceClient(c) }

// Serving is the service for serving leases and levels.
func (c *Client) Serving() quoratev1.ServingServiceClient {
	return quoratev1.NewServingServiceClient(c)
}

// Maintenance is the service for the maintenance of servers.
func (c *Client) Maintenance() quoratev1.MaintenanceServiceClient {
	return quoratev1.NewMaintenanceServiceClient(c)
}

// Members is the service for the members of the group.
func (c *Client) Members() quoratev1.MemberServiceClient { return quoratev1.NewMemberServiceClient(c) }

// Events is the service for events as it is; Watch resumes, and is what most want.
func (c *Client) Events() quoratev1.EventServiceClient { return quoratev1.NewEventServiceClient(c) }

// Partitions is the service for partitions and their migrations.
func (c *Client) Partitions() quoratev1.PartitionServiceClient {
	return quoratev1.NewPartitionServiceClient(c)
}

// Gates is the service for gate checks as it is; Gate answers from memory, and is what most want.
func (c *Client) Gates() quoratev1.GateServiceClient { return quoratev1.NewGateServiceClient(c) }
