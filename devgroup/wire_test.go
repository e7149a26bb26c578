package devgroup

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo serves connections that give back what they get.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func TestWire(t *testing.T) {
	processes := func() map[string]int { return map[string]int{"another": 1, "test": os.Getpid()} }
	w, err := NewWire("127.0.0.1:0", echo(t), processes)
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (ask func(text string) (string, time.Duration, error)) {
		c, err := net.Dial("tcp", w.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		answers := bufio.NewReader(c)
		return func(text string) (string, time.Duration, error) {
			began := time.Now()
			if _, err := fmt.Fprintln(c, text); err != nil {
				return "", 0, err
			}
			answer, err := answers.ReadString('\n')
			return answer, time.Since(began), err
		}
	}
	first := dial()
	for range 10 {
		if answer, _, err := first("hello"); answer != "hello\n" || err != nil {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	const delay = 50 * time.Millisecond
	w.Delay(delay)
	if answer, took, err := first("slow"); answer != "slow\n" || err != nil || took < delay {
		t.Errorf("%q after %v, %v", answer, took, err)
	}
	w.Delay(0)

	w.Cut(func(from string) bool { return from == "another" })
	if answer, _, err := first("not mine"); answer != "not mine\n" || err != nil {
		t.Errorf("%q, %v, though somebody else is cut off", answer, err)
	}
	if _, _, err := dial()("nor a new one"); err != nil {
		t.Errorf("%v, though somebody else is cut off", err)
	}
	w.Cut(func(from string) bool { return from == "test" })
	if _, _, err := first("cut"); err == nil {
		t.Error("a connection outlived the cut")
	}
	if _, _, err := dial()("cut"); err == nil {
		t.Error("a connection was made through a cut wire")
	}
	w.Cut(nil)
	if _, _, err := dial()("mended"); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}
