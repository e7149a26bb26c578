package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"quorate/bench/process"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	etcdMembers = 3
	// valueSize is what etcd's own benchmark puts, and platform.md §9 asks for.
	valueSize = 256
	// quota is how large etcd's database may grow: it keeps all revisions, and the 2 GiB of its default would end a long run.
	quota = 8 << 30
	// preparers is how many callers put the keys that are read.
	preparers = 64
)

// requestSize is the length of a write, of both systems.
func requestSize() int { return len(putRequest(writeKey(0), make([]byte, valueSize))) }

// writeKey and readKey are keys of the same length as the ids of partitions.
func writeKey(key int) []byte { return []byte("w" + partitionID(key)[1:]) }
func readKey(key int) []byte  { return []byte("r" + partitionID(key)[1:]) }

// readValue is as long as the partition that Quorate answers a read with.
func readValue() []byte {
	p := &quoratev1.Partition{Id: partitionID(0), Phase: quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE, Placement: placements[0], Epoch: 1, Revision: 100}
	return make([]byte, proto.Size(p))
}

// etcd is a group of etcd, with its defaults. A write is Put, a read is Range of one key.
type etcd struct {
	binary, dir string
	port        int
	value       []byte

	mu      sync.Mutex
	members [etcdMembers]*exec.Cmd // nil where one was killed
}

func startEtcd(ctx context.Context, b *bench, dir string) (_ group, err error) {
	e := &etcd{binary: b.etcd, dir: dir, port: b.port + 50, value: []byte(strings.Repeat("x", valueSize))}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.stop())
		}
	}()
	for i := range etcdMembers {
		if err := e.run(i); err != nil {
			return nil, err
		}
	}
	for i := range etcdMembers {
		if err := e.ready(ctx, i); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *etcd) at(offset, member int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(e.port+offset+member))
}

func (e *etcd) logFile(member int) string {
	return filepath.Join(e.dir, fmt.Sprintf("e%d.log", member))
}

// run starts a member's process.
func (e *etcd) run(member int) error {
	var cluster []string
	for i := range etcdMembers {
		cluster = append(cluster, fmt.Sprintf("e%d=http://%s", i, e.at(10, i)))
	}
	log, err := os.OpenFile(e.logFile(member), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // The child has a descriptor of its own.
	name := fmt.Sprintf("e%d", member)
	cmd := exec.Command(e.binary,
		"--name", name, "--data-dir", filepath.Join(e.dir, name),
		"--listen-client-urls", "http://"+e.at(0, member), "--advertise-client-urls", "http://"+e.at(0, member),
		"--listen-peer-urls", "http://"+e.at(10, member), "--initial-advertise-peer-urls", "http://"+e.at(10, member),
		"--initial-cluster", strings.Join(cluster, ","), "--quota-backend-bytes", strconv.Itoa(quota))
	cmd.Stdout, cmd.Stderr = log, log
	// The death of this program must not leave members behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.members[member] = cmd
	return nil
}

// ready waits until a member knows a leader and reads linearizably.
func (e *etcd) ready(ctx context.Context, member int) error {
	conns, err := dial(e.at(0, member))
	if err != nil {
		return err
	}
	defer closeAll(conns)
	return until(ctx, fmt.Sprintf("e%d is ready", member), func(ctx context.Context) error {
		_, err := ask(ctx, conns[0], methodRange, rangeRequest(readKey(0)))
		return err
	})
}

func (e *etcd) addresses() (all []string) {
	for i := range etcdMembers {
		all = append(all, e.at(0, i))
	}
	return all
}

// status asks all members who they are and who leads. An id of 0 is that of a member that does not answer.
func (e *etcd) status(ctx context.Context) (ids [etcdMembers]uint64, leader int, err error) {
	conns, err := dial(e.addresses()...)
	if err != nil {
		return ids, 0, err
	}
	defer closeAll(conns)
	err = until(ctx, "etcd has a leader", func(ctx context.Context) error {
		leads := uint64(0)
		for i, conn := range conns {
			a, err := ask(ctx, conn, methodStatus, nil)
			if err != nil {
				ids[i] = 0
				continue
			}
			if ids[i] = a.member; a.leader == a.member {
				leads, leader = a.leader, i
			}
		}
		if leads == 0 {
			return errors.New("nobody leads")
		}
		return nil
	})
	return ids, leader, err
}

func (e *etcd) leader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	_, leader, err := e.status(ctx)
	return leader, err
}

