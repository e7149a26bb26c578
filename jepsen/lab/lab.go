// Package lab is a laboratory for members of Quorate on one Linux machine: real processes, each in a network namespace of its own and on a disk of its
// own, joined by lines that can be made as bad as one likes. What runs the members runs inside namespaces too (Enter), so nothing is left behind when it
// ends, however it ends.
//
// It knows members as an operator does: a binary, a configuration, certificates, addresses.
package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quorate/jepsen/wire"
)

const (
	// site is the trust domain of the certificates.
	site = "chaos.example"
	// readyLimit is how long a fresh group may take until it is ready.
	readyLimit = 30 * time.Second
	// DiskSize is that of each member's disk.
	DiskSize = 512 << 20
	// MaxMembers bounds the group, with those that join later.
	MaxMembers = 9
)

// clients is the address of whoever is outside of all members.
var clients = netip.MustParseAddr("10.77.0.100")

// Options say what to set up.
type Options struct {
	// Binary is the quorate command.
	Binary string
	// Out is where the members' logs go; it stays.
	Out string
	// Members is how many voters the group begins with.
	Members int
	// LogStore is bolt or wal.
	LogStore string
	// SnapshotEntries is how many log entries there are between two snapshots; 0 means the members' own default.
	SnapshotEntries int
	// Seed decides which packets are unlucky.
	Seed uint64
	// Settings are more settings of all members, as KEY: VALUE lines of their configuration.
	Settings []string
	// Environment is added to that of the members, as NAME=VALUE.
	Environment []string
}

// Lab is a group with all that is around it.
type Lab struct {
	Options Options
	Switch  *wire.Switch
	Members []*Member
	// TLS is that of an administrator.
	TLS *tls.Config

	dir string
	web *http.Client
}

