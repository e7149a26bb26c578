package migration

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// Facts are what a plan needs to know of the group beside the partition itself.
type Facts struct {
	Settings *quoratev1.PartitionSettings
	// Instances is how many are registered.
	Instances int
	// MidApply has the servers that hold an open apply lease.
	MidApply []string
	// Servers has those of the topology.
	Servers []string
	// Placements has those that own a partition or are to get one.
	Placements map[string]bool
}

// Plan is what would happen to one partition, and what is in the way. Its JSON form is an interface that scripts rely on.
type Plan struct {
	Partition string `json:"partition"`
	From      string `json:"from"`
	To        string `json:"to"`
	Phase     string `json:"phase"`
	Epoch     uint64 `json:"epoch"`
	// Barrier is how long nobody may write, in Go's form of a duration.
	Barrier string `json:"barrier"`
	Steps   []Step `json:"steps"`
	// Refused is why it can't be begun; Waits is what it would wait for, and Notes what is worth knowing.
	Refused []string `json:"refused"`
	Waits   []string `json:"waits"`
	Notes   []string `json:"notes"`
}

// Step is one of a plan.
type Step struct {
	Stage string `json:"stage"`
	What  string `json:"what"`
}

// MakePlan says what driving a job would do to a partition as it is.
func MakePlan(job Job, p *quoratev1.Partition, o *Options, f *Facts) *Plan {
	m := p.GetMigration()
	plan := &Plan{
		Partition: p.GetId(), From: p.GetPlacement(), To: job.To, Phase: PhaseName(p.GetPhase()), Epoch: p.GetEpoch(),
		Steps: []Step{}, Refused: []string{}, Waits: []string{}, Notes: []string{},
	}
	if err := Admit(job, p); err != nil {
		plan.Refused = append(plan.Refused, err.Error())
		return plan
	}
	if p.GetPhase() == active && p.GetPlacement() == job.To {
		plan.Notes = append(plan.Notes, "it is at "+job.To+" already")
		return plan
	}
	if m == nil {
		m = plan.begin(p, o, f)
	} else {
		plan.resume(m, o)
	}
	plan.Barrier = m.GetDrainBarrier().AsDuration().String()
	epoch := p.GetEpoch()
	step := func(stage Stage, format string, arguments ...any) {
		plan.Steps = append(plan.Steps, Step{stage.String(), fmt.Sprintf(format, arguments...)})
	}
	if p.GetPhase() == active {
		epoch++
		step(StageBegin, "draining at epoch %d; writes go on at %s", epoch, p.GetPlacement())
	}
	if p.GetPhase() != cutover {
		plan.copySteps(m, o, step)
		epoch++
		step(StageCutover, "nobody may write from epoch %d on", epoch)
		for _, server := range midApply(m, f) {
			plan.Waits = append(plan.Waits, fmt.Sprintf("server %s is mid-apply, and the cutover waits until it is not", server))
		}
	}
	step(StageBarrier, "%s", plan.barrier(m, f))
	if o.Final != nil {
		step(StageFinal, "the final hook runs once the whole barrier has passed")
	}
	step(StageComplete, "at %s, epoch %d", job.To, epoch+1)
	if f.Instances > 0 {
		plan.Notes = append(plan.Notes, fmt.Sprintf("%d instances are registered, and each transition waits for their gate leases: %s at most, and 2 %%",
			f.Instances, f.Settings.GetGateTtl().AsDuration()))
	}
	return plan
}

// begin returns the migration as it would begin.
func (plan *Plan) begin(p *quoratev1.Partition, o *Options, f *Facts) *quoratev1.Migration {
	least := f.Settings.GetMinDrainBarrier().AsDuration()
	barrier := f.Settings.GetDrainBarrier()
	if p.GetDrainBarrier() != nil {
		barrier = p.GetDrainBarrier()
	}
	length := max(barrier.AsDuration(), least)
	if o.Barrier != 0 {
		if length = o.Barrier; length < least {
			plan.Refused = append(plan.Refused, fmt.Sprintf("a drain barrier of %s is less than the least one of the settings, %s", length, least))
		}
	}
	for _, server := range o.Servers {
		if !slices.Contains(f.Servers, server) {
			plan.Refused = append(plan.Refused, fmt.Sprintf("%s is no server of the topology", server))
		}
	}
	if !f.Placements[plan.To] {
		plan.Notes = append(plan.Notes, fmt.Sprintf("placement %s is new: it owns no partition yet", plan.To))
	}
	return &quoratev1.Migration{
		From: p.GetPlacement(), To: plan.To, Servers: o.Servers, EarlyCompletion: o.Early, VerificationRequired: o.RequireVerified,
		DrainBarrier: durationpb.New(length),
	}
}

