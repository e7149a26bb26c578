package fsm

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// How transcripts put things into words.

func sayOutcome(o *logv1.Outcome) string {
	if r := RefusalOf(o); r != nil {
		out := fmt.Sprintf("refused, %s %s", strings.TrimPrefix(r.GetKind().String(), "KIND_"), r.GetReason())
		if r.GetField() != "" {
			out += "\n  field " + r.GetField()
		}
		for _, name := range slices.Sorted(maps.Keys(r.GetDetails())) {
			out += fmt.Sprintf("\n  %s %s", name, r.GetDetails()[name])
		}
		return out + "\n  " + r.GetMessage()
	}
	switch {
	case o.GetGenerationPublished() != nil:
		return "published " + sayGeneration(o.GetGenerationPublished())
	case o.GetLease() != nil:
		return "lease " + sayLease(o.GetLease())
	case o.GetMaintenance() != nil:
		return "maintenance " + sayMaintenance(o.GetMaintenance())
	case o.GetRollout() != nil:
		return sayRollout(o.GetRollout())
	default:
		return "done"
	}
}

func sayGeneration(g *quoratev1.Generation) string {
	out := fmt.Sprintf("generation %d (%.8s) by %s with %s at %v", g.GetNumber(), g.GetDigest(), g.GetActor().GetName(),
		g.GetPublishRequestId(), g.GetClusterTime().AsDuration())
	if g.GetRollbackOf() != 0 {
		out += fmt.Sprintf(", rollback of %d", g.GetRollbackOf())
	}
	if g.GetSwappedBy() != "" {
		out += ", swapped by " + g.GetSwappedBy()
	}
	if g.GetTopology() == nil {
		out += ", digest only"
	}
	return out
}

func sayLease(l *quoratev1.ApplyLease) string {
	out := fmt.Sprintf("%s/%d/%s of set %s", l.GetKey().GetServer(), l.GetKey().GetGeneration(), l.GetKey().GetPublishRequestId(), l.GetSet())
	switch l.GetState() {
	case quoratev1.LeaseState_LEASE_STATE_OPEN:
		out += fmt.Sprintf(" open since %v until %v, %d window(s)", l.GetBegun().AsDuration(), l.GetDeadline().AsDuration(), l.GetWindows())
	case quoratev1.LeaseState_LEASE_STATE_ENDED:
		out += fmt.Sprintf(" ended %v to %v: %s", l.GetBegun().AsDuration(), l.GetEnded().AsDuration(), l.GetOutcome())
	default:
		out += fmt.Sprintf(" abandoned %v to %v", l.GetBegun().AsDuration(), l.GetEnded().AsDuration())
	}
	if l.GetReason() != "" {
		out += ", for " + l.GetReason()
	}
	return out + ", by " + l.GetActor().GetName()
}

func sayRollout(r *quoratev1.Rollout) string {
	out := fmt.Sprintf("roll-out of %d in %s, %s %s", r.GetGeneration(), r.GetSet(), r.GetApply(), strings.TrimPrefix(r.GetState().String(), "ROLLOUT_STATE_"))
	if r.GetHandOverFrom() != "" {
		out += ", to be handed over from " + r.GetHandOverFrom()
	}
	for _, p := range r.GetServers() {
		out += fmt.Sprintf("; %s %s (%d)", p.GetServer(), strings.TrimPrefix(p.GetState().String(), "APPLY_STATE_"), p.GetAppliedGeneration())
		if p.GetAttempts() > 0 {
			out += fmt.Sprintf(" attempt %d from %v", p.GetAttempts(), p.GetBegun().AsDuration())
		}
		if p.GetEnded() != nil {
			out += fmt.Sprintf(" to %v", p.GetEnded().AsDuration())
		}
		if p.GetOutcome() != "" {
			out += ": " + p.GetOutcome()
		}
		if p.GetOutput() != "" {
			out += fmt.Sprintf(" %q", p.GetOutput())
		}
	}
	return out
}

func sayServing(v *quoratev1.Serving) string {
	out := fmt.Sprintf("%s of set %s, generation %d, since %v", v.GetServer(), v.GetSet(), v.GetGeneration(), v.GetSince().AsDuration())
	if v.GetStandIn() {
		out += ", stands in"
	}
	if v.GetWorksUnder() != v.GetGeneration() {
		out += fmt.Sprintf(", works under %d", v.GetWorksUnder())
	}
	return out
}

func sayLevel(c *quoratev1.LevelChange) string {
	return fmt.Sprintf("%s #%d %d → %d %s as %s of %s under %d at %s %q", c.GetServer(), c.GetNumber(), c.GetBefore(), c.GetAfter(), c.GetBand(),
		c.GetRole(), c.GetSet(), c.GetGeneration(), c.GetAt().AsTime().Format("15:04:05"), c.GetReasons())
}

func sayMaintenance(m *quoratev1.Maintenance) string {
	if !m.GetActive() {
		return "off " + m.GetServer()
	}
	out := fmt.Sprintf("on %s since %s by %s", m.GetServer(), m.GetSince().AsTime().Format("15:04:05"), m.GetActor().GetName())
	if m.GetReason() != "" {
		out += ", for " + m.GetReason()
	}
	if m.GetEstimatedReturn() != nil {
		out += ", back at " + m.GetEstimatedReturn().AsTime().Format("15:04:05")
	}
	return out
}

func sayEvent(e *quoratev1.Event) string {
	out := fmt.Sprintf("%d.%d ", e.GetRevision(), e.GetSequence())
	switch b := e.GetBody().(type) {
	case *quoratev1.Event_TopologyPublished:
		return out + "published: " + sayGeneration(b.TopologyPublished)
	case *quoratev1.Event_LeaseBegun:
		return out + "lease begun: " + sayLease(b.LeaseBegun)
	case *quoratev1.Event_LeaseEnded:
		return out + "lease ended: " + sayLease(b.LeaseEnded)
	case *quoratev1.Event_LeaseAbandoned:
		return out + "lease abandoned: " + sayLease(b.LeaseAbandoned)
	case *quoratev1.Event_MaintenanceChanged:
		return out + "maintenance: " + sayMaintenance(b.MaintenanceChanged)
	case *quoratev1.Event_MemberChanged:
		return out + "member " + b.MemberChanged.GetId() + " " + b.MemberChanged.GetChange()
	case *quoratev1.Event_GenerationAdopted:
		return out + fmt.Sprintf("member %s adopted generation %d", b.GenerationAdopted.GetMember(), b.GenerationAdopted.GetGeneration())
	case *quoratev1.Event_RolloutChanged:
		return out + sayRollout(b.RolloutChanged)
	case *quoratev1.Event_ServingAssigned:
		return out + "serving assigned: " + sayServing(b.ServingAssigned)
	case *quoratev1.Event_ServingReleased:
		return out + "serving released: " + sayServing(b.ServingReleased)
	case *quoratev1.Event_LevelChanged:
		return out + "level: " + sayLevel(b.LevelChanged)
	default:
		return out + "unknown"
	}
}