func (e *etcd) process(member int) process.ID {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cmd := e.members[member]; cmd != nil {
		return process.ID(cmd.Process.Pid)
	}
	return 0
}

// stop ends all members, by an interrupt where that is enough.
func (e *etcd) stop() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ended sync.WaitGroup
	for i, cmd := range e.members {
		if cmd == nil {
			continue
		}
		e.members[i] = nil
		_ = cmd.Process.Signal(os.Interrupt) // It may have ended.
		ended.Go(func() {
			late := time.AfterFunc(stopLimit, func() { _ = cmd.Process.Kill() })
			defer late.Stop()
			_ = cmd.Wait() // By a signal: that is what it says.
		})
	}
	ended.Wait()
	return nil
}

// stopLimit is how long a member may take to stop after an interrupt, before it is killed. A group that stops as a whole waits for each other.
const stopLimit = time.Second

// prepare puts the keys.
func (e *etcd) prepare(ctx context.Context, keys int) error {
	leader, err := e.leader(ctx)
	if err != nil {
		return err
	}
	conns, err := dial(e.addresses()[leader])
	if err != nil {
		return err
	}
	defer closeAll(conns)
	failures := make([]error, preparers)
	value := readValue()
	var wg sync.WaitGroup
	for p := range preparers {
		wg.Go(func() {
			for key := p; key < keys && failures[p] == nil; key += preparers {
				if _, failures[p] = ask(ctx, conns[0], methodPut, putRequest(readKey(key), value)); failures[p] == nil {
					_, failures[p] = ask(ctx, conns[0], methodPut, putRequest(writeKey(key), e.value))
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

func (e *etcd) link(conn *grpc.ClientConn) link { return &etcdLink{e, conn} }

type etcdLink struct {
	group *etcd
	conn  *grpc.ClientConn
}

func (c *etcdLink) write(ctx context.Context, key int) error {
	_, err := ask(ctx, c.conn, methodPut, putRequest(writeKey(key), c.group.value))
	return err
}

func (c *etcdLink) read(ctx context.Context, key int) error {
	a, err := ask(ctx, c.conn, methodRange, rangeRequest(readKey(key)))
	if err == nil && a.count != 1 {
		err = fmt.Errorf("%d keys instead of 1", a.count)
	}
	return err
}

func (c *etcdLink) probe(ctx context.Context) error { return c.write(ctx, 0) }

// kill ends a member with SIGKILL, as a power failure would, and returns once its process is gone.
func (e *etcd) kill(_ context.Context, member int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	cmd := e.members[member]
	if cmd == nil {
		return fmt.Errorf("e%d does not run", member)
	}
	e.members[member] = nil
	if err := cmd.Process.Kill(); err != nil {
		return err
	}
	_ = cmd.Wait() // It was killed: that is what Wait says.
	return nil
}

func (e *etcd) restart(ctx context.Context, member int) error {
	if err := e.run(member); err != nil {
		return err
	}
	return e.ready(ctx, member)
}

// handOver moves the leadership to the next member. MoveLeader looks only from time to time whether it has happened, so it is not waited for: writes through
// the new leader are tried again and again until one is answered in a later term.
func (e *etcd) handOver(ctx context.Context, conns []*grpc.ClientConn) (time.Duration, error) {
	ids, leader, err := e.status(ctx)
	if err != nil {
		return 0, err
	}
	target := (leader + 1) % etcdMembers
	before, err := ask(ctx, conns[target], methodPut, putRequest(writeKey(0), e.value))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	moved := make(chan error, 1)
	go func() {
		_, err := ask(ctx, conns[leader], methodMoveLeader, moveLeaderRequest(ids[target]))
		moved <- err
	}()
	took, err := firstAnswer(ctx, began, conns[target:target+1], func(ctx context.Context, conn *grpc.ClientConn) error {
		a, err := ask(ctx, conn, methodPut, putRequest(writeKey(0), e.value))
		if err == nil && a.term <= before.term {
			err = errors.New("answered in the term of the old leader")
		}
		return err
	})
	return took, errors.Join(err, <-moved)
}
