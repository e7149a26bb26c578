// Proxy is an HTTP reverse proxy in front of backends that hold partitions. It is an example to start from: proxy.go is what a proxy has to do, and
// main.go how it starts and ends.
//
//	proxy -listen 127.0.0.1:8080 -id proxy-1 -member 127.0.0.1:7101 -member 127.0.0.1:7102 -member 127.0.0.1:7103 \
//	  -backend b1=http://127.0.0.1:9001 -backend b2=http://127.0.0.1:9002
//
// A request for /p7/anything, or with X-Partition: p7, goes to the backend that has partition p7. While p7 is in cutover its writes are refused with 503 and
// Retry-After; its reads, and whatever is asked of other partitions, go on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"quorate/client"
)

// config is what the flags say.
type config struct {
	listen   string
	group    client.Options
	gate     client.GateOptions
	backends map[string]*url.URL
}

func main() {
	c := config{backends: map[string]*url.URL{}}
	flag.StringVar(&c.listen, "listen", "127.0.0.1:8080", "address to listen on")
	flag.StringVar(&c.gate.ID, "id", "", "name of this instance: no two may have one")
	flag.DurationVar(&c.gate.WriteTimeout, "write-timeout", 10*time.Second, "how long a write may take; the backends have to keep to it")
	flag.StringVar(&c.group.CAFile, "cacert", "", "the site's authority")
	flag.StringVar(&c.group.CertFile, "cert", "", "certificate of this instance; a viewer's will do")
	flag.StringVar(&c.group.KeyFile, "key", "", "its key")
	flag.Func("member", "gRPC address of a member of the group; may be repeated", func(address string) error {
		c.group.Endpoints = append(c.group.Endpoints, address)
		return nil
	})
	flag.Func("backend", "PLACEMENT=URL; may be repeated", c.addBackend)
	flag.Parse()
	c.group.Logger = slog.Default()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", c.listen)
	if err == nil {
		err = run(ctx, c, listener)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

func (c *config) addBackend(value string) error {
	placement, address, ok := strings.Cut(value, "=")
	to, err := url.Parse(address)
	if !ok || err != nil || to.Host == "" {
		return fmt.Errorf("%q is not PLACEMENT=URL", value)
	}
	c.backends[placement] = to
	return nil
}

// run serves until ctx ends, and then waits for the writes that were let in, for as long as they may take.
func run(ctx context.Context, c config, listener net.Listener) (err error) {
	group, err := client.Open(ctx, c.group)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, group.Close()) }()
	gate, err := group.Gate(ctx, c.gate)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: newProxy(gate, c.backends), ReadHeaderTimeout: c.gate.WriteTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	// First no more requests, then no more gate: what is in flight until then is reported to the group.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.gate.WriteTimeout+time.Second)
	defer cancel()
	if shut := server.Shutdown(ending); shut != nil {
		err = errors.Join(err, shut, server.Close())
	}
	return errors.Join(err, gate.Close(ending))
}
