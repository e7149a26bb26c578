package sim

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

func registration(request, id, session string) *logv1.Command {
	return &logv1.Command{RequestId: request, Actor: &quoratev1.Actor{Name: "proxies", Role: "viewer"}, Body: &logv1.Command_RegisterInstance{
		RegisterInstance: &logv1.RegisterInstance{Id: id, Session: session},
	}}
}

func removal(request, id, session string, drained bool) *logv1.Command {
	return &logv1.Command{RequestId: request, Actor: &quoratev1.Actor{Name: "proxies", Role: "viewer"}, Body: &logv1.Command_RemoveInstance{
		RemoveInstance: &logv1.RemoveInstance{Id: id, Session: session, Drained: drained},
	}}
}

// faults breaks things until the scenario is over, and heals them.
func (r *partitionRun) faults(rng *rand.Rand) {
	for ends := time.Now().Add(r.For); time.Now().Before(ends); {
		r.pause(time.Duration(rng.Int64N(int64(r.Calm))))
		r.result.Faults++
		r.fault(rng)
		r.heal(rng)
	}
	r.heal(rng)
}

func (r *partitionRun) heal(rng *rand.Rand) {
	for _, id := range r.everybody() {
		r.world.Network.Resume(id)
	}
	for _, id := range r.world.IDs() {
		if r.world.Node(id) == nil {
			if err := r.world.Start(id, r.clock(rng)); err != nil {
				r.ledger.Report("start %s: %v", id, err)
			}
		}
	}
	r.world.Network.Heal()
}

// everybody are the members and the instances.
func (r *partitionRun) everybody() []string {
	ids := slices.Clone(r.world.IDs())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range r.instances {
		ids = append(ids, i.id)
	}
	return ids
}

// victim prefers the leader.
func (r *partitionRun) victim(rng *rand.Rand) string {
	ids := r.world.IDs()
	for _, id := range ids {
		if n := r.world.Node(id); n != nil && n.IsLeader() && rng.IntN(2) == 0 {
			return id
		}
	}
	return ids[rng.IntN(len(ids))]
}

func (r *partitionRun) fault(rng *rand.Rand) {
	network, victim := r.world.Network, r.victim(rng)
	length := time.Duration(rng.Int64N(int64(r.Calm)))
	kind := rng.IntN(12)
	r.Trace("fault %d on %s for %v", kind, victim, length)
	switch kind {
	case 0:
		r.world.Kill(victim)
	case 1:
		r.cutOff(victim, r.everybody())
	case 2:
		// The member goes on with its instances, and without the group; or the other way round.
		r.cutOff(victim, r.world.IDs())
	case 3:
		network.Pause(victim)
	case 4:
		r.slow(rng, r.everybody())
	case 5:
		if n := r.world.Node(victim); n != nil {
			ctx, cancel := context.WithTimeout(r.ctx, attemptTimeout)
			// It may well fail: the network may be anything.
			_, _ = n.TransferLeadership(ctx, "")
			cancel()
		}
		return
	case 6:
		if c := r.world.Clock(victim); c != nil {
			c.SetWall(time.Duration(rng.Int64N(int64(4*time.Hour))) - 2*time.Hour)
		}
	case 7, 8:
		r.instanceFault(rng, kind)
	case 9:
		r.crash(rng)
	case 10:
		for _, id := range r.world.IDs() {
			r.world.Kill(id)
		}
	case 11:
		// One direction only.
		for _, id := range r.everybody() {
			if rng.IntN(2) == 0 {
				network.Cut(id, victim)
			} else {
				network.Cut(victim, id)
			}
		}
	}
	r.pause(length)
}

func (r *partitionRun) cutOff(victim string, from []string) {
	for _, id := range from {
		r.world.Network.Cut(victim, id)
		r.world.Network.Cut(id, victim)
	}
}

func (r *partitionRun) slow(rng *rand.Rand, ids []string) {
	for _, from := range ids {
		for _, to := range ids {
			if rng.IntN(2) == 0 {
				r.world.Network.Slow(from, to, time.Duration(rng.Int64N(int64(900*time.Millisecond))), 20*time.Millisecond)
			}
		}
	}
}

// instanceFault cuts, slows or stops one instance.
func (r *partitionRun) instanceFault(rng *rand.Rand, kind int) {
	r.mu.Lock()
	id := r.instances[rng.IntN(len(r.instances))].id
	r.mu.Unlock()
	switch {
	case kind == 7 && rng.IntN(2) == 0:
		r.cutOff(id, r.world.IDs())
	case kind == 7:
		for _, m := range r.world.IDs() {
			r.world.Network.Cut(m, id) // It is heard, and hears nothing.
		}
	case rng.IntN(2) == 0:
		r.world.Network.Pause(id)
	default:
		r.slow(rng, append(r.world.IDs(), id))
	}
}

// crash takes an instance for dead and starts another run of it, while what the first let in is still on its way.
func (r *partitionRun) crash(rng *rand.Rand) {
	r.mu.Lock()
	k := rng.IntN(len(r.instances))
	dead := r.instances[k]
	r.mu.Unlock()
	dead.link.gone.Store(true)
	i, err := startInstance(r.ctx, r.world, dead.id, NewClock(0, 1-simDrift+2*simDrift*rng.Float64(), 0), r.Mutant)
	if err != nil {
		r.ledger.Report("%s doesn't start again: %v", dead.id, err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances[k] = i
	r.zombies = append(r.zombies, dead)
}
