// Package opcua is Quorate's own OPC UA endpoint: the nodes by which clients see redundancy and the replicated state, on the
// runtime of the packages below it, which know nothing of Quorate.
//
// An [Endpoint] puts a table of live nodes in front of the standard's namespace 0: ServiceLevel, ServerStatus and
// ServerRedundancy with the values of redundancy.md §7 (redundancy.go, status.go, capabilities.go). A namespace of its own,
// urn:quorate:state, shows the replicated state (state.go, and one file per noun: topology.go, apply.go, partition.go); its NodeIds and
// browse paths are the same on all members. Partitions, of which there may be two million, are not in the table: their nodes are made
// of the state when somebody asks for them. Values are computed when they are read, from the group's state and from
// the redundancy manager, through the small interfaces [Group] and [Redundancy]; those of one Read are of one state. What changed is pushed: the manager
// tells of levels, the group of everything else, and a new topology changes the nodes without a restart. The Server object tells of levels,
// roles, roll-outs, applies and partitions by events too (events*.go), and has the method by which an administrator declares maintenance (methods.go).
// Where a policy says so, clients are kept out of a server that they should not use (evict.go).
//
// The client*.go files are the other side: reading, watching and browsing any server, for the command line. The client that fails
// over between servers is a package of its own, failover.
package opcua

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/node"
	"quorate/opcua/certstore"
	"quorate/opcua/channel"
	"quorate/opcua/login"
	"quorate/opcua/nodeset"
	"quorate/opcua/server"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
	"quorate/telemetry"
)

// StateNamespace is the URI of the namespace with the replicated state. Its index is stateIndex on every member.
const StateNamespace = "urn:quorate:state"

const stateIndex = 2

// pushInterval is the least time between two rounds of pushing what was applied. The first change after a silence is pushed
// at once, and levels always are; a group under load costs 200 rounds a second at most.
const pushInterval = 5 * time.Millisecond

// memberPlaces are the connections and sessions that the members' probes have to themselves where clients have taken all others: a server whose peers can't probe it
// counts as unreachable. Each of nine voters may have one here, and each of eight servers of a set, and they overlap while one is made anew.
const memberPlaces = 64

// MaxShutdownNotice is the longest time for which a server may announce its end.
const MaxShutdownNotice = time.Minute

// Group is the replicated state, as GroupOf gives it.
type Group interface {
	Local() node.View
	Changed() <-chan struct{}
	// Watch gives the events of a revision and later, or from now on if it is 0.
	Watch(from uint64) (EventStream, error)
}

// EventStream is a place in the stream of events, as *node.Watch is.
type EventStream interface {
	Next(ctx context.Context) (events []*quoratev1.Event, revision uint64, err error)
	Close()
}

// GroupOf is the group that a node is a member of.
func GroupOf(n *node.Node) Group { return nodeGroup{n} }

type nodeGroup struct{ *node.Node }

func (g nodeGroup) Watch(from uint64) (EventStream, error) { return g.Node.Watch(from) }

// Redundancy is what the endpoint shows of this member's fitness, as *redundancy.Manager gives it.
type Redundancy interface {
	Level() redundancy.Level
	Peer(server string) (redundancy.PeerView, bool)
	Subscribe(func()) (cancel func())
}

// Config is what an Endpoint is made from. Member, ApplicationURI, Group, Redundancy and Certificate are required.
type Config struct {
	// Member is the id of this member.
	Member string
	// ApplicationURI is that of the application certificate.
	ApplicationURI string
	Group          Group
	Redundancy     Redundancy
	// Certificate gives the application certificate (DER chain, leaf first) and its key. It is asked at every new channel.
	Certificate func() (chain []byte, key *rsa.PrivateKey)

	// AllowNone offers an endpoint without security.
	AllowNone bool
	// AllowAnonymous takes sessions without a user on every endpoint. Without it they are taken only of this member's own
	// application and of the servers of the topology, which probe each other, and may read and nothing else. These are told from
	// others by trusted certificates, so it needs Applications then.
	AllowAnonymous bool
	// Applications are the client applications that are trusted; nil trusts whoever has a certificate that can be used. This
	// member's own certificate is trusted in any case.
	Applications *certstore.Store
	// Users knows who logs in by a user name and a password, and the roles of those with a certificate. Nil lets nobody
	// log in by name.
	Users *login.Users
	// UserCertificates are the users who are trusted by their certificates; nil takes none. Who has no role in Users is a viewer.
	UserCertificates *certstore.Store

	// SetMaintenance is behind the method RequestServerStateChange. Without it the Server object has no such method.
	SetMaintenance MaintenanceFunc

	// Version is shown in BuildInfo.
	Version string
	// ShutdownNotice is for how long the end is announced before sessions are closed, 0 to MaxShutdownNotice.
	ShutdownNotice time.Duration

	Limits        server.Limits
	ChannelLimits channel.Limits
	ChannelEvents channel.Events
	Metrics       *telemetry.Metrics // get what the endpoint measures; nil means that nobody asks
	Logger        *slog.Logger       // nil means slog.Default
	Now           func() time.Time   // nil means time.Now
}

func (c *Config) check() error {
	switch {
	case c.Member == "":
		return errors.New("member is empty")
	case c.ApplicationURI == "":
		return errors.New("applicationUri is empty")
	case c.Group == nil:
		return errors.New("group is missing")
	case c.Redundancy == nil:
		return errors.New("redundancy is missing")
	case c.Certificate == nil:
		return errors.New("certificate is missing")
	case !c.AllowAnonymous && c.Applications == nil:
		return errors.New("allowAnonymous is off, and all applications are trusted: the members' probes, which have no user, could not be told from others")
	case c.ShutdownNotice < 0 || c.ShutdownNotice > MaxShutdownNotice:
		return fmt.Errorf("shutdownNotice: %v is not within 0 and %v", c.ShutdownNotice, MaxShutdownNotice)
	}
	return nil
}

