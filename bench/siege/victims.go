package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	gopcua "github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/bench/process"
	"quorate/opcua/wire"
)

const (
	// readEvery is how often the reader wants its value, and newcomerEvery how often somebody new comes.
	readEvery     = 2 * time.Millisecond
	newcomerEvery = 100 * time.Millisecond
	// connectLimit is how long a new client waits until it takes the server for dead.
	connectLimit = 10 * time.Second
)

// latencies is how long something took, each time.
type latencies struct {
	all []time.Duration // sorted
}

func (l latencies) at(percent int) time.Duration {
	if len(l.all) == 0 {
		return 0
	}
	return l.all[(len(l.all)-1)*percent/100]
}

func (l latencies) most() time.Duration { return l.at(100) }

// reference is a server that has nothing to do but to echo, in a process of its own, and a connection to it. It is read as the
// reader reads, at the same time: what it suffers, the machine does to everybody.
type reference struct {
	child *process.Child
	nc    net.Conn
}

// referenceFlag makes this program an echo to one connection, with which it ends.
const referenceFlag = "-reference"

func startReference() (*reference, error) {
	cmd, err := process.Self(referenceFlag)
	if err != nil {
		return nil, err
	}
	r := new(reference)
	if r.child, err = process.Start(cmd); err != nil {
		return nil, err
	}
	var address string
	if _, err = fmt.Fscanln(r.child.Out, &address); err == nil {
		r.nc, err = net.Dial("tcp", address)
	}
	if err != nil {
		return nil, errors.Join(err, r.child.Kill())
	}
	return r, nil
}

// stop ends it: it has one connection, whose end is its own.
func (r *reference) stop() error { return errors.Join(r.nc.Close(), r.child.Stop()) }

// beReference is what this program does as a reference.
func beReference(out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return err
	}
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{nc}, nc)
	return err
}

func (r *reference) read() error {
	message := make([]byte, 100)
	if err := r.nc.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := r.nc.Write(message); err != nil {
		return err
	}
	_, err := io.ReadFull(r.nc, message)
	return err
}

// reader is a client with a session from before the attack.
type reader struct {
	c    *conn
	body []byte
}

func newReader(ctx context.Context, endpoint string) (*reader, error) {
	c, err := connect(ctx, endpoint, "")
	if err != nil {
		return nil, err
	}
	r := &reader{c: c}
	r.body, err = wire.AppendMessage(nil, &ua.ReadRequest{
		RequestHeader: c.Header(), TimestampsToReturn: ua.TimestampsToReturnBoth, NodesToRead: []*ua.ReadValueID{value(id.Server_ServiceLevel)},
	})
	return r, err
}

// steadily reads until ctx ends. Each read counts from when it was due: one that has to wait for the one before it waits all the same.
func steadily(ctx context.Context, read func() error) (l latencies, err error) {
	due := time.Now()
	for ctx.Err() == nil {
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		if err := read(); err != nil {
			return l, fmt.Errorf("the reader: %w", err)
		}
		l.all = append(l.all, time.Since(due))
		due = due.Add(readEvery)
	}
	slices.Sort(l.all)
	return l, nil
}

func (r *reader) read() error {
	if err := errors.Join(r.c.patience(), r.c.Send(r.body)); err != nil {
		return err
	}
	body, err := r.c.Receive()
	if err != nil {
		return err
	}
	var resp ua.ReadResponse
	if err := client.Decode(body, &resp); err != nil {
		return err
	}
	if len(resp.Results) != 1 || resp.Results[0].Status != ua.StatusOK {
		return fmt.Errorf("ServiceLevel reads %v", resp.Results)
	}
	return nil
}

// newcomers are clients that come during the attack: each connects, opens a session, reads and goes.
type newcomers struct {
	latencies
	failures int
	last     error
}

func (n *newcomers) run(ctx context.Context, once func(context.Context) error) {
	for ctx.Err() == nil {
		began := time.Now()
		visit, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectLimit)
		err := once(visit)
		cancel()
		if err != nil {
			n.failures++
			n.last = err
		} else {
			n.all = append(n.all, time.Since(began))
		}
		select {
		case <-ctx.Done():
		case <-time.After(newcomerEvery):
		}
	}
	slices.Sort(n.all)
}

// plainVisit comes without security.
func plainVisit(endpoint string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := connect(ctx, endpoint, "")
		if err != nil {
			return err
		}
		return c.closeSession()
	}
}

// secureVisit comes with a certificate that the server trusts.
func secureVisit(endpoint string, who *client.Identity, server []byte) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := secureClient(endpoint, who, server)
		if err != nil {
			return err
		}
		if err := c.Connect(ctx); err != nil {
			return err
		}
		return c.Close(ctx)
	}
}

func secureClient(endpoint string, who *client.Identity, server []byte) (*gopcua.Client, error) {
	return gopcua.NewClient(endpoint,
		gopcua.Certificate(who.Certificate), gopcua.PrivateKey(who.Key), gopcua.ApplicationURI(client.ApplicationURI(clientName)),
		gopcua.SecurityFromEndpoint(&ua.EndpointDescription{
			SecurityPolicyURI: ua.SecurityPolicyURIBasic256Sha256, SecurityMode: ua.MessageSecurityModeSignAndEncrypt, ServerCertificate: server,
			UserIdentityTokens: []*ua.UserTokenPolicy{{PolicyID: "anonymous", TokenType: ua.UserTokenTypeAnonymous}},
		}, ua.UserTokenTypeAnonymous),
		gopcua.AutoReconnect(false), gopcua.RequestTimeout(connectLimit),
	)
}

// observed is what there was to see in one run.
type observed struct {
	reads         latencies
	reference     latencies
	plain, secure newcomers
	beats         beats
}

// observe looks at a member's endpoint and at the group for a while.
func (s *siege) observe(ctx context.Context, v *victim, d time.Duration) (o observed, err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var all sync.WaitGroup
	var readErr, referenceErr, beatErr error
	all.Go(func() { o.reads, readErr = steadily(ctx, v.reader.read) })
	all.Go(func() { o.reference, referenceErr = steadily(ctx, s.reference.read) })
	all.Go(func() { o.plain.run(ctx, plainVisit(v.OPCUA)) })
	all.Go(func() { o.secure.run(ctx, secureVisit(v.OPCUA, s.trusted, v.certificate)) })
	all.Go(func() { o.beats, beatErr = s.watch.run(ctx, s.leading.member) })
	all.Wait()
	return o, errors.Join(readErr, referenceErr, beatErr)
}
