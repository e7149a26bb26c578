package nemesis

import (
	"context"
	"fmt"
)

// versions are the faults of members of different versions.
func versions() []Kind {
	return []Kind{{"version-skew", versionSkew}}
}

// versionSkew lets one member be of the version before, as in a rolling upgrade: it is restarted, and says that it can't apply the newest commands. Until it
// says otherwise the group must refuse them.
func versionSkew(ctx context.Context, w *World) (*Fault, error) {
	m := w.victim(ctx, "version-skew")
	if m == nil {
		return nil, nil
	}
	version, err := w.Group.CommandVersion(ctx, m.ID)
	if err != nil || version < 2 {
		return nil, nil // Nobody can say now, or it has only just joined.
	}
	former := version - 1
	if err := m.Stop(); err != nil {
		return nil, err
	}
	if err := m.StartWith(fmt.Sprint("upgrade.commandVersion=", former)); err != nil {
		return nil, err
	}
	return &Fault{
		Members: []string{m.ID}, Text: fmt.Sprintf("%s knows commands up to version %d", m.ID, former), For: w.length(),
		seen: func(ctx context.Context) (string, error) {
			return "the group refuses what it doesn't know", w.Group.Lags(ctx, m.ID, former)
		},
		heal: func(context.Context) error {
			if err := m.Stop(); err != nil {
				return err
			}
			return m.Start()
		},
	}, nil
}
