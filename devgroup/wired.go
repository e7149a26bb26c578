package devgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// Wired is a group of three whose members reach each other by wires: by those of raft and of calls between members, and by those of the probes. Whoever
// else talks to a member, a test for example, reaches it directly.
type Wired struct {
	*Group
	Raft, OPCUA map[string]*Wire
	Health      map[string]*Health
}

// wiredMembers are the members of a Wired group: mostly two servers and a witness.
const wiredMembers = 3

// StartWired starts such a group with no topology. Its wires have ports between those of the members: those of raft +4+i, of health +14+i, of OPC UA
// +24+i. Settings are
// those of a dev member with those of the options, by their keys; a value is text, or what JSON makes of it.
func StartWired(ctx context.Context, o Options, settings map[string]any) (w *Wired, err error) {
	w = &Wired{Group: &Group{options: o, restarted: make(map[string]*exec.Cmd)}, Raft: map[string]*Wire{}, OPCUA: map[string]*Wire{}, Health: map[string]*Health{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Stop())
		}
	}()
	at := func(offset, i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(o.BasePort+offset+i)) }
	var bootstrap []map[string]string
	for i := 1; i <= wiredMembers; i++ {
		id := fmt.Sprintf("m%d", i)
		bootstrap = append(bootstrap, map[string]string{"member": id, "raft": at(4, i)})
		if w.Raft[id], err = NewWire(at(4, i), at(30, i), w.pids); err != nil {
			return nil, err
		}
		if w.Health[id], err = newHealth(at(14, i), at(10, i)); err != nil {
			return nil, err
		}
		if w.OPCUA[id], err = NewWire(at(24, i), at(20, i), w.pids); err != nil {
			return nil, err
		}
		w.Members = append(w.Members, Member{ID: id, GRPC: at(0, i), HTTP: at(10, i), OPCUA: "opc.tcp://" + at(20, i)})
	}
	if err := os.MkdirAll(o.Data, 0o700); err != nil {
		return nil, err
	}
	for i, m := range w.Members {
		config := map[string]any{
			"member": m.ID, "site": "demo", "dataDir": filepath.Join(o.Data, m.ID), "dev": true, "bootstrap": bootstrap,
			"raft":  map[string]any{"address": at(30, i+1), "advertise": at(4, i+1)},
			"grpc":  map[string]any{"address": m.GRPC},
			"http":  map[string]any{"address": m.HTTP},
			"opcua": map[string]any{"address": strings.TrimPrefix(m.OPCUA, "opc.tcp://")},
		}
		for key, value := range settings {
			config[key] = value
		}
		document, err := json.Marshal(config) // JSON is YAML too.
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(o.Data, m.ID+".yaml"), document, 0o600); err != nil {
			return nil, err
		}
		if err := w.Restart(m.ID); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, StartLimit)
	defer cancel()
	for _, m := range w.Members {
		if err := w.Ready(ctx, m.ID); err != nil {
			return nil, err
		}
	}
	return w, w.announced(ctx)
}

