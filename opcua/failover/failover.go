// Package failover is an OPC UA client that stays with the best server of a redundant set: the client side of non-transparent
// redundancy (OPC 10000-4 §6.6.2.4.5). It works with any server that follows the standard, and knows nothing of Quorate.
//
// A [Client] is made by [New] from a [Config] with the URL of any one server of the set, and works while [Client.Run] runs. From
// that server it learns the others (ServerUriArray and FindServers), watches ServiceLevel, and hands the values of the configured
// nodes on from one server at a time. Each move to another server is a [CutOver], reported with its duration and the samples lost.
//
// When to move is one pure function (decide.go): never from a Healthy server, from a Degraded one only to a known Healthy
// one, and from one that has no data, is gone, or is in maintenance to the best there is. What is held ready at the other
// servers depends on the [Mode].
//
// Inside, one goroutine decides (run.go). It talks with one goroutine for each server that is connected (link.go), which opens a
// session, makes one subscription, and reports what it sees; when its connection fails, it makes a new one, after a pause that
// grows. Nothing of the underlying client's own reconnecting is used. Which values are duplicates, and how many are missing, is
// kept apart from all that (flow.go).
package failover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
)

const (
	// MaxNodes is the most nodes of one Client.
	MaxNodes = 1000
	// MaxServers is the most servers of a set that are looked at; what a server lists beyond is ignored.
	MaxServers = 16
	// MaxInterval is the longest PublishingInterval and SamplingInterval. With MaxKeepAlive it keeps a session that says
	// nothing but Publish well within its time-out.
	MaxInterval = 10 * time.Second
	// MaxQueueSize is the largest QueueSize.
	MaxQueueSize = 10_000
	// MaxKeepAlive is the longest KeepAlive.
	MaxKeepAlive = 10 * time.Second
	// MaxAbsence is for how long an EstimatedReturnTime is believed. A server that is away longer is looked at once in that time.
	MaxAbsence = 24 * time.Hour

	// DefaultPublishingInterval stands where Config.PublishingInterval is 0.
	DefaultPublishingInterval = 100 * time.Millisecond
	// DefaultQueueSize stands where Config.QueueSize is 0.
	DefaultQueueSize = 100
	// DefaultKeepAlive stands where Config.KeepAlive is 0.
	DefaultKeepAlive = time.Second

	// StartAttempts is how often the server of Config.URL is tried before Run gives up, if no server was ever reached.
	StartAttempts = 3
	// FirstRetry is the time between the first two attempts to connect to a server. It doubles with each, and each is shortened
	// at random by up to a half, so that the clients of a set do not all come at once.
	FirstRetry = 100 * time.Millisecond
	// LastRetry is what that time grows to.
	LastRetry = 10 * time.Second
	// ChooseWait is for how long servers that have not answered yet are waited for before a server that is not Healthy is chosen.
	ChooseWait = time.Second
	// MaintenanceRetry is when a server in maintenance is looked at again where it gives no EstimatedReturnTime that lies ahead.
	MaintenanceRetry = time.Minute

	// eventQueue is how many reports of servers may wait for the goroutine that decides; then the servers wait.
	eventQueue = 64
)

// ErrNoServer is what Run and Read return where no server of the set can be used.
var ErrNoServer = errors.New("no server of the set can be used")

// Config says what to do. URL is required.
type Config struct {
	// URL is that of any one server of the set: opc.tcp://HOST:PORT[/PATH]. That server is always reached by this URL, whatever the
	// others say of it, because it is known to lead there from here.
	URL string
	// Session has the security and the user, the same for all servers. Its RequestTimeout is not used.
	Session session.Options
	// Mode is what is held ready at the servers that are not in use. Auto takes it from the server's RedundancySupport.
	Mode Mode

	// Nodes are monitored, at most MaxNodes. None is allowed: then only the servers are watched.
	Nodes []*ua.NodeID
	// PublishingInterval is asked for, up to MaxInterval; 0 means the default.
	PublishingInterval time.Duration
	// SamplingInterval is asked for, up to MaxInterval; 0 is as fast as the server can, or by exception.
	SamplingInterval time.Duration
	// QueueSize is how many samples of each node a server is to keep between two messages, up to MaxQueueSize; 0 means the
	// default. In mode HotA it is also how much of the past a cut-over can recover: QueueSize × the sampling interval.
	QueueSize uint32
	// KeepAlive is for how long a server may be silent, up to MaxKeepAlive; 0 means the default. A server that says nothing for
	// that time and 2 s more is taken for dead.
	KeepAlive time.Duration
	// GiveUp ends Run with ErrNoServer when no server could be used for that long. 0 is never.
	GiveUp time.Duration

	// The callbacks may be nil. All are called on the goroutine of Run, one at a time, and must not call Run. While one blocks,
	// nothing else happens, and the servers queue what they have.

	// OnValue gets each value of a node, without duplicates.
	OnValue func(Value)
	// OnCutOver gets each move to another server once it is complete, and the first choice of one.
	OnCutOver func(CutOver)
	// OnServers gets what is known of all servers whenever any of it changes.
	OnServers func([]Server)
	// OnLost gets the number of messages that the server in use could not give again although they were never received
	// (OPC 10000-4 §5.14.5); each held at least one value.
	OnLost func(Server, int)

	// Now tells the wall-clock time, with which EstimatedReturnTime is compared. Nil is time.Now. Intervals go by the monotonic
	// clock, whatever Now says.
	Now func() time.Time
}

