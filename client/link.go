package client

import (
	"context"
	"fmt"

	quoratev1 "quorate/proto/quorate/v1"
)

// Gate registers this process as an instance that checks gates, and keeps a gate lease for it until the gate is closed. ctx bounds the registration.
func (c *Client) Gate(ctx context.Context, options GateOptions) (*Gate, error) {
	if options.Logger == nil {
		options.Logger = c.options.Logger
	}
	return OpenGate(ctx, link{c}, options)
}

// link is how a gate reaches the group through a client.
type link struct{ c *Client }

// Register implements GateLink.
func (l link) Register(ctx context.Context, id, session string) error {
	_, err := l.c.Gates().RegisterInstance(ctx, &quoratev1.RegisterInstanceRequest{Id: id, Session: session})
	return err
}

// Renew implements GateLink.
func (l link) Renew(ctx context.Context, req *quoratev1.RenewGateRequest) (*quoratev1.RenewGateResponse, error) {
	resp, err := l.c.Gates().RenewGate(ctx, req)
	return resp, unregistered(err)
}

// Resolve implements GateLink.
func (l link) Resolve(ctx context.Context, partitions []string) (found []*quoratev1.Resolution, revision uint64, err error) {
	resp, err := l.c.Partitions().Resolve(ctx, &quoratev1.ResolveRequest{Partitions: partitions})
	return resp.GetResolutions(), resp.GetHeader().GetRevision(), err
}

// Remove implements GateLink.
func (l link) Remove(ctx context.Context, id, session string, drained bool) error {
	_, err := l.c.Gates().RemoveInstance(ctx, &quoratev1.RemoveInstanceRequest{Id: id, Session: session, Drained: drained})
	return unregistered(err)
}

// unregistered makes ErrUnregistered of the refusals that mean that.
func unregistered(err error) error {
	switch ReasonOf(err) {
	case ReasonUnknownInstance, ReasonStaleSession:
		return fmt.Errorf("%w: %w", ErrUnregistered, err)
	}
	return err
}
