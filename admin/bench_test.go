package admin

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
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
