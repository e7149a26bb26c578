package fsm

import (
	"bytes"
	"reflect"
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

		&quoratev1.Partition{}:         func(c *canonical, m proto.Message) { c.partition(m.(*quoratev1.Partition)) },
		&quoratev1.PartitionSettings{}: func(c *canonical, m proto.Message) { c.settings(m.(*quoratev1.PartitionSettings)) },
		&quoratev1.Instance{}:          func(c *canonical, m proto.Message) { c.instance(m.(*quoratev1.Instance)) },
		&logv1.PartitionsRecord{}:      func(c *canonical, m proto.Message) { c.partitionsRecord(m.(*logv1.PartitionsRecord)) },
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
	// What the leader adds to a command is deliberately in no fingerprint.
	words := map[string]bool{".complete_migration.drained": true}
	for _, name := range gatedCommands(t) {
		words["."+name+".gates_closed"] = true
	}
	leadersWords := 0
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
			if words[path] {
				leadersWords++
			}
			if bytes.Equal(whole, bytesOf(clone)) != words[path] {
				t.Errorf("a change of %T%s changes its canonical bytes %t, want %t", m, path, words[path], !words[path])
			}
		})
		if leaves == 0 && bytesOf(m) == nil {
			t.Errorf("%T has no fields", m)
		}
	}
	if leadersWords != len(words) {
		t.Errorf("%d of the leader's words were tried, and there are %d", leadersWords, len(words))
	}
}

// TestLeadersWordsAreInNoFingerprint sends a command again with other words of the leader: it is the same one, since the words are of the leadership that
// commits it and not of the client.
func TestLeadersWordsAreInNoFingerprint(t *testing.T) {
	for _, field := range gatedCommands(t) {
		c := &logv1.Command{}
		fill(c.ProtoReflect(), field)
		GatesClosed(c, false)
		if _, closed := gate(c); *closed || c.GetCompleteMigration().GetDrained() {
			t.Errorf("%s keeps the leader's words: %v", field, c)
		}
		without, print := proto.CloneOf(c), fingerprint(c)
		GatesClosed(c, true)
		if b := c.GetCompleteMigration(); b != nil {
			b.Drained = true
		}
		if proto.Equal(c, without) || fingerprint(c) != print {
			t.Errorf("%s: the leader's words are not in the command, or are in its fingerprint", field)
		}
		GatesClosed(c, false)
		if !proto.Equal(c, without) {
			t.Errorf("%s: what is left after the words were taken back is %v", field, c)
		}
		change(c.ProtoReflect().Mutable(c.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(field))).Message(), "", func(path string) {
			if path != ".gates_closed" && path != ".drained" && fingerprint(c) == print {
				t.Errorf("%s: another %s has the same fingerprint", field, path)
			}
		})
	}
}

// gatedCommands returns the names of the commands that have the field gates_closed, and fails unless Gated says the same.
func gatedCommands(t *testing.T) (names []string) {
	bodies := (&logv1.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		field := bodies.Get(i)
		c := &logv1.Command{}
		fill(c.ProtoReflect(), string(field.Name()))
		has := field.Message().Fields().ByName("gates_closed") != nil
		if id, gated := Gated(c); gated != has || has && id == "" {
			t.Errorf("%s is gated %t at partition %q, want %t", field.Name(), gated, id, has)
		}
		if has {
			names = append(names, string(field.Name()))
		}
	}
	if len(names) != 6 {
		t.Fatalf("%d commands are gated", len(names))
	}
	return names
}

// TestStateOfPartitionsIsInTheDigest changes each field of what partitions and instances are kept in, since no protobuf definition tells of them.
func TestStateOfPartitionsIsInTheDigest(t *testing.T) {
	s := sample(t)
	const id = "p-passed"
	record := func(f func(p *partition)) func(s *State) {
		return func(s *State) {
			p, ok := s.partitions.byID.Get(id)
			if !ok {
				t.Fatalf("the sample has no partition %s", id)
			}
			f(&p)
			s.partitions.byID.Set(id, p)
		}
	}
	registered := func(f func(i *instance)) func(s *State) {
		return func(s *State) {
			i, ok := s.instances.byID.Get("i-1")
			if !ok {
				t.Fatal("the sample has no instance i-1")
			}
			i.record = proto.CloneOf(i.record)
			f(&i)
			s.instances.byID.Set("i-1", i)
		}
	}
	parts := func(m func(s *State) *moment) []func(s *State) {
		return []func(s *State){
			func(s *State) { m(s).revision++ }, func(s *State) { m(s).at++; m(s).known = true }, func(s *State) { m(s).known = !m(s).known },
		}
	}
	for _, kept := range []struct {
		fields  int
		typ     reflect.Type
		changed []func(s *State)
	}{
		{6, reflect.TypeFor[partition](), []func(s *State){
			record(func(p *partition) { p.placement += "x" }), record(func(p *partition) { p.previous += "x" }), record(func(p *partition) { p.epoch++ }),
			record(func(p *partition) { p.revision++ }), record(func(p *partition) { p.barrier++ }), record(func(p *partition) { p.migration = nil }),
		}},
		{2, reflect.TypeFor[migration](), []func(s *State){
			record(func(p *partition) { p.migration = &migration{record: p.migration.record} }),
			record(func(p *partition) { p.migration = &migration{record: &quoratev1.Migration{}, passed: true} }),
		}},
		{6, reflect.TypeFor[partitionSettings](), append([]func(s *State){
			func(s *State) { s.partitions.settings.barrier++ }, func(s *State) { s.partitions.settings.leastBarrier++ },
			func(s *State) { s.partitions.settings.earlyFloor++ }, func(s *State) { s.partitions.settings.gateTTL++ },
			func(s *State) { s.partitions.settings.formerTTL++ },
		}, parts(func(s *State) *moment { return &s.partitions.settings.lowered })...)},
		{3, reflect.TypeFor[moment](), nil},
		{2, reflect.TypeFor[instance](), []func(s *State){
			registered(func(i *instance) { i.session += "x" }), registered(func(i *instance) { i.record.Revision++ }),
		}},
		{3, reflect.TypeFor[instances](), append(append([]func(s *State){func(s *State) { s.instances.byID.Delete("i-1") }},
			parts(func(s *State) *moment { return &s.instances.gone })...), parts(func(s *State) *moment { return &s.instances.undrained })...)},
		{6, reflect.TypeFor[partitions](), []func(s *State){
			func(s *State) { s.partitions.epochFloor++ }, func(s *State) { s.partitions.byID.Delete(id) },
		}},
	} {
		if kept.typ.NumField() != kept.fields {
			t.Errorf("%v has %d fields, and this test knows of %d: is the new one in the digest, and in the snapshot?", kept.typ, kept.typ.NumField(), kept.fields)
		}
		for i, f := range kept.changed {
			changed := s.Snapshot()
			if f(changed); changed.Digest() == s.Digest() {
				t.Errorf("change %d of %v does not change the digest", i, kept.typ)
			}
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
