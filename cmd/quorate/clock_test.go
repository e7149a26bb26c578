package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	quoratev1 "quorate/proto/quorate/v1"
)

// TestWallTimeIsShifted moves the wall time of a member's clock to and fro; its monotonic reading takes no notice.
func TestWallTimeIsShifted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "offset")
	c := memberClock(file)
	if off := time.Until(c.Wall()); off.Abs() > time.Minute {
		t.Errorf("without a file the wall time is off by %v", off)
	}
	for text, want := range map[string]time.Duration{"1h\n": time.Hour, "-90m": -90 * time.Minute, "an hour": 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if off := time.Until(c.Wall()) - want; off.Abs() > time.Minute {
			t.Errorf("with %q the wall time is off by %v", text, off+want)
		}
		if c.Elapsed() > time.Minute {
			t.Errorf("with %q the monotonic reading is %v", text, c.Elapsed())
		}
	}
}

// TestShiftedWallTimeIsRecorded runs a member whose wall clock is hours ahead: what people ask it to change is recorded with that time, as what it changes by
// itself is.
func TestShiftedWallTimeIsRecorded(t *testing.T) {
	ctx, conn := serveAlone(t, func(s *settings) {
		s.Clock.WallOffsetFile = filepath.Join(t.TempDir(), "offset")
		if err := os.WriteFile(s.Clock.WallOffsetFile, []byte("3h"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	resp, err := quoratev1.NewGateServiceClient(conn).RegisterInstance(ctx,
		&quoratev1.RegisterInstanceRequest{RequestId: "r1", Id: "i1", Session: "0123456789abcdef"}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Until(resp.GetInstance().GetRegisteredAt().AsTime()) - 3*time.Hour; off.Abs() > time.Minute {
		t.Errorf("the recorded time is off by %v", off+3*time.Hour)
	}
}

// serveAlone runs a group of one member, with other settings than those of dev, and connects to it.
func serveAlone(t *testing.T, edit func(*settings)) (context.Context, *grpc.ClientConn) {
	t.Helper()
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planDev(&devFlags{members: 1, basePort: base, data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s := plan.members[0].settings
	edit(s)
	m, err := openMember(s, newLogger(s, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- m.runUntil(ctx) }()
	conn, err := grpc.NewClient(s.GRPC.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ctx, conn
}
