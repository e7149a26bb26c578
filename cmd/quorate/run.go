package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"quorate/admin"
	"quorate/node"
	"quorate/opcua"
	"quorate/opcua/server"
	"quorate/pki"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
	"quorate/rpc"
	"quorate/telemetry"
)

// member is one running member of a group: the node, and around it the manager of its level and its three endpoints. What
// is started first is stopped last: the endpoints go before the manager, and the node, which hands the leadership over,
// goes at the end.
type member struct {
	logger *slog.Logger
	node   *node.Node
	// manager is set after the node was opened, which may ask for its status at once.
	manager atomic.Pointer[redundancy.Manager]
	page    *admin.Server
	rpc     *rpc.Server
	opcua   *opcua.Endpoint
	metrics *telemetry.Metrics

	// stopManager ends the manager's loop.
	stopManager context.CancelFunc
	running     sync.WaitGroup
	failures    chan error
	stopping    atomic.Bool
}

// failureKinds is how many parts of a member may fail on their own: the node, the manager and the three listeners.
const failureKinds = 5

// openMember starts a member. It returns once it listens, before a leader is known. All ports are opened before anything is
// written, so that a port in use leaves no trace.
func openMember(s *settings, logger *slog.Logger) (*member, error) {
	p := &parts{settings: s, logger: logger.With("member", s.Member)}
	m, err := p.assemble(logger)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	m.start(p)
	p.logger.Info("serving", "grpc", s.GRPC.Address, "http", s.HTTP.Address, "opcua", s.OPCUA.EndpointURL, "raft", s.Raft.Address, "version", buildVersion())
	if s.Dev && !s.onLoopback() {
		p.logger.Warn("dev lets everyone who reaches these addresses do everything, and they are not only on loopback")
	}
	return m, nil
}

// parts are what a member is made of while it is being made; close undoes what was done so far.
type parts struct {
	settings *settings
	logger   *slog.Logger
	// grpc, http, opcua and raft are the open ports.
	grpc, http, opcua net.Listener
	raft              *node.NetTransport
	undo              []func() error
}