// Open sets up a group and waits until it is ready.
func Open(ctx context.Context, o Options) (*Lab, error) {
	if o.Members < 1 || o.Members > MaxMembers {
		return nil, fmt.Errorf("lab: %d members are not 1 to %d", o.Members, MaxMembers)
	}
	l := &Lab{Options: o, Switch: wire.NewSwitch(o.Seed), dir: "/run/chaos"}
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) open(ctx context.Context) error {
	// Images lie in memory, and go with the mount.
	if err := errors.Join(os.MkdirAll(l.dir, 0o700), os.MkdirAll(l.Options.Out, 0o700)); err != nil {
		return err
	}
	if err := unix.Mount("none", l.dir, "tmpfs", 0, "size=80%"); err != nil {
		return fmt.Errorf("mount %s: %w", l.dir, err)
	}
	if err := l.Switch.Join("", netip.PrefixFrom(clients, 24)); err != nil {
		return err
	}
	if err := l.authority(); err != nil {
		return err
	}
	for i := range l.Options.Members {
		if _, err := l.Add(fmt.Sprintf("m%d", i+1), true); err != nil {
			return err
		}
	}
	for _, m := range l.Members {
		if err := errors.Join(l.configure(m, l.Members), m.Start()); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for _, m := range l.Members {
		if err := m.AwaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// authority makes the certificates of the site and of an administrator.
func (l *Lab) authority() error {
	pki := filepath.Join(l.dir, "pki")
	if err := run(l.Options.Binary, "pki", "init", "--dir", pki, "--site", site); err != nil {
		return err
	}
	if err := run(l.Options.Binary, "pki", "issue", "--dir", pki, "--person", "chaos", "--role", "administrator"); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(pki, "people", "chaos.pem"), filepath.Join(pki, "people", "chaos.key"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(filepath.Join(pki, "ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	l.TLS = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	l.web = &http.Client{Transport: &http.Transport{TLSClientConfig: l.TLS.Clone(), MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Second}}
	return nil
}

// Add makes what a member needs, and does not start it. One that is not among the first voters has to be added to the group by whoever wants it there.
func (l *Lab) Add(id string, first bool) (*Member, error) {
	if len(l.Members) == MaxMembers {
		return nil, fmt.Errorf("lab: there are %d members already", MaxMembers)
	}
	address := netip.AddrFrom4([4]byte{10, 77, 0, byte(len(l.Members) + 1)})
	m := &Member{
		ID: id, Address: address, GRPC: address.String() + ":7101", HTTP: address.String() + ":7201", Raft: address.String() + ":7301",
		OPCUA: "opc.tcp://" + address.String() + ":4841", lab: l,
	}
	if err := run("ip", "netns", "add", id); err != nil {
		return nil, err
	}
	if err := l.Switch.Join(m.Namespace(), netip.PrefixFrom(address, 24)); err != nil {
		return nil, err
	}
	var err error
	if m.Disk, err = newDisk(filepath.Join(l.dir, id+".img"), filepath.Join(l.dir, id), DiskSize); err != nil {
		return nil, err
	}
	if err := run(l.Options.Binary, "pki", "issue", "--dir", filepath.Join(l.dir, "pki"), "--member", id, "--host", address.String()); err != nil {
		return nil, err
	}
	l.Members = append(l.Members, m)
	if first {
		return m, nil
	}
	return m, l.configure(m, nil)
}

// configure writes a member's configuration; bootstrap are the first voters, nobody for one that joins.
func (l *Lab) configure(m *Member, bootstrap []*Member) error {
	pki := filepath.Join(l.dir, "pki")
	lines := []string{
		"member: " + m.ID, "site: " + site, "dataDir: " + m.DataDir(),
		"storage: {" + l.storage() + "}",
		"raft: {address: '" + m.Raft + "'}", "grpc: {address: '" + m.GRPC + "'}", "http: {address: '" + m.HTTP + "'}",
		"tls: {ca: " + pki + "/ca.pem, cert: " + pki + "/members/" + m.ID + ".pem, key: " + pki + "/members/" + m.ID + ".key}",
		"opcua: {address: '" + m.Address.String() + ":4841', ca: " + pki + "/opcua-ca.pem, cert: " + pki + "/applications/" + m.ID + ".pem, key: " +
			pki + "/applications/" + m.ID + ".key, allowNone: true, allowAnonymous: true, trustAll: true}",
		"clock: {wallOffsetFile: " + m.offsetFile() + "}",
		"log: {level: info, format: text}",
	}
	if len(bootstrap) > 0 {
		lines = append(lines, "bootstrap:")
		for _, b := range bootstrap {
			lines = append(lines, "  - {member: "+b.ID+", raft: '"+b.Raft+"'}")
		}
	}
	lines = append(lines, l.Options.Settings...)
	return os.WriteFile(m.Config(), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func (l *Lab) storage() string {
	if l.Options.SnapshotEntries == 0 {
		return "logStore: " + l.Options.LogStore
	}
	return fmt.Sprintf("logStore: %s, snapshotEntries: %d", l.Options.LogStore, l.Options.SnapshotEntries)
}

// Member returns a member by its id, nil if there is none.
func (l *Lab) Member(id string) *Member {
	for _, m := range l.Members {
		if m.ID == id {
			return m
		}
	}
	return nil
}

// Home is a folder for what programs that run beside the members remember; it ends with the laboratory.
func (l *Lab) Home() string { return l.dir }

// Clients is the address of whoever is outside of all members: this process.
func (l *Lab) Clients() netip.Addr { return clients }

// Heal makes the network perfect, every disk usable and every member run.
func (l *Lab) Heal() error {
	l.Switch.Heal()
	var errs []error
	for _, m := range l.Members {
		if m.Running() {
			errs = append(errs, m.Resume())
		}
		errs = append(errs, m.Disk.Drain(), m.Start())
	}
	return errors.Join(errs...)
}

// Close ends everything.
func (l *Lab) Close() error {
	var errs []error
	for _, m := range l.Members {
		_ = m.Disk.Thaw() // It fails where nothing is frozen.
		if m.Running() {
			errs = append(errs, m.Resume())
		}
		errs = append(errs, m.Kill(), m.OffBadFS(), m.Disk.Unmount())
	}
	if l.web != nil {
		l.web.CloseIdleConnections()
	}
	return errors.Join(append(errs, l.Switch.Close())...)
}