// announced waits until all members have said who they are: only then does the group know what all of them can do.
func (w *Wired) announced(ctx context.Context) error {
	conn, err := Dial(w.Members[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	return waitUntil(ctx, "all members are known", func() bool {
		list, err := quoratev1.NewMemberServiceClient(conn).ListMembers(ctx, &quoratev1.ListMembersRequest{})
		if err != nil {
			return false
		}
		known := 0
		for _, m := range list.GetMembers() {
			if m.GetGrpcAddress() != "" {
				known++
			}
		}
		return known == len(w.Members)
	})
}

// Set is the redundant set of the first members, of two unless its policies allow more, m1 being the Primary, whose probes go through the wires.
func (w *Wired) Set(id, mode string, policies *quoratev1.RedundancyPolicies) *quoratev1.RedundantSet {
	set := &quoratev1.RedundantSet{Id: id, Mode: mode, Policies: policies}
	for i, m := range w.Members[:max(2, policies.GetMaxServers())] {
		role := "Backup"
		if i == 0 {
			role = "Primary"
		}
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{
			Member: m.ID, Role: role, ApplicationUri: "urn:quorate:demo:" + m.ID, EndpointUrl: w.EndpointURL(m.ID),
			HealthUrl: "http://" + w.Health[m.ID].listener.Addr().String() + "/healthz",
		})
	}
	return set
}

// Isolate cuts a member off from all others, and Mend undoes that. Clients reach it all the same.
func (w *Wired) Isolate(member string) {
	w.CutRaft(member)
	for id := range w.OPCUA {
		w.OPCUA[id].Cut(func(from string) bool { return from == member || id == member })
	}
	w.Health[member].Fail(everySample) // Of its own samples of others the second half fails.
}

// CutRaft cuts a member off from the group alone: the servers go on probing each other.
func (w *Wired) CutRaft(member string) {
	for id, wire := range w.Raft {
		wire.Cut(func(from string) bool { return from == member || id == member && from != "" })
	}
}

// Mend mends all wires.
func (w *Wired) Mend() {
	for id := range w.Raft {
		w.Raft[id].Cut(nil)
		w.OPCUA[id].Cut(nil)
		w.Health[id].Fail(nil)
	}
}

func everySample(int64) bool { return true }

// pids are the processes of the members that run.
func (w *Wired) pids() map[string]int {
	all := make(map[string]int, len(w.Members))
	for _, m := range w.Members {
		if pid := w.PID(m.ID); pid != 0 {
			all[m.ID] = pid
		}
	}
	return all
}

// EndpointURL is the address of a member's OPC UA server in the topology, which leads through the wire.
func (w *Wired) EndpointURL(member string) string {
	return "opc.tcp://" + w.OPCUA[member].listener.Addr().String()
}

// Signal sends a signal to a member's process: SIGSTOP and SIGCONT make a pause.
func (w *Wired) Signal(member string, s syscall.Signal) error {
	pid := w.PID(member)
	if pid == 0 {
		return fmt.Errorf("%s does not run", member)
	}
	return syscall.Kill(pid, s)
}

// Pause stops a member's process, and returns when none of its threads runs any more: on a busy machine that takes its time. SIGCONT lets it go on.
func (w *Wired) Pause(ctx context.Context, member string) error {
	if err := w.Signal(member, syscall.SIGSTOP); err != nil {
		return err
	}
	pid := w.PID(member)
	return waitUntil(ctx, member+" stands still", func() bool { return standsStill(pid) })
}

// standsStill tells whether every thread of a process is stopped (man 5 proc: the state follows the name in parentheses).
func standsStill(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			return false
		}
		if i := strings.LastIndex(string(stat), ") "); i < 0 || !strings.HasPrefix(string(stat[i+2:]), "T") {
			return false
		}
	}
	return true
}

// Stop ends the members and the wires.
func (w *Wired) Stop() error {
	for _, pid := range w.pids() {
		_ = syscall.Kill(pid, syscall.SIGCONT) // One that is stopped would not hear the interrupt.
	}
	errs := []error{w.Group.Stop()}
	for _, wire := range w.Raft {
		if wire != nil {
			errs = append(errs, wire.Close())
		}
	}
	for _, wire := range w.OPCUA {
		if wire != nil {
			errs = append(errs, wire.Close())
		}
	}
	for _, h := range w.Health {
		if h != nil {
			errs = append(errs, h.server.Close())
		}
	}
	return errors.Join(errs...)
}

// Health is the way to a member's /healthz, which can be made to fail.
type Health struct {
	listener net.Listener
	server   *http.Server
	asked    atomic.Int64
	fail     atomic.Pointer[func(n int64) bool]
}

func newHealth(listen, target string) (*Health, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	h := &Health{listener: l}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	proxy.ErrorHandler = func(rw http.ResponseWriter, _ *http.Request, _ error) { rw.WriteHeader(http.StatusBadGateway) }
	h.server = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n := h.asked.Add(1)
		if fail := h.fail.Load(); fail != nil && *fail != nil && (*fail)(n) {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(rw, r)
	})}
	go func() { _ = h.server.Serve(l) }()
	return h, nil
}

// Fail makes those samples fail that the function names, by their numbers; nil lets all through.
func (h *Health) Fail(which func(n int64) bool) { h.fail.Store(&which) }

// Asked is how many samples there were.
func (h *Health) Asked() int64 { return h.asked.Load() }
