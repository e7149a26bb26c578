package main

import (
	"context"
	"errors"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
)

const (
	// maxMessage is the largest response that a connection takes, in bytes.
	maxMessage = 16 << 20
	// answerLimit is how long an attacker waits for an answer before it takes its connection for dead.
	answerLimit = 10 * time.Second

	clientName = "siege"
)

// conn is a connection that sends whatever it is told to, on a channel without security. It is for one goroutine.
type conn struct{ *client.Conn }

func optionsFor(endpoint, from string) client.Options {
	return client.Options{Endpoint: endpoint, Name: clientName, From: from, Limit: answerLimit, MaxMessage: maxMessage}
}

// dial connects from an address of this machine, an empty one being any.
func dial(ctx context.Context, endpoint, from string) (*conn, error) {
	c, err := client.Dial(ctx, optionsFor(endpoint, from))
	return &conn{c}, err
}

// open opens a channel on a new connection.
func open(ctx context.Context, endpoint, from string) (*conn, error) {
	c, err := client.Open(ctx, optionsFor(endpoint, from))
	return &conn{c}, err
}

// connect opens a channel and activates a session of an anonymous user on it.
func connect(ctx context.Context, endpoint, from string) (*conn, error) {
	c, err := open(ctx, endpoint, from)
	if err != nil {
		return nil, err
	}
	created, err := c.createSession()
	if err == nil {
		err = errors.Join(c.patience(), c.Activate(created))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// patience bounds what follows on the connection.
func (c *conn) patience() error { return c.SetDeadline(time.Now().Add(answerLimit)) }

// call sends a request and waits for its response, when no other is under way.
func (c *conn) call(req ua.Request, resp ua.Response) error {
	if err := c.patience(); err != nil {
		return err
	}
	return c.Call(req, resp)
}

func (c *conn) createSession() (*ua.CreateSessionResponse, error) {
	if err := c.patience(); err != nil {
		return nil, err
	}
	return c.CreateSession()
}

// write sends bytes as they are.
func (c *conn) write(b []byte) error {
	_, err := c.Write(b)
	return err
}

// closeSession ends the session, its subscriptions with it, and the connection.
func (c *conn) closeSession() error {
	defer c.Close()
	return c.call(&ua.CloseSessionRequest{RequestHeader: c.Header(), DeleteSubscriptions: true}, new(ua.CloseSessionResponse))
}
