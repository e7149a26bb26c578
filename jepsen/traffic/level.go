package traffic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua"
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/jepsen/history"
	"quorate/jepsen/lab"
)

const (
	levelShare = 0.2
	// levelReaders is how many clients read the level of each server, each with a session of its own.
	levelReaders = 2
	// levelLimit is how long one read may take, and levelConnect how long it may take to get a session.
	levelLimit   = time.Second
	levelConnect = 2 * time.Second
	// levelAgain is the pause after a connection was lost.
	levelAgain = 200 * time.Millisecond
	// levelSession is the time after which a server forgets a session of which it hears nothing.
	levelSession = 10 * time.Second
)

func levels() Workload {
	return Workload{Name: "level", Setup: nothing, Run: runLevels, Quiet: quietLevels, Final: nothingQuiet}
}

// runLevels reads the ServiceLevel of every server over OPC UA, many times a second.
func runLevels(ctx context.Context, e *Env) error {
	began := time.Now().Add(-e.Log.Since())
	var all []func(context.Context) error
	for _, m := range e.shape.members {
		for i := range levelReaders {
			o := &observer{env: e, member: m, client: fmt.Sprintf("level-%s-%d", m.ID, i+1), began: began}
			all = append(all, o.run)
		}
	}
	return together(ctx, all...)
}

// observer reads the level of one server, from outside and by a client of another maker.
type observer struct {
	env    *Env
	member *lab.Member
	client string
	// began is when the run did, to tell the server's time stamps in time since then.
	began time.Time
	conn  *opcua.Client
}

func (o *observer) run(ctx context.Context) error {
	pace := o.env.pace(levelShare, levelReaders*len(o.env.shape.members))
	defer o.close()
	for pace.wait(ctx) {
		if o.read(ctx) != nil {
			Rest(ctx, levelAgain)
		}
	}
	return nil
}

// level is what a history has of a read.
type level struct {
	Level  byte          `json:"level"`
	Source time.Duration `json:"source"`
}

// read reads the level, over the session that there is or a new one.
func (o *observer) read(ctx context.Context) error {
	if o.conn == nil {
		if err := o.connect(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), levelLimit)
	defer cancel()
	op := o.env.Log.Begin(history.Op{Client: o.client, Member: o.member.ID, Noun: "level", Kind: "read", Key: o.member.ID}, nil)
	resp, err := o.conn.Read(ctx, &ua.ReadRequest{
		TimestampsToReturn: ua.TimestampsToReturnBoth,
		NodesToRead:        []*ua.ReadValueID{{NodeID: ua.NewNumericNodeID(0, id.Server_ServiceLevel), AttributeID: ua.AttributeIDValue}},
	})
	if err == nil && (len(resp.Results) != 1 || resp.Results[0].Value == nil) {
		err = errors.New("the answer has no value")
	}
	if err != nil {
		o.env.Log.End(op, history.Failed, nil, err)
		o.close()
		return err
	}
	value, ok := resp.Results[0].Value.Value().(byte)
	if !ok || resp.Results[0].Status != ua.StatusOK {
		err = fmt.Errorf("the level is %v: %w", resp.Results[0].Value.Value(), resp.Results[0].Status)
		o.env.Log.End(op, history.Failed, nil, err)
		return err
	}
	o.env.Log.End(op, history.OK, level{value, resp.Results[0].SourceTimestamp.Sub(o.began)}, nil)
	return nil
}

func (o *observer) connect(ctx context.Context) error {
	c, err := opcua.NewClient(o.member.OPCUA, opcua.AutoReconnect(false), opcua.SecurityMode(ua.MessageSecurityModeNone),
		opcua.SessionTimeout(levelSession), opcua.DialTimeout(levelConnect), opcua.RequestTimeout(levelConnect))
	if err != nil {
		return err
	}
	connecting, cancel := context.WithTimeout(ctx, levelConnect)
	defer cancel()
	if err := c.Connect(connecting); err != nil {
		_ = c.Close(connecting) // It is not there.
		return err
	}
	o.conn = c
	return nil
}

func (o *observer) close() {
	if o.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), levelLimit)
	defer cancel()
	_ = o.conn.Close(ctx) // The server forgets the session by itself.
	o.conn = nil
}

// quietLevels reads the level of each server.
func quietLevels(ctx context.Context, e *Env, as string) error {
	var errs []error
	for _, m := range e.shape.members {
		o := &observer{env: e, member: m, client: as, began: time.Now().Add(-e.Log.Since())}
		if err := o.read(ctx); err != nil {
			errs = append(errs, fmt.Errorf("read the level of %s: %w", m.ID, err))
		}
		o.close()
	}
	return errors.Join(errs...)
}
