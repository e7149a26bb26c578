package fsm

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	logv1 "quorate/proto/quorate/log/v1"
	quoratev1 "quorate/proto/quorate/v1"
)

// TestCanonicalCoversEveryField fills each message that is in a digest, changes one field after the other, and asks for other bytes
// each time. So a field that somebody adds to the protobuf and forgets here does not let members diverge unseen.
func TestCanonicalCoversEveryField(t *testing.T) {
	encode := map[proto.Message]func(c *canonical, m proto.Message){
		&quoratev1.Topology{}:    func(c *canonical, m proto.Message) { c.topology(m.(*quoratev1.Topology)) },
		&quoratev1.Generation{}:  func(c *canonical, m proto.Message) { c.generation(m.(*quoratev1.Generation)) },
		&quoratev1.ApplyLease{}:  func(c *canonical, m proto.Message) { c.lease(m.(*quoratev1.ApplyLease)) },
		&quoratev1.Maintenance{}: func(c *canonical, m proto.Message) { c.maintenance(m.(*quoratev1.Maintenance)) },
		&quoratev1.Serving{}:     func(c *canonical, m proto.Message) { c.serving(m.(*quoratev1.Serving)) },
		&quoratev1.Rollout{}:     func(c *canonical, m proto.Message) { c.rollout(m.(*quoratev1.Rollout)) },
		&quoratev1.LevelChange{}: func(c *canonical, m proto.Message) { c.level(m.(*quoratev1.LevelChange)) },
		&logv1.MemberRecord{}:    func(c *canonical, m proto.Message) { c.member(m.(*logv1.MemberRecord)) },
	}
	for m := range encode {
		fill(m.ProtoReflect(), "")
	}
	// A oneof has to be tried with each of its fields.
	for _, name := range oneof((&logv1.Outcome{}).ProtoReflect(), "result") {
		m := &logv1.Outcome{}
		fill(m.ProtoReflect(), name)
		encode[m] = func(c *canonical, m proto.Message) { c.outcome(m.(*logv1.Outcome)) }
	}
	for _, name := range oneof((&logv1.Command{}).ProtoReflect(), "body") {
		m := &logv1.Command{}
		fill(m.ProtoReflect(), name)
		if info, _ := describe(m); !info.public {
			continue
		}
		// Only the body is in a fingerprint.
		m.RequestId, m.Actor, m.WallTime = "", nil, nil
		encode[m] = func(c *canonical, m proto.Message) { c.command(m.(*logv1.Command)) }
	}
	for m, enc := range encode {
		bytesOf := func(m proto.Message) []byte {
			var c canonical
			enc(&c, m)
			return c
		}
		whole := bytesOf(m)
		if again := bytesOf(proto.Clone(m)); !bytes.Equal(whole, again) {
			t.Errorf("%T has two encodings", m)
		}
		leaves := 0
		clone := proto.Clone(m)
		change(clone.ProtoReflect(), "", func(path string) {
			leaves++
			if bytes.Equal(whole, bytesOf(clone)) {
				t.Errorf("a change of %T%s does not change its canonical bytes", m, path)
			}
		})
		if leaves == 0 && bytesOf(m) == nil {
			t.Errorf("%T has no fields", m)
		}
	}
}

// fill sets every field of a message that is not set, of a oneof the one named, to something that is not zero.
func fill(m protoreflect.Message, of string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.ContainingOneof() != nil && string(f.Name()) != of {
			continue
		}
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("name").MapKey(), protoreflect.ValueOfString("value"))
		case f.IsList() && f.Message() == nil:
			m.Mutable(f).List().Append(protoreflect.ValueOfString("value"))
		case f.IsList() && m.Get(f).List().Len() == 0:
			fill(m.Mutable(f).List().AppendMutable().Message(), of)
		case f.IsList():
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), "")
		case f.ContainingOneof() == nil:
			m.Set(f, other(f, m.Get(f)))
		}
	}
}

// change changes each leaf of a message, calls changed, and puts it back; then clears each message field, likewise.
func change(m protoreflect.Message, path string, changed func(path string)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + "." + string(f.Name())
		switch {
		case f.IsMap():
			key := protoreflect.ValueOfString("name").MapKey()
			v.Map().Set(key, protoreflect.ValueOfString("another"))
			changed(at)
			v.Map().Set(key, protoreflect.ValueOfString("value"))
		case f.IsList():
			if f.Message() != nil {
				change(v.List().Get(0).Message(), at+"[0]", changed)
			} else {
				v.List().Set(0, protoreflect.ValueOfString("another"))
				changed(at + "[0]")
				v.List().Set(0, protoreflect.ValueOfString("value"))
			}
			v.List().Append(v.List().Get(0))
			changed(at)
			v.List().Truncate(1)
		case f.Message() != nil:
			change(v.Message(), at, changed)
			if f.ContainingOneof() == nil {
				m.Clear(f)
				changed(at)
				m.Set(f, v)
			}
		default:
			m.Set(f, other(f, v))
			changed(at)
			m.Set(f, v)
		}
		return true
	})
}

// other returns a value of a field that differs from v.
func other(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(v.String() + "x")
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(v.Enum() + 1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v.Int()) + 1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(v.Int() + 1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v.Uint()) + 1)
	default:
		return protoreflect.ValueOfUint64(v.Uint() + 1)
	}
}

// TestDigestsAreStable pins the digests of one topology and one state. They may only change together with the version in
// the domain that they begin with: members of neighbouring versions compare them.
func TestDigestsAreStable(t *testing.T) {
	top := &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{{
		Id: "line-a", Mode: ModeWarm, Policies: &quoratev1.RedundancyPolicies{MaxServers: 2},
		Servers: []*quoratev1.RedundantServer{{Member: "m1", ApplicationUri: "urn:plant:m1", EndpointUrl: "opc.tcp://m1:4841",
			HealthUrl: "http://m1:7201/healthz", Role: RolePrimary}},
	}}}
	if got, want := TopologyDigest(top), "6e4cb08f"; got[:8] != want {
		t.Errorf("the topology's digest is %s, and was %s…", got, want)
	}
}
