package rpc

import (
	"context"
	_ "embed" // for the OpenAPI document
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/textproto"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quorate/pki"
	quoratev1 "quorate/proto/quorate/v1"
)

// The time-outs of HTTP connections; MaxDeadline and WriteTimeout of Limits bound the answer.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	// inProcessBuffer is that of the connection between the gateway and the services, for each direction.
	inProcessBuffer = 256 << 10
	// eventsPath is the one path whose answer has no end.
	eventsPath = "/v1/events"
)

//go:embed openapi/quorate.swagger.json
var openAPI []byte

// inProcessConn marks a connection that was opened inside the process: a type that no listener on the network returns.
type inProcessConn struct{ net.Conn }

type inProcessListener struct{ *bufconn.Listener }

func newInProcessListener() *inProcessListener {
	return &inProcessListener{bufconn.Listen(inProcessBuffer)}
}

// Accept implements net.Listener.
func (l *inProcessListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &inProcessConn{conn}, nil
}

// handlers are the REST forms of the services.
var handlers = []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
	quoratev1.RegisterTopologyServiceHandler,
	quoratev1.RegisterLeaseServiceHandler,
	quoratev1.RegisterApplyServiceHandler,
	quoratev1.RegisterServingServiceHandler,
	quoratev1.RegisterMaintenanceServiceHandler,
	quoratev1.RegisterMemberServiceHandler,
	quoratev1.RegisterEventServiceHandler,
	quoratev1.RegisterOverviewServiceHandler,
	quoratev1.RegisterPartitionServiceHandler,
	quoratev1.RegisterGateServiceHandler,
}

// openGateway makes the HTTP server and its connection to the services.
func (s *Server) openGateway() error {
	limits := s.config.Limits
	var err error
	s.gateway, err = grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.inProcess.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithUnaryInterceptor(fillRequestID),
		// The services bound their own answers.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(4*limits.MaxPageBytes+limits.MaxRequestBytes)))
	if err != nil {
		return fmt.Errorf("rpc: %w", err)
	}
	readQueriesStrictly()
	rest := runtime.NewServeMux(
		// Names are those of proto3 JSON, as in YAML.
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &jsonForm{&runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true},
		}}),
		runtime.WithErrorHandler(restError),
		runtime.WithIncomingHeaderMatcher(incomingHeader),
		runtime.WithOutgoingHeaderMatcher(outgoingHeader),
		runtime.WithMetadata(func(ctx context.Context, _ *http.Request) metadata.MD { return callerMetadata(ctx) }),
		runtime.WithDisablePathLengthFallback(),
	)
	for _, register := range handlers {
		if err := register(s.stopping, rest, s.gateway); err != nil {
			return fmt.Errorf("rpc: %w", err)
		}
	}
	document, err := s.openAPIDocument()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, `{"status":"alive"}`) })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, string(document)) })
	if s.config.Metrics != nil {
		mux.Handle("GET "+metricsPath, s.scrape(rest))
	}
	if s.config.Page != nil {
		mux.Handle("GET /{$}", http.RedirectHandler(PagePath, http.StatusSeeOther))
		mux.Handle(PagePath, s.page(rest))
	}
	mux.Handle("/", s.rest(rest))
	s.http = &http.Server{
		// A browser that holds a certificate, or that runs beside dev, would otherwise lend it to any page that it shows.
		Handler:           secured(http.NewCrossOriginProtection().Handler(mux)),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      limits.MaxDeadline + limits.WriteTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    limits.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug),
	}
	if s.config.Credentials != nil {
		s.http.TLSConfig = s.config.Credentials.ServerTLS()
	}
	return nil
}

// incomingHeader lets nothing of a request become metadata but its request id; least of all the caller.
func incomingHeader(name string) (string, bool) {
	if textproto.CanonicalMIMEHeaderKey(name) == textproto.CanonicalMIMEHeaderKey(requestIDKey) {
		return requestIDKey, true
	}
	return "", false
}

// outgoingHeader shows nothing of an answer's metadata but the request id.
func outgoingHeader(name string) (string, bool) {
	if name == requestIDKey {
		return textproto.CanonicalMIMEHeaderKey(requestIDKey), true
	}
	return "", false
}

// checkRequestID refuses a header X-Request-Id that can be no id: it would be dropped, and the caller looks for it later.
func checkRequestID(r *http.Request) error {
	name := textproto.CanonicalMIMEHeaderKey(requestIDKey)
	switch values := r.Header.Values(requestIDKey); {
	case len(values) > 1:
		return invalid(name, "is given more than once")
	case len(values) == 1 && !usableID(values[0]):
		return invalid(name, "%s is not 1 to 128 printable ASCII characters", quoted(values[0]))
	}
	return nil
}

