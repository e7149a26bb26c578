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
	// partitionHeader names the partition of a request. Without it, it is the first part of the path.
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
	// writeLimit is for how long a write may last. The backends have to keep to it, too.
	writeLimit time.Duration
}

func newProxy(gate *client.Gate, backends map[string]*url.URL, writeLimit time.Duration) *proxy {
	p := &proxy{gate: gate, backends: map[string]*httputil.ReverseProxy{}, writeLimit: writeLimit}
	for placement, to := range backends {
		p.backends[placement] = &httputil.ReverseProxy{
			Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to) },
			ModifyResponse: func(r *http.Response) error { *r.Request.Context().Value(answered{}).(*bool) = true; return nil },
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			},
		}
	}
	return p
}

// answered is the key under which a request's context has a *bool that says whether the backend answered.
type answered struct{}

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
	where, err := p.gate.Resolve(r.Context(), partitionOf(r))
	if err != nil {
		refuse(w, err)
		return
	}
	r.Header.Del(epochHeader)
	p.forward(r.Context(), w, r, where.GetReadPlacement(), new(bool))
}

// write sends a request to where its partition is written, if it may be written now.
func (p *proxy) write(w http.ResponseWriter, r *http.Request) {
	// The time of a write counts from before its gate is checked, so that it is over before the drain barrier is. A caller who hangs up doesn't end it:
	// nobody would know any more whether the backend goes on.
	limit := p.limit()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), limit)
	defer cancel()
	pass, err := p.gate.Enter(ctx, partitionOf(r))
	if err != nil {
		refuse(w, err)
		return
	}
	ended := false
	defer func() {
		if ended {
			pass.Done()
			return
		}
		// Without an answer the backend may still be at it, for as long as it may.
		time.AfterFunc(limit-time.Since(began), pass.Done)
	}()
	r.Header.Set(epochHeader, strconv.FormatUint(pass.Epoch, 10))
	p.forward(ctx, w, r, pass.Placement, &ended)
}

// limit is for how long a write may last: never longer than the group's least drain barrier.
func (p *proxy) limit() time.Duration {
	if most := p.gate.WriteLimit(); most > 0 {
		return min(p.writeLimit, most)
	}
	return p.writeLimit
}

// forward sends a request to a placement, and notes when that has answered: by then the backend has done what was asked for, or has not. An answer
// that breaks off makes ReverseProxy panic with http.ErrAbortHandler.
func (p *proxy) forward(ctx context.Context, w http.ResponseWriter, r *http.Request, placement string, ended *bool) {
	backend, known := p.backends[placement]
	if !known {
		*ended = true
		http.Error(w, fmt.Sprintf("no backend is configured for placement %q", placement), http.StatusBadGateway)
		return
	}
	backend.ServeHTTP(w, r.WithContext(context.WithValue(ctx, answered{}, ended)))
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