// resume notes what the migration, which has begun, holds otherwise than is asked for now.
func (plan *Plan) resume(m *quoratev1.Migration, o *Options) {
	plan.From = m.GetFrom()
	plan.Notes = append(plan.Notes, fmt.Sprintf("begun by %s at %s", m.GetActor().GetName(), m.GetBegunAt().AsTime().Format(time.RFC3339)))
	differs := func(what string) {
		plan.Notes = append(plan.Notes, "it has begun, and "+what)
	}
	if o.Barrier != 0 && o.Barrier != m.GetDrainBarrier().AsDuration() {
		differs("its barrier stays " + m.GetDrainBarrier().AsDuration().String())
	}
	if o.Early && !m.GetEarlyCompletion() {
		differs("its whole barrier has to pass")
	}
	if o.RequireVerified && !m.GetVerificationRequired() {
		differs("the group does not require that it is verified")
	}
	if len(o.Servers) > 0 && !slices.Equal(o.Servers, m.GetServers()) {
		differs("its servers stay " + strings.Join(append([]string{m.GetFrom(), m.GetTo()}, m.GetServers()...), ", "))
	}
}

// copySteps are those in which writes go on.
func (plan *Plan) copySteps(m *quoratev1.Migration, o *Options, step func(Stage, string, ...any)) {
	switch {
	case o.NothingToCopy:
		step(StageCopy, "nothing is copied")
	case Copied(m):
		step(StageCopy, "was copied before")
	case o.Copy != nil:
		step(StageCopy, "the copy hook runs")
	default:
		step(StageCopy, "waits until the copy is reported as complete")
		plan.Waits = append(plan.Waits, "without a copy hook it waits until the copy is reported as complete: quorate partition report "+plan.Partition+" --copied")
	}
	switch {
	case m.GetVerified():
		step(StageVerify, "was verified before")
	case o.Verify != nil:
		step(StageVerify, "the verify hook runs")
	case m.GetVerificationRequired():
		step(StageVerify, "waits until the copy is reported as verified")
		plan.Waits = append(plan.Waits, "without a verify hook it waits until the copy is reported as verified: quorate partition report "+plan.Partition+" --verified")
	}
}

func (plan *Plan) barrier(m *quoratev1.Migration, f *Facts) string {
	whole := m.GetDrainBarrier().AsDuration()
	what := whole.String()
	if left := m.GetBarrierLeft(); left != nil {
		what = fmt.Sprintf("%s of %s are left", left.AsDuration().Round(time.Millisecond), whole)
	}
	if !m.GetEarlyCompletion() {
		return what
	}
	floor := f.Settings.GetEarlyFloor().AsDuration()
	if f.Instances == 0 {
		plan.Notes = append(plan.Notes, "no instance is registered that could say that no write is in flight, and so the whole barrier has to pass")
		return what
	}
	return fmt.Sprintf("%s, or early: after %s, once all of %d registered instances have no write in flight", what, floor, f.Instances)
}

// midApply returns those servers of a migration that hold an open apply lease: placements may be named after servers.
func midApply(m *quoratev1.Migration, f *Facts) []string {
	var found []string
	for _, server := range append([]string{m.GetFrom(), m.GetTo()}, m.GetServers()...) {
		if slices.Contains(f.MidApply, server) && !slices.Contains(found, server) {
			found = append(found, server)
		}
	}
	return found
}

// PhaseName is a phase in the words of people.
func PhaseName(p quoratev1.PartitionPhase) string {
	return strings.ToLower(strings.TrimPrefix(p.String(), "PARTITION_PHASE_"))
}
