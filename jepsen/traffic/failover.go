package traffic

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"quorate/jepsen/history"
)

const (
	// FailoverBudget is how long a consumer may be without values while some server of the set is usable: SessionTimeout + 3 × KeepAliveInterval
	// (redundancy.md §8), with the times that the client asks for.
	FailoverBudget = 16 * time.Second
	// failoverGap is from which time without a value on that is noted.
	failoverGap = time.Second
	// failoverLives is after what time the client is started anew, at another server and in another mode.
	failoverLives = 60 * time.Second
	failoverLine  = 64 << 10
)

func failovers() Workload {
	return Workload{Name: "failover", Setup: nothing, Run: runFailovers, Quiet: nothingQuiet, Final: nothingQuiet}
}

// runFailovers follows the best server, as a process of the command.
func runFailovers(ctx context.Context, e *Env) error {
	r := e.random("failover")
	for ctx.Err() == nil {
		m := e.shape.members[r.IntN(len(e.shape.members))]
		life, cancel := context.WithTimeout(ctx, failoverLives)
		err := follow(life, e, m.ID, m.OPCUA, pick(r, "cold", "warm", "hot-a", "hot-b", "auto"))
		cancel()
		if err != nil {
			return err
		}
		Rest(ctx, time.Second)
	}
	return nil
}

func follow(ctx context.Context, e *Env, member, url, mode string) error {
	cmd := exec.CommandContext(ctx, e.Binary, "ua", "failover", "--endpoint", url, "--mode", mode, "-o", "json", "CurrentTime")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	// It remembers the certificates of servers, and those of a run are nobody else's.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.Lab.Home()}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	op := e.Log.Begin(history.Op{Client: "failover", Member: member, Noun: "failover", Kind: "follow", Key: member}, map[string]string{"mode": mode, "endpoint": url})
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("failover client: %w", err)
	}
	var last time.Duration
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 4096), failoverLine)
	for lines.Scan() {
		last = e.tell(lines.Bytes(), last)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		err = nil // That is how it ends.
	}
	e.Log.Mark(history.Mark{Kind: "failover", Text: "end"}, struct{}{})
	outcome := history.OK
	if err != nil {
		outcome, err = history.Failed, errors.Join(err, errors.New(said.String()))
	}
	e.Log.End(op, outcome, nil, err)
	return nil
}

// tell notes a line of the client, and returns when the last value came.
func (e *Env) tell(text []byte, last time.Duration) time.Duration {
	var line struct {
		Type string `json:"type"`
	}
	now := e.Log.Since()
	if err := json.Unmarshal(text, &line); err != nil {
		e.Log.Mark(history.Mark{At: now, Kind: "failover", Text: "unreadable"}, string(text))
		return last
	}
	if line.Type != "value" {
		e.Log.Mark(history.Mark{At: now, Kind: "failover", Text: line.Type}, json.RawMessage(text))
		return last
	}
	if last == 0 || now-last > failoverGap {
		gap := now - last
		if last == 0 {
			gap = 0
		}
		e.Log.Mark(history.Mark{At: now, Kind: "failover", Text: "value"}, map[string]time.Duration{"gap": gap})
	}
	return now
}
