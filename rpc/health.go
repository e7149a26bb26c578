package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthInterval is how often a health watch looks whether the member is still ready: nothing announces it.
const healthInterval = 250 * time.Millisecond

// health is the standard health service. All services stand on the one node, so they all serve or none does.
type health struct {
	healthpb.UnimplementedHealthServer
	ready    func() error
	services map[string]bool
}

func newHealth(ready func() error, services []*grpc.ServiceDesc) *health {
	h := &health{ready: ready, services: map[string]bool{"": true}}
	for _, service := range services {
		h.services[service.ServiceName] = true
	}
	return h
}

func (h *health) status(service string) healthpb.HealthCheckResponse_ServingStatus {
	switch {
	case !h.services[service]:
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	case h.ready() != nil:
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVING
}

// Check implements the health protocol: an unknown service is NotFound.
func (h *health) Check(_ context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	now := h.status(request.GetService())
	if now == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &healthpb.HealthCheckResponse{Status: now}, nil
}

// List implements the health protocol.
func (h *health) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	answer := &healthpb.HealthListResponse{Statuses: make(map[string]*healthpb.HealthCheckResponse)}
	for service := range h.services {
		answer.Statuses[service] = &healthpb.HealthCheckResponse{Status: h.status(service)}
	}
	return answer, nil
}

// Watch implements the health protocol: the status now, and then each change.
func (h *health) Watch(request *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	last := healthpb.HealthCheckResponse_UNKNOWN
	for {
		if now := h.status(request.GetService()); now != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case <-ticker.C:
		}
	}
}