// Value is a value of a node.
type Value struct {
	// Node is the index in Config.Nodes.
	Node int
	// Server is the URL of the server that it came from.
	Server string
	// Data is the value with its status and both timestamps. A node that can't be monitored has a Data with only its status.
	Data *ua.DataValue
}

// Client is a failover client. Its methods may be called by any goroutine.
type Client struct {
	cfg    Config
	dial   func(context.Context, string, session.Options) (conn, error)
	jitter func(time.Duration) time.Duration

	mu      sync.Mutex
	running bool
	known   []Server
	inUse   *link
}

// New makes a client that does nothing until Run. An error names the field of cfg that is wrong.
func New(cfg Config) (*Client, error) {
	if cfg.PublishingInterval == 0 {
		cfg.PublishingInterval = DefaultPublishingInterval
	}
	if cfg.QueueSize == 0 {
		cfg.QueueSize = DefaultQueueSize
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = DefaultKeepAlive
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("failover: %w", err)
	}
	cfg.Session.RequestTimeout = publishTimeout
	return &Client{cfg: cfg, dial: dial, jitter: halfAtRandom}, nil
}

func (c *Config) check() error {
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "opc.tcp" || u.Host == "" {
		return fmt.Errorf("Config.URL: %q is not opc.tcp://HOST:PORT[/PATH]", c.URL)
	}
	if c.Mode < Auto || c.Mode > HotB {
		return fmt.Errorf("Config.Mode: there is no mode %d", c.Mode)
	}
	if len(c.Nodes) > MaxNodes {
		return fmt.Errorf("Config.Nodes: at most %d, got %d", MaxNodes, len(c.Nodes))
	}
	for i, n := range c.Nodes {
		if n == nil {
			return fmt.Errorf("Config.Nodes[%d] is nil", i)
		}
	}
	if c.QueueSize > MaxQueueSize {
		return fmt.Errorf("Config.QueueSize: at most %d, got %d", MaxQueueSize, c.QueueSize)
	}
	for _, d := range []struct {
		field            string
		value, low, high time.Duration
	}{
		{"Config.PublishingInterval", c.PublishingInterval, time.Millisecond, MaxInterval},
		{"Config.SamplingInterval", c.SamplingInterval, 0, MaxInterval},
		{"Config.KeepAlive", c.KeepAlive, time.Millisecond, MaxKeepAlive},
		{"Config.GiveUp", c.GiveUp, 0, 1<<63 - 1},
	} {
		if d.value < d.low || d.value > d.high {
			return fmt.Errorf("%s: %v is not within %v and %v", d.field, d.value, d.low, d.high)
		}
	}
	return nil
}

// halfAtRandom shortens a pause by up to a half.
func halfAtRandom(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// Run works until ctx ends, whose error it returns, or until it gives up: when the first server can't be reached, or none for
// Config.GiveUp. When it returns, all its connections are closed and all its goroutines have ended. A second Run while one
// runs is an error; after one has ended, another may begin.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("failover: Run is running already")
	}
	c.running = true
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	r := newRun(ctx, c)
	err := r.loop(ctx)
	cancel()
	r.links.Wait()
	c.mu.Lock()
	c.running, c.inUse, c.known = false, nil, nil
	c.mu.Unlock()
	return err
}

// Servers returns what is known of the servers of the set; the order is that of the server in use, itself first. It is empty
// while Run does not run.
func (c *Client) Servers() []Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.known)
}

// Read reads the values of nodes from the server in use, in one request. A node that can't be read has its status in the
// result. ErrNoServer says that none is in use; then and after any other error, which is about the connection, the caller may
// try again, and a cut-over may have happened meanwhile.
func (c *Client) Read(ctx context.Context, nodes ...*ua.NodeID) ([]*ua.DataValue, error) {
	c.mu.Lock()
	inUse := c.inUse
	c.mu.Unlock()
	if inUse == nil {
		return nil, ErrNoServer
	}
	connected := inUse.conn.Load()
	if connected == nil {
		return nil, ErrNoServer
	}
	return readValues(ctx, *connected, nodes...)
}
