package fsm

import (
	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// What an applier returns as its answer; answer stamps it.

func done() *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_Done{Done: &logv1.Done{}}}
}

func published(g *quoratev1.Generation) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_GenerationPublished{GenerationPublished: g}}
}

func leased(l *quoratev1.ApplyLease) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_Lease{Lease: l}}
}

func maintained(m *quoratev1.Maintenance) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_Maintenance{Maintenance: m}}
}

func rolled(r *quoratev1.Rollout) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_Rollout{Rollout: r}}
}

func partitionsMade(epoch uint64) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_PartitionsMade{PartitionsMade: &logv1.PartitionsMade{Epoch: epoch}}}
}

func partitionMoved(p *quoratev1.Partition, early bool) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_PartitionMoved{PartitionMoved: &logv1.PartitionMoved{Partition: p, Early: early}}}
}

func settingsAre(p partitionSettings) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_PartitionSettings{PartitionSettings: p.message()}}
}

func instanceIs(i *quoratev1.Instance) *logv1.Outcome {
	return &logv1.Outcome{Result: &logv1.Outcome_Instance{Instance: i}}
}

// answer stamps what a command's applier returned with the revision, cluster time and generation after it.
func (a *application) answer(o *logv1.Outcome, r *Refusal) *logv1.Outcome {
	if r != nil {
		o = &logv1.Outcome{Result: &logv1.Outcome_Refusal{Refusal: r.Refusal}}
	}
	o.Revision = a.clock.revision
	o.Clock = uint64(a.clock.now)
	o.Generation = a.generationNumber()
	return o
}

// stampedLike gives a new answer the stamp of an earlier one.
func stampedLike(o, earlier *logv1.Outcome) *logv1.Outcome {
	o.Revision, o.Clock, o.Generation = earlier.GetRevision(), earlier.GetClock(), earlier.GetGeneration()
	return o
}
