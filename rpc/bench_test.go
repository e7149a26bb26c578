package rpc

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// BenchmarkInterceptors measures what a change costs before and after the service sees it.
func BenchmarkInterceptors(b *testing.B) {
	n, _ := remembering()
	s, err := New(Config{Node: n, Audit: func(AuditRecord) {}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Shutdown(context.Background())
	b.Run("validate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := s.validate(begin); err != nil {
				b.Fatal(err)
			}
		}
	})
	ctx := inProcessContext(b)
	info := &grpc.UnaryServerInfo{FullMethod: "/quorate.v1.LeaseService/BeginLease"}
	service := &leaseService{server: s}
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.unary(ctx, begin, info, func(ctx context.Context, request any) (any, error) { return service.BeginLease(ctx, begin) }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func inProcessContext(b *testing.B) context.Context {
	b.Helper()
	return peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, AuthInfo: &connection{caller: anonymous("")}})
}
