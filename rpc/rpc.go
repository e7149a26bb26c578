// Package rpc is the one door to the group: the gRPC services of quorate.v1 and the same as REST.
//
// A call goes through one chain of interceptors (interceptors.go) before a service sees it: recovery from panics, a bound
// on calls in flight, a deadline, who asks (identity.go), the audit of changes (audit.go), what that role may do
// (roles.go), and validation of every field that the protocol constrains (validate.go). Nothing is proposed before all
// of them agree. The services, one file for each noun, then turn requests into commands for the log or read a view of
// the state; they return plain errors, and errors.go alone decides what those are called in gRPC.
//
// REST (gateway.go) has no way of its own into the group. It calls the same services over a connection inside the
// process, on which the caller's identity travels with the call. The server believes such a word only on that
// connection, which no one outside can open, so it can't be forged.
//
// Outside dev both listeners ask for a certificate. In dev (no Credentials) whoever reaches them is the administrator
// "anonymous", which is why dev listens on loopback.
package rpc

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"quorate/node"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/telemetry"
)

// Node is the member of the group that this package serves, as *node.Node gives it.
type Node interface {
	// ID returns the member's id.
	ID() string
	// Propose commits a command from any member. A refusal is in the outcome, never an error.
	Propose(context.Context, *logv1.Command) (*logv1.Outcome, error)
	// Read returns a view that is as fresh as asked for; nil means linearizable.
	Read(context.Context, *quoratev1.ReadOptions) (node.View, error)
	// Local returns the member's own state as it is.
	Local() node.View
	// RenewGate asks the leader for a gate lease, and waits until there is something to tell or for a quarter of the lease.
	RenewGate(context.Context, *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error)
	// Watch streams the events of a revision and later, 0 meaning from now on.
	Watch(from uint64) (*node.Watch, error)
	// Members asks all members for what they say of themselves.
	Members(context.Context) ([]*quoratev1.Member, error)
	// TransferLeadership hands it to the named voter, or the one that is furthest, and returns who leads afterwards.
	TransferLeadership(ctx context.Context, to string) (leader string, err error)
	// AddLearner adds a member without a vote.
	AddLearner(ctx context.Context, id, raftAddress string) error
	// Promote gives a learner a vote.
	Promote(ctx context.Context, id string) error
	// Remove takes a member out of the group.
	Remove(ctx context.Context, id string) error
	// Ready returns nil while the member can serve, and otherwise why not.
	Ready() error
}

// Config is what a Server needs. Only Node is required.
type Config struct {
	Node Node
	// Credentials make both listeners ask for certificates. Nil is for dev alone: everyone is administrator.
	Credentials *pki.Credentials
	// Logger is told of failures; nil means slog.Default.
	Logger *slog.Logger
	// Audit is told of each change that was asked for, accepted or not. It is called from many goroutines, and the caller
	// waits for it. Nil means that the Logger gets a line for each.
	Audit func(AuditRecord)
	// Metrics are served at /metrics to viewers, and get what this package measures. Nil means that there are none.
	Metrics *telemetry.Metrics
	// Version goes into the OpenAPI document.
	Version string
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Limits may be lowered or raised; a zero one means its default.
	Limits Limits
}

// Limits bound what callers can make this member spend.
type Limits struct {
	// MaxRequestBytes bounds one request: 1 MiB. A topology has at most a quarter of that.
	MaxRequestBytes int
	// MaxBodyBytes bounds a REST body: 4 MiB, because JSON is longer.
	MaxBodyBytes int64
	// MaxHeaderBytes bounds the headers of one call: 32 KiB.
	MaxHeaderBytes int
	// MaxPageBytes bounds what one answer of a list, or one message of a watch, holds: 2 MiB. A gRPC client takes 4 MiB
	// unless told otherwise. One item is always sent, whatever its size.
	MaxPageBytes int
	// MaxListedLeases bounds an answer that can't be paged: 4096.
	MaxListedLeases int
	// MaxConnections bounds the connections of each listener: 1024. More wait in the kernel's queue.
	MaxConnections int
	// MaxStreams bounds the calls in flight on one connection: 1024.
	MaxStreams uint32
	// MaxCalls bounds the unary calls in flight on the member: 8192.
	MaxCalls int
	// MaxWatches bounds the streams open on the member on which it tells what happens: 1024.
	MaxWatches int
	// MaxRenewals bounds the renewals of gate leases that wait on the member: 8192, twice as many as there are instances. Apart from
	// MaxCalls, so that those who wait keep out nobody who works.
	MaxRenewals int
	// MaxQuestionStreams bounds the streams open on the member on which callers ask: 1024.
	MaxQuestionStreams int
	// MaxQuestions bounds the requests of one such stream that were read and not yet answered: 64. The next is read when one was answered.
	MaxQuestions int
	// DefaultDeadline is that of a unary call which brings none: 10 s.
	DefaultDeadline time.Duration
	// MaxDeadline shortens longer ones: 60 s.
	MaxDeadline time.Duration
	// WriteTimeout is how long a REST client may take to accept an answer, or one message of a watch: 30 s.
	WriteTimeout time.Duration
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.MaxRequestBytes, 1<<20)
	setDefault(&l.MaxBodyBytes, 4<<20)
	setDefault(&l.MaxHeaderBytes, 32<<10)
	setDefault(&l.MaxPageBytes, 2<<20)
	setDefault(&l.MaxListedLeases, 4096)
	setDefault(&l.MaxConnections, 1024)
	setDefault(&l.MaxStreams, 1024)
	setDefault(&l.MaxCalls, 8192)
	setDefault(&l.MaxWatches, 1024)
	setDefault(&l.MaxRenewals, 8192)
	setDefault(&l.MaxQuestionStreams, 1024)
	setDefault(&l.MaxQuestions, 64)
	setDefault(&l.DefaultDeadline, 10*time.Second)
	setDefault(&l.MaxDeadline, time.Minute)
	setDefault(&l.WriteTimeout, 30*time.Second)
	return l
}

func setDefault[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

func (c *Config) complete() error {
	if c.Node == nil {
		return errors.New("rpc: Config.Node is missing")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Audit == nil {
		c.Audit = auditTo(c.Logger)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Limits = c.Limits.withDefaults()
	return nil
}
