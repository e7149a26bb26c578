package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

// follower is a client that follows the Primary's ServiceLevel by a subscription, to its value or to the events that tell of it.
type follower struct {
	name   string
	cmd    *exec.Cmd
	in     io.Closer
	levels chan int
}

func follow(ctx context.Context, t *testing.T, scenario, name string, options map[string]any) *follower {
	t.Helper()
	cmd := client(ctx, t, scenario, options)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f := &follower{name: name, cmd: cmd, in: in, levels: make(chan int, changes+1)}
	go func() {
		defer close(f.levels)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line struct {
				Value  int
				Status string
				Error  string
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Error != "" || line.Status != "Good" {
				t.Errorf("%s: the client said %s (%v)", name, lines.Text(), err)
				continue
			}
			f.levels <- line.Value
		}
	}()
	return f
}

// next wants the next notification to have a certain value.
func (f *follower) next(ctx context.Context, t *testing.T, want int, why string) {
	t.Helper()
	select {
	case got, ok := <-f.levels:
		if !ok {
			t.Fatalf("%s: the client ended; want %d (%s)", f.name, want, why)
		}
		if got != want {
			t.Fatalf("%s: the client saw %d, want %d (%s)", f.name, got, want, why)
		}
	case <-ctx.Done():
		t.Fatalf("%s: the client saw nothing more; want %d (%s)", f.name, want, why)
	}
}

// end wants no notification beyond those that were asked for.
func (f *follower) end(t *testing.T) {
	t.Helper()
	if err := f.in.Close(); err != nil {
		t.Fatal(err)
	}
	for extra := range f.levels {
		t.Errorf("%s: the client saw %d, which no change made", f.name, extra)
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("%s: the client: %v", f.name, err)
	}
}

// followAll makes the Primary's level change again and again and wants every subscribed client to see each change.
func followAll(t *testing.T, conn *grpc.ClientConn, options func(security) map[string]any) {
	ctx, cancel := context.WithTimeout(t.Context(), scenarioLimit)
	defer cancel()
	var followers []*follower
	for _, s := range securities {
		followers = append(followers, follow(ctx, t, "follow", s.Mode, options(s)))
	}
	followers = append(followers, follow(ctx, t, "events", "events", options(securities[0])))
	for _, f := range followers {
		f.next(ctx, t, 255, "where it begins")
	}
	leases := quoratev1.NewLeaseServiceClient(conn)
	tick := time.NewTicker(changeInterval)
	defer tick.Stop()
	for i := range changes {
		<-tick.C
		id := fmt.Sprintf("interop-%d", i)
		var err error
		if i%2 == 0 {
			_, err = leases.BeginLease(ctx, &quoratev1.BeginLeaseRequest{RequestId: id, Server: "m1"})
		} else {
			_, err = leases.EndLease(ctx, &quoratev1.EndLeaseRequest{RequestId: id, Server: "m1"})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range followers {
		for i := range changes {
			f.next(ctx, t, []int{200, 255}[i%2], fmt.Sprintf("change %d", i))
		}
		f.end(t)
	}
}
