package fsm

import (
	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// emit adds an event of the command that is being applied. Only what changed the state is an event; repeating a command
// that changes nothing emits none.
func (a *application) emit(e *quoratev1.Event) {
	e.Revision = a.clock.revision
	e.Sequence = uint32(len(a.events))
	e.ClusterTime = durationpb.New(a.clock.now)
	e.WallTime = a.wallTime()
	e.RequestId = a.command.GetRequestId()
	e.Actor = a.actor()
	e.Generation = a.generationNumber()
	a.events = append(a.events, e)
}
