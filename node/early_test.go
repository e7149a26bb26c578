package node

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// slowLog is a store that writes when it is let.
type slowLog struct {
	*raft.InmemStore
	let chan error
}

func (s slowLog) StoreLogs(logs []*raft.Log) error {
	if err := <-s.let; err != nil {
		return err
	}
	return s.InmemStore.StoreLogs(logs)
}

func newEarly(may bool) (*early, slowLog) {
	slow := slowLog{raft.NewInmemStore(), make(chan error)}
	return &early{LogStore: guardLog(&Storage{Log: slow}, func(error) {}), may: func([]*raft.Log) bool { return may }}, slow
}

func entryAt(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: []byte("x")}
}

// begin calls f aside, and returns whether it has ended, and how.
func begin(f func() error) (ended func() (error, bool)) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() (error, bool) {
		synctest.Wait()
		select {
		case err := <-done:
			return err, true
		default:
			return nil, false
		}
	}
}

func TestEarlyEntriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, slow := newEarly(true)
		// The first one is being written, and as many as are allowed wait.
		for index := range uint64(maxEarly + 1) {
			if err, ended := begin(func() error { return log.StoreLog(entryAt(index + 1)) })(); err != nil || !ended {
				t.Fatalf("entry %d: %v, %v", index+1, err, ended)
			}
		}
		last := begin(func() error { return log.StoreLog(entryAt(maxEarly + 2)) })
		if _, ended := last(); ended {
			t.Fatal("more wait than are allowed")
		}
		slow.let <- nil
		if err, ended := last(); err != nil || !ended {
			t.Fatalf("there is room: %v, %v", err, ended)
		}
		slow.let <- nil
		slow.let <- nil
		log.close()
		if got, err := log.LastIndex(); got != maxEarly+2 || err != nil {
			t.Errorf("%d entries, %v", got, err)
		}
	})
}

func TestWhatReadsTheLogWaitsForEarlyEntries(t *testing.T) {
	for name, read := range map[string]func(*early) error{
		"last":   func(e *early) error { _, err := e.LastIndex(); return err },
		"first":  func(e *early) error { _, err := e.FirstIndex(); return err },
		"get":    func(e *early) error { return e.GetLog(2, new(raft.Log)) },
		"delete": func(e *early) error { return e.DeleteRange(2, 2) },
		"has": func(e *early) error {
			if !e.has(2, nil) {
				return errors.New("it has not")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log, slow := newEarly(true)
				if err := log.StoreLogs([]*raft.Log{entryAt(1), entryAt(2)}); err != nil {
					t.Fatal(err)
				}
				reads := begin(func() error { return read(log) })
				if _, ended := reads(); ended {
					t.Error("it did not wait")
				}
				slow.let <- nil
				if err, ended := reads(); err != nil || !ended {
					t.Errorf("%v, %v", err, ended)
				}
				log.close()
			})
		})
	}
}

func TestWhatIsWrittenBeforeIsWrittenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, slow := newEarly(true)
		if err := log.StoreLog(entryAt(1)); err != nil {
			t.Fatal(err)
		}
		log.may = func([]*raft.Log) bool { return false }
		second := begin(func() error { return log.StoreLog(entryAt(2)) })
		for range 2 {
			if _, ended := second(); ended {
				t.Fatal("taken before it was written")
			}
			slow.let <- nil
		}
		if err, ended := second(); err != nil || !ended {
			t.Errorf("%v, %v", err, ended)
		}
		log.close()
	})
}

func TestEarlyEntryThatCanNotBeWrittenIsNeverHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, slow := newEarly(true)
		if err := log.StoreLog(entryAt(1)); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		had := make(chan bool, 1)
		go func() { had <- log.has(1, done) }()
		slow.let <- errDisk
		log.close()
		if err := log.StoreLog(entryAt(2)); !errors.Is(err, errDisk) {
			t.Errorf("the next entry: %v", err)
		}
		if _, err := log.LastIndex(); !errors.Is(err, errDisk) {
			t.Errorf("the last index: %v", err)
		}
		// The wait ends, or the member could not stop.
		if <-had {
			t.Error("it is said to be written")
		}
		close(done)
	})
}

func TestDamagedEntryIsNotTakenEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, _ := newEarly(true)
		damaged := entryAt(1)
		if err := seal(damaged); err != nil {
			t.Fatal(err)
		}
		damaged.Data = []byte("y")
		if err := log.StoreLog(damaged); err == nil {
			t.Error("taken")
		}
	})
}

// fullPipeline is a pipeline with room for one request, and answers that come at once.
type fullPipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
}

func (p *fullPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }
func (p *fullPipeline) Close() error                       { return nil }

// answered is the answer to a request.
type answered struct {
	raft.AppendFuture
	request *raft.AppendEntriesRequest
}

func (a answered) Request() *raft.AppendEntriesRequest { return a.request }

// TestPipelineOfAFailedStoreIsEmptied takes the answers that nobody may count, however many: raft would wait for room in the pipeline for ever, and the member would
// not stop.
func TestPipelineOfAFailedStoreIsEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, slow := newEarly(true)
		if err := log.StoreLog(entryAt(1)); err != nil {
			t.Fatal(err)
		}
		inner := &fullPipeline{answers: make(chan raft.AppendFuture, 1)}
		held := holdAnswers(inner, log)
		answer := func() error {
			inner.answers <- answered{request: &raft.AppendEntriesRequest{Entries: []*raft.Log{entryAt(1)}}}
			return nil
		}
		for range 2 { // One is held, and one fills the pipeline.
			if _, ended := begin(answer)(); !ended {
				t.Fatal("the pipeline is full already")
			}
		}
		next := begin(answer)
		if _, ended := next(); ended {
			t.Fatal("an answer was let by before the entry was written")
		}
		slow.let <- errors.New("disk full")
		if _, ended := next(); !ended {
			t.Error("the pipeline stays full")
		}
		for range 10 {
			if _, ended := begin(answer)(); !ended {
				t.Fatal("the pipeline is full again")
			}
		}
		select {
		case a := <-held.Consumer():
			t.Errorf("an answer to an entry that is not written: %v", a.Request())
		default:
		}
		if err := held.Close(); err != nil {
			t.Error(err)
		}
	})
}
