package main

import (
	"context"

	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/spf13/cobra"

	"quorate/opcua"
	"quorate/opcua/failover"
)

func newUAFailover(o *options) *cobra.Command {
	var mode string
	var interval, giveUp time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "failover --endpoint URL NODE…",
		Short: "Follow nodes at the best server of a redundant set, and print each cut-over",
		Long: `Failover takes the URL of any one server of a redundant set, finds the others, and prints each change of the nodes at the server
with the best claim to be used, as OPC 10000-4 §6.6.2.4.5 has clients do. When that server is lost, goes into maintenance, or is
no longer Healthy while another one is, it moves, and prints the cut-over: how long it took, for how long there was no value, and
how many samples were lost. With -o json each line is an object whose "type" is value, server, cutOver or lost.`,
		Example: `  quorate ua failover --endpoint opc.tcp://127.0.0.1:4841 CurrentTime
  quorate ua failover --endpoint opc.tcp://127.0.0.1:4841 --mode hot-a ServiceLevel -o json`,
		Args: cobra.MinimumNArgs(1),
	}
	f := addUAFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&mode, "mode", failover.Auto.String(), "what is held ready at the other servers, `MODE`: auto, cold, warm, hot-a or hot-b")
	flags.DurationVar(&interval, "interval", failover.DefaultPublishingInterval, "publishing interval that is asked for")
	flags.DurationVar(&giveUp, "give-up", 0, "end when no server could be used for that long (default: never, once one was)")
	flags.IntVar(&count, "count", 0, "end after `N` lines (default: go on)")
	must(cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions(failover.ModeNames(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(cmd *cobra.Command, nodes []string) error {
		config, err := f.client(nodes, o.std.err)
		if err != nil {
			return err
		}
		if interval <= 0 || interval > failover.MaxInterval {
			return fmt.Errorf("--interval: must be more than 0 and at most %s, got %s", failover.MaxInterval, interval)
		}
		if count < 0 {
			return fmt.Errorf("--count: must not be negative, got %d", count)
		}
		if giveUp < 0 {
			return fmt.Errorf("--give-up: must not be negative, got %s", giveUp)
		}
		c := failover.Config{URL: config.Endpoint, Session: config.Options, PublishingInterval: interval, GiveUp: giveUp}
		if c.Mode, err = failover.ParseMode(mode); err != nil {
			return fmt.Errorf("--%w", err)
		}
		if c.Nodes, err = nodeIDs(nodes); err != nil {
			return err
		}
		ctx, enough := context.WithCancel(cmd.Context())
		defer enough()
		lines := &failoverLines{options: o, nodes: nodes, left: count, enough: enough}
		c.OnValue, c.OnCutOver, c.OnServers, c.OnLost = lines.value, lines.cutOver, lines.servers, lines.lost
		client, err := failover.New(c)
		if err != nil {
			return err
		}
		err = client.Run(ctx)
		switch {
		case lines.failure != nil:
			return lines.failure
		case ctx.Err() != nil:
			return nil // That is how it ends.
		default:
			return &serverError{err}
		}
	}
	return cmd
}

func nodeIDs(nodes []string) ([]*ua.NodeID, error) {
	ids := make([]*ua.NodeID, len(nodes))
	for i, n := range nodes {
		var err error
		if ids[i], err = opcua.ParseNode(n); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// failoverLines prints what a failover client tells, one line at a time.
type failoverLines struct {
	options *options
	nodes   []string
	known   []failover.Server
	left    int // lines to print, 0 at the start being any number
	enough  func()
	failure error
}

func (l *failoverLines) print(row []cell, value any) {
	if l.failure != nil || l.left < 0 {
		return
	}
	if l.failure = l.options.showLine(row, value); l.failure != nil {
		l.enough()
		return
	}
	if l.left > 0 {
		if l.left--; l.left == 0 {
			l.left = -1
			l.enough()
		}
	}
}

func (l *failoverLines) value(v failover.Value) {
	r := opcua.ReadingOf(l.nodes[v.Node], v.Data)
	now := time.Now()
	l.print(append(readingRow(r, &now), cell{text: v.Server, colour: faint}), struct {
		Type   string `json:"type"`
		Server string `json:"server"`
		opcua.Reading
	}{"value", v.Server, r})
}

// serverLine is a server as a line of JSON has it.
type serverLine struct {
	Type           string     `json:"type,omitempty"`
	ApplicationURI string     `json:"applicationUri"`
	URL            string     `json:"url"`
	State          string     `json:"state"`
	ServiceLevel   byte       `json:"serviceLevel"`
	InUse          bool       `json:"inUse"`
	Return         *time.Time `json:"return,omitempty"`
	Problem        string     `json:"problem,omitempty"`
}

func lineOf(kind string, s failover.Server) serverLine {
	line := serverLine{Type: kind, ApplicationURI: s.URI, URL: s.URL, State: s.State.String(), ServiceLevel: s.Level, InUse: s.Active, Problem: s.Problem}
	if !s.Return.IsZero() {
		line.Return = &s.Return
	}
	return line
}

// servers prints those of which something has changed.
func (l *failoverLines) servers(list []failover.Server) {
	for _, s := range list {
		if slices.Contains(l.known, s) {
			continue
		}
		state := cell{text: s.State.String(), colour: warn}
		switch {
		case s.Active:
			state = cell{text: "in use", colour: good}
		case s.State == failover.Unreachable:
			state.colour = bad
		case s.State == failover.Reachable:
			state.colour = plain
		}
		row := text(cell{text: "server", colour: faint}, nameOf(s), state)
		switch s.State {
		case failover.Reachable:
			row = append(row, text(fmt.Sprintf("level %d", s.Level))...)
		case failover.Away:
			row = append(row, text(fmt.Sprintf("level %d, until %s", s.Level, s.Return.Local().Format(time.DateTime)))...)
		case failover.Unreachable:
			row = append(row, text(s.Problem)...)
		}
		l.print(row, lineOf("server", s))
	}
	l.known = list
}

func nameOf(s failover.Server) string {
	if s.URI == "" {
		return s.URL
	}
	return s.URI
}

func (l *failoverLines) cutOver(c failover.CutOver) {
	type line struct {
		Type      string      `json:"type"`
		Reason    string      `json:"reason"`
		From      *serverLine `json:"from,omitempty"`
		To        serverLine  `json:"to"`
		At        time.Time   `json:"at"`
		Duration  float64     `json:"durationMilliseconds"`
		Silence   float64     `json:"silenceMilliseconds"`
		Lost      int         `json:"lost"`
		Uncounted int         `json:"uncountedNodes"`
	}
	printed := line{
		Type: "cutOver", Reason: c.Reason.String(), To: lineOf("", c.To), At: c.At,
		Duration: milliseconds(c.Duration), Silence: milliseconds(c.Silence), Lost: c.Lost, Uncounted: c.Uncounted,
	}
	words := fmt.Sprintf("to %s", nameOf(c.To))
	if c.Reason != failover.Started {
		from := lineOf("", c.From)
		printed.From = &from
		words = fmt.Sprintf("from %s to %s", nameOf(c.From), nameOf(c.To))
	}
	words += fmt.Sprintf(" in %s", c.Duration.Round(time.Millisecond))
	if c.Reason != failover.Started {
		words += fmt.Sprintf(", %s without a value, %d samples lost", c.Silence.Round(time.Millisecond), c.Lost)
		if c.Uncounted > 0 {
			words += fmt.Sprintf(" (%d nodes have no rhythm to count by)", c.Uncounted)
		}
	}
	l.print(text(cell{text: "cut-over", colour: warn}, c.Reason, words), printed)
}

// lost prints what was lost without a cut-over.
func (l *failoverLines) lost(s failover.Server, messages int) {
	l.print(text(cell{text: "lost", colour: bad}, fmt.Sprintf("%d messages of %s", messages, nameOf(s))), struct {
		Type     string `json:"type"`
		Server   string `json:"server"`
		Messages int    `json:"messages"`
	}{"lost", s.URL, messages})
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
