package client

import (
	"context"
	"log/slog"
	"slices"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// lookPause is the least time between two searches for the leader.
	lookPause = time.Second
	// lookTimeout bounds one: the member asks all others.
	lookTimeout = 5 * time.Second
)

// learn notes what an answer says of the member that gave it. Only the leader has heard of itself just now.
func (c *Client) learn(k kind, e *endpoint, reply any) {
	answer, ok := reply.(interface {
		GetHeader() *quoratev1.ResponseHeader
	})
	header := (*quoratev1.ResponseHeader)(nil)
	if ok {
		header = answer.GetHeader()
	}
	c.mu.Lock()
	e.failures, e.rested = 0, time.Time{}
	if id := header.GetMember(); id != "" {
		e.member = id
		leads := header.GetLeaderContactAge() != nil && header.GetLeaderContactAge().AsDuration() == 0
		switch {
		case leads && k.toLeader():
			c.leader = id
		case !leads && c.leader == id:
			c.leader = ""
		}
	}
	lost := k.toLeader() && c.leader == "" && len(c.endpoints) > 1
	c.mu.Unlock()
	if lost {
		c.lookForLeader()
	}
}

// lookForLeader asks for a search, and doesn't wait for it: any member takes a change, the leader only takes it sooner.
func (c *Client) lookForLeader() {
	select {
	case c.look <- struct{}{}:
	default:
	}
}

// keepLooking finds out who leads when that is asked for, and who the members are in the interval of the options.
func (c *Client) keepLooking() {
	var refresh <-chan time.Time
	if c.options.RefreshEvery > 0 {
		every := time.NewTicker(c.options.RefreshEvery)
		defer every.Stop()
		refresh = every.C
		c.lookForLeader()
	}
	for {
		select {
		case <-c.look:
		case <-refresh:
		case <-c.ctx.Done():
			return
		}
		if err := c.lookOnce(); err != nil && c.ctx.Err() == nil {
			c.options.Logger.Debug("the members could not be listed", slog.Any("error", err))
		}
		rest(c.ctx, lookPause)
	}
}

// lookOnce asks a member who the members are. What it knows itself is enough.
func (c *Client) lookOnce() error {
	ctx, cancel := context.WithTimeout(c.ctx, lookTimeout)
	defer cancel()
	list, err := c.Members().ListMembers(ctx, &quoratev1.ListMembersRequest{
		Read: &quoratev1.ReadOptions{Consistency: quoratev1.Consistency_CONSISTENCY_LOCAL},
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	for _, m := range list.GetMembers() {
		if m.GetLeader() {
			c.leader = m.GetId()
		}
		for _, e := range c.endpoints {
			if e.member == "" && e.address == m.GetGrpcAddress() {
				e.member = m.GetId()
			}
		}
	}
	c.mu.Unlock()
	if c.options.RefreshEvery > 0 {
		return c.refresh(list.GetMembers())
	}
	return nil
}

// refresh adds the members that are not known yet, and leaves those that were learned and are gone.
func (c *Client) refresh(members []*quoratev1.Member) error {
	c.mu.Lock()
	var gone []*endpoint
	c.endpoints = slices.DeleteFunc(c.endpoints, func(e *endpoint) bool {
		left := !e.given && !slices.ContainsFunc(members, func(m *quoratev1.Member) bool { return m.GetGrpcAddress() == e.address })
		if left {
			gone = append(gone, e)
		}
		return left
	})
	var come []*quoratev1.Member
	for _, m := range members {
		known := slices.ContainsFunc(c.endpoints, func(e *endpoint) bool { return e.member == m.GetId() || e.address == m.GetGrpcAddress() })
		if !known && m.GetGrpcAddress() != "" && len(c.endpoints)+len(come) < MaxEndpoints {
			come = append(come, m)
		}
	}
	c.mu.Unlock()
	for _, e := range gone {
		c.options.Logger.Info("a member left the group", slog.String("member", e.member), slog.String("endpoint", e.address))
		if err := e.close(); err != nil {
			return err
		}
	}
	for _, m := range come {
		c.options.Logger.Info("a member came to the group", slog.String("member", m.GetId()), slog.String("endpoint", m.GetGrpcAddress()))
		if err := c.addEndpoint(m.GetGrpcAddress(), m.GetId(), false); err != nil {
			return err
		}
	}
	return nil
}
