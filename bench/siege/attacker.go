package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/bench/client"
	"quorate/bench/process"
	"quorate/opcua/wire"
)

const (
	// attackerFlag makes this program an attacker, which takes an order from its standard input.
	attackerFlag = "-attacker"
	// attackerNice is the priority of attackers: they share the machine with the server, so the server goes first.
	attackerNice = 10
	// attackerAddress is where attackers come from, unless they come from many addresses.
	attackerAddress = "127.0.0.2"
	// batchBytes is how much of a flood is written at once.
	batchBytes = 32 << 10
	// afterFailure keeps a worker whose connections are refused from spinning.
	afterFailure = time.Millisecond
)

// order is what an attacker is told.
type order struct {
	Attack   string
	Endpoint string
	// Server is the certificate of the server; Trusted and Stranger are applications that it trusts and doesn't.
	Server            []byte
	Trusted, Stranger *client.Identity
	// Burn is how much processor time a control run takes, in cores.
	Burn float64
}

// report is what an attacker says at the end.
type report struct {
	Rounds, Failures int64
	LastFailure      string
}

// attacker is an attack at work.
type attacker struct {
	order
	rounds, failures atomic.Int64
	last             atomic.Pointer[string]
}

// attackerProcess is an attacker in a process of its own, of low priority.
type attackerProcess struct {
	child *process.Child
	out   *json.Decoder
	began time.Time
}

// startAttacker starts one, which attacks until it is stopped.
func startAttacker(o order) (*attackerProcess, error) {
	cmd, err := process.Self(attackerFlag)
	if err != nil {
		return nil, err
	}
	child, err := process.Start(cmd)
	if err != nil {
		return nil, err
	}
	p := &attackerProcess{child: child, out: json.NewDecoder(child.Out), began: time.Now()}
	if err := json.NewEncoder(child.In).Encode(o); err != nil {
		return nil, errors.Join(err, child.Kill())
	}
	return p, nil
}

// stop ends the attack, and says what it did and how many cores it took.
func (p *attackerProcess) stop() (r report, cores float64, err error) {
	took := time.Since(p.began)
	if err := p.child.In.Close(); err != nil {
		return r, 0, errors.Join(err, p.child.Kill())
	}
	// An attacker that hangs must not hang the siege.
	late := time.AfterFunc(2*answerLimit, func() { _ = p.child.Process.Kill() })
	defer late.Stop()
	err = errors.Join(p.out.Decode(&r), p.child.Wait())
	state := p.child.ProcessState
	return r, float64(state.UserTime()+state.SystemTime()) / float64(took), err
}

// beAttacker is what this program does as an attacker.
func beAttacker(in io.Reader, out io.Writer) error {
	if err := process.Renice(attackerNice); err != nil {
		return err
	}
	orders := json.NewDecoder(in)
	a := new(attacker)
	if err := orders.Decode(&a.order); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		// The end of the orders is the end of the attack.
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	if a.Attack == controlName {
		burn(ctx, a.Burn)
		return json.NewEncoder(out).Encode(report{})
	}
	i := slices.IndexFunc(attacks, func(x attack) bool { return x.name == a.Attack })
	if i < 0 {
		return fmt.Errorf("no attack %q", a.Attack)
	}
	var workers sync.WaitGroup
	for range attacks[i].workers {
		workers.Go(func() {
			for ctx.Err() == nil {
				if err := attacks[i].work(ctx, a); err != nil && ctx.Err() == nil {
					a.failed(err)
				}
			}
		})
	}
	workers.Wait()
	r := report{Rounds: a.rounds.Load(), Failures: a.failures.Load()}
	if last := a.last.Load(); last != nil {
		r.LastFailure = *last
	}
	return json.NewEncoder(out).Encode(r)
}

func (a *attacker) failed(err error) {
	text := err.Error()
	a.failures.Add(1)
	a.last.Store(&text)
	time.Sleep(afterFailure)
}

// controlName is the order to burn processor time and attack nobody.
const controlName = "control"

// burn takes so many cores, in slices of a few milliseconds, as requests do.
func burn(ctx context.Context, cores float64) {
	const slice = 5 * time.Millisecond
	var burners sync.WaitGroup
	for ; cores > 0; cores-- {
		share := min(cores, 1)
		burners.Go(func() {
			for ctx.Err() == nil {
				for until := time.Now().Add(time.Duration(share * float64(slice))); time.Now().Before(until); {
				}
				time.Sleep(time.Duration((1 - share) * float64(slice)))
			}
		})
	}
	burners.Wait()
}

// anyAddress is an address of this machine, another one each time: for attacks that come from everywhere.
func anyAddress() string {
	n := rand.Uint32()
	return net.IPv4(127, 1+byte(n)%100, byte(n>>8), 1+byte(n>>16)%250).String()
}

// closing ends a connection with the attack, which wakes whoever waits for it.
func closing(ctx context.Context, c *conn) (stop func()) {
	end := context.AfterFunc(ctx, func() { c.Close() })
	return func() {
		end()
		c.Close()
	}
}

// onChannel gives each worker a channel without a session, again and again.
func onChannel(f func(context.Context, *attacker, *conn) error) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		c, err := open(ctx, a.Endpoint, attackerAddress)
		if err != nil {
			return err
		}
		defer closing(ctx, c)()
		return f(ctx, a, c)
	}
}

// inSession gives each worker a session, again and again.
func inSession(f func(context.Context, *attacker, *conn) error) func(context.Context, *attacker) error {
	return func(ctx context.Context, a *attacker) error {
		c, err := connect(ctx, a.Endpoint, attackerAddress)
		if err != nil {
			return err
		}
		defer closing(ctx, c)()
		return f(ctx, a, c)
	}
}

// flood sends requests as fast as the server takes them, and throws away what it answers.
func flood(requests func(c *conn) ([]ua.Request, error)) func(context.Context, *attacker, *conn) error {
	return func(_ context.Context, a *attacker, c *conn) error {
		list, err := requests(c)
		if err != nil {
			return err
		}
		bodies := make([][]byte, len(list))
		for i, r := range list {
			if bodies[i], err = wire.AppendMessage(nil, r); err != nil {
				return err
			}
		}
		return c.floodBodies(a, bodies)
	}
}

func (c *conn) floodBodies(a *attacker, bodies [][]byte) error {
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c)
	}()
	defer func() {
		c.Close()
		<-ended
	}()
	var out []byte
	for i := 0; ; {
		out = out[:0]
		n := int64(0)
		for len(out) < batchBytes {
			var err error
			if out, err = c.Append(out, "MSGF", bodies[i%len(bodies)]); err != nil {
				return err
			}
			i++
			n++
		}
		if err := c.write(out); err != nil {
			return err
		}
		a.rounds.Add(n)
	}
}
