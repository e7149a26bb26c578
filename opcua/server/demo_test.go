package server

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
)

const demoURI = "urn:demo:server"

// manyChildren is how many variables the demo's folder has: enough for several pages.
const manyChildren = 250

var (
	objectsKey = space.NumericKey(0, 85)
	levelKey   = space.NumericKey(1, 1) // pushed
	clockKey   = space.NumericKey(1, 2) // sampled
	folderKey  = space.NumericKey(1, 3)
	analogKey  = space.NumericKey(1, 4) // pushed, numbers with the range -100 to 100
	rangeKey   = space.NumericKey(1, 5)
	targetKey  = space.NumericKey(1, 6) // ada may write it
	serverKey  = space.NumericKey(0, 2253)
	doubleKey  = space.NumericKey(1, 7)  // a method of the Server object: twice its Int64, for ada
	fireKey    = space.NumericKey(1, 9)  // a type of events
	alarmKey   = space.NumericKey(1, 10) // its supertype
	brokenKey  = space.NumericKey(1, 8)  // a method that nobody implements
	momentKey  = space.NumericKey(1, 11) // pushed like Level, of which it has the value, and momentary
)

// demo is a small address space: a value that is pushed, one that is sampled, and a folder of many.
type demo struct {
	space *space.Space
	level atomic.Int64
	reads atomic.Int64 // how often either value was read

	analog atomic.Pointer[ua.DataValue]
	target atomic.Int64
}

