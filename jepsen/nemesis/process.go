package nemesis

import (
	"context"
	"fmt"
	"os"
	"strings"

	"quorate/jepsen/lab"
)

// processes are the faults of processes.
func processes() []Kind {
	return []Kind{
		{"kill", func(ctx context.Context, w *World) (*Fault, error) { return kill(w, one(w.victim(ctx, "kill"))) }},
		{"kill-majority", func(_ context.Context, w *World) (*Fault, error) { return kill(w, w.majority("kill-majority")) }},
		{"kill-all", func(_ context.Context, w *World) (*Fault, error) { return kill(w, w.all("kill-all")) }},
		{"pause", func(ctx context.Context, w *World) (*Fault, error) { return pause(w, one(w.victim(ctx, "pause"))) }},
		{"pause-majority", func(_ context.Context, w *World) (*Fault, error) { return pause(w, w.majority("pause-majority")) }},
		{"rolling-restart", rollingRestart},
	}
}

func one(m *lab.Member) []*lab.Member {
	if m == nil {
		return nil
	}
	return []*lab.Member{m}
}

// kill ends members with SIGKILL and starts them again.
func kill(w *World, victims []*lab.Member) (*Fault, error) {
	if victims == nil {
		return nil, nil
	}
	if err := each(victims, (*lab.Member).Kill); err != nil {
		return nil, err
	}
	return &Fault{
		Members: ids(victims), Text: "SIGKILL " + strings.Join(ids(victims), " "), For: w.length(),
		seen: func(context.Context) (string, error) {
			for _, m := range victims {
				if m.Running() {
					return "", fmt.Errorf("%s runs", m.ID)
				}
			}
			return "the processes have ended", nil
		},
		heal: func(context.Context) error { return each(victims, (*lab.Member).Start) },
	}, nil
}

// pause stops members with SIGSTOP and lets them go on.
func pause(w *World, victims []*lab.Member) (*Fault, error) {
	if victims == nil {
		return nil, nil
	}
	if err := each(victims, (*lab.Member).Pause); err != nil {
		return nil, err
	}
	return &Fault{
		Members: ids(victims), Text: "SIGSTOP " + strings.Join(ids(victims), " "), For: w.length(),
		seen: func(context.Context) (string, error) {
			for _, m := range victims {
				state, err := stateOf(m.PID())
				if err != nil {
					return "", err
				}
				if state != "T" {
					return "", fmt.Errorf("%s is in state %s", m.ID, state)
				}
			}
			return "the processes are stopped", nil
		},
		heal: func(context.Context) error { return each(victims, (*lab.Member).Resume) },
	}, nil
}

// stateOf is the letter of a process's state (proc(5)).
func stateOf(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name in parentheses may hold anything.
	rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
	return strings.Fields(rest)[0], nil
}

// rollingRestart stops one member after the other the graceful way, and waits for each before it goes on. The group must not miss it.
func rollingRestart(ctx context.Context, w *World) (*Fault, error) {
	members := w.all("rolling-restart")
	if members == nil {
		return nil, nil
	}
	before := 0
	for _, m := range members {
		starts, _ := m.Lives()
		before += starts
		if err := m.Stop(); err != nil {
			return nil, err
		}
		if err := m.Start(); err != nil {
			return nil, err
		}
		if err := m.AwaitReady(ctx); err != nil {
			return nil, err
		}
	}
	return &Fault{
		Members: ids(members), Text: "one member after the other was stopped and started",
		seen: func(context.Context) (string, error) {
			after := 0
			for _, m := range members {
				starts, _ := m.Lives()
				after += starts
			}
			if after != before+len(members) {
				return "", fmt.Errorf("%d starts", after-before)
			}
			return fmt.Sprintf("%d restarts", after-before), nil
		},
		heal: func(context.Context) error { return nil },
	}, nil
}
