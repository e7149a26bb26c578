package admin

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	quoratev1 "quorate/proto/quorate/v1"
)

// noteField is free text that goes with a transition.
const noteField = "note"

// epochBase is what transitions are based on: each names the epoch that its plan was made at, and is refused at another.
const epochBase = "epoch"

// beginChange begins a migration. It is a draft first, which is made by a form of its own; moving a partition back is a migration like any other.
var beginChange = change{
	pattern: partitionPath + "/id/{partition}/begin", params: []string{"partition", "to", "barrier", "servers", "early", "verify"},
	method: quoratev1.PartitionService_BeginMigration_FullMethodName,
	plan:   planBegin, make: makeBegin,
}

// The other transitions of a migration.
var (
	cutoverChange = change{
		pattern: partitionPath + "/id/{partition}/cutover", params: []string{"partition"}, method: quoratev1.PartitionService_CutoverMigration_FullMethodName,
		plan: planCutover, make: makeCutover,
	}
	completeChange = change{
		pattern: partitionPath + "/id/{partition}/complete", params: []string{"partition"}, method: quoratev1.PartitionService_CompleteMigration_FullMethodName,
		plan: planComplete, make: makeComplete,
	}
	abortChange = change{
		pattern: partitionPath + "/id/{partition}/abort", params: []string{"partition"}, method: quoratev1.PartitionService_AbortMigration_FullMethodName,
		plan: planAbort, make: makeAbort,
	}
)

// settingsChange changes what holds for all partitions.
var settingsChange = change{
	pattern: partitionPath + "/settings", method: quoratev1.PartitionService_SetPartitionSettings_FullMethodName,
	plan: planSettings, make: makeSettings,
}

// transitionView is a partition with what a transition makes of it.
type transitionView struct {
	partitionView
	// May says that whoever asks may make it.
	May bool
	// Next is the epoch that the next transition brings; the two after it, in a plan of all three, are NextButOne and Last.
	Next, NextButOne, Last uint64
	Instances              uint64
	// Wait is how long a transition waits at most until no instance answers from memory, Floor the least time until an early completion.
	Wait, Floor string
}

// draftMigration is a migration that may be begun.
type draftMigration struct {
	transitionView
	Action string
	Given  arguments
	// Places are placements that it could go to.
	Places []string
	// To is empty as long as the draft is not one that could be begun.
	To string
	// New says that the placement owns nothing yet, and Back that the partition was there before.
	New, Back bool
	Barrier   string
	// BarrierOf is whose barrier that is.
	BarrierOf string
	InTheWay  []*quoratev1.ApplyLease
}

// gateMargin is by how much longer than a gate lease lasts a leader waits for it, in percent (partitions.md §2).
const gateMargin = 2

// transition reads the partition that is meant, and what its next transition brings.
func (r *reader) transition(ctx context.Context, method string, placements *quoratev1.PageSelection) (*partitionReader, transitionView, error) {
	id := r.arguments["partition"]
	p, err := r.partitions(ctx, &quoratev1.PartitionSelection{Partition: id, Placements: placements})
	if err != nil {
		return nil, transitionView{}, err
	}
	found := p.found.GetPartition()
	if found == nil {
		return nil, transitionView{}, notFound("partition", "there is no partition "+id)
	}
	ttl := p.found.GetSettings().GetGateTtl().AsDuration()
	return p, transitionView{
		partitionView: p.partition(found), May: r.may(method), Next: found.GetEpoch() + 1, NextButOne: found.GetEpoch() + 2, Last: found.GetEpoch() + 3,
		Instances: p.found.GetInstanceCount(), Wait: lasts(ttl + ttl*gateMargin/100), Floor: lasts(p.found.GetSettings().GetEarlyFloor().AsDuration()),
	}, nil
}

// placesToChoose is how many placements a draft offers, and chosenPlacements among how many it looks for the one that was named.
const (
	placesToChoose   = 100
	chosenPlacements = 1000
)

func planBegin(ctx context.Context, r *reader) (plan, error) {
	p, t, err := r.transition(ctx, quoratev1.PartitionService_BeginMigration_FullMethodName, &quoratev1.PageSelection{Size: chosenPlacements})
	if err != nil {
		return plan{}, err
	}
	d := &draftMigration{transitionView: t, Action: t.Path + "/begin", Given: r.arguments}
	for _, place := range p.found.GetPlacements() {
		if place.GetId() != t.Placement && len(d.Places) < placesToChoose {
			d.Places = append(d.Places, place.GetId())
		}
	}
	made := plan{
		Title: "Draft: move " + t.Id, Template: "partition.begin", Data: d, Back: t.Path, Based: t.Epoch, BasedOn: epochBase, Wide: true, Inputs: "partition.note",
	}
	if t.Moving != nil || r.arguments["to"] == "" {
		return made, nil
	}
	if err := p.draft(d); err != nil {
		return made, err
	}
	way := fmt.Sprintf("from %s to %s", t.Placement, d.To)
	if d.Back {
		way = "back to " + d.To
	}
	made.Title += " " + way
	made.Button = "Begin the migration"
	made.Ask = fmt.Sprintf("%s begins to move %s. Writes go on at %s until the cutover.", t.Id, way, t.Placement)
	return made, nil
}

