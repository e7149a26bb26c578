package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"buf.build/go/protovalidate"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	channelz "google.golang.org/grpc/channelz/service"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/types/known/durationpb"

	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// Keepalive of gRPC connections: a peer that vanished is found out within 40 s, and one that pings more often than this
// is shown the door.
const (
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	keepaliveMinimum = 5 * time.Second
	handshakeTimeout = 10 * time.Second
)

// streamWorkers is how many goroutines wait for calls, with stacks that have grown to what a call takes. Where more are in flight, each gets one of its own.
const streamWorkers = 512

// services are those of quorate.v1, in the order of the protocol.
var services = []*grpc.ServiceDesc{
	&quoratev1.TopologyService_ServiceDesc,
	&quoratev1.LeaseService_ServiceDesc,
	&quoratev1.ApplyService_ServiceDesc,
	&quoratev1.ServingService_ServiceDesc,
	&quoratev1.MaintenanceService_ServiceDesc,
	&quoratev1.MemberService_ServiceDesc,
	&quoratev1.EventService_ServiceDesc,
	&quoratev1.OverviewService_ServiceDesc,
	&quoratev1.PartitionService_ServiceDesc,
	&quoratev1.GateService_ServiceDesc,
}

// Server serves one member's gRPC and HTTP listeners. Make it with New and end it with Shutdown.
type Server struct {
	config    Config
	validator protovalidate.Validator
	grpc      *grpc.Server
	// inside serves the connection inside the process, which REST and OPC UA share: streams that wait on it shall not keep out calls.
	inside    *grpc.Server
	http      *http.Server
	gateway   *grpc.ClientConn
	inProcess *inProcessListener
	running   sync.WaitGroup

	// What is in flight, by kind.
	calls, watches, renewals, questions atomic.Int64
	panics                              atomic.Uint64

	// stopping ends the streams.
	stopping context.Context
	stop     context.CancelFunc
	ended    sync.Once
}

// New makes a server, which is able to serve at once.
func New(config Config) (*Server, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	s := &Server{config: config, inProcess: newInProcessListener()}
	s.stopping, s.stop = context.WithCancel(context.Background())
	var err error
	if s.validator, err = newValidator(services); err != nil {
		return nil, err
	}
	s.grpc, s.inside = s.newGRPC(s.config.Limits.MaxStreams), s.newGRPC(math.MaxUint32)
	err = checkRules(s.grpc.GetServiceInfo())
	if err == nil {
		err = s.openGateway()
	}
	if err == nil {
		err = s.measure()
	}
	if err != nil {
		s.inside.Stop()
		s.grpc.Stop()
		return nil, errors.Join(err, s.closeGateway())
	}
	s.running.Go(func() {
		if err := s.inside.Serve(s.inProcess); err != nil {
			s.config.Logger.Error("the connection inside the process ended", slog.Any("error", err))
		}
	})
	return s, nil
}

// closeGateway closes the gateway's connection, if there is one yet.
func (s *Server) closeGateway() error {
	if s.gateway == nil {
		return nil
	}
	return s.gateway.Close()
}

// newGRPC makes a server of all services, on each connection of which so many calls may be in flight.
func (s *Server) newGRPC(streams uint32) *grpc.Server {
	limits := s.config.Limits
	server := grpc.NewServer(
		grpc.Creds(newHandshaker(s.config.Credentials)),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxRecvMsgSize(limits.MaxRequestBytes),
		grpc.MaxHeaderListSize(uint32(min(limits.MaxHeaderBytes, math.MaxInt32))),
		grpc.MaxConcurrentStreams(streams),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	)
	quoratev1.RegisterTopologyServiceServer(server, &topologyService{server: s})
	quoratev1.RegisterLeaseServiceServer(server, &leaseService{server: s})
	quoratev1.RegisterApplyServiceServer(server, &applyService{server: s})
	quoratev1.RegisterServingServiceServer(server, &servingService{server: s})
	quoratev1.RegisterMaintenanceServiceServer(server, &maintenanceService{server: s})
	quoratev1.RegisterMemberServiceServer(server, &memberService{server: s})
	quoratev1.RegisterEventServiceServer(server, &eventService{server: s})
	quoratev1.RegisterOverviewServiceServer(server, &overviewService{server: s})
	quoratev1.RegisterPartitionServiceServer(server, &partitionService{server: s})
	quoratev1.RegisterGateServiceServer(server, &gateService{server: s})
	healthpb.RegisterHealthServer(server, newHealth(s.ready, services))
	reflection.Register(server)
	channelz.RegisterChannelzServiceToServer(server)
	return server
}