// fillRequestID lets the header X-Request-Id be the request id of a change whose body has none, and has the answer echo one that the body has. It is for REST
// alone: in gRPC that key is metadata which proxies make up, while the field is there to be set.
func fillRequestID(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if message, ok := request.(proto.Message); ok {
		field := message.ProtoReflect().Descriptor().Fields().ByName("request_id")
		outgoing, _ := metadata.FromOutgoingContext(ctx)
		if field != nil && field.Kind() == protoreflect.StringKind {
			switch ids, has := outgoing.Get(requestIDKey), message.ProtoReflect().Has(field); {
			case len(ids) == 1 && !has:
				message.ProtoReflect().Set(field, protoreflect.ValueOfString(ids[0]))
			case len(ids) == 0 && has:
				if id := message.ProtoReflect().Get(field).String(); usableID(id) { // Else the call is refused for it.
					ctx = metadata.AppendToOutgoingContext(ctx, requestIDKey, id)
				}
			}
		}
	}
	return invoke(ctx, method, request, reply, conn, opts...)
}

func callerMetadata(ctx context.Context) metadata.MD {
	md, err := forward(callerFrom(ctx))
	if err != nil {
		// Without the metadata the call has no caller and is refused.
		return nil
	}
	return md
}

// rest finds out who calls, checks what is around the body, and bounds it, before the gateway looks at a request.
func (s *Server) rest(gateway *runtime.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := restCaller(r.TLS, s.config.Credentials != nil, r.RemoteAddr, s.config.Now())
		if err == nil {
			err = refusePath(r)
		}
		if err == nil {
			err = refuseQuery(r)
		}
		if err == nil {
			err = checkRequestID(r)
		}
		if err != nil {
			refuseREST(gateway, w, r, err)
			return
		}
		if r.ContentLength > s.config.Limits.MaxBodyBytes {
			st := newStatus(failure{code: codes.ResourceExhausted, reason: ReasonInvalidArgument},
				fmt.Sprintf("the body has %d bytes, at most %d are taken", r.ContentLength, s.config.Limits.MaxBodyBytes), nil)
			_, marshaler := runtime.MarshalerForRequest(gateway, r)
			runtime.HTTPError(r.Context(), gateway, marshaler, w, r, &runtime.HTTPStatusError{
				HTTPStatus: http.StatusRequestEntityTooLarge, Err: st.Err(),
			})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, s.config.Limits.MaxBodyBytes)
		if r.URL.Path == eventsPath {
			w = newStreamWriter(w, s.config.Limits.WriteTimeout)
		}
		gateway.ServeHTTP(w, r.WithContext(withCaller(r.Context(), who)))
	})
}

// page finds out who asks for the web page. What the page does for them goes through the services, and is judged there.
func (s *Server) page(gateway *runtime.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := restCaller(r.TLS, s.config.Credentials != nil, r.RemoteAddr, s.config.Now())
		if err != nil {
			refuseREST(gateway, w, r, err)
			return
		}
		s.config.Page.ServePage(w, r, pki.Identity{Name: who.name, Role: who.role, Member: who.member})
	})
}

// refuseREST answers with an error as the gateway does.
func refuseREST(gateway *runtime.ServeMux, w http.ResponseWriter, r *http.Request, err error) {
	st, _ := toStatus(err)
	_, marshaler := runtime.MarshalerForRequest(gateway, r)
	runtime.HTTPError(r.Context(), gateway, marshaler, w, r, st.Err())
}

// readyz says whether the member should be asked.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.ready(); err != nil {
		reason, _ := json.Marshal(err.Error()) // a string always encodes
		writeJSON(w, http.StatusServiceUnavailable, fmt.Sprintf(`{"status":"not ready","reason":%s}`, reason))
		return
	}
	writeJSON(w, http.StatusOK, `{"status":"ready"}`)
}

func writeJSON(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// A client that went away is no one to tell.
	_, _ = w.Write([]byte(body))
}

// secured sets the headers that keep a browser from guessing, storing and framing.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}

// openAPIDocument is the generated document with the name and version of what serves it.
func (s *Server) openAPIDocument() ([]byte, error) {
	var document map[string]any
	if err := json.Unmarshal(openAPI, &document); err != nil {
		return nil, fmt.Errorf("rpc: the OpenAPI document: %w", err)
	}
	document["info"] = map[string]any{"title": "Quorate", "version": s.config.Version}
	return json.Marshal(document)
}

// streamWriter gives each write of an answer without an end its own deadline, in place of one for the whole.
type streamWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

func newStreamWriter(w http.ResponseWriter, timeout time.Duration) *streamWriter {
	control := http.NewResponseController(w)
	// The deadline of reading the request would cut the stream off as well. Where it can't be lifted, it does so.
	_ = control.SetReadDeadline(time.Time{})
	return &streamWriter{ResponseWriter: w, control: control, timeout: timeout}
}

// Write implements http.ResponseWriter.
func (s *streamWriter) Write(b []byte) (int, error) {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.timeout))
	return s.ResponseWriter.Write(b)
}

// Flush implements http.Flusher, which the gateway asks for.
func (s *streamWriter) Flush() {
	_ = s.control.SetWriteDeadline(time.Now().Add(s.timeout))
	_ = s.control.Flush()
}

// Unwrap implements what http.ResponseController looks for.
func (s *streamWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
