// Package migration drives migrations of partitions from their plan to their end (partitions.md §3).
//
// A [Driver] takes one partition at a time through begin, copy, verification, cutover, drain barrier and completion. It decides by what the group
// says alone, and remembers nothing: whoever runs it anew goes on from the phase that the partition is in, whoever began it, and skips what was
// done. So an end at any moment, be it an interruption, a failed hook or a kill, leaves what the group holds, which is always one of the phases.
//
// It knows no terminal, no connection and no process: the group, the hooks and whoever is told are given to it.
package migration

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// pollInterval is how often a partition is looked at while a hook runs, while somebody else copies, and in the drain barrier; it is also how often
	// progress is reported to the group at most, and how often an early completion is tried.
	pollInterval = time.Second
	// firstPause and maxPause are the waits before a call that was not answered is sent again; each is twice the one before.
	firstPause = 250 * time.Millisecond
	maxPause   = 5 * time.Second
	// DefaultPatience is for how long a call is sent again that nobody answers. The group remembers request ids for 10 minutes of cluster time.
	DefaultPatience = 9 * time.Minute
	// settleTime is how long a call under way may go on after an interruption, so that what became of it is known.
	settleTime = 3 * time.Second
)

// Group is what a driver needs of the partition service.
type Group interface {
	GetPartition(context.Context, *quoratev1.GetPartitionRequest, ...grpc.CallOption) (*quoratev1.GetPartitionResponse, error)
	BeginMigration(context.Context, *quoratev1.BeginMigrationRequest, ...grpc.CallOption) (*quoratev1.BeginMigrationResponse, error)
	ReportMigration(context.Context, *quoratev1.ReportMigrationRequest, ...grpc.CallOption) (*quoratev1.ReportMigrationResponse, error)
	CutoverMigration(context.Context, *quoratev1.CutoverMigrationRequest, ...grpc.CallOption) (*quoratev1.CutoverMigrationResponse, error)
	CompleteMigration(context.Context, *quoratev1.CompleteMigrationRequest, ...grpc.CallOption) (*quoratev1.CompleteMigrationResponse, error)
}

// Hook is a program of the operator's. Run ends when it has; an error means that what it was to do is not done. It hands over each line that the program
// writes, from one goroutine. Once ctx ends, it stops the program, and returns when that is gone.
type Hook interface {
	Run(ctx context.Context, about About, line func(string)) error
}

// About is what a hook is told.
type About struct {
	Partition, From, To string
	// Epoch is the partition's, in the phase in which the hook runs.
	Epoch uint64
	// Request is what the request ids of this run begin with.
	Request string
	// Stage is StageCopy, StageVerify or StageFinal.
	Stage Stage
}

// Options say how migrations are to be driven. What is said to the group when a migration begins holds for that one until it ends, whoever resumes it.
type Options struct {
	// Barrier is the drain barrier, 0 for that of the partition or the settings.
	Barrier         time.Duration
	Early           bool
	RequireVerified bool
	Servers         []string
	Note            string

	// Copy copies the data while writes go on. Without it the driver waits until somebody reports the copy as complete, unless NothingToCopy.
	Copy          Hook
	NothingToCopy bool
	// Verify compares the copy with its source, before the cutover.
	Verify Hook
	// Final copies the rest, once the drain barrier has passed and nobody writes any more.
	Final Hook
}

// Job is one migration.
type Job struct {
	Partition, To string
	// Resume allows to go on with a migration that has begun, and is content with a partition that is there already.
	Resume bool
	// ExpectedEpoch is the epoch at which the partition has to be; 0 means any.
	ExpectedEpoch uint64
}

// Driver drives migrations. It may be used by many goroutines.
type Driver struct {
	Group Group
	// Refusal returns what the group refused, nil where nobody gave a final answer, so that the same call may be sent again.
	Refusal func(error) *Refusal
	// Tell is told what happens, by the goroutine that drives the partition.
	Tell    func(Event)
	Options Options
	// Request is what all request ids begin with, new in each run: at most MaxRequestBytes.
	Request string
	// Patience is for how long a call is sent again that nobody answers, 0 for DefaultPatience.
	Patience time.Duration
}

// MaxRequestBytes bounds Driver.Request, so that the group's limit of 128 holds for what is made of it.
const MaxRequestBytes = 40

// Stage is what a driver does with a partition.
type Stage int

// The stages, in order.
const (
	StageBegin Stage = iota
	StageCopy
	StageVerify
	StageCutover
	StageBarrier
	StageFinal
	StageComplete
)

var stageNames = [...]string{"begin", "copy", "verify", "cutover", "barrier", "final", "complete"}

func (s Stage) String() string { return stageNames[s] }

// Event is something that whoever watches wants to know: a line of text, or how far a stage is.
type Event struct {
	Partition string
	Stage     Stage
	// Text is a line for people, without the partition; of a hook, if Hook is set.
	Text string
	Hook bool
	// Progress is how far a copy or a verification is.
	Progress *Progress
	// Left of Whole is what is left of the drain barrier; Whole is 0 in other events.
	Left, Whole time.Duration
}

// Result is how a run of the driver ended for a partition.
type Result string

// The results: Failed and Interrupted leave the partition in the phase that it is in.
const (
	Done        Result = "done"
	Failed      Result = "failed"
	Interrupted Result = "interrupted"
	NotBegun    Result = "not begun"
)

// Outcome is the end of one run for one partition.
type Outcome struct {
	Job    Job
	Result Result
	// Last is the partition as the group last told it, nil if it never did. After an interruption it is how the partition was left.
	Last *quoratev1.Partition
	// Unsure says that a change was not answered, and that the partition may be further than Last says.
	Unsure bool
	// Early says that it was completed before its barrier had passed.
	Early bool
	Took  time.Duration
	Err   error
}

// Refusal is an answer of the group that repeating the call doesn't change.
type Refusal struct {
	Reason string
	Facts  map[string]string
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }
func (r *Refusal) Unwrap() error { return r.Err }

// Stopped is why a driver does not go on, where the state of the partition is the reason.
type Stopped struct{ Partition, Why string }

func (s *Stopped) Error() string { return "partition " + s.Partition + " " + s.Why }

// HookError is a hook that failed. The partition stays in its phase.
type HookError struct {
	Stage Stage
	Err   error
}

func (h *HookError) Error() string {
	return "the " + h.Stage.String() + " hook failed: " + h.Err.Error()
}
func (h *HookError) Unwrap() error { return h.Err }

// Unanswered is a call that nobody gave a final answer to for the driver's whole patience.
type Unanswered struct{ Err error }

func (u *Unanswered) Error() string { return "the group did not answer: " + u.Err.Error() }
func (u *Unanswered) Unwrap() error { return u.Err }

// errInterrupted ends a run whose context ended.
var errInterrupted = errors.New("interrupted")

// Run drives one migration to its end, or until ctx ends.
func (d *Driver) Run(ctx context.Context, job Job) Outcome {
	began := time.Now()
	r := &run{Driver: d, job: job}
	err := r.drive(ctx)
	outcome := Outcome{Job: job, Result: Done, Early: r.early, Err: err}
	switch {
	case errors.Is(err, errInterrupted):
		outcome.Result = Interrupted
		r.lookOnceMore(ctx)
	case err != nil:
		outcome.Result = Failed
		r.lookOnceMore(ctx)
	}
	outcome.Last, outcome.Unsure, outcome.Took = r.last, r.open, time.Since(began)
	return outcome
}
