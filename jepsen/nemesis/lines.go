package nemesis

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"quorate/jepsen/lab"
	"quorate/jepsen/wire"
)

// lines are the faults of the network. Clients reach every member all the time, unless a kind says otherwise: a member that only its peers have lost is the worse one.
func lines() []Kind {
	return []Kind{
		{"isolate", isolate},
		{"isolate-from-all", isolateFromAll},
		{"halves", halves},
		{"one-way", oneWay},
		{"bridge", bridge},
		{"slow", func(_ context.Context, w *World) (*Fault, error) {
			q := wire.Quality{Delay: time.Duration(20+w.Random.IntN(180)) * time.Millisecond, Jitter: 20 * time.Millisecond}
			return degrade(w, "slow", q, func(c wire.Counts) uint64 { return c.Delayed })
		}},
		{"lossy", func(_ context.Context, w *World) (*Fault, error) {
			q := wire.Quality{Delay: time.Millisecond, Loss: 0.02 + w.Random.Float64()*0.1, Double: 0.05, Reorder: 0.05}
			return degrade(w, "lossy", q, func(c wire.Counts) uint64 { return min(c.Lost, c.Doubled, c.Reordered) })
		}},
		{"reset", reset},
		{"flap", flap},
	}
}

// cut cuts lines, given as pairs of addresses, in the direction from the first to the second.
func cut(w *World, text string, members []*lab.Member, pairs [][2]netip.Addr) *Fault {
	before := w.Lab.Switch.Counts().Lost
	for _, p := range pairs {
		w.Lab.Switch.Set(p[0], p[1], wire.Quality{Cut: true})
	}
	return &Fault{
		Members: ids(members), Text: text, For: w.length(),
		seen: func(context.Context) (string, error) {
			if lost := w.Lab.Switch.Counts().Lost - before; lost > 0 {
				return fmt.Sprintf("%d packets lost", lost), nil
			}
			return "", errors.New("no packet was lost")
		},
		heal: func(context.Context) error {
			for _, p := range pairs {
				w.Lab.Switch.Set(p[0], p[1], wire.Quality{})
			}
			return nil
		},
	}
}

// both is a line in both directions.
func both(a, b netip.Addr) [][2]netip.Addr { return [][2]netip.Addr{{a, b}, {b, a}} }

// isolate cuts a member off from the others, and not from clients.
func isolate(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "isolate")
	if m == nil {
		return nil, nil
	}
	var pairs [][2]netip.Addr
	for _, other := range w.Lab.Members {
		if other != m {
			pairs = append(pairs, both(m.Address, other.Address)...)
		}
	}
	return cut(w, m.ID+" is cut off from the other members", one(m), pairs), nil
}

// isolateFromAll cuts a member off from the others and from clients.
func isolateFromAll(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "isolate-from-all")
	if m == nil {
		return nil, nil
	}
	pairs := both(m.Address, w.Lab.Clients())
	for _, other := range w.Lab.Members {
		if other != m {
			pairs = append(pairs, both(m.Address, other.Address)...)
		}
	}
	return cut(w, m.ID+" is cut off from everybody", one(m), pairs), nil
}

// halves splits the group in two.
func halves(_ context.Context, w *World) (*Fault, error) {
	members := w.all("halves")
	if members == nil {
		return nil, nil
	}
	w.Random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	at := len(members) / 2
	var pairs [][2]netip.Addr
	for _, a := range members[:at] {
		for _, b := range members[at:] {
			pairs = append(pairs, both(a.Address, b.Address)...)
		}
	}
	return cut(w, fmt.Sprintf("%v and %v don't reach each other", ids(members[:at]), ids(members[at:])), members, pairs), nil
}

// oneWay lets a member hear the others and not be heard, or the other way round.
func oneWay(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "one-way")
	if m == nil {
		return nil, nil
	}
	in := w.Random.IntN(2) == 0
	var pairs [][2]netip.Addr
	for _, other := range w.Lab.Members {
		switch {
		case other == m:
		case in:
			pairs = append(pairs, [2]netip.Addr{other.Address, m.Address})
		default:
			pairs = append(pairs, [2]netip.Addr{m.Address, other.Address})
		}
	}
	text := m.ID + " is not heard by the other members"
	if in {
		text = m.ID + " doesn't hear the other members"
	}
	return cut(w, text, one(m), pairs), nil
}

