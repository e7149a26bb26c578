package space

import (
	"sync"
	"sync/atomic"
)

// Change notification is spread over shards, so that goroutines that subscribe and change different nodes seldom meet.
const watchShards = 64

type watchers [watchShards]watchShard

type watchShard struct {
	mu    sync.RWMutex
	nodes map[Key]*watched
}

// watched are the functions that wait for one node.
type watched struct {
	fns  map[*func()]struct{}
	list []*func() // of fns, built by the first change after fns changed; never modified, so that it can be used without the lock
}

// Subscribe calls fn after every Changed of k until cancel is called. fn is called on the goroutine of who called
// Changed, without any lock held; it must not block. A call that was under way when cancel was called may still come,
// so fn must bear being called once too often. The number of subscriptions is bounded by who subscribes.
func (s *Space) Subscribe(k Key, fn func()) (cancel func()) {
	sh := s.watchers.shard(k)
	id := &fn
	sh.mu.Lock()
	defer sh.mu.Unlock()
	w := sh.nodes[k]
	if w == nil {
		if sh.nodes == nil {
			sh.nodes = make(map[Key]*watched)
		}
		w = &watched{fns: make(map[*func()]struct{})}
		sh.nodes[k] = w
	}
	w.fns[id], w.list = struct{}{}, nil
	s.waiting(k).Add(1)
	return func() {
		if sh.cancel(k, id) {
			s.waiting(k).Add(-1)
		}
	}
}

// waiting counts the subscriptions to nodes of a key's namespace. Those of namespaces that the space doesn't have are counted together.
func (s *Space) waiting(k Key) *atomic.Int64 { return &s.subscribed[min(int(k.ns), len(s.namespaces))] }

// cancel says whether the function was still waiting.
func (sh *watchShard) cancel(k Key, id *func()) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	w := sh.nodes[k]
	if w == nil {
		return false
	}
	if _, ok := w.fns[id]; !ok {
		return false
	}
	delete(w.fns, id)
	w.list = nil
	if len(w.fns) == 0 {
		delete(sh.nodes, k)
	}
	return true
}

// Changed says that the values of these nodes have changed. It is called after the change, so that whoever reads in
// answer to it sees the new value.
func (s *Space) Changed(keys ...Key) {
	for _, k := range keys {
		for _, fn := range s.watchers.shard(k).of(k) {
			(*fn)()
		}
	}
}

// ChangedWhere says that the values of all nodes that match may have changed. Only those are asked about that somebody waits for.
func (s *Space) ChangedWhere(match func(Key) bool) {
	for i := range s.watchers {
		s.Changed(s.watchers[i].keys(match)...)
	}
}

// keys returns the matching nodes that somebody waits for.
func (sh *watchShard) keys(match func(Key) bool) (list []Key) {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for k := range sh.nodes {
		if match(k) {
			list = append(list, k)
		}
	}
	return list
}

// of returns the functions that wait for k.
func (sh *watchShard) of(k Key) []*func() {
	sh.mu.RLock()
	w := sh.nodes[k]
	if w == nil || w.list != nil {
		defer sh.mu.RUnlock()
		if w == nil {
			return nil
		}
		return w.list
	}
	sh.mu.RUnlock()

	sh.mu.Lock()
	defer sh.mu.Unlock()
	w = sh.nodes[k]
	if w == nil {
		return nil
	}
	if w.list == nil {
		w.list = make([]*func(), 0, len(w.fns))
		for fn := range w.fns {
			w.list = append(w.list, fn)
		}
	}
	return w.list
}

func (w *watchers) shard(k Key) *watchShard {
	h := uint32(2166136261) // FNV-1a
	for _, b := range []byte{byte(k.num), byte(k.num >> 8), byte(k.num >> 16), byte(k.num >> 24), byte(k.ns), byte(k.ns >> 8)} {
		h = (h ^ uint32(b)) * 16777619
	}
	for i := range len(k.text) {
		h = (h ^ uint32(k.text[i])) * 16777619
	}
	return &w[h%watchShards]
}
