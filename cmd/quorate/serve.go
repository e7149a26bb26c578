package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// shutdownLimit is how long a member may take to end what is in flight and hand over, and stopLimit is when its process ends whatever still hangs: a store that
// never returns must not keep a member alive that serves nobody.
const (
	shutdownLimit = 10 * time.Second
	stopLimit     = 30 * time.Second
)

func newServe(o *options) *cobra.Command {
	var file string
	var set []string
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run one member",
		Long: `Serve runs one member from a configuration file. Flags (--set) go over the environment (QUORATE_…, such as
QUORATE_RAFT_ADDRESS for raft.address) and the environment over the file.

The first SIGINT or SIGTERM stops it in order: it says so over OPC UA, finishes the calls in flight, hands the leadership
over and leaves. The second one ends it at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return errors.New("--config: missing")
			}
			s, err := loadSettings(file, os.Environ(), set)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), s, newLogger(s, o.std.err))
		},
	}
	addConfigFlag(cmd, &file)
	addSetFlag(cmd, &set)
	return cmd
}

// serve runs a member until ctx ends, which is the wish to stop, or the member can't go on, which is an error.
func serve(ctx context.Context, s *settings, logger *slog.Logger) error {
	collectSeldom()
	running, err := openMember(s, logger)
	if err != nil {
		return err
	}
	return running.runUntil(ctx)
}

// runUntil waits for the end of ctx or of the member, whichever is first, and stops the member in order.
func (m *member) runUntil(ctx context.Context) error {
	var failure error
	select {
	case <-ctx.Done():
		m.logger.Info("stopping")
	case failure = <-m.failed():
		m.logger.Error("the member can't go on", "error", failure)
		failure = fmt.Errorf("the member can't go on: %w", failure)
	}
	stopping, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	if err := within(stopLimit, func() error { return m.stop(stopping) }); err != nil {
		return errors.Join(failure, fmt.Errorf("stop: %w", err))
	}
	m.logger.Info("stopped")
	return failure
}

// within calls stop, and waits for it so long at most.
func within(limit time.Duration, stop func() error) error {
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-stopped:
		return err
	case <-timer.C:
		return fmt.Errorf("not done after %v", limit)
	}
}

// newLogger returns the logger that the settings ask for.
func newLogger(s *settings, w io.Writer) *slog.Logger {
	handler := slog.Handler(slog.NewTextHandler(w, &slog.HandlerOptions{Level: s.logLevel()}))
	if s.Log.Format == "json" {
		handler = slog.NewJSONHandler(w, &slog.HandlerOptions{Level: s.logLevel()})
	}
	return slog.New(handler)
}
