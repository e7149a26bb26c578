package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quorate/jepsen/badfs"
)

const (
	// StopLimit is how long a member may take to end when it is asked to, before it is killed.
	StopLimit = 15 * time.Second
	// pollInterval is how often a condition is looked at that nothing tells of.
	pollInterval = 20 * time.Millisecond
)

// Member is one member: a process in a network namespace of its own, on a disk of its own.
type Member struct {
	ID      string
	Address netip.Addr
	// GRPC, HTTP and Raft are HOST:PORT; OPCUA is an endpoint URL.
	GRPC, HTTP, Raft, OPCUA string
	Disk                    *Disk

	lab *Lab
	// life is held by whoever starts or ends the process, so that two faults don't meet.
	life          sync.Mutex
	mu            sync.Mutex
	run           *exec.Cmd
	done          chan struct{}
	starts, kills int
	// bad is the file system that its data is on while fsync may fail.
	bad *badfs.FS
}

// Namespace is the path of the member's network namespace.
func (m *Member) Namespace() string { return "/run/netns/" + m.ID }

// ApplicationURI is the name of the member's OPC UA server, as its certificate has it.
func (m *Member) ApplicationURI() string { return "urn:quorate:" + site + ":" + m.ID }

// DataDir is where the member keeps its data.
func (m *Member) DataDir() string { return filepath.Join(m.Disk.Dir, "data") }

// Config is the member's configuration file.
func (m *Member) Config() string { return filepath.Join(m.lab.dir, m.ID+".yaml") }

// LogFile has what all lives of the member printed.
func (m *Member) LogFile() string { return filepath.Join(m.lab.Options.Out, m.ID+".log") }

// Start starts the process; one that runs is left alone.
func (m *Member) Start() error { return m.StartWith() }

// StartWith starts the process with settings (KEY=VALUE) of this life alone.
func (m *Member) StartWith(settings ...string) error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.Running() {
		return nil
	}
	log, err := os.OpenFile(m.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// Not `ip netns exec`: it makes a mount namespace, in which the disks of all members would stay mounted for as long as this one runs.
	cmd := exec.Command("nsenter", "--net="+m.Namespace(), m.lab.Options.Binary, "serve", "--config", m.Config())
	for _, s := range settings {
		cmd.Args = append(cmd.Args, "--set", s)
	}
	cmd.Stdout, cmd.Stderr = log, log
	// Settings that whoever runs the laboratory has in his environment are not the members'.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.lab.dir}, m.lab.Options.Environment...)
	err = cmd.Start()
	// The child has a descriptor of its own.
	_ = log.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", m.ID, err)
	}
	done := make(chan struct{})
	m.mu.Lock()
	m.run, m.done = cmd, done
	m.starts++
	m.mu.Unlock()
	go func() {
		_ = cmd.Wait() // How it ended is in its state.
		close(done)
	}()
	return nil
}

// Running says whether the process lives.
func (m *Member) Running() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == nil {
		return false
	}
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// PID is the process's id, 0 if none lives. nsenter becomes the program that it starts.
func (m *Member) PID() int {
	if !m.Running() {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run.Process.Pid
}

// Ended is closed when the process that runs now has ended; nil if none ever ran.
func (m *Member) Ended() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done
}

// Kill ends the process at once, with SIGKILL.
func (m *Member) Kill() error {
	m.life.Lock()
	defer m.life.Unlock()
	return m.end(syscall.SIGKILL)
}

// Stop asks the process to end, and kills it after StopLimit.
func (m *Member) Stop() error {
	m.life.Lock()
	defer m.life.Unlock()
	return m.end(syscall.SIGTERM)
}

func (m *Member) end(signal syscall.Signal) error {
	pid := m.PID()
	if pid == 0 {
		return nil
	}
	m.mu.Lock()
	m.kills++
	done := m.done
	m.mu.Unlock()
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal %s: %w", m.ID, err)
	}
	select {
	case <-done:
		return nil
	case <-time.After(StopLimit):
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s: %w", m.ID, err)
	}
	<-done
	return nil
}

// Pause stops the process, which keeps all that it has, and Resume lets it go on.
func (m *Member) Pause() error { return m.signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (m *Member) Resume() error { return m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) error {
	pid := m.PID()
	if pid == 0 {
		return fmt.Errorf("%s doesn't run", m.ID)
	}
	return syscall.Kill(pid, s)
}

// LosePower ends the process and its disk's memory at one moment, and mounts the disk again as the next start will find it.
func (m *Member) LosePower() error {
	m.life.Lock()
	defer m.life.Unlock()
	err := m.Disk.LosePower()
	return errors.Join(err, m.end(syscall.SIGKILL), m.Disk.Mount())
}

// Forget empties the member's disk. It must not run.
func (m *Member) Forget() error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.Running() {
		return fmt.Errorf("%s runs", m.ID)
	}
	// A member that joins a group that is there has no list of first voters.
	return errors.Join(os.RemoveAll(m.DataDir()), m.lab.configure(m, nil))
}

// OnBadFS restarts the member with its data on a file system that can let fsync fail. It is the same data.
func (m *Member) OnBadFS(ctx context.Context) (*badfs.FS, error) {
	m.life.Lock()
	if err := m.end(syscall.SIGTERM); err != nil {
		m.life.Unlock()
		return nil, err
	}
	behind := m.DataDir() + ".behind"
	err := errors.Join(os.Rename(m.DataDir(), behind), os.Mkdir(m.DataDir(), 0o700))
	if err == nil {
		err = m.Disk.Sync()
	}
	if err == nil {
		m.bad, err = badfs.Mount(behind, m.DataDir())
	}
	m.life.Unlock()
	if err != nil {
		return nil, err
	}
	return m.bad, errors.Join(m.Start(), m.AwaitReady(ctx))
}

// OffBadFS ends that. The member ends if it has not yet, and is not started again. A loss of power that follows finds the data where it belongs: elsewhere the member would begin
// anew with none, and have forgotten its vote.
func (m *Member) OffBadFS() error {
	m.life.Lock()
	defer m.life.Unlock()
	if m.bad == nil {
		return nil
	}
	err := m.end(syscall.SIGKILL)
	if err == nil {
		err = m.bad.Unmount()
	}
	if err != nil {
		return err
	}
	m.bad = nil
	return errors.Join(os.Remove(m.DataDir()), os.Rename(m.DataDir()+".behind", m.DataDir()), m.Disk.Sync())
}

// ShiftWall sets by how much the wall time that the member records is off.
func (m *Member) ShiftWall(by time.Duration) error {
	return os.WriteFile(m.offsetFile(), []byte(by.String()), 0o600)
}

func (m *Member) offsetFile() string { return filepath.Join(m.lab.dir, m.ID+".offset") }

// Lives returns how often the process was started, and how often it was ended by a fault.
func (m *Member) Lives() (starts, ends int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts, m.kills
}

// AwaitReady waits until the member says that it can serve; it fails at once if the process has ended.
func (m *Member) AwaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := m.ready(ctx)
		if err == nil {
			return nil
		}
		if !m.Running() {
			return fmt.Errorf("%s doesn't run: its log is %s", m.ID, m.LogFile())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", m.ID, err)
		case <-tick.C:
		}
	}
}

func (m *Member) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.HTTP+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := m.lab.web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}