// idForm is that of a placement. The services say the same; a draft that they would refuse is no plan.
var idForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// draft works out what beginning the migration that is asked for brings.
func (r *partitionReader) draft(d *draftMigration) error {
	to := r.arguments["to"]
	switch {
	case !idForm.MatchString(to):
		return invalid("to", "must be 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit")
	case to == d.Placement:
		return invalid("to", d.Id+" is at "+to+" already")
	}
	settings := r.found.GetSettings()
	least := settings.GetMinDrainBarrier().AsDuration()
	barrier, whose := settings.GetDrainBarrier().AsDuration(), "as the settings say"
	if d.DrainBarrier != nil {
		barrier, whose = d.DrainBarrier.AsDuration(), "the partition's own"
	}
	asked, err := duration("barrier", r.arguments["barrier"])
	switch {
	case err != nil:
		return err
	case asked != nil && asked.AsDuration() < least:
		return invalid("barrier", "must be at least "+lasts(least)+", as the settings say")
	case asked != nil:
		barrier, whose = asked.AsDuration(), "of this migration"
	case barrier < least:
		barrier, whose = least, "the least that the settings allow"
	}
	d.To, d.Barrier, d.BarrierOf, d.Back = to, lasts(barrier), whose, to == d.PreviousPlacement
	d.New = r.found.GetNextPlacement() == "" && !slices.ContainsFunc(r.found.GetPlacements(), func(p *quoratev1.Placement) bool { return p.GetId() == to })
	d.InTheWay = r.inTheWay(d.Placement, to, servers(r.arguments))
	return nil
}

// duration reads one that somebody typed; nil if nothing was typed.
func duration(field, text string) (*durationpb.Duration, error) {
	if text == "" {
		return nil, nil
	}
	d, err := time.ParseDuration(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		return nil, invalid(field, "must be a time such as 45s, 500ms or 2m")
	}
	return durationpb.New(d), nil
}

// servers are those that are named in an argument.
func servers(a arguments) []string {
	return strings.FieldsFunc(a["servers"], func(c rune) bool { return c == ' ' || c == ',' })
}

// partitionClient is the service that transitions are made by.
func (r *reader) partitionClient() quoratev1.PartitionServiceClient {
	return quoratev1.NewPartitionServiceClient(r.conn)
}

// needsEpoch refuses a form that doesn't say what it is based on: a transition of whatever is there is not what was confirmed.
func needsEpoch(o order) error {
	if o.based == 0 {
		return invalid(basedField, "is missing: a transition is based on an epoch")
	}
	return nil
}

// moved is what a transition did.
func moved(p *quoratev1.Partition, header *quoratev1.ResponseHeader, format string, values ...any) done {
	return done{
		text:     fmt.Sprintf(format, values...) + fmt.Sprintf(" Epoch %d.", p.GetEpoch()),
		revision: header.GetRevision(), back: partitionURL(p.GetId()),
	}
}

func makeBegin(ctx context.Context, r *reader, o order) (done, error) {
	if err := needsEpoch(o); err != nil {
		return done{}, err
	}
	barrier, err := duration("barrier", r.arguments["barrier"])
	if err != nil {
		return done{}, err
	}
	answer, err := r.partitionClient().BeginMigration(ctx, &quoratev1.BeginMigrationRequest{
		RequestId: o.id, Partition: r.arguments["partition"], To: r.arguments["to"], ExpectedEpoch: o.based, DrainBarrier: barrier,
		EarlyCompletion: r.arguments["early"] != "", VerificationRequired: r.arguments["verify"] != "", Servers: servers(r.arguments), Note: o.form.Get(noteField),
	})
	if err != nil {
		return done{}, err
	}
	p := answer.GetPartition()
	return moved(p, answer.GetHeader(), "The migration of %s from %s to %s has begun.", p.GetId(), p.GetMigration().GetFrom(), p.GetMigration().GetTo()), nil
}

// planTransition plans a transition of a migration; made shows what it brings, where there is one.
func planTransition(ctx context.Context, r *reader, method, title, template string, offer func(*plan, transitionView)) (plan, error) {
	_, t, err := r.transition(ctx, method, nil)
	if err != nil {
		return plan{}, err
	}
	made := plan{Title: fmt.Sprintf(title, t.Id), Template: template, Data: t, Back: t.Path, Based: t.Epoch, BasedOn: epochBase}
	if t.Moving != nil {
		offer(&made, t)
	}
	if made.Button != "" {
		made.Inputs = "partition.note"
	}
	return made, nil
}

