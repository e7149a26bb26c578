// Package fsm is the replicated state machine: the state that every member holds, and the rules by which commands from
// the log change it.
//
// It is pure. A [State] changes only by [State.ApplyEntry], and what an entry does depends on nothing but the entry and the
// state: ids, the actor, times and whatever else varies come inside the command. There is no clock, goroutine, randomness,
// float, logging or I/O here, and no order of a Go map decides anything; purity_test.go proves it and says why. So all
// members that applied the same log are equal, which they show each other by comparing [State.Digest].
//
// A command that breaks a rule is refused. A [Refusal] is an answer like any other: it changes nothing, names the field
// that is wrong, and has a stable reason and a kind that [Codes] maps to the codes of the edges. An error, in contrast, means
// that the log can't be applied, and the process must stop.
//
// Time is cluster time ([State.Now]): it enters with the stamp of each entry, never goes back, and what is due happens
// when a pulse is applied, so all members agree on the entry at which a lease ended. [State.NextDeadline] tells the leader when
// a pulse is worth sending.
//
// Every command of a client has a request id. The state remembers the answers ([RequestMemory], [MaxRequests]), so a
// client that does not know whether its command was applied sends it again and gets the first answer.
//
// [State.Snapshot] gives a view that never changes, at once; readers use it without a lock. [State.WriteTo] and [Restore] carry a
// state over a restart.
//
// A few things only the leader can know, such as that nobody answers for a partition from memory any more. It gives its word for them in the command, and
// takes it back where the leadership has changed ([Gated], [GatesClosed]).
//
// Each noun is one slice in one file, always in the same order: its type, apply functions, queries, events, invariant. Topology
// (topology.go) is the one to read first, then lease.go, serving.go, apply.go and partition.go; docs/adding-a-slice.md is the recipe for another.
package fsm
