package rpc

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

// text draws strings around the edges of the rules: of the letters that they tell apart, and of the lengths that they bound.
func text() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		letters := rapid.SampledFrom([]string{"a", "z", "0", "9", ".", "_", "-", "A", "{", "`", "/", ":", "!", "~", " ", "\x7f", "\n", "\x00", "ä", "𝛼"})
		length := rapid.SampledFrom([]int{0, 1, 2, 15, 16, 17, 63, 64, 65}).Draw(t, "length")
		if rapid.Bool().Draw(t, "mixed") {
			return strings.Join(rapid.SliceOfN(letters, length, length).Draw(t, "letters"), "")
		}
		// One odd letter among good ones, at whichever end.
		good := strings.Repeat(rapid.SampledFrom([]string{"a", "5", "~"}).Draw(t, "good"), length)
		odd := letters.Draw(t, "odd")
		return rapid.SampledFrom([]string{good, odd + good, good + odd}).Draw(t, "place")
	})
}

func someOf[T any](items *rapid.Generator[T]) *rapid.Generator[[]T] {
	return rapid.Custom(func(t *rapid.T) []T {
		most := rapid.SampledFrom([]int{0, 1, 3}).Draw(t, "some")
		list := rapid.SliceOfN(items, most, most).Draw(t, "items")
		if many := rapid.SampledFrom([]int{0, 0, 0, 999, 1000, 1001}).Draw(t, "many"); len(list) > 0 {
			for len(list) < many {
				list = append(list, list[0])
			}
		}
		return list
	})
}

func readOptions() *rapid.Generator[*quoratev1.ReadOptions] {
	return rapid.Custom(func(t *rapid.T) *quoratev1.ReadOptions {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		o := &quoratev1.ReadOptions{
			Consistency: quoratev1.Consistency(rapid.SampledFrom([]int32{-1, 0, 1, 2, 3, 4, 99}).Draw(t, "consistency")),
			MinRevision: rapid.Uint64().Draw(t, "revision"),
		}
		if rapid.Bool().Draw(t, "bound") {
			o.MaxStaleness = &durationpb.Duration{
				Seconds: rapid.SampledFrom([]int64{-1, 0, 1, 3600, 3601}).Draw(t, "seconds"), Nanos: rapid.SampledFrom([]int32{-1, 0, 999_999, 1_000_000, 2_000_000_000}).Draw(t, "nanos"),
			}
		}
		return o
	})
}

// hot draws a request of a kind that plain knows.
func hot() *rapid.Generator[proto.Message] {
	return rapid.Custom(func(t *rapid.T) proto.Message {
		read := readOptions().Draw(t, "read")
		resolve := &quoratev1.ResolveRequest{Read: read, Partitions: someOf(text()).Draw(t, "partitions")}
		checks := &quoratev1.CheckGatesRequest{Read: read, Checks: someOf(rapid.Map(text(), func(partition string) *quoratev1.GateCheck {
			return &quoratev1.GateCheck{Partition: partition, Epoch: 1}
		})).Draw(t, "checks")}
		return rapid.SampledFrom([]proto.Message{
			resolve, &quoratev1.StreamResolveRequest{Request: resolve}, &quoratev1.StreamResolveRequest{},
			checks, &quoratev1.StreamGatesRequest{Request: checks}, &quoratev1.StreamGatesRequest{},
			&quoratev1.CheckGateRequest{Read: read, Partition: text().Draw(t, "partition")},
			&quoratev1.GetPartitionRequest{Read: read, Partition: text().Draw(t, "partition")},
			&quoratev1.SetPlacementRequest{
				RequestId: text().Draw(t, "request id"), Partition: text().Draw(t, "partition"), Placement: text().Draw(t, "placement"),
				Note: strings.Repeat(rapid.SampledFrom([]string{"n", "ä"}).Draw(t, "note"), rapid.SampledFrom([]int{0, 1, 128, 129, 256, 257}).Draw(t, "length of the note")),
			},
			&quoratev1.RenewGateRequest{Id: text().Draw(t, "id"), Session: text().Draw(t, "session"), Drained: someOf(rapid.Map(text(), func(partition string) *quoratev1.PartitionEpoch {
				return &quoratev1.PartitionEpoch{Partition: partition}
			})).Draw(t, "drained")},
		}).Draw(t, "request")
	})
}