func (p *parts) close() error {
	var errs []error
	for _, undo := range slices.Backward(p.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

func (p *parts) assemble(nodeLogger *slog.Logger) (*member, error) {
	s := p.settings
	m := &member{logger: p.logger, failures: make(chan error, failureKinds)}
	var err error
	if m.metrics, err = telemetry.NewMetrics(s.Site, s.Member); err != nil {
		return nil, err
	}
	credentials, err := p.credentials()
	if err != nil {
		return nil, err
	}
	if err := p.listen(credentials); err != nil {
		return nil, err
	}
	application, err := p.application()
	if err != nil {
		return nil, err
	}
	if m.node, err = p.openNode(nodeLogger, m.metrics, m.status); err != nil {
		return nil, err
	}
	var health *tls.Config
	if credentials != nil {
		// Any member of this site: which one it is, is for the OPC UA half of the probe to say.
		health = credentials.MemberClientTLS("")
	}
	applier, err := s.applier()
	if err != nil {
		return nil, err
	}
	manager, err := redundancy.New(redundancy.Config{
		Member: s.Member, Group: m.node, ApplicationURI: s.OPCUA.ApplicationURI, EndpointURL: s.OPCUA.EndpointURL, Logger: p.logger, Metrics: m.metrics,
		Prober:  redundancy.NewProber(redundancy.ProberConfig{Certificate: application.certificate, TLS: health}),
		Applier: applier,
		Settings: redundancy.Settings{
			ProbeInterval: s.Redundancy.ProbeInterval, ProbeTimeout: s.Redundancy.ProbeTimeout,
			FailedSamples: s.Redundancy.FailedSamples, GoodSamples: s.Redundancy.GoodSamples,
			RecoverDwell: s.Redundancy.RecoverDwell, WitnessNode: s.Redundancy.WitnessNode,
		},
	})
	if err != nil {
		return nil, err
	}
	m.manager.Store(manager)
	if m.page, err = p.openPage(m); err != nil {
		return nil, err
	}
	m.rpc, err = rpc.New(rpc.Config{
		Node: m.node, Credentials: credentials, Page: m.page, Logger: p.logger, Metrics: m.metrics, Version: buildVersion(),
		Now: memberClock(s.Clock.WallOffsetFile).Wall,
	})
	if err != nil {
		return nil, err
	}
	p.undo = append(p.undo, func() error { return m.rpc.Shutdown(context.Background()) })
	channelLimits, limits := s.OPCUA.Limits.runtime()
	m.opcua, err = opcua.New(opcua.Config{
		Member: s.Member, ApplicationURI: s.OPCUA.ApplicationURI, Group: opcua.GroupOf(m.node), Redundancy: manager,
		Certificate: application.certificate, AllowNone: s.OPCUA.AllowNone, AllowAnonymous: s.OPCUA.AllowAnonymous,
		Applications: application.trusted, Users: application.users, UserCertificates: application.userCertificates,
		SetMaintenance: maintenanceBy(m.rpc), Version: buildVersion(), ShutdownNotice: s.shutdownNotice(), Logger: p.logger,
		Metrics: m.metrics, Limits: limits, ChannelLimits: channelLimits,
	})
	if err != nil {
		return nil, err
	}
	p.undo = append(p.undo, func() error { return m.opcua.Shutdown(context.Background()) })
	return m, nil
}

// openPage makes the web page of a member. It is served by the member's HTTP listener, and lets its visitors in by the one door.
func (p *parts) openPage(m *member) (*admin.Server, error) {
	page, err := admin.New(admin.Config{
		Member: p.settings.Member, Version: buildVersion(), Logger: p.logger, May: rpc.May,
		Connect: func(who pki.Identity, address string) (grpc.ClientConnInterface, error) {
			return m.rpc.InProcess(who, address)
		},
		Changed: m.node.Changed, Subscribe: m.manager.Load().Subscribe,
	})
	if err != nil {
		return nil, err
	}
	p.undo = append(p.undo, func() error { page.Close(); return nil })
	return page, nil
}

// applier runs the apply hook, nil where there is none.
func (s *settings) applier() (redundancy.Applier, error) {
	hook := s.Redundancy.ApplyHook
	if len(hook.Command) == 0 {
		return nil, nil // An interface that holds a nil pointer is not nil.
	}
	return redundancy.NewHook(hook.Command, hook.Timeout)
}

// maintenanceBy lets RequestServerStateChange in by the one door: the gRPC service, with the caller's identity.
func maintenanceBy(services *rpc.Server) opcua.MaintenanceFunc {
	return func(ctx context.Context, caller server.Identity, request *quoratev1.SetMaintenanceRequest) error {
		role, err := pki.ParseRole(caller.Role.String())
		if err != nil {
			return err
		}
		conn, err := services.InProcess(pki.Identity{Name: caller.Name, Role: role}, "opc.tcp")
		if err != nil {
			return err
		}
		_, err = quoratev1.NewMaintenanceServiceClient(conn).SetMaintenance(ctx, request)
		return err
	}
}

// loadCredentials loads the certificates, nil where there are none, which only dev allows. They must be those of this member.
func (s *settings) loadCredentials() (*pki.Credentials, error) {
	if s.TLS.Cert == "" {
		return nil, nil
	}
	var f findings
	for _, t := range []struct{ key, file string }{{"tls.ca", s.TLS.CA}, {"tls.cert", s.TLS.Cert}, {"tls.key", s.TLS.Key}} {
		file, err := os.Open(t.file)
		if err != nil {
			f.add(t.key, "%v", err)
			continue
		}
		closeQuietly(file)
	}
	if len(f) > 0 {
		return nil, errors.New(strings.Join(f, "; "))
	}
	credentials, err := pki.Load(s.TLS.Cert, s.TLS.Key, s.TLS.CA)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	identity := credentials.Identity()
	if !identity.Member || identity.Name != s.Member || identity.Site != s.Site {
		return nil, fmt.Errorf("tls.cert: is that of %s, not of member %s of site %s", identity.URI(), s.Member, s.Site)
	}
	return credentials, nil
}

// credentials loads the certificates and has the log told of each time that they are loaded again.
func (p *parts) credentials() (*pki.Credentials, error) {
	credentials, err := p.settings.loadCredentials()
	if credentials == nil {
		return nil, err
	}
	credentials.OnReload(func(err error) {
		if err != nil {
			p.logger.Error("the changed certificates are refused, the ones before stay in use", "error", err)
			return
		}
		p.logger.Info("the certificates were read again")
	})
	return credentials, nil
}

func (p *parts) listen(credentials *pki.Credentials) error {
	for _, l := range []struct {
		key, address string
		listener     *net.Listener
	}{
		{"grpc.address", p.settings.GRPC.Address, &p.grpc},
		{"http.address", p.settings.HTTP.Address, &p.http},
		{"opcua.address", p.settings.OPCUA.Address, &p.opcua},
	} {
		listener, err := net.Listen("tcp", l.address)
		if err != nil {
			return fmt.Errorf("%s: %w", l.key, err)
		}
		*l.listener = listener
		p.undo = append(p.undo, func() error {
			if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
	}
	// An interface that holds a nil pointer is not nil.
	var raftCredentials node.Credentials
	if credentials != nil {
		raftCredentials = credentials
	}
	var err error
	if p.raft, err = node.Listen(p.settings.Raft.Address, p.settings.Raft.Advertise, raftCredentials, p.logger); err != nil {
		return err
	}
	p.undo = append(p.undo, p.raft.Close)
	return nil
}

func (p *parts) openNode(logger *slog.Logger, metrics *telemetry.Metrics, status func() *quoratev1.Member) (*node.Node, error) {
	s := p.settings
	timing, err := node.TimingProfile(s.Raft.Timing)
	if err != nil {
		return nil, err
	}
	bootstrap := make([]node.BootstrapMember, 0, len(s.Bootstrap))
	for _, b := range s.Bootstrap {
		bootstrap = append(bootstrap, node.BootstrapMember{ID: b.Member, RaftAddress: b.Raft})
	}
	opened, err := node.Open(node.Config{
		ID: s.Member, DataDir: filepath.Join(s.DataDir, "raft"), LogStore: s.Storage.LogStore, Bootstrap: bootstrap,
		Limits: node.Limits{SnapshotEntries: uint64(s.Storage.SnapshotEntries)},
		Timing: timing, Transport: p.raft, Logger: logger, Metrics: metrics, SelfStatus: status,
		Clock: memberClock(s.Clock.WallOffsetFile),
		Announce: &logv1.AnnounceMember{
			GrpcAddress: s.GRPC.Advertise, HttpAddress: s.HTTP.Advertise, OpcuaUrl: s.OPCUA.EndpointURL,
			Version: buildVersion(), CommandVersion: s.Upgrade.CommandVersion,
		},
	})
	if err != nil {
		return nil, err
	}
	p.undo = append(p.undo, func() error { return opened.Shutdown(context.Background()) })
	return opened, nil
}

// status is what this member says of itself to the others, once there is a manager that knows.
func (m *member) status() *quoratev1.Member {
	if manager := m.manager.Load(); manager != nil {
		return manager.Status()
	}
	return &quoratev1.Member{}
}

// start runs all parts. Each that ends without being told to is a failure of the member.
func (m *member) start(p *parts) {
	ctx, cancel := context.WithCancel(context.Background())
	m.stopManager = cancel
	for name, run := range map[string]func() error{
		"redundancy": func() error { return m.manager.Load().Run(ctx) },
		"grpc":       func() error { return m.rpc.ServeGRPC(p.grpc) },
		"http":       func() error { return m.rpc.ServeHTTP(p.http) },
		"opcua":      func() error { return m.opcua.Serve(p.opcua) },
		"node": func() error {
			select {
			case err := <-m.node.Fatal():
				return err
			case <-ctx.Done():
				return nil
			}
		},
	} {
		m.running.Go(func() {
			err := run()
			if m.stopping.Load() {
				return
			}
			if err == nil {
				err = errors.New("ended by itself")
			}
			m.failures <- fmt.Errorf("%s: %w", name, err)
		})
	}
}

// failed delivers what makes the member unable to go on.
func (m *member) failed() <-chan error { return m.failures }

// stop stops the member in order, and waits for each step for as long as ctx lets it.
func (m *member) stop(ctx context.Context) error {
	m.stopping.Store(true)
	errs := []error{named("opcua", m.opcua.Shutdown(ctx))}
	m.page.Close() // Its streams have no end by themselves.
	errs = append(errs, named("rpc", m.rpc.Shutdown(ctx)))
	m.stopManager()
	errs = append(errs, named("node", m.node.Shutdown(ctx)), named("metrics", m.metrics.Shutdown(ctx)))
	m.running.Wait()
	return errors.Join(errs...)
}

func named(part string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}

// For how long the end of a member is announced over OPC UA, as State=Shutdown and SecondsTillShutdown (OPC 10000-5 §12.10),
// before its sessions are closed. In dev it is just long enough for a client to be told: who tries things out does not
// wait for it.
const (
	shutdownNotice    = time.Second
	devShutdownNotice = 200 * time.Millisecond
)

func (s *settings) shutdownNotice() time.Duration {
	if s.Dev {
		return devShutdownNotice
	}
	return shutdownNotice
}

// onLoopback tells whether the member is reached from this machine alone.
func (s *settings) onLoopback() bool {
	for _, address := range []string{s.Raft.Address, s.GRPC.Address, s.HTTP.Address, s.OPCUA.Address} {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return false
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}
