package admin

import (
	"cmp"
	"context"
	"net/url"
	"time"

	quoratev1 "quorate/proto/quorate/v1"
)

// partitionPath is where the partitions are, below root.
const partitionPath = "partitions"

// partitionNoun is the partitions: where each lives, what migrates, and who checks gates. There may be millions, so that everything is shown by pages.
var partitionNoun = noun{
	title: "Partitions", path: partitionPath,
	screens: []screen{
		{
			pattern: partitionPath, title: func(arguments) string { return "Partitions" }, read: readPartitions, pause: partitionPause,
			params: []string{"placement", "prefix", afterPartition, afterMigration, afterPlacement, afterInstance},
		},
		// Between the two, since a partition may have any name, that of a page or a change, too.
		{
			pattern: partitionPath + "/id/{partition}", title: func(a arguments) string { return "Partition " + a["partition"] }, read: readPartition,
			pause: partitionPause, params: []string{"partition"},
		},
	},
	changes: []change{beginChange, cutoverChange, completeChange, abortChange, settingsChange},
}

// partitionPause is the least time between two renderings of a live page of partitions, of which a thousand may move in a second.
const partitionPause = 250 * time.Millisecond

// How many there are on a page of each list.
const (
	listedMigrations = 20
	listedPartitions = 50
	listedPlacements = 10
	listedInstances  = 10
	listedEvents     = 30
	// cardMigrations is how many migrations the first page shows.
	cardMigrations = 3
)

// Arguments that say after which id a page of a list begins.
const (
	afterPartition = "after"
	afterMigration = "afterMigration"
	afterPlacement = "afterPlacement"
	afterInstance  = "afterInstance"
)

// partitionURL is where a partition is.
func partitionURL(id string) string { return root + partitionPath + "/id/" + url.PathEscape(id) }

// word is something in a word, with how good it is.
type word struct {
	Text string
	Tone tone
}

var phases = map[quoratev1.PartitionPhase]word{
	quoratev1.PartitionPhase_PARTITION_PHASE_ACTIVE:   {"active", toneGood},
	quoratev1.PartitionPhase_PARTITION_PHASE_DRAINING: {"draining", toneStandby},
	quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER:  {"cutover", toneWarn},
}

func newPhase(p quoratev1.PartitionPhase) word {
	if known, ok := phases[p]; ok {
		return known
	}
	return word{"unknown", toneUnknown}
}

// partitionView is a partition.
type partitionView struct {
	*quoratev1.Partition
	Path  string
	Phase word
	// Write is where writes go, empty if nobody may write.
	Write string
	// Own is its own drain barrier, and Standard that of the settings.
	Own, Standard string
	// Moving is its migration, nil if there is none.
	Moving *migrationView
	// Begin and Reverse lead to a new migration; nil where that can't be, or whoever asks may not.
	Begin, Reverse *action
}

// partitionReader is what partitions are shown by: one overview.
type partitionReader struct {
	*reader
	o     *quoratev1.GetOverviewResponse
	found *quoratev1.PartitionOverview
}

// partitions reads the overview with what is selected of the partitions.
func (r *reader) partitions(ctx context.Context, selection *quoratev1.PartitionSelection) (*partitionReader, error) {
	o, err := r.ask(ctx, &quoratev1.GetOverviewRequest{Partitions: selection})
	if err != nil {
		return nil, err
	}
	return &partitionReader{reader: r, o: o, found: o.GetPartitions()}, nil
}

func (r *partitionReader) partition(p *quoratev1.Partition) partitionView {
	v := partitionView{Partition: p, Path: partitionURL(p.GetId()), Phase: newPhase(p.GetPhase()), Write: p.GetPlacement()}
	v.Standard = lasts(r.found.GetSettings().GetDrainBarrier().AsDuration())
	if p.GetDrainBarrier() != nil {
		v.Own = lasts(p.GetDrainBarrier().AsDuration())
	}
	switch {
	case p.GetMigration() != nil:
		v.Moving = r.migration(p)
		if p.GetPhase() == quoratev1.PartitionPhase_PARTITION_PHASE_CUTOVER {
			v.Write = ""
		}
	case r.may(quoratev1.PartitionService_BeginMigration_FullMethodName):
		v.Begin = &action{ID: "begin-" + p.GetId(), Path: v.Path + "/begin", Label: "Migrate…"}
		if to := p.GetPreviousPlacement(); to != "" && to != p.GetPlacement() {
			v.Reverse = &action{ID: "reverse-" + p.GetId(), Path: v.Path + "/begin?" + url.Values{"to": {to}}.Encode(), Label: "Reverse to " + to + "…"}
		}
	}
	return v
}

// pager leads through a list by pages.
type pager struct {
	// First leads back to the first page, empty on that; Next to the next one, empty on the last.
	First, Next string
}

// pager makes the pager of a list whose argument is that.
func (r *partitionReader) pager(argument, next string) (p pager) {
	if r.arguments[argument] != "" {
		p.First = r.address(partitionPath, map[string]string{argument: ""})
	}
	if next != "" {
		p.Next = r.address(partitionPath, map[string]string{argument: next})
	}
	return p
}