func newDemo(t testing.TB) *demo {
	t.Helper()
	d := &demo{}
	types := space.NewTable()
	table := space.NewTable()
	err := types.Edit(func(e *space.Edit) error {
		class := func(id uint32, c ua.NodeClass, name string) space.Key {
			k := space.NumericKey(0, id)
			e.Put(&space.Node{Key: k, Class: c, BrowseName: ua.QualifiedName{Name: name}, DisplayName: text(name)})
			return k
		}
		references := class(31, ua.NodeClassReferenceType, "References")
		hierarchical := class(33, ua.NodeClassReferenceType, "HierarchicalReferences")
		organizes := class(35, ua.NodeClassReferenceType, "Organizes")
		subtype := class(45, ua.NodeClassReferenceType, "HasSubtype")
		e.Link(references, subtype, hierarchical)
		e.Link(hierarchical, subtype, organizes)
		e.Link(hierarchical, subtype, class(46, ua.NodeClassReferenceType, "HasProperty"))
		e.Link(hierarchical, subtype, class(47, ua.NodeClassReferenceType, "HasComponent"))
		event := class(2041, ua.NodeClassObjectType, "BaseEventType")
		e.Link(event, subtype, class(3035, ua.NodeClassObjectType, "EventQueueOverflowEventType"))
		for i, k := range []space.Key{alarmKey, fireKey} {
			name := []string{"AlarmType", "FireType"}[i]
			e.Put(&space.Node{Key: k, Class: ua.NodeClassObjectType, BrowseName: ua.QualifiedName{NamespaceIndex: 1, Name: name}, DisplayName: text(name)})
			e.Link([]space.Key{event, alarmKey}[i], subtype, k)
		}
		base, number := class(24, ua.NodeClassDataType, "BaseDataType"), class(26, ua.NodeClassDataType, "Number")
		e.Link(base, subtype, number)
		e.Link(base, subtype, class(12, ua.NodeClassDataType, "String"))
		e.Link(number, subtype, class(7, ua.NodeClassDataType, "UInt32"))
		e.Link(number, subtype, class(8, ua.NodeClassDataType, "Int64"))
		e.Link(number, subtype, class(11, ua.NodeClassDataType, "Double"))
		class(61, ua.NodeClassObjectType, "FolderType")
		e.Put(&space.Node{Key: space.NumericKey(0, 63), Class: ua.NodeClassVariableType, BrowseName: ua.QualifiedName{Name: "BaseDataVariableType"},
			DisplayName: text("BaseDataVariableType"), DataType: space.NumericKey(0, 24), ValueRank: space.RankAny})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = table.Edit(func(e *space.Edit) error {
		folder := func(k space.Key, name string) {
			e.Put(&space.Node{Key: k, Class: ua.NodeClassObject, BrowseName: ua.QualifiedName{NamespaceIndex: k.Namespace(), Name: name},
				DisplayName: text(name), TypeDefinition: space.NumericKey(0, 61)})
		}
		folder(objectsKey, "Objects")
		folder(folderKey, "Many")
		e.Link(objectsKey, space.Organizes, folderKey)
		variable := func(k space.Key, name string, sampling float64, v space.ValueFunc, change ...func(*space.Node)) {
			n := &space.Node{Key: k, Class: ua.NodeClassVariable, BrowseName: ua.QualifiedName{NamespaceIndex: k.Namespace(), Name: name},
				DisplayName: text(name), TypeDefinition: space.NumericKey(0, 63), DataType: space.NumericKey(0, 8),
				ValueRank: space.RankScalar, AccessLevel: space.AccessCurrentRead, MinimumSamplingInterval: sampling, Value: v}
			for _, fn := range change {
				fn(n)
			}
			e.Put(n)
		}
		variable(levelKey, "Level", 0, func(space.ReadContext) *ua.DataValue {
			d.reads.Add(1)
			return dataValue(d.level.Load())
		})
		variable(momentKey, "Moment", 0, func(space.ReadContext) *ua.DataValue { return dataValue(d.level.Load()) }, func(n *space.Node) { n.Momentary = true })
		variable(clockKey, "Clock", 10, func(ctx space.ReadContext) *ua.DataValue {
			d.reads.Add(1)
			return dataValue(ctx.Now.UnixNano())
		})
		d.analog.Store(dataValue([]float64{0, 0}))
		variable(analogKey, "Analog", 0, func(space.ReadContext) *ua.DataValue { return d.analog.Load() }, func(n *space.Node) {
			n.DataType, n.ValueRank = space.NumericKey(0, 11), space.RankAny
		})
		span, err := space.Constant(ua.NewExtensionObject(&ua.Range{Low: -100, High: 100}))
		if err != nil {
			return err
		}
		variable(rangeKey, "EURange", 0, span, func(n *space.Node) { n.BrowseName.NamespaceIndex = 0 })
		e.Link(analogKey, space.HasProperty, rangeKey)
		variable(targetKey, "Target", 0, func(space.ReadContext) *ua.DataValue { return dataValue(d.target.Load()) }, func(n *space.Node) {
			n.AccessLevel |= space.AccessCurrentWrite
			n.Write = d.writeTarget
		})
		folder(serverKey, "Server")
		for _, m := range []struct {
			key   space.Key
			name  string
			input uint32 // data type
		}{{getMonitoredItems, "GetMonitoredItems", 7}, {resendData, "ResendData", 7}, {doubleKey, "Double", 8}, {brokenKey, "Broken", 0}} {
			e.Put(&space.Node{Key: m.key, Class: ua.NodeClassMethod, BrowseName: ua.QualifiedName{NamespaceIndex: m.key.Namespace(), Name: m.name},
				DisplayName: text(m.name), Executable: true})
			e.Link(serverKey, space.HasComponent, m.key)
			if m.input == 0 {
				continue
			}
			args, err := space.Constant([]*ua.ExtensionObject{ua.NewExtensionObject(&ua.Argument{Name: "In", DataType: ua.NewNumericNodeID(0, m.input), ValueRank: -1})})
			if err != nil {
				return err
			}
			k := space.StringKey(1, m.name+".InputArguments")
			variable(k, "InputArguments", 0, args, func(n *space.Node) { n.BrowseName.NamespaceIndex = 0 })
			e.Link(m.key, space.HasProperty, k)
		}
		e.Link(objectsKey, space.Organizes, levelKey)
		e.Link(objectsKey, space.Organizes, clockKey)
		namespaces, err := space.Constant([]string{space.NamespaceUA, demoURI})
		if err != nil {
			return err
		}
		variable(space.NumericKey(0, 2255), "NamespaceArray", 0, namespaces, func(n *space.Node) { n.DataType = space.NumericKey(0, 12) })
		for i := range manyChildren {
			k := space.NumericKey(1, uint32(1000+i))
			v, err := space.Constant(int64(i))
			if err != nil {
				return err
			}
			variable(k, fmt.Sprintf("Child%03d", i), 0, v)
			e.Link(folderKey, space.Organizes, k)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.space, err = space.New([]string{space.NamespaceUA, demoURI}, table, types)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// set changes the pushed value.
func (d *demo) set(v int64) {
	d.level.Store(v)
	d.space.Changed(levelKey, momentKey)
}

// writeTarget is what the Write service calls.
func (d *demo) writeTarget(ctx space.WriteContext, v *ua.Variant) ua.StatusCode {
	if who, _ := ctx.User.(Identity); who.Name != "ada" {
		return ua.StatusBadUserAccessDenied
	}
	d.target.Store(v.Int())
	d.space.Changed(targetKey)
	return ua.StatusOK
}

// double is what the Call service calls.
func double(ctx context.Context, caller Identity, args []*ua.Variant) ([]*ua.Variant, ua.StatusCode) {
	n := args[0].Int()
	switch {
	case caller.Name != "ada":
		return nil, ua.StatusBadUserAccessDenied
	case n == 0: // Takes for ever.
		<-ctx.Done()
		return nil, ua.StatusBadTimeout
	}
	return []*ua.Variant{ua.MustVariant(2 * n)}, ua.StatusOK
}

// setAnalog changes the value that has a range.
func (d *demo) setAnalog(v any) {
	d.analog.Store(dataValue(v))
	d.space.Changed(analogKey)
}

func text(s string) ua.LocalizedText {
	return ua.LocalizedText{EncodingMask: ua.LocalizedTextText, Text: s}
}

func dataValue(v any) *ua.DataValue {
	return &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(v)}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("timed out waiting for: %s", what)
		case <-tick.C:
		}
	}
}
