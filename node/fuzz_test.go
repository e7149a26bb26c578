package node

import (
	"testing"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
)

// FuzzApply gives the machine entries of any bytes, as a corrupt log might: each is applied or breaks the machine, and nothing panics.
func FuzzApply(f *testing.F) {
	for _, e := range []proto.Message{openTermEntry(1, 0, 1), publishCommand("r1", 0), maintenanceCommand("r2", true)} {
		data, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		broken := false
		m := newMachine(Limits{}.withDefaults(), func(error) { broken = true })
		results := m.ApplyBatch([]*raft.Log{
			{Index: 2, Term: 1, Type: raft.LogCommand, Data: data}, {Index: 3, Term: 1, Type: raft.LogConfiguration},
		})
		_, failed := results[0].(error)
		if failed != broken {
			t.Errorf("result %v, broken %v", results[0], broken)
		}
		if a := m.latest.Load(); a.index != 3 && !failed {
			t.Errorf("index %d", a.index)
		}
	})
}