// Parts of the page of partitions.
type (
	partitionList struct {
		pager
		Partitions []partitionView
		Total      uint64
		Filtered   bool
		Changes    bool
	}
	migrationList struct {
		pager
		Migrations []*migrationView
		Total      uint64
		Placement  string
		Changes    bool
	}
	placementList struct {
		pager
		Placements []placementView
		Total      uint64
	}
	placementView struct {
		*quoratev1.Placement
		Path string
	}
	instanceList struct {
		pager
		Instances []*quoratev1.Instance
		Total     uint64
	}
	partitionFilter struct {
		Path   string
		Given  arguments
		Active bool
	}
	settingsView struct {
		Barrier, Least, Floor, TTL string
		Change                     *action
	}
)

func (r *partitionReader) migrations() migrationList {
	list := migrationList{Total: r.found.GetMigrationCount(), Placement: r.arguments["placement"], pager: r.pager(afterMigration, r.found.GetNextMigration())}
	for _, p := range r.found.GetMigrations() {
		v := r.migration(p)
		list.Changes = list.Changes || v.Next != nil
		list.Migrations = append(list.Migrations, v)
	}
	return list
}

func newSettingsView(s *quoratev1.PartitionSettings) settingsView {
	return settingsView{
		Barrier: lasts(s.GetDrainBarrier().AsDuration()), Least: lasts(s.GetMinDrainBarrier().AsDuration()),
		Floor: lasts(s.GetEarlyFloor().AsDuration()), TTL: lasts(s.GetGateTtl().AsDuration()),
	}
}

func readPartitions(ctx context.Context, plain *reader) ([]part, error) {
	page := func(size uint32, argument string) *quoratev1.PageSelection {
		return &quoratev1.PageSelection{Size: size, Token: plain.arguments[argument]}
	}
	r, err := plain.partitions(ctx, &quoratev1.PartitionSelection{
		Placement: plain.arguments["placement"], Prefix: plain.arguments["prefix"],
		Partitions: page(listedPartitions, afterPartition), Migrations: page(listedMigrations, afterMigration),
		Placements: page(listedPlacements, afterPlacement), Instances: page(listedInstances, afterInstance),
	})
	if err != nil {
		return nil, err
	}
	filter := partitionFilter{Path: root + partitionPath, Given: r.arguments, Active: cmp.Or(r.arguments["placement"], r.arguments["prefix"]) != ""}
	partitions := partitionList{
		Total: r.found.GetPartitionCount(), Filtered: filter.Active, pager: r.pager(afterPartition, r.found.GetNextPartition()),
		Changes: r.may(quoratev1.PartitionService_BeginMigration_FullMethodName),
	}
	for _, p := range r.found.GetPartitions() {
		partitions.Partitions = append(partitions.Partitions, r.partition(p))
	}
	placements := placementList{Total: r.found.GetPlacementCount(), pager: r.pager(afterPlacement, r.found.GetNextPlacement())}
	for _, p := range r.found.GetPlacements() {
		placements.Placements = append(placements.Placements, placementView{p, placementURL(p.GetId())})
	}
	instances := instanceList{Total: r.found.GetInstanceCount(), Instances: r.found.GetInstances(), pager: r.pager(afterInstance, r.found.GetNextInstance())}
	settings := newSettingsView(r.found.GetSettings())
	if r.may(quoratev1.PartitionService_SetPartitionSettings_FullMethodName) {
		settings.Change = &action{ID: "settings", Path: root + partitionPath + "/settings", Label: "Change…", Dialog: true}
	}
	return []part{
		{template: "partition.head", data: r.found}, {template: "partition.migrations", data: r.migrations()},
		{template: "partition.placements", data: placements}, {template: "partition.filter", data: filter}, {template: "partition.list", data: partitions},
		{template: "partition.instances", data: instances}, {template: "partition.settings", data: settings},
	}, nil
}

// placementURL is the page of the partitions of a placement.
func placementURL(id string) string {
	return root + partitionPath + "?" + url.Values{"placement": {id}}.Encode()
}

// partitionHistory is what happened to a partition.
type partitionHistory struct {
	Events []eventView
	// All leads to all of it, if there is more.
	All string
}

func readPartition(ctx context.Context, plain *reader) ([]part, error) {
	id := plain.arguments["partition"]
	r, err := plain.partitions(ctx, &quoratev1.PartitionSelection{Partition: id})
	if err != nil {
		return nil, err
	}
	if r.found.GetPartition() == nil {
		return nil, notFound("partition", "there is no partition "+id)
	}
	list, err := quoratev1.NewEventServiceClient(r.conn).ListEvents(ctx, &quoratev1.ListEventsRequest{
		Read: r.local(), BeforeRevision: r.o.GetHeader().GetRevision() + 1, Limit: listedEvents, Partition: id,
	})
	if err != nil {
		return nil, err
	}
	var history partitionHistory
	for _, event := range list.GetEvents() {
		history.Events = append(history.Events, newEventView(event))
	}
	if !list.GetComplete() {
		history.All = root + timelinePath + "?" + url.Values{"partition": {id}}.Encode()
	}
	v := r.partition(r.found.GetPartition())
	return []part{
		{template: "partition.one", data: v}, {template: "partition.migration", data: v.Moving}, {template: "partition.state", data: v},
		{template: "partition.history", data: history},
	}, nil
}

// partitionCard is what the first page says of partitions.
type partitionCard struct {
	*quoratev1.PartitionOverview
	Migrations []*migrationView
	More       bool
}

func (r *partitionReader) card() partitionCard {
	card := partitionCard{PartitionOverview: r.found, More: r.found.GetNextMigration() != ""}
	for _, p := range r.found.GetMigrations() {
		card.Migrations = append(card.Migrations, r.migration(p))
	}
	return card
}
