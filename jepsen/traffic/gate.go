package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"quorate/client"
	"quorate/jepsen/history"
)

const (
	gateShare = 0.35
	// instances is how many processes there are that answer gate checks from memory, and enterers how many clients each has.
	instances = 3
	enterers  = 2
	// gateLives is how long such a process lives at most, before it ends in an orderly way or crashes, and comes back.
	gateLives = 15 * time.Second
)

func gates() Workload {
	return Workload{Name: "gate", Setup: nothing, Run: runGates, Quiet: quietGates, Final: nothingQuiet}
}

func runGates(ctx context.Context, e *Env) error {
	var all []func(context.Context) error
	for i := range instances {
		all = append(all, func(ctx context.Context) error { return keepInstance(ctx, e, "instance-"+strconv.Itoa(i+1)) })
	}
	return together(ctx, all...)
}

// keepInstance is a process that dies again and again.
func keepInstance(ctx context.Context, e *Env, id string) error {
	r := e.random(id)
	for ctx.Err() == nil {
		crash := r.IntN(2) == 0
		life, cancel := context.WithTimeout(ctx, between(r, gateLives/4, gateLives))
		err := live(life, e, id, r.Uint64(), crash && ctx.Err() == nil)
		cancel()
		if err != nil {
			e.Log.Mark(history.Mark{Kind: "note", Text: "instance"}, map[string]string{"instance": id, "error": err.Error()})
		}
		Rest(ctx, between(r, 0, 500*time.Millisecond))
	}
	return nil
}

// live is one life of an instance, from its registration to its end. Whoever crashes tells nobody, and its writes under way land all the same.
func live(ctx context.Context, e *Env, id string, seed uint64, crash bool) error {
	group, err := e.open(ctx)
	if err != nil {
		return err
	}
	gate, err := group.Gate(ctx, client.GateOptions{ID: id})
	if err != nil {
		return errors.Join(fmt.Errorf("register: %w", err), group.Close())
	}
	var all []func(context.Context) error
	for i := range enterers {
		all = append(all, func(ctx context.Context) error {
			name := id + "/" + strconv.Itoa(i+1)
			r, pace := rand.New(rand.NewPCG(seed, uint64(i))), e.pace(gateShare, instances*enterers)
			for pace.wait(ctx) {
				_ = enter(ctx, e, name, id, r, gate)
			}
			return nil
		})
	}
	err = together(ctx, all...)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteLimit+time.Second)
	defer cancel()
	if crash {
		cancel()
		closed := group.Close()
		_ = gate.Close(ending) // It can't tell anybody.
		return errors.Join(err, closed)
	}
	return errors.Join(err, gate.Close(ending), group.Close())
}

// entering and entered are what a history has of a check from memory.
type entering struct {
	Instance string `json:"instance"`
}

type entered struct {
	Placement string `json:"placement"`
	Epoch     uint64 `json:"epoch"`
}

// enter checks a gate from memory and, sometimes, writes.
func enter(ctx context.Context, e *Env, name, instance string, r *rand.Rand, gate *client.Gate) error {
	id := pick(r, e.partitions...)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readLimit)
	defer cancel()
	op := e.Log.Begin(history.Op{Client: name, Noun: "partition", Kind: "gate", Key: id}, entering{instance})
	pass, err := gate.Enter(ctx, id)
	var cutover *client.CutoverError
	var unknown *client.UnknownPartitionError
	switch {
	case err == nil:
		e.Log.End(op, history.OK, entered{pass.Placement, pass.Epoch}, nil)
	case errors.As(err, &cutover):
		e.Log.End(op, history.Refused, details{map[string]string{"current_epoch": strconv.FormatUint(cutover.Epoch, 10)}}, fmt.Errorf("CUTOVER: %w", err))
	case errors.As(err, &unknown):
		e.Log.End(op, history.Refused, nil, fmt.Errorf("%s: %w", client.ReasonUnknownPartition, err))
	default:
		e.Log.End(op, history.Failed, nil, err)
		return err
	}
	switch {
	case err != nil: // It was refused: there is nothing to write.
	case r.IntN(4) == 0:
		e.stores.write(r, op, id, pass.Placement, pass.Epoch, pass.Done)
	default:
		pass.Done()
	}
	return nil
}

// quietGates lets a new instance check every partition.
func quietGates(ctx context.Context, e *Env, as string) (err error) {
	gate, err := e.Group.Gate(ctx, client.GateOptions{ID: as})
	if err != nil {
		return fmt.Errorf("register an instance: %w", err)
	}
	r := e.random(as)
	for range e.partitions {
		err = errors.Join(err, enter(ctx, e, as, as, r, gate))
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteLimit+2*time.Second)
	defer cancel()
	return errors.Join(err, gate.Close(ending))
}