// bridge leaves one member that reaches all others, which don't reach each other.
func bridge(_ context.Context, w *World) (*Fault, error) {
	members := w.all("bridge")
	if members == nil {
		return nil, nil
	}
	w.Random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	var pairs [][2]netip.Addr
	for i, a := range members[1:] {
		for _, b := range members[i+2:] {
			pairs = append(pairs, both(a.Address, b.Address)...)
		}
	}
	return cut(w, fmt.Sprintf("only %s reaches all others", members[0].ID), members, pairs), nil
}

// degrade makes all lines between members bad, and those to clients too.
func degrade(w *World, by string, q wire.Quality, count func(wire.Counts) uint64) (*Fault, error) {
	members := w.all(by)
	if members == nil {
		return nil, nil
	}
	ends := []netip.Addr{w.Lab.Clients()}
	for _, m := range w.Lab.Members {
		ends = append(ends, m.Address)
	}
	set := func(q wire.Quality) {
		for i, a := range ends {
			for _, b := range ends[i+1:] {
				w.Lab.Switch.Set(a, b, q)
				w.Lab.Switch.Set(b, a, q)
			}
		}
	}
	before := count(w.Lab.Switch.Counts())
	set(q)
	return &Fault{
		Members: ids(members), Text: fmt.Sprintf("every line: %+v", q), For: w.length(),
		seen: func(context.Context) (string, error) {
			if n := count(w.Lab.Switch.Counts()) - before; n > 0 {
				return fmt.Sprintf("%d packets", n), nil
			}
			return "", errors.New("no packet met it")
		},
		heal: func(context.Context) error {
			set(wire.Quality{})
			return nil
		},
	}, nil
}

// reset breaks the connections of one member, again and again: each of its TCP segments is answered with a reset in the name of the other end.
func reset(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "reset")
	if m == nil {
		return nil, nil
	}
	q := wire.Quality{Reset: 0.02}
	set := func(q wire.Quality) {
		for _, other := range w.Lab.Members {
			if other != m {
				w.Lab.Switch.Set(m.Address, other.Address, q)
				w.Lab.Switch.Set(other.Address, m.Address, q)
			}
		}
		w.Lab.Switch.Set(w.Lab.Clients(), m.Address, q)
	}
	before := w.Lab.Switch.Counts().Resets
	set(q)
	return &Fault{
		Members: []string{m.ID}, Text: "connections of " + m.ID + " are reset", For: w.length(),
		seen: func(context.Context) (string, error) {
			if n := w.Lab.Switch.Counts().Resets - before; n > 0 {
				return fmt.Sprintf("%d resets", n), nil
			}
			return "", errors.New("nothing was reset")
		},
		heal: func(context.Context) error {
			set(wire.Quality{})
			return nil
		},
	}, nil
}

// flapPeriod is how long a flapping line is up, or down.
const flapPeriod = 400 * time.Millisecond

// flap cuts and heals the lines of a member all the time.
func flap(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "flap")
	if m == nil {
		return nil, nil
	}
	set := func(q wire.Quality) {
		for _, other := range w.Lab.Members {
			if other != m {
				w.Lab.Switch.Set(m.Address, other.Address, q)
				w.Lab.Switch.Set(other.Address, m.Address, q)
			}
		}
	}
	before := w.Lab.Switch.Counts().Lost
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		every := time.NewTicker(flapPeriod)
		defer every.Stop()
		for down := true; ; down = !down {
			set(wire.Quality{Cut: down})
			select {
			case <-every.C:
			case <-stop:
				set(wire.Quality{})
				return
			}
		}
	}()
	return &Fault{
		Members: []string{m.ID}, Text: fmt.Sprintf("the lines of %s to other members are cut every second %v", m.ID, flapPeriod), For: w.length(),
		seen: func(context.Context) (string, error) {
			if lost := w.Lab.Switch.Counts().Lost - before; lost > 0 {
				return fmt.Sprintf("%d packets lost", lost), nil
			}
			return "", errors.New("no packet was lost")
		},
		heal: func(context.Context) error {
			close(stop)
			<-stopped
			return nil
		},
	}, nil
}
