package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
	"go.uber.org/goleak"

	"quorate/opcua/session"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
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

// TestServerStateChangeGoesThroughTheLog declares maintenance over OPC UA, as an administrator who logs in by password, and looks for it in the
// replicated state, with the name of who did it. An anonymous session may not.
func TestServerStateChangeGoesThroughTheLog(t *testing.T) {
	base, err := freePorts()
	if err != nil {
		t.Fatal(err)
	}
	plan, err := planDev(&devFlags{members: 1, basePort: base, data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s := plan.members[0].settings
	const password = "correct horse battery staple"
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	add := exec.CommandContext(t.Context(), "quorate", "pki", "user", "add", "ada", "--data-dir", s.DataDir, "--role", "administrator", "--password-file", secret)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m, err := openMember(s, newLogger(s, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- m.runUntil(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	publish := &logv1.Command{RequestId: "t1", Actor: &quoratev1.Actor{Name: "test"},
		Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{Topology: plan.topology(false)}}}
	for m.node.Local().State.CurrentGeneration() == nil {
		changed := m.node.Changed()
		outcome, err := m.node.Propose(ctx, publish)
		if err != nil {
			t.Fatal(err)
		}
		if outcome.GetRefusal() == nil {
			continue
		}
		// The member has not yet announced itself.
		publish.RequestId += "1"
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal(outcome.GetRefusal())
		}
	}
	certificate, key, err := pki.EnsureApplicationCertificate(t.TempDir(), "urn:quorate:test", []string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	call := func(user, password string, state ua.ServerState) ua.StatusCode {
		t.Helper()
		c, err := session.Open(ctx, s.OPCUA.EndpointURL, session.Options{
			Policy: session.Basic256Sha256, Certificate: certificate, Key: key, User: user, Password: password,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		answer, err := session.Call[*ua.CallResponse](ctx, c, &ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{
			ObjectID: ua.NewNumericNodeID(0, id.Server), MethodID: ua.NewNumericNodeID(0, id.Server_RequestServerStateChange),
			InputArguments: []*ua.Variant{ua.MustVariant(int32(state)), ua.MustVariant(time.Now().Add(time.Hour)), ua.MustVariant(uint32(0)),
				ua.MustVariant(ua.NewLocalizedText("new bearings")), ua.MustVariant(false)},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Results[0].StatusCode
	}
	if status := call("", "", ua.ServerStateSuspended); status != ua.StatusBadUserAccessDenied {
		t.Errorf("anonymous: %v, want BadUserAccessDenied", status)
	}
	if status := call("ada", password, ua.ServerStateSuspended); status != ua.StatusOK {
		t.Fatalf("administrator: %v", status)
	}
	declared, _ := m.node.Local().State.Maintenance("m1")
	if !declared.GetActive() || declared.GetReason() != "new bearings" || declared.GetActor().GetName() != "ada" || declared.GetEstimatedReturn() == nil {
		t.Errorf("the state has %v", declared)
	}
	if status := call("ada", password, ua.ServerStateRunning); status != ua.StatusOK {
		t.Errorf("and back: %v", status)
	}
	if declared, _ := m.node.Local().State.Maintenance("m1"); declared.GetActive() {
		t.Errorf("still in maintenance: %v", declared)
	}
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

// TestStopIsBounded: what hangs is not waited for.
func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("it failed")
		if err := within(stopLimit, func() error { return failure }); !errors.Is(err, failure) {
			t.Errorf("it is %v, want %v", err, failure)
		}
		release := make(chan struct{})
		defer close(release)
		began := time.Now()
		err := within(stopLimit, func() error {
			<-release
			return nil
		})
		if took := time.Since(began); err == nil || took != stopLimit {
			t.Errorf("a stop that hangs: %v after %v", err, took)
		}
	})
}
