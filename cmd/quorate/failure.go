package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"quorate/cmd/quorate/migration"
	"quorate/fsm"
	logv1 "quorate/proto/quorate/log/v1"
	"quorate/rpc"
)

// Exit codes of every command (platform.md §7).
const (
	// exitDone: what was asked for is done.
	exitDone = 0
	// exitLocal: it failed here, before any member was asked.
	exitLocal = 1
	// exitRemote: a member refused it, failed, or could not be reached.
	exitRemote = 2
	// exitPrecondition: the state was not the expected one, or the group has no leader. Trying again later, or with the
	// current generation, may succeed.
	exitPrecondition = 3
)

// remoteError is a call that members refused, failed, or never answered.
type remoteError struct {
	// endpoint is the address that was asked last.
	endpoint string
	// repeat holds the flags under which the call may be repeated, empty where it may not.
	repeat string
	// unknown says that the change may have happened all the same.
	unknown bool
	// unreached says that no member could be connected to.
	unreached bool
	err       error
}

func (e *remoteError) Unwrap() error { return e.err }

// Error renders one line: what happened, where, and what the caller needs to act on it.
func (e *remoteError) Error() string {
	var line strings.Builder
	st := status.Convert(e.err)
	info := errorInfo(st)
	switch {
	case e.unreached:
		fmt.Fprintf(&line, "no member could be reached, last tried %s: %s", e.endpoint, connectionCause(st.Message()))
		return line.String()
	case e.unknown:
		fmt.Fprintf(&line, "outcome unknown, the change may have happened: %s", st.Message())
	default:
		line.WriteString(st.Message())
	}
	var facts []string
	if info.GetReason() != "" {
		facts = append(facts, "reason "+info.GetReason())
	} else {
		facts = append(facts, "code "+st.Code().String())
	}
	for _, violation := range fieldViolations(st) {
		if strings.HasPrefix(st.Message(), violation.GetField()+": ") {
			continue // Named already.
		}
		facts = append(facts, strings.TrimSuffix("field "+violation.GetField()+": "+violation.GetDescription(), ": "))
	}
	facts = append(facts, metadataFacts(info)...)
	facts = append(facts, "asked "+e.endpoint)
	fmt.Fprintf(&line, " (%s)", strings.Join(facts, ", "))
	if e.unknown && e.repeat != "" {
		fmt.Fprintf(&line, "; it is safe to repeat with %s", e.repeat)
	}
	return line.String()
}

// connectionCause takes gRPC's own words off a failed connection's reason.
func connectionCause(message string) string {
	for _, words := range []string{"Error while dialing: ", "authentication handshake failed: "} { //nolint:misspell // gRPC's own word.
		if _, cause, ok := strings.Cut(message, words); ok {
			return strings.TrimSuffix(cause, `"`)
		}
	}
	return message
}

func metadataFacts(info *errdetails.ErrorInfo) []string {
	names := make([]string, 0, len(info.GetMetadata()))
	for name := range info.GetMetadata() {
		names = append(names, name)
	}
	sort.Strings(names)
	facts := make([]string, 0, len(names))
	for _, name := range names {
		facts = append(facts, name+" "+info.GetMetadata()[name])
	}
	return facts
}

func errorInfo(st *status.Status) *errdetails.ErrorInfo {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

func fieldViolations(st *status.Status) []*errdetails.BadRequest_FieldViolation {
	for _, detail := range st.Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			return bad.GetFieldViolations()
		}
	}
	return nil
}

// reasonOf returns the stable reason of a failed call, empty where it carries none.
func reasonOf(err error) string { return errorInfo(status.Convert(err)).GetReason() }

// exitCode maps an error to the exit code of the process.
func exitCode(err error) int {
	var server *serverError
	if errors.As(err, &server) {
		return exitRemote
	}
	var fleet *fleetError
	if errors.As(err, &fleet) {
		return fleet.exitCode()
	}
	var rollout *stoppedRollout
	var stopped *migration.Stopped
	if errors.As(err, &rollout) || errors.As(err, &stopped) {
		return exitPrecondition
	}
	var remote *remoteError
	if !errors.As(err, &remote) {
		return exitLocal
	}
	switch {
	case remote.unreached || remote.unknown:
		return exitRemote
	case reasonOf(remote.err) == rpc.ReasonNoLeader:
		return exitPrecondition
	}
	// One table maps the kinds of refusals to gRPC codes and exit codes; here it is read backwards.
	code := uint32(status.Code(remote.err))
	for kind := range logv1.Kind_name {
		if codes := fsm.Codes(logv1.Kind(kind)); codes.GRPC == code {
			return codes.Exit
		}
	}
	return exitRemote
}

// printFailure writes the error as one line, so that it can be read from a log and matched by a script.
func printFailure(w io.Writer, err error) {
	text := err.Error()
	if errors.Is(err, context.Canceled) && exitCode(err) == exitLocal {
		text = "interrupted"
	}
	text = strings.Join(strings.Fields(text), " ")
	// There is nobody left to tell if this fails.
	_, _ = fmt.Fprintln(w, "quorate: "+text)
}
