package fsm

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"quorate/fsm/tree"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// maintenance holds the servers that an operator has declared to be in maintenance. The declaration stays, whatever is
// published, until it is withdrawn or the member leaves the group: only a person knows when the work is done.
type maintenance struct {
	active tree.Map[string, *quoratev1.Maintenance]
}

func newMaintenance() maintenance {
	return maintenance{active: tree.New[string, *quoratev1.Maintenance](strings.Compare)}
}

func (m *maintenance) snapshot() maintenance { return maintenance{active: m.active.Snapshot()} }

// setMaintenance declares or withdraws maintenance. Declaring it again may change the reason and the estimated return, and
// keeps since when it is.
func (a *application) setMaintenance(c *logv1.SetMaintenance) (*logv1.Outcome, *Refusal) {
	if r := firstRefusal(
		checkText("server", c.GetServer(), MaxIDBytes),
		checkText("reason", c.GetReason(), MaxTextBytes),
	); r != nil {
		return nil, r
	}
	if t := c.GetEstimatedReturn(); t != nil && !t.IsValid() {
		return nil, invalid(ReasonInvalidTime, "estimated_return", "it must lie in the years 1 to 9999")
	}
	before, declared := a.Maintenance(c.GetServer())
	if _, _, known := a.Server(c.GetServer()); !known && !declared {
		return nil, a.unknownServer(c.GetServer())
	}
	if !c.GetActive() {
		return maintained(a.withdrawMaintenance(c.GetServer())), nil
	}
	m := &quoratev1.Maintenance{
		Server: c.GetServer(), Active: true, Reason: c.GetReason(), EstimatedReturn: copyTime(c.GetEstimatedReturn()),
		Actor: a.actor(), Since: a.wallTime(),
	}
	if declared {
		if m.GetReason() == before.GetReason() && proto.Equal(m.GetEstimatedReturn(), before.GetEstimatedReturn()) {
			return maintained(before), nil
		}
		m.Since = before.GetSince()
	}
	a.maintenance.active.Set(c.GetServer(), m)
	a.emit(&quoratev1.Event{Body: &quoratev1.Event_MaintenanceChanged{MaintenanceChanged: m}})
	return maintained(m), nil
}

// withdrawMaintenance ends what was declared of a server, if anything was.
func (a *application) withdrawMaintenance(server string) *quoratev1.Maintenance {
	m := &quoratev1.Maintenance{Server: server, Actor: a.actor(), Since: a.wallTime()}
	if a.maintenance.active.Delete(server) {
		a.emit(&quoratev1.Event{Body: &quoratev1.Event_MaintenanceChanged{MaintenanceChanged: m}})
	}
	return m
}

// Maintenance returns what was declared of a server; false means that it is not in maintenance.
func (s *State) Maintenance(server string) (*quoratev1.Maintenance, bool) {
	return s.maintenance.active.Get(server)
}

// AllMaintenance returns the servers in maintenance, in order.
func (s *State) AllMaintenance() []*quoratev1.Maintenance {
	var all []*quoratev1.Maintenance
	for _, m := range s.maintenance.active.All() {
		all = append(all, m)
	}
	return all
}

// checkMaintenance is the invariant of maintenance.
func (s *State) checkMaintenance() error {
	for server, m := range s.maintenance.active.All() {
		if m.GetServer() != server || !m.GetActive() {
			return fmt.Errorf("maintenance of %s is misplaced or not active", server)
		}
		if _, ok := s.Member(server); !ok {
			return fmt.Errorf("server %s in maintenance has no member", server)
		}
		if t := m.GetEstimatedReturn(); t != nil && !t.IsValid() {
			return fmt.Errorf("maintenance of %s has an invalid estimated return", server)
		}
	}
	return nil
}
