package main

import (
	"context"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/opcua/wire"
)

const (
	// maxMessage is the largest message that a session takes, in bytes: no server sends it in chunks.
	maxMessage = client.MaxChunk
	// connectionLimit bounds the life of a connection, so that a server that stops answering ends the run.
	connectionLimit = 3 * time.Minute
	publishingEvery = 100 * time.Millisecond

	clientName = "bench"
)

// optionsFor says how to connect to an endpoint without security.
func optionsFor(endpoint string) client.Options {
	return client.Options{Endpoint: endpoint, Name: clientName, Limit: connectionLimit, MaxMessage: maxMessage}
}

// session is a connection with one secure channel and one session.
type session struct{ *client.Conn }

// connect opens a channel and activates a session on it.
func connect(ctx context.Context, o client.Options) (*session, error) {
	c, err := client.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	created, err := c.CreateSession()
	if err == nil {
		err = c.Activate(created)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &session{c}, nil
}

// end ends the session with its subscriptions, and the connection. Responses that are still under way are dropped.
func (s *session) end() error {
	defer s.Close()
	body, err := wire.AppendMessage(nil, &ua.CloseSessionRequest{RequestHeader: s.Header(), DeleteSubscriptions: true})
	if err != nil {
		return err
	}
	if err := s.Send(body); err != nil {
		return err
	}
	for {
		body, err := s.Receive()
		if err != nil {
			return fmt.Errorf("close session: %w", err)
		}
		if client.TypeOf(body) == id.CloseSessionResponse_Encoding_DefaultBinary {
			return client.Decode(body, new(ua.CloseSessionResponse))
		}
	}
}
