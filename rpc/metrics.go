package rpc

import (
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"quorate/pki"
	"quorate/telemetry"
)

// metricsPath is where metrics are scraped.
const metricsPath = "/metrics"

// metricsRole is the least role that may scrape: metrics tell what a viewer may read elsewhere. /healthz and /readyz tell no more than
// whether to come, to whoever has a certificate of the site.
const metricsRole = pki.RoleViewer

// measure registers what this package counts.
func (s *Server) measure() error {
	take := func() *Server { return s }
	return telemetry.Register(s.config.Metrics, take,
		telemetry.Gauge("quorate_rpc_calls", "Unary calls in flight, by gRPC and REST together.", func(s *Server) int64 { return s.calls.Load() }),
		telemetry.Gauge("quorate_rpc_streams", "Streams that are open, by gRPC and REST together.", func(s *Server) int64 { return s.watches.Load() + s.questions.Load() }),
		telemetry.Gauge("quorate_rpc_renewals", "Renewals of gate leases that wait, by gRPC and REST together.", func(s *Server) int64 { return s.renewals.Load() }),
		telemetry.Counter("quorate_rpc_panics_total", "Panics that calls were recovered from.", func(s *Server) uint64 { return s.panics.Load() }),
	)
}

// scrape shows the metrics to viewers. A refusal looks like those of REST.
func (s *Server) scrape(gateway *runtime.ServeMux) http.Handler {
	metrics := s.config.Metrics.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := restCaller(r.TLS, s.config.Credentials != nil, r.RemoteAddr, s.config.Now())
		if err == nil {
			err = mayScrape(who)
		}
		if err != nil {
			refuseREST(gateway, w, r, err)
			return
		}
		metrics.ServeHTTP(w, r)
	})
}

func mayScrape(who caller) error {
	if who.role < metricsRole {
		return permissionDenied(who, metricsPath, metricsRole)
	}
	return nil
}