func planCutover(ctx context.Context, r *reader) (plan, error) {
	return planTransition(ctx, r, quoratev1.PartitionService_CutoverMigration_FullMethodName, "Cut %s over", "partition.cutover", func(made *plan, t transitionView) {
		waits := len(t.Moving.InTheWay) > 0 || t.Moving.GetVerificationRequired() && !t.Moving.GetVerified()
		if t.Moving.Barrier.State == barrierAhead && !waits {
			made.Button, made.Danger = "Stop the writes to "+t.Id, true
		}
	})
}

func makeCutover(ctx context.Context, r *reader, o order) (done, error) {
	if err := needsEpoch(o); err != nil {
		return done{}, err
	}
	answer, err := r.partitionClient().CutoverMigration(ctx, &quoratev1.CutoverMigrationRequest{
		RequestId: o.id, Partition: r.arguments["partition"], ExpectedEpoch: o.based, Note: o.form.Get(noteField),
	})
	if err != nil {
		return done{}, err
	}
	return moved(answer.GetPartition(), answer.GetHeader(), "%s is in cutover: nobody may write. The drain barrier begins.", answer.GetPartition().GetId()), nil
}

func planComplete(ctx context.Context, r *reader) (plan, error) {
	return planTransition(ctx, r, quoratev1.PartitionService_CompleteMigration_FullMethodName, "Complete the migration of %s", "partition.complete", func(made *plan, t transitionView) {
		if t.Moving.Barrier.State == barrierPassed || t.Moving.Barrier.Early {
			made.Button = "Make " + t.Moving.GetTo() + " the owner"
		}
	})
}

func makeComplete(ctx context.Context, r *reader, o order) (done, error) {
	if err := needsEpoch(o); err != nil {
		return done{}, err
	}
	answer, err := r.partitionClient().CompleteMigration(ctx, &quoratev1.CompleteMigrationRequest{
		RequestId: o.id, Partition: r.arguments["partition"], ExpectedEpoch: o.based, Note: o.form.Get(noteField),
	})
	if err != nil {
		return done{}, err
	}
	p := answer.GetPartition()
	return moved(p, answer.GetHeader(), "%s is at %s.", p.GetId(), p.GetPlacement()), nil
}

func planAbort(ctx context.Context, r *reader) (plan, error) {
	return planTransition(ctx, r, quoratev1.PartitionService_AbortMigration_FullMethodName, "Abort the migration of %s", "partition.abort", func(made *plan, _ transitionView) {
		made.Button, made.Danger = "Abort the migration", true
	})
}

func makeAbort(ctx context.Context, r *reader, o order) (done, error) {
	if err := needsEpoch(o); err != nil {
		return done{}, err
	}
	answer, err := r.partitionClient().AbortMigration(ctx, &quoratev1.AbortMigrationRequest{
		RequestId: o.id, Partition: r.arguments["partition"], ExpectedEpoch: o.based, Note: o.form.Get(noteField),
	})
	if err != nil {
		return done{}, err
	}
	p := answer.GetPartition()
	return moved(p, answer.GetHeader(), "The migration is aborted: %s stays at %s.", p.GetId(), p.GetPlacement()), nil
}

func planSettings(ctx context.Context, r *reader) (plan, error) {
	p, err := r.partitions(ctx, nil)
	if err != nil {
		return plan{}, err
	}
	return plan{
		Title: "Change what holds for all partitions", Template: "partition.settingsPlan", Data: newSettingsView(p.found.GetSettings()), Inputs: "partition.settingsInputs",
		Button: "Change the settings", Back: root + partitionPath,
	}, nil
}

// makeSettings changes those settings that were filled in, and no others, so that two who change different ones don't undo each other's.
func makeSettings(ctx context.Context, r *reader, o order) (done, error) {
	var settings quoratev1.PartitionSettings
	given := false
	for _, f := range []struct {
		name string
		to   **durationpb.Duration
	}{
		{"drain_barrier", &settings.DrainBarrier}, {"min_drain_barrier", &settings.MinDrainBarrier},
		{"early_floor", &settings.EarlyFloor}, {"gate_ttl", &settings.GateTtl},
	} {
		d, err := duration(f.name, o.form.Get(f.name))
		if err != nil {
			return done{}, err
		}
		*f.to = d
		given = given || d != nil
	}
	if !given {
		return done{}, invalid("drain_barrier", "fill in what is to be changed")
	}
	answer, err := r.partitionClient().SetPartitionSettings(ctx, &quoratev1.SetPartitionSettingsRequest{RequestId: o.id, Settings: &settings})
	if err != nil {
		return done{}, err
	}
	s := newSettingsView(answer.GetSettings())
	return done{
		text:     fmt.Sprintf("Drain barrier %s, never below %s; early floor %s; gate leases of %s.", s.Barrier, s.Least, s.Floor, s.TTL),
		revision: answer.GetHeader().GetRevision(), back: root + partitionPath,
	}, nil
}
