package main

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func openForTest(t *testing.T) (*member, *settings) {
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
	m, err := openMember(s, newLogger(s, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	return m, s
}

func TestServeEndsWithItsContext(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	m, _ := openForTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.runUntil(ctx); err != nil {
		t.Error(err)
	}
}

func TestServeEndsWithTheFailureOfAPart(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	m, _ := openForTest(t)
	m.failures <- errors.New("node: the disk is gone")
	err := m.runUntil(t.Context())
	if err == nil || err.Error() != "the member can't go on: node: the disk is gone" || exitCode(err) != exitLocal {
		t.Errorf("error %v, exit code %d", err, exitCode(err))
	}
}

// A listener that dies takes the member with it: half a member would look alive.
func TestAPartThatEndsByItselfIsAFailure(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	m, _ := openForTest(t)
	if err := m.rpc.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.runUntil(t.Context()); err == nil || !strings.Contains(err.Error(), "ended by itself") {
		t.Errorf("error %v", err)
	}
}

func TestEachPortInUseIsNamed(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planDev(&devFlags{members: 1, basePort: base, data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s := plan.members[0].settings
	for key, address := range map[string]string{
		"grpc.address": s.GRPC.Address, "http.address": s.HTTP.Address, "opcua.address": s.OPCUA.Address, "raft.address": s.Raft.Address,
	} {
		taken, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openMember(s, newLogger(s, io.Discard)); err == nil || !strings.HasPrefix(err.Error(), key+": ") {
			t.Errorf("%s is in use: error %v", key, err)
		}
		taken.Close()
	}
	// Nothing holds on to the ports after the failures.
	m, err := openMember(s, newLogger(s, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.stop(t.Context()); err != nil {
		t.Error(err)
	}
}
