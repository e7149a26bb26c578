package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"quorate/bench/client"
	"quorate/bench/process"
	"quorate/devgroup"
)

const (
	// warmup is how long an attack runs before it is measured.
	warmup = 500 * time.Millisecond
	// settleLimit is how long a member may take to get back to where it was before an attack.
	settleLimit = 10 * time.Second
	settlePoll  = 100 * time.Millisecond
)

// siege is a group under attack.
type siege struct {
	group             *devgroup.Group
	trusted, stranger *client.Identity
	watch             *raftWatch
	reference         *reference
	victims           []*victim // one for each member
	leading           leading
}

// The roles of members in the group.
const (
	leaderRole   = "leader"
	followerRole = "follower"
)

// victim is a member that is attacked.
type victim struct {
	devgroup.Member
	process     process.ID
	certificate []byte
	reader      *reader
}

// newSiege starts a group whose members trust one application.
func newSiege(ctx context.Context, binary, data string, port int, log io.Writer) (s *siege, err error) {
	s = new(siege)
	if s.trusted, err = client.NewIdentity(clientName); err != nil {
		return nil, err
	}
	if s.stranger, err = client.NewIdentity(clientName); err != nil {
		return nil, err
	}
	for i := 1; i <= 3; i++ {
		dir := filepath.Join(data, fmt.Sprintf("m%d", i), "opcua", "trusted", "certs")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, "siege.der"), s.trusted.Certificate, 0o600); err != nil {
			return nil, err
		}
	}
	if s.reference, err = startReference(); err != nil {
		return nil, err
	}
	s.group, err = devgroup.Start(ctx, devgroup.Options{
		Binary: binary, Data: data, BasePort: port, Set: []string{"opcua.trustAll=false"}, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, s.reference.stop())
	}
	if err := s.surround(ctx); err != nil {
		return nil, errors.Join(err, s.end())
	}
	return s, nil
}

// surround connects a reader to each member.
func (s *siege) surround(ctx context.Context) (err error) {
	if s.watch, err = newRaftWatch(s.group); err != nil {
		return err
	}
	for _, m := range s.group.Members {
		v := &victim{Member: m, process: process.ID(m.PID)}
		if v.certificate, err = client.Certificate(ctx, optionsFor(m.OPCUA, "")); err != nil {
			return err
		}
		if v.reader, err = newReader(ctx, m.OPCUA); err != nil {
			return err
		}
		s.victims = append(s.victims, v)
	}
	return nil
}

// victim is who has a role now.
func (s *siege) victim(ctx context.Context, role string) (*victim, error) {
	if _, err := s.group.Leader(ctx); err != nil {
		return nil, err
	}
	var err error
	if s.leading, err = s.watch.state(ctx); err != nil {
		return nil, err
	}
	for _, v := range s.victims {
		if (v.ID == s.leading.member) == (role == leaderRole) {
			return v, nil
		}
	}
	return nil, fmt.Errorf("no %s", role)
}

func (s *siege) end() error {
	var errs []error
	for _, v := range s.victims {
		errs = append(errs, v.reader.c.closeSession())
	}
	if s.watch != nil {
		errs = append(errs, s.watch.close())
	}
	return errors.Join(append(errs, s.group.Stop(), s.reference.stop())...)
}

// outcome is what an attack came to.
type outcome struct {
	attack        string
	role          string
	report        report
	attackerCores float64
	serverCores   float64
	leading       leading // before
	during        observed
	control       observed
	before, most  use
	after         use
	settled       time.Duration // until the member was back where it was
}

// attackOnce runs an attack on a member, and a control run in which the attacker takes as much processor time for nothing.
func (s *siege) attackOnce(ctx context.Context, name, role string, d, control time.Duration) (o outcome, err error) {
	v, err := s.victim(ctx, role)
	if err != nil {
		return o, err
	}
	o.attack, o.role, o.leading = name, role, s.leading
	if o.before, err = useOf(v.process); err != nil {
		return o, err
	}
	p, err := startAttacker(order{Attack: name, Endpoint: v.OPCUA, Server: v.certificate, Trusted: s.trusted, Stranger: s.stranger})
	if err != nil {
		return o, err
	}
	pause(ctx, warmup)
	cpu, cpuErr := v.process.CPU()
	began := time.Now()
	watching, stop := context.WithCancel(ctx)
	most := make(chan use)
	go func() { most <- peak(watching, v.process) }()
	o.during, err = s.observe(ctx, v, d)
	stop()
	o.most = <-most
	now, nowErr := v.process.CPU()
	o.serverCores = float64(now-cpu) / float64(time.Since(began))
	var stopErr error
	o.report, o.attackerCores, stopErr = p.stop()
	if err := errors.Join(err, cpuErr, nowErr, stopErr); err != nil {
		return o, fmt.Errorf("%s on the %s: %w", name, role, err)
	}
	if o.report.Rounds == 0 {
		return o, fmt.Errorf("%s on the %s was no attack: %s", name, role, o.report.LastFailure)
	}
	if err := s.settle(ctx, v, &o); err != nil {
		return o, err
	}
	if p, err = startAttacker(order{Attack: controlName, Burn: o.attackerCores}); err != nil {
		return o, err
	}
	o.control, err = s.observe(ctx, v, control)
	_, _, stopErr = p.stop()
	return o, errors.Join(err, stopErr)
}

// settle waits until the member has no more connections than before, or for settleLimit.
func (s *siege) settle(ctx context.Context, v *victim, o *outcome) (err error) {
	began := time.Now()
	for {
		if o.after, err = useOf(v.process); err != nil {
			return err
		}
		o.settled = time.Since(began)
		if o.after.files <= o.before.files+spareFiles || o.settled > settleLimit {
			return nil
		}
		if pause(ctx, settlePoll); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
