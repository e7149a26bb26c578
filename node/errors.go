package node

import "fmt"

// ErrorKind sorts the failures of this package. A refusal by the state machine is never one of them: it is in the Outcome.
type ErrorKind int

// The kinds of Error.
const (
	// NoLeader means that no leader is known or that it isn't ready yet. Nothing was changed.
	NoLeader ErrorKind = iota + 1
	// UnknownOutcome means that the command may take effect, now or later, or never. Send it again with the same request id.
	UnknownOutcome
	// Overloaded means that a queue is full. Nothing was changed; waiting helps.
	Overloaded
	// Shutdown means that this member is stopping. Nothing was changed.
	Shutdown
	// Diverged means that this member's state differs from the majority's, so that it answers nothing any more.
	Diverged
	// Deadline means that time ran out before anything was changed.
	Deadline
	// NotVoter means that the operation needs a voter and the named member isn't one.
	NotVoter
	// Stale means that a bounded read came to a member which hasn't heard from the leader for longer than the bound.
	Stale
	// Invalid means that the request itself is wrong.
	Invalid
	// NotReady means that a member has still to do something, such as catching up, before the operation is possible.
	NotReady
	// StorageFailed means that a store failed or runs out of space, so that the member is to stop or to make room.
	StorageFailed
	// NotLeader means that the asked member isn't the leader. It stays inside the package: the caller is asked to try again.
	NotLeader
)

var kindNames = map[ErrorKind]string{
	NoLeader: "no leader", UnknownOutcome: "unknown outcome", Overloaded: "overloaded", Shutdown: "shutting down",
	Diverged: "diverged", Deadline: "deadline exceeded", NotVoter: "not a voter", Stale: "too stale", Invalid: "invalid",
	NotReady: "not ready", StorageFailed: "storage", NotLeader: "not the leader",
}

// String names the kind.
func (k ErrorKind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Error is a failure of the group, as opposed to a refusal by the state machine.
type Error struct {
	// Op is the operation that failed, such as propose.
	Op   string
	Kind ErrorKind
	// Err is the cause, if there is one.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s: %s", e.Op, e.Kind)
	}
	return fmt.Sprintf("%s: %s: %v", e.Op, e.Kind, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CompactedError says that a watch asked for events which are no longer kept.
type CompactedError struct {
	// Revision is the one to list from: read the state at this revision or later and watch from the one after it.
	Revision uint64
}

// Error implements error.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("watch: events compacted, list from revision %d", e.Revision)
}