// ready returns why the member should not be asked, nil if it may.
func (s *Server) ready() error {
	if s.stopping.Err() != nil {
		return errors.New("shutting down")
	}
	return s.config.Node.Ready()
}

// ServeGRPC serves gRPC until Shutdown, and then returns nil. It closes the listener.
func (s *Server) ServeGRPC(listener net.Listener) error {
	err := s.grpc.Serve(netutil.LimitListener(listener, s.config.Limits.MaxConnections))
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("rpc: serve gRPC: %w", err)
}

// ServeHTTP serves REST until Shutdown, and then returns nil. It closes the listener.
func (s *Server) ServeHTTP(listener net.Listener) error {
	limited := netutil.LimitListener(listener, s.config.Limits.MaxConnections)
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(limited, "", "")
	} else {
		err = s.http.Serve(limited)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("rpc: serve HTTP: %w", err)
}

// Shutdown stops taking calls, ends streams, and waits for the calls in flight for as long as ctx lets it; then it cuts
// them off and returns the error of ctx. Only the first call does anything.
func (s *Server) Shutdown(ctx context.Context) (err error) {
	s.ended.Do(func() { err = s.end(ctx) })
	return err
}

func (s *Server) end(ctx context.Context) error {
	s.stop()
	// REST first, since its calls go on over gRPC.
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	err = errors.Join(err, s.gateway.Close())
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.inside.GracefulStop()
		s.grpc.GracefulStop()
	}()
	select {
	case <-graceful:
	case <-ctx.Done():
		s.inside.Stop()
		s.grpc.Stop()
		<-graceful
		err = errors.Join(err, ctx.Err())
	}
	s.running.Wait()
	return err
}

// propose puts a command into the log, on behalf of the caller of ctx, and returns its outcome unless that is a refusal. The node says when it was: the wall
// time that goes into the log is that of its clock alone.
func (s *Server) propose(ctx context.Context, requestID string, command *logv1.Command) (*logv1.Outcome, error) {
	command.RequestId = requestID
	command.Actor = callerFrom(ctx).actor()
	outcome, err := s.config.Node.Propose(ctx, command)
	if err != nil {
		return nil, err
	}
	return outcome, refused(outcome)
}

// read returns a view of the state, and the header for an answer from it.
func (s *Server) read(ctx context.Context, options *quoratev1.ReadOptions) (node.View, *quoratev1.ResponseHeader, error) {
	view, err := s.config.Node.Read(ctx, options)
	if err != nil {
		return node.View{}, nil, err
	}
	return view, headerOf(view), nil
}

func headerOf(view node.View) *quoratev1.ResponseHeader {
	return &quoratev1.ResponseHeader{
		Revision:         view.State.Revision(),
		Generation:       view.State.CurrentGeneration().GetNumber(),
		Member:           view.Member,
		LeaderContactAge: durationpb.New(view.LeaderContactAge),
		ClusterTime:      durationpb.New(view.State.Now()),
	}
}

// headerAfter is the header of the answer to a change.
func (s *Server) headerAfter(outcome *logv1.Outcome) *quoratev1.ResponseHeader {
	return &quoratev1.ResponseHeader{
		Revision:         outcome.GetRevision(),
		Generation:       outcome.GetGeneration(),
		Member:           s.config.Node.ID(),
		LeaderContactAge: durationpb.New(s.config.Node.Local().LeaderContactAge),
		ClusterTime:      durationpb.New(time.Duration(outcome.GetClock())),
	}
}
