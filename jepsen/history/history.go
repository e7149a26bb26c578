// Package history is what happened in a run, as seen from outside of all members and by one clock: operations with the moments of their call and return, and marks such as
// faults and changes of leader. It is written to a file as it comes, so that a run that is killed leaves it behind.
package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// maxLine bounds one line of the file.
const maxLine = 1 << 20

// Outcome is how an operation ended.
type Outcome string

// The outcomes.
const (
	// OK means that it was done, and Output says what came of it.
	OK Outcome = "ok"
	// Refused means that the state machine refused it: nothing was changed, and Error is the reason.
	Refused Outcome = "refused"
	// Failed means that certainly nothing was changed, or that it was a read.
	Failed Outcome = "failed"
	// Unknown means that it may have taken effect, or may still.
	Unknown Outcome = "unknown"
)

// Op is one operation.
type Op struct {
	ID int `json:"id"`
	// Client is who made it, one operation at a time, and Member whom it asked; empty where the client library chose.
	Client string `json:"client"`
	Member string `json:"member,omitempty"`
	// Noun is what it concerns, such as partition, Kind what it does, and Key which one.
	Noun string `json:"noun"`
	Kind string `json:"kind"`
	Key  string `json:"key"`
	// Call and Return are since the run began. Return is 0 while it is under way.
	Call    time.Duration   `json:"call"`
	Return  time.Duration   `json:"return"`
	Outcome Outcome         `json:"outcome"`
	Input   json.RawMessage `json:"input,omitempty"`
	Output  json.RawMessage `json:"output,omitempty"`
	Error   string          `json:"error,omitempty"`
}

// Mark is something that happened at a moment, or from a moment on.
type Mark struct {
	At time.Duration `json:"at"`
	// Until is 0 for what has no length.
	Until time.Duration `json:"until,omitempty"`
	// Kind is fault, leader, level, event or note.
	Kind   string `json:"kind"`
	Member string `json:"member,omitempty"`
	Text   string `json:"text"`
	// Data is more of it, for checks.
	Data json.RawMessage `json:"data,omitempty"`
}

// Log records a run. It may be used from many goroutines.
type Log struct {
	began time.Time

	mu    sync.Mutex
	ops   []*Op
	marks []Mark
	file  *os.File
	out   *bufio.Writer
	err   error
}

// line is what a line of the file holds: one of both.
type line struct {
	Op   *Op   `json:"op,omitempty"`
	Mark *Mark `json:"mark,omitempty"`
}

// Create begins a history that is written to a file.
func Create(name string) (*Log, error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return &Log{began: time.Now(), file: file, out: bufio.NewWriterSize(file, 1<<20)}, nil
}

// Since is the time since the run began.
func (l *Log) Since() time.Duration { return time.Since(l.began) }

// Begin notes the call of an operation; input may be anything that JSON can hold.
func (l *Log) Begin(op Op, input any) *Op {
	op.Input = encode(input)
	l.mu.Lock()
	defer l.mu.Unlock()
	op.ID = len(l.ops)
	op.Call = l.Since()
	l.ops = append(l.ops, &op)
	return &op
}

// End notes its return.
func (l *Log) End(op *Op, outcome Outcome, output any, err error) {
	encoded := encode(output)
	l.mu.Lock()
	defer l.mu.Unlock()
	op.Return, op.Outcome, op.Output = l.Since(), outcome, encoded
	if err != nil {
		op.Error = err.Error()
	}
	l.write(line{Op: op})
}

// Mark notes what isn't an operation; data may be anything that JSON can hold. At 0 is now.
func (l *Log) Mark(m Mark, data any) {
	m.Data = encode(data)
	if m.At == 0 {
		m.At = l.Since()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = append(l.marks, m)
	l.write(line{Mark: &m})
}

func encode(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("history: %T: %v", v, err)) // Whoever records gives what JSON can hold.
	}
	return b
}

func (l *Log) write(v line) {
	if l.err != nil {
		return
	}
	b, err := json.Marshal(v)
	if err == nil {
		_, err = l.out.Write(append(b, '\n'))
	}
	l.err = err
}

// History returns what was recorded so far. Operations that are under way are Unknown and have no return.
func (l *Log) History() History {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := History{Marks: append([]Mark(nil), l.marks...), Ops: make([]Op, len(l.ops))}
	for i, op := range l.ops {
		h.Ops[i] = *op
		if op.Return == 0 {
			h.Ops[i].Outcome = Unknown
		}
	}
	return h
}

// Close ends the file. What was under way is written as unknown.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, op := range l.ops {
		if op.Return == 0 {
			op.Outcome = Unknown
			l.write(line{Op: op})
		}
	}
	return errors.Join(l.err, l.out.Flush(), l.file.Close())
}

// History is a run that can be judged.
type History struct {
	Ops   []Op
	Marks []Mark
}

// Read reads a history from a file, in which operations stand in the order of their returns.
func Read(r io.Reader) (History, error) {
	var h History
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for number := 1; lines.Scan(); number++ {
		var v line
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return h, fmt.Errorf("history: line %d: %w", number, err)
		}
		if v.Op != nil {
			h.Ops = append(h.Ops, *v.Op)
		}
		if v.Mark != nil {
			h.Marks = append(h.Marks, *v.Mark)
		}
	}
	return h, lines.Err()
}

// Of returns the operations of one noun, in the order of their calls.
func (h History) Of(noun string) []Op {
	var found []Op
	for _, op := range h.Ops {
		if op.Noun == noun {
			found = append(found, op)
		}
	}
	return found
}
