package admin

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	quoratev1 "quorate/proto/quorate/v1"
)

// BenchmarkOverview renders the first page: of the demo, and of as many sets as a topology may have.
func BenchmarkOverview(b *testing.B) {
	for _, sets := range []int{1, 128} {
		b.Run(fmt.Sprint("sets=", sets), func(b *testing.B) {
			g := newGroup()
			o := g.overview
			set, member := o.GetGeneration().GetTopology().GetSets()[0], o.GetMembers()[0]
			for i := range sets - 1 {
				more := proto.CloneOf(set)
				more.Id = fmt.Sprint("line-", i)
				for j, server := range more.GetServers() {
					server.Member = fmt.Sprintf("n%d-%d", i, j)
					m := proto.CloneOf(member)
					m.Id, m.Set = server.Member, more.Id
					o.Members = append(o.Members, m)
				}
				o.Generation.Topology.Sets = append(o.Generation.Topology.Sets, more)
			}
			s := &Server{config: Config{Member: "m1", Logger: slog.New(slog.DiscardHandler)}}
			bytes := 0
			for b.Loop() {
				page, _ := s.render(context.Background(), overviewNoun.screens[0], &reader{
					conn: caller{group: g}, now: time.Now(), patience: time.Minute, may: func(string) bool { return false },
				})
				bytes = len(page.message())
			}
			b.ReportMetric(float64(bytes), "bytes/page")
		})
	}
}

// BenchmarkPartitions renders the page of partitions as full as it gets, and that of one partition.
func BenchmarkPartitions(b *testing.B) {
	g := newGroup()
	o := g.overview.GetPartitions()
	partition, migration, placement, instance := o.Partitions[0], o.Migrations[3], o.Placements[0], o.Instances[0]
	for i := range listedPartitions {
		p := proto.CloneOf(partition)
		p.Id = fmt.Sprintf("partition-%07d", i)
		o.Partitions = append(o.Partitions, p)
	}
	for i := range listedMigrations - len(o.Migrations) {
		m := proto.CloneOf(migration)
		m.Id = fmt.Sprintf("partition-%07d", 1000+i)
		o.Migrations = append(o.Migrations, m)
	}
	for range listedPlacements - len(o.Placements) {
		o.Placements = append(o.Placements, placement)
	}
	for range listedInstances - len(o.Instances) {
		o.Instances = append(o.Instances, instance)
	}
	for range listedEvents {
		g.events = append(g.events, &quoratev1.Event{Body: &quoratev1.Event_PartitionChanged{PartitionChanged: &quoratev1.PartitionChange{
			Transition: quoratev1.PartitionTransition_PARTITION_TRANSITION_CUTOVER, Partition: migration, Note: "quiet hour",
		}}})
	}
	s := &Server{config: Config{Member: "m1", Logger: slog.New(slog.DiscardHandler)}}
	for i, name := range []string{"all", "one"} {
		b.Run(name, func(b *testing.B) {
			bytes := 0
			for b.Loop() {
				page, _ := s.render(context.Background(), partitionNoun.screens[i], &reader{
					arguments: arguments{"partition": "p5"}, conn: caller{group: g}, now: time.Now(), patience: time.Minute, may: func(string) bool { return true },
				})
				bytes = len(page.message())
			}
			b.ReportMetric(float64(bytes), "bytes/page")
		})
	}
}
