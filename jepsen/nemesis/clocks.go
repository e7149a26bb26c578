package nemesis

import (
	"context"
	"fmt"
	"time"
)

// clocks are the faults of clocks. Only the wall clock can be wrong in a real process; that the others may be too is shown in simulation.
func clocks() []Kind {
	return []Kind{{"wall-clock", wallClock}}
}

// wallClock sets a member's wall clock forward or back by up to two hours, and back again.
func wallClock(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "wall-clock")
	if m == nil {
		return nil, nil
	}
	by := time.Duration(w.Random.Int64N(int64(4*time.Hour))) - 2*time.Hour
	if err := m.ShiftWall(by); err != nil {
		return nil, err
	}
	return &Fault{
		Members: []string{m.ID}, Text: fmt.Sprintf("the wall clock of %s is off by %v", m.ID, by.Round(time.Second)), For: w.length(),
		seen: func(ctx context.Context) (string, error) {
			off, err := w.Group.WallOffset(ctx, m.ID)
			if err == nil && (off-by).Abs() > time.Minute {
				err = fmt.Errorf("what it records is off by %v", off)
			}
			return fmt.Sprintf("what it records is off by %v", off.Round(time.Second)), err
		},
		heal: func(context.Context) error { return m.ShiftWall(0) },
	}, nil
}
