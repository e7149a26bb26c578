package opcua

import (
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
)

// applyVariables show a server's last apply: the one that is open, or else the one that ended last. They are null while there was none.
var applyVariables = []struct {
	variable
	value func(l *quoratev1.ApplyLease) any // nil: null
}{
	{variable{"Generation", "The generation that was applied.", id.UInt64, false},
		func(l *quoratev1.ApplyLease) any { return l.GetKey().GetGeneration() }},
	{variable{"State", "Open, Ended, or Abandoned by the watchdog.", id.String, false},
		func(l *quoratev1.ApplyLease) any { return leaseStates[l.GetState()] }},
	{variable{"Outcome", "The holder's word on how it went: ok, or what failed.", id.String, false},
		func(l *quoratev1.ApplyLease) any { return l.GetOutcome() }},
	{variable{"BegunAt", "Wall time of the beginning.", id.UtcTime, false},
		func(l *quoratev1.ApplyLease) any { return l.GetBegunAt().AsTime() }},
	{variable{"Duration", "How long it took, in milliseconds of cluster time; null while it is open.", id.Duration, false},
		func(l *quoratev1.ApplyLease) any {
			if l.GetEnded() == nil {
				return nil
			}
			return float64(l.GetEnded().AsDuration()-l.GetBegun().AsDuration()) / float64(time.Millisecond)
		}},
}

var leaseStates = map[quoratev1.LeaseState]string{
	quoratev1.LeaseState_LEASE_STATE_OPEN:      "Open",
	quoratev1.LeaseState_LEASE_STATE_ENDED:     "Ended",
	quoratev1.LeaseState_LEASE_STATE_ABANDONED: "Abandoned",
}

func applyKey(server string) space.Key { return serverVariableKey(server, "LastApply") }

func applyVariableKey(server, name string) space.Key {
	return serverVariableKey(server, "LastApply/"+name)
}

func applyKeys(server string) (list []space.Key) {
	for _, v := range applyVariables {
		list = append(list, applyVariableKey(server, v.name))
	}
	return list
}

func (e *Endpoint) addApply(b *builder, server string) {
	b.object(serverKey(server), space.HasComponent, applyKey(server), "LastApply", id.BaseObjectType)
	for _, v := range applyVariables {
		b.variable(applyKey(server), applyVariableKey(server, v.name), v.variable, func(ctx space.ReadContext) *ua.DataValue {
			l := lastApply(e.stateFor(ctx), server)
			if l == nil {
				return null(ctx)
			}
			value := v.value(l)
			if value == nil {
				return null(ctx)
			}
			return good(ctx, value)
		})
	}
}

// lastApply returns the apply lease that is to be shown, or nil: of the open ones the one that began last, else the one that ended last.
func lastApply(state *fsm.State, server string) *quoratev1.ApplyLease {
	var last *quoratev1.ApplyLease
	for _, l := range state.Leases(server, true) {
		if last == nil || later(l, last) {
			last = l
		}
	}
	return last
}

func later(a, b *quoratev1.ApplyLease) bool {
	aOpen, bOpen := a.GetEnded() == nil, b.GetEnded() == nil
	switch {
	case aOpen != bOpen:
		return aOpen
	case aOpen:
		return a.GetBegun().AsDuration() > b.GetBegun().AsDuration()
	}
	return a.GetEnded().AsDuration() > b.GetEnded().AsDuration()
}
