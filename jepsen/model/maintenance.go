package model

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"quorate/fsm"
	"quorate/jepsen/history"
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// maintenances are judged by server: each is a register.
func maintenances() noun {
	return noun{
		name: "maintenance", read: readMaintenance, own: withdrawals,
		keys: func(op *history.Op, h *facts) []string {
			if op.Kind == "list" {
				return h.members
			}
			return []string{op.Key}
		},
		begin: func(server string, _ []*call, _ *facts) (*fsm.State, error) { return withServers("set", server) },
		view: func(_ string, s *fsm.State, _ *logv1.Command) string {
			all := s.AllMaintenance()
			if len(all) == 0 {
				return ""
			}
			return fmt.Sprint(all[0].GetReason(), all[0].GetEstimatedReturn())
		},
	}
}

// withServers is a state in which a set has these servers.
func withServers(set string, servers ...string) (*fsm.State, error) {
	s := fsm.New()
	if err := must(s, members(servers)); err != nil {
		return nil, err
	}
	return s, must(s, publishServers("first state", 0, set, servers...))
}

// publishServers publishes a set of Backups, which any member may be in.
func publishServers(request string, expected uint64, set string, servers ...string) *logv1.Command {
	topology := &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{
		Id: set, Mode: fsm.ModeNone, Policies: &quoratev1.RedundancyPolicies{MaxServers: fsm.MaxServers},
	}}}
	for _, server := range servers {
		topology.Sets[0].Servers = append(topology.Sets[0].Servers, &quoratev1.RedundantServer{
			Member: server, ApplicationUri: "urn:quorate:" + server, EndpointUrl: "opc.tcp://" + server + ":4840", HealthUrl: "http://" + server + ":8080/healthz", Role: fsm.RoleBackup,
		})
	}
	return &logv1.Command{RequestId: request, Body: &logv1.Command_PublishTopology{PublishTopology: &logv1.PublishTopology{
		ExpectedGeneration: expected, Topology: topology,
	}}}
}

func readMaintenance(op *history.Op, key string) (*call, error) {
	switch op.Kind {
	case "set":
		r, answer := &quoratev1.SetMaintenanceRequest{}, &quoratev1.SetMaintenanceResponse{}
		if err := decode(op, r, answer); err != nil {
			return nil, err
		}
		if reason(op) == fsm.ReasonUnknownServer {
			// Which servers there are is of another key; what is declared can be withdrawn from any.
			c := newCall(op, true)
			c.look = func(s *fsm.State) bool { return len(s.AllMaintenance()) == 0 }
			return c, nil
		}
		return write(op, r.GetRequestId(), &logv1.Command{Body: &logv1.Command_SetMaintenance{SetMaintenance: &logv1.SetMaintenance{
			Server: op.Key, Active: r.GetActive(), Reason: r.GetReason(), EstimatedReturn: r.GetEstimatedReturn(),
		}}}, func(o *logv1.Outcome) bool { return sameMaintenance(o.GetMaintenance(), answer.GetMaintenance()) }), nil
	case "list":
		r, answer := &quoratev1.ListMaintenanceRequest{}, &quoratev1.ListMaintenanceResponse{}
		if err := decode(op, r, answer); err != nil || !linearizable(r.GetRead()) || op.Outcome != history.OK {
			return nil, err
		}
		var found *quoratev1.Maintenance
		for _, m := range answer.GetMaintenance() {
			if m.GetServer() == key {
				found = m
			}
		}
		c := newCall(op, false)
		c.look = func(s *fsm.State) bool {
			now, _ := s.Maintenance(key)
			return sameMaintenance(now, found)
		}
		return c, nil
	}
	return nil, nil
}

func sameMaintenance(a, b *quoratev1.Maintenance) bool {
	return a.GetActive() == b.GetActive() && a.GetReason() == b.GetReason() && proto.Equal(a.GetEstimatedReturn(), b.GetEstimatedReturn())
}

// withdrawals are the ends of maintenance that nobody asked for: a member that leaves the group takes what was declared of its server with it.
func withdrawals(server string, h *facts) []*call {
	var calls []*call
	for _, w := range h.withdrawn {
		if w.event.GetMaintenanceChanged().GetServer() != server || h.asked[w.event.GetRequestId()] {
			continue
		}
		from, to := h.when(w.event.GetRevision())
		c := &call{
			from: from, to: max(from, min(to, w.seen)), fits: func(*logv1.Outcome) bool { return true },
			command: &logv1.Command{RequestId: fmt.Sprintf("event %d.%d", w.event.GetRevision(), w.event.GetSequence()), Body: &logv1.Command_SetMaintenance{
				SetMaintenance: &logv1.SetMaintenance{Server: server},
			}},
		}
		c.op = &history.Op{ID: -1, Noun: "maintenance", Kind: "leave", Key: server, Outcome: history.OK, Call: c.from, Return: c.to}
		calls = append(calls, c)
	}
	return calls
}
