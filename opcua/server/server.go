// Package server is an OPC UA server: sessions and services (OPC 10000-4) on the secure channels of package channel, over the
// address space of package space.
//
// A [Server] is made by [New] from a [Config], serves what connects to a listener with [Server.Serve], and ends with
// [Server.Shutdown].
//
// A request comes in on the goroutine that reads its connection and is answered on it, one service set per file. Nothing but
// discovery is served without a session that was activated on the channel by which the request comes.
//
// Subscriptions have no goroutines. One schedule, on one goroutine, has the timers of all of them: of their publishing cycles,
// of values that have to be sampled, and of the time-outs of sessions. A publisher per session holds its subscriptions
// and the Publish requests that its client has parked. Values come from watches, one for each thing that is watched,
// however many items watch it: whoever changes a value and says so with space.Changed reads it once, and puts it into the
// queues of the items, whose locks are held for moments only. What happens after that (the publishing cycle, the
// sending, a client that doesn't read) is no concern of who changed the value.
//
// Everything that a client can make the server keep or do has a limit with a name: see [Limits].
package server

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
	"quorate/opcua/space"
)

// Config is what a server is made from. ApplicationURI, Offers and Space are required, the rest may be zero.
type Config struct {
	ApplicationURI  string
	ProductURI      string
	ApplicationName string

	// Space is the address space that is served.
	Space *space.Space

	// Offers, Certificate and Verify are as in channel.Config.
	Offers      []channel.SecurityOffer
	Certificate func() (chain []byte, key *rsa.PrivateKey)
	Verify      func(clientCertificate []byte) ua.StatusCode

	// Methods are what clients call, by the method's node: it has to be a component of an object of the space, and the properties
	// InputArguments and OutputArguments say what it takes and gives. GetMonitoredItems and ResendData of the Server object are
	// here by themselves, and need no more than their nodes.
	Methods map[space.Key]Method

	// Discovery gives the servers that FindServers lists; this one is added to them, by the URL that the client used. It is
	// called for every request, and must be cheap.
	Discovery func() []*ua.ApplicationDescription

	// UserTokens are the kinds of user token that every endpoint takes. Nil is anonymous only. Where one names no security policy,
	// the channel's protects its secret, and on an endpoint without security Basic256Sha256 does.
	UserTokens []*ua.UserTokenPolicy
	// AnonymousNeedsSecurity leaves anonymous out of the tokens of an endpoint without security, on which a client proves nothing.
	AnonymousNeedsSecurity bool

	// Authenticate judges a user. Its status is what ActivateSession answers, unless it is Good. Nil lets in anonymous
	// users, and then UserTokens may offer no other kind. It is called on the goroutine of the connection.
	Authenticate func(Credentials) (Identity, ua.StatusCode)

	// Exempt names the applications, by their ApplicationUris, that keep their sessions while the server is Shut, and for which there are spare places.
	// It is no protection: without security a client says of itself what it likes. Nil is none. It must be cheap.
	Exempt func(applicationURI string) bool
	// Spare is how many sessions and connections there may be beyond the limits, for Exempt applications: whoever takes all places keeps those out last.
	Spare int

	Limits        Limits
	ChannelLimits channel.Limits
	ChannelEvents channel.Events

	// Logger gets what an operator should know. Nil is silence.
	Logger *slog.Logger

	// Now gives timestamps. Nil is time.Now. Intervals and time-outs go by the monotonic clock, whatever Now says.
	Now func() time.Time
}

// Server is an OPC UA server.
type Server struct {
	services *services
	channels *channel.Server
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// New makes a server, which has to be ended by Shutdown. An error names the field of cfg that is wrong.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.UserTokens == nil {
		cfg.UserTokens = []*ua.UserTokenPolicy{{PolicyID: "anonymous", TokenType: ua.UserTokenTypeAnonymous}}
	}
	v := newServices(cfg, limits)
	cfg.ChannelLimits.SpareConnections = cfg.Spare
	channels, err := channel.NewServer(channel.Config{
		Offers:      cfg.Offers,
		Certificate: cfg.Certificate,
		Verify:      cfg.Verify,
		Limits:      cfg.ChannelLimits,
		Logger:      cfg.Logger,
		Events:      cfg.ChannelEvents,
		Now:         cfg.Now,
	}, handler{v})
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{services: v, channels: channels, cancel: cancel}
	s.running.Go(func() { v.engine.schedule.run(ctx) })
	return s, nil
}

func (c *Config) check() error {
	switch {
	case c.ApplicationURI == "":
		return errors.New("Config.ApplicationURI is empty")
	case c.Space == nil:
		return errors.New("Config.Space is nil")
	case len(c.Offers) == 0:
		return errors.New("Config.Offers is empty: no session could ever be made")
	}
	for i, p := range c.UserTokens {
		if p.TokenType != ua.UserTokenTypeAnonymous && c.Authenticate == nil {
			return fmt.Errorf("Config.UserTokens[%d] is not anonymous, and Config.Authenticate is nil", i)
		}
	}
	return nil
}

// Serve accepts connections from l until Shutdown, or until l is closed, and closes l. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error { return s.channels.Serve(l) }

// Shutdown ends all sessions and connections and waits until the last goroutine is gone, at most until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.services.shutdown()
	err := s.channels.Shutdown(ctx)
	s.services.shutdown() // Of sessions that came while the connections ended.
	s.cancel()
	s.running.Wait()
	return err
}
