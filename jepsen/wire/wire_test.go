package wire

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test makes namespaces of its own, so it runs in a child that has its own mounts and network.
const inside = "QUORATE_WIRE_TEST_INSIDE"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// enter runs the calling test in namespaces of its own, and says whether this is already that child.
func enter(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	} else if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing = "/dev/net/tun"
	}
	for _, tool := range []string{"ip", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = tool
		}
	}
	if missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs %s", missing)
		}
		t.Skipf("needs %s", missing)
	}
	cmd := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatal("the child did not run the test")
	}
	return false
}

var (
	here  = netip.MustParseAddr("10.77.0.100")
	there = netip.MustParseAddr("10.77.0.1")
)

// lay lays a line from here to a namespace, in which an echo server listens.
func lay(t *testing.T) *Switch {
	t.Helper()
	for _, args := range [][]string{{"mount", "-t", "tmpfs", "none", "/run"}, {"ip", "netns", "add", "m1"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	s := NewSwitch(1)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Join("", netip.PrefixFrom(here, 24)); err != nil {
		t.Fatal(err)
	}
	if err := s.Join("/run/netns/m1", netip.PrefixFrom(there, 24)); err != nil {
		t.Fatal(err)
	}
	echo := exec.Command("ip", "netns", "exec", "m1", os.Args[0], "-test.run", "^TestEcho$")
	echo.Env = append(os.Environ(), "QUORATE_WIRE_TEST_ECHO="+there.String()+":7000")
	echo.Stderr = os.Stderr
	out, err := echo.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := echo.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = echo.Process.Kill()
		_ = echo.Wait()
	})
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestEcho is the echo server in the namespace.
func TestEcho(t *testing.T) {
	address := os.Getenv("QUORATE_WIRE_TEST_ECHO")
	if address == "" {
		return // It is not a test by itself.
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Print("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(c, c) }()
	}
}

// trip sends some bytes to and fro, and returns how long that took.
func trip(t *testing.T, c net.Conn, size int) time.Duration {
	t.Helper()
	sent, got := make([]byte, size), make([]byte, size)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	began := time.Now()
	_ = c.SetDeadline(began.Add(20 * time.Second))
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		failed <- err
	}()
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if string(got) != string(sent) {
		t.Fatal("other bytes came back")
	}
	return time.Since(began)
}

func dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp4", there.String()+":7000", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSwitch passes what it gets, and does to it what it is told.
func TestSwitch(t *testing.T) {
	if !enter(t) {
		return
	}
	s := lay(t)
	c := dial(t)
	const size = 8 << 20
	took := trip(t, c, size)
	t.Logf("%d MiB to and fro in %v", size>>20, took)
	if quick := trip(t, c, 100); quick > 50*time.Millisecond {
		t.Errorf("a perfect line took %v", quick)
	}

	s.Set(here, there, Quality{Delay: 100 * time.Millisecond})
	if slow := trip(t, c, 100); slow < 100*time.Millisecond || slow > 190*time.Millisecond {
		t.Errorf("with 100 ms in one direction a trip took %v", slow)
	}
	s.Set(there, here, Quality{Delay: 100 * time.Millisecond})
	if slow := trip(t, c, 100); slow < 200*time.Millisecond || slow > 300*time.Millisecond {
		t.Errorf("with 100 ms in both directions a trip took %v", slow)
	}

	bad := Quality{Delay: 2 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.02, Double: 0.02, Reorder: 0.02}
	s.Set(here, there, bad)
	s.Set(there, here, bad)
	before := s.Counts()
	trip(t, c, 1<<20)
	after := s.Counts()
	if after.Lost == before.Lost || after.Doubled == before.Doubled || after.Reordered == before.Reordered || after.Delayed == before.Delayed {
		t.Errorf("nothing was lost, doubled, reordered or delayed: %+v, then %+v", before, after)
	}

	// One direction only: what is said there arrives, and the answer doesn't.
	s.Heal()
	s.Set(there, here, Quality{Cut: true})
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 5)); err == nil {
		t.Errorf("%d bytes came over a line that is cut", n)
	}
	s.Heal()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Errorf("after healing: %v", err)
	}
}
