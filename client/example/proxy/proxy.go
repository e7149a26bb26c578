package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"quorate/client"
)

const (
	// partitionHeader names the partition of a request. Without it, it is the first part of the path. The backend gets it in any case, and goes by it alone:
	// it might read a path such as /p7/../p8 in another way.
	partitionHeader = "X-Partition"
	// epochHeader tells the backend under which epoch a write was let in. One that keeps the highest it has seen for each partition, and refuses a
	// lower one, is safe even from a proxy that broke its word.
	epochHeader = "X-Quorate-Epoch"
	// retryAfter is after how many seconds a client that was refused may come again.
	retryAfter = "1"
)

// proxy sends each request to the backend that has its partition.
type proxy struct {
	gate *client.Gate
	// backends has, by placement, what sends a request there.
	backends map[string]*httputil.ReverseProxy
}

func newProxy(gate *client.Gate, backends map[string]*url.URL) *proxy {
	p := &proxy{gate: gate, backends: map[string]*httputil.ReverseProxy{}}
	for placement, to := range backends {
		p.backends[placement] = &httputil.ReverseProxy{
			// What a caller may not say is taken out here: before, he could have it stripped with a Connection header.
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				f := forwardedIn(r.In.Context())
				r.Out.Header.Set(partitionHeader, f.partition)
				r.Out.Header.Del(epochHeader)
				if f.epoch != 0 {
					r.Out.Header.Set(epochHeader, strconv.FormatUint(f.epoch, 10))
				}
			},
			ModifyResponse: func(r *http.Response) error { forwardedIn(r.Request.Context()).answered = true; return nil },
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			},
		}
	}
	return p
}

// forwarded is one request on its way to a backend. The context of the request has it.
type forwarded struct {
	partition string
	epoch     uint64 // 0 for a read
	// answered says that the backend has done what was asked for, or has not, and won't.
	answered bool
}

// forwardedKey is the key under which a context has it.
type forwardedKey struct{}

func forwardedIn(ctx context.Context) *forwarded { return ctx.Value(forwardedKey{}).(*forwarded) }

// partitionOf returns the partition of a request.
func partitionOf(r *http.Request) string {
	if p := r.Header.Get(partitionHeader); p != "" {
		return p
	}
	p, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return p
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		p.read(w, r)
	default:
		p.write(w, r)
	}
}

// read sends a request to where its partition is read. That goes on in a cutover.
func (p *proxy) read(w http.ResponseWriter, r *http.Request) {
	partition := partitionOf(r)
	where, err := p.gate.Resolve(r.Context(), partition)
	if err != nil {
		refuse(w, err)
		return
	}
	p.forward(w, r, where.GetReadPlacement(), &forwarded{partition: partition})
}

// write sends a request to where its partition is written, if it may be written now.
func (p *proxy) write(w http.ResponseWriter, r *http.Request) {
	partition := partitionOf(r)
	pass, err := p.gate.Enter(r.Context(), partition)
	if err != nil {
		refuse(w, err)
		return
	}
	// A caller who hangs up doesn't end the write: nobody would know any more whether the backend goes on.
	ctx, cancel := context.WithDeadline(context.WithoutCancel(r.Context()), pass.Deadline)
	defer cancel()
	f := &forwarded{partition: partition, epoch: pass.Epoch}
	defer func() {
		if f.answered {
			pass.Done()
			return
		}
		// Without an answer the backend may still be at it, for as long as it may.
		time.AfterFunc(time.Until(pass.Deadline), pass.Done)
	}()
	p.forward(w, r.WithContext(ctx), pass.Placement, f)
}

// forward sends a request to a placement. An answer that breaks off makes ReverseProxy panic with http.ErrAbortHandler.
func (p *proxy) forward(w http.ResponseWriter, r *http.Request, placement string, f *forwarded) {
	backend, known := p.backends[placement]
	if !known {
		f.answered = true
		http.Error(w, fmt.Sprintf("no backend is configured for placement %q", placement), http.StatusBadGateway)
		return
	}
	backend.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), forwardedKey{}, f)))
}

// refuse says why a request was not sent on.
func refuse(w http.ResponseWriter, err error) {
	var unknown *client.UnknownPartitionError
	if errors.As(err, &unknown) {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	// In cutover, or while the group can't be asked: it passes.
	w.Header().Set("Retry-After", retryAfter)
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}