// Endpoint is this member's OPC UA server.
type Endpoint struct {
	cfg    Config
	build  ua.BuildInfo
	start  time.Time
	table  *space.Table
	space  *space.Space
	server *server.Server

	partitions *space.Collection
	counted    time.Duration // cluster time when the running barriers were pushed last; follow's own

	ending  atomic.Pointer[ending] // nil while it runs
	pushed  atomic.Pointer[pushed]
	servers map[string]struct{} // whose nodes are in the table; follow's own
	seen    seen                // of the state; follow's own
	level   levelWatch
	door    doorkeeper

	moved   func() // ends the subscription to Redundancy
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// ending is the announcement that the server will stop.
type ending struct {
	at     time.Time
	reason string
}

// pushed are the keys that are told of, by who tells.
type pushed struct {
	byLevel []space.Key // when a level moved, or what is known of a peer
	byState []space.Key // when something was applied
}

// New makes the endpoint. It must be ended with Shutdown. The error names what is wrong.
func New(cfg Config) (*Endpoint, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("opcua: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	e := &Endpoint{cfg: cfg, build: buildInfo(cfg.Version), start: cfg.Now(), table: space.NewTable(), servers: map[string]struct{}{}}
	err := e.makeSpace()
	if err != nil {
		return nil, fmt.Errorf("opcua: %w", err)
	}
	e.server, err = server.New(server.Config{
		ApplicationURI:  cfg.ApplicationURI,
		ProductURI:      productURI,
		ApplicationName: applicationName(cfg.Member),
		Space:           e.space,
		Offers:          cfg.offers(),
		Certificate:     cfg.Certificate,
		Methods:         e.methods(),
		Discovery:       e.discover,
		Verify:          cfg.verify,
		UserTokens:      cfg.userTokens(),
		Authenticate:    cfg.authenticate,
		Exempt:          cfg.exempt,
		Spare:           memberPlaces,
		// Without allowAnonymous it takes a certificate to be without a user.
		AnonymousNeedsSecurity: !cfg.AllowAnonymous,
		Limits:                 cfg.Limits,
		ChannelLimits:          cfg.ChannelLimits,
		ChannelEvents:          cfg.ChannelEvents,
		Logger:                 cfg.Logger,
		Now:                    cfg.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("opcua: %w", err)
	}
	if err := e.measure(cfg.Metrics); err != nil {
		return nil, errors.Join(err, e.server.Shutdown(context.Background()))
	}
	events, err := cfg.Group.Watch(0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opcua: %w", err), e.server.Shutdown(context.Background()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.cancel = cancel
	e.level.last = cfg.Redundancy.Level() // What is before the beginning is no news.
	e.seen.look(cfg.Group.Local().State)
	e.moved = cfg.Redundancy.Subscribe(e.levelMoved)
	e.keepDoor()
	e.running.Go(func() { e.follow(ctx) })
	e.running.Go(func() { e.followPartitions(ctx, events) })
	return e, nil
}

// makeSpace makes the address space: the table in front, the collections, and the standard's nodes behind them.
func (e *Endpoint) makeSpace() error {
	standard, err := nodeset.New(nodeset.Options{Remove: e.cfg.unsupported()})
	if err != nil {
		return err
	}
	if e.partitions, err = e.partitionCollection(); err != nil {
		return err
	}
	if e.space, err = space.New([]string{space.NamespaceUA, e.cfg.ApplicationURI, StateNamespace}, e.table, e.partitions, standard); err != nil {
		return err
	}
	if err := e.table.Edit(func(edit *space.Edit) error {
		b := &builder{edit: edit, standard: standard}
		e.statusNodes(b)
		e.redundancyNodes(b)
		e.capabilityNodes(b)
		e.stateNodes(b)
		e.eventNodes(b)
		return b.err
	}); err != nil {
		return err
	}
	return e.followTopology()
}

// Serve accepts connections from l until Shutdown, and closes l.
func (e *Endpoint) Serve(l net.Listener) error { return e.server.Serve(l) }

// Shutdown announces the end for the configured notice, and then ends all sessions and connections. The whole takes until ctx
// ends at most.
func (e *Endpoint) Shutdown(ctx context.Context) error {
	if e.ending.CompareAndSwap(nil, &ending{at: e.cfg.Now().Add(e.cfg.ShutdownNotice), reason: "The member is stopping."}) {
		e.space.Changed(endingKeys...)
		if e.cfg.ShutdownNotice > 0 {
			notice := time.NewTimer(e.cfg.ShutdownNotice)
			select {
			case <-notice.C:
			case <-ctx.Done():
				notice.Stop()
			}
		}
	}
	e.moved()
	e.cancel()
	e.running.Wait()
	return e.server.Shutdown(ctx)
}

// follow pushes what the group applied until ctx ends.
func (e *Endpoint) follow(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		changed := e.cfg.Group.Changed() // Before looking, so that no change falls between.
		if err := e.followTopology(); err != nil {
			e.cfg.Logger.Error("the nodes do not show the new topology", "error", err)
		}
		e.space.Changed(e.pushed.Load().byState...)
		e.keepDoor()
		state := e.cfg.Group.Local().State
		for _, n := range e.seen.look(state) {
			n.tell(e)
		}
		e.countDown(state)
		pause.Reset(pushInterval)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