// bound returns the bound of a read, which plain leaves to the validator.
func bound(request proto.Message) *durationpb.Duration {
	switch r := request.(type) {
	case interface{ GetRead() *quoratev1.ReadOptions }:
		return r.GetRead().GetMaxStaleness()
	case *quoratev1.StreamResolveRequest:
		return r.GetRequest().GetRead().GetMaxStaleness()
	case *quoratev1.StreamGatesRequest:
		return r.GetRequest().GetRead().GetMaxStaleness()
	}
	return nil
}

// TestPlainRequestsKeepTheRules holds what is written by hand to the rules of the protocol: nothing is plain that they refuse, and what they take is, but
// for bounded reads.
func TestPlainRequestsKeepTheRules(t *testing.T) {
	validator, err := newValidator(services)
	if err != nil {
		t.Fatal(err)
	}
	refused, taken := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		request := hot().Draw(t, "hot")
		valid := validator.Validate(request)
		if got := plain(request); got && valid != nil || !got && valid == nil && bound(request) == nil {
			t.Fatalf("plain: %v; the rules: %v; %s", got, valid, prototext.Format(request))
		}
		if valid == nil {
			taken++
		} else {
			refused++
		}
	})
	if refused == 0 || taken == 0 {
		t.Errorf("%d requests were taken and %d refused: the test tells nothing", taken, refused)
	}
	// The lengths of the rules, one by one.
	for n := range fsm.MaxSessionBytes + 2 {
		for _, letter := range []string{"a", "~", "_", "ä", " "} {
			s := strings.Repeat(letter, n)
			for _, request := range []proto.Message{
				&quoratev1.SetPlacementRequest{RequestId: s, Partition: "p", Placement: "a"}, &quoratev1.SetPlacementRequest{RequestId: s + s, Partition: "p", Placement: "a"},
				&quoratev1.SetPlacementRequest{RequestId: "r", Partition: s, Placement: "a"}, &quoratev1.SetPlacementRequest{RequestId: "r", Partition: "p", Placement: s},
				&quoratev1.GetPartitionRequest{Partition: s}, &quoratev1.CheckGateRequest{Partition: s},
				&quoratev1.RenewGateRequest{Id: "i", Session: s}, &quoratev1.ResolveRequest{Partitions: []string{"p", s}},
			} {
				if valid := validator.Validate(request) == nil; plain(request) != valid {
					t.Errorf("plain: %v; the rules: %v; %s", !valid, valid, prototext.Format(request))
				}
			}
		}
	}
}

// FuzzPlain looks for a request, as it is on the wire, that is plain and breaks a rule.
func FuzzPlain(f *testing.F) {
	kinds := []proto.Message{
		&quoratev1.ResolveRequest{}, &quoratev1.StreamResolveRequest{}, &quoratev1.CheckGatesRequest{}, &quoratev1.StreamGatesRequest{},
		&quoratev1.CheckGateRequest{}, &quoratev1.GetPartitionRequest{}, &quoratev1.RenewGateRequest{}, &quoratev1.SetPlacementRequest{},
	}
	for i, seed := range []proto.Message{
		question("p1").GetRequest(), question("p1"), &quoratev1.CheckGatesRequest{Checks: []*quoratev1.GateCheck{{Partition: "p"}}},
		&quoratev1.StreamGatesRequest{Request: &quoratev1.CheckGatesRequest{}}, &quoratev1.CheckGateRequest{Partition: "p"},
		&quoratev1.GetPartitionRequest{Partition: "p", Read: &quoratev1.ReadOptions{Consistency: 3}}, renewal,
		&quoratev1.SetPlacementRequest{RequestId: "r", Partition: "p", Placement: "a", Note: "n"},
	} {
		wire, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), wire)
	}
	validator, err := newValidator(services)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, wire []byte) {
		request := kinds[int(kind)%len(kinds)].ProtoReflect().New().Interface()
		if proto.Unmarshal(wire, request) != nil {
			return
		}
		if err := validator.Validate(request); err != nil && plain(request) {
			t.Errorf("%s: %v", prototext.Format(request), err)
		}
	})
}
