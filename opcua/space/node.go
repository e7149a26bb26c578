package space

import (
	"time"

	"github.com/gopcua/opcua/ua"
)

// Bits of Node.AccessLevel (Part 3 §8.57).
const (
	AccessCurrentRead    byte = 1 << 0
	AccessCurrentWrite   byte = 1 << 1
	AccessHistoryRead    byte = 1 << 2
	AccessHistoryWrite   byte = 1 << 3
	AccessSemanticChange byte = 1 << 4
	AccessStatusWrite    byte = 1 << 5
	AccessTimestampWrite byte = 1 << 6
)

// Special values of Node.ValueRank (Part 3 §5.6.2).
const (
	RankScalarOrOneDimension int32 = -3
	RankAny                  int32 = -2
	RankScalar               int32 = -1
	RankOneOrMoreDimensions  int32 = 0
	RankOneDimension         int32 = 1
)

// ReadContext is what a value function may know of the read that asks it.
type ReadContext struct {
	// Now is the time of the request by the server's clock. It becomes the ServerTimestamp.
	Now time.Time
	// Shared is the same for all values of one request. Value functions keep there what these have to have in common, such as a snapshot of the state that
	// they show. It is nil where a value is read by itself.
	Shared *any
}

// ValueFunc gives the current value of a variable. It is called without any lock held, from many goroutines at once,
// and must be cheap and never block. The result is not modified and may be shared: a value that rarely changes is best
// built once and handed out again and again. The EncodingMask need not be set; a nil result is a null value of status
// Good.
type ValueFunc func(ReadContext) *ua.DataValue

// Node has the attributes of a node of any of the eight classes (Part 3 §5). Which of them count depends on Class; the
// others are ignored. A Node that was given to or by a source must not be modified any more: put another in its place.
type Node struct {
	Key         Key
	Class       ua.NodeClass
	BrowseName  ua.QualifiedName
	DisplayName ua.LocalizedText
	Description ua.LocalizedText // absent if empty

	// TypeDefinition is the target of the one HasTypeDefinition reference that every Object and Variable has (Part 3
	// §7.13). It stands here, not among the references, so that overriding a node can change its type.
	TypeDefinition Key

	EventNotifier   byte             // Object, View
	IsAbstract      bool             // ObjectType, VariableType, ReferenceType, DataType
	Symmetric       bool             // ReferenceType
	InverseName     ua.LocalizedText // ReferenceType; absent if empty
	ContainsNoLoops bool             // View

	// Of Variable and VariableType.
	DataType        Key
	ValueRank       int32
	ArrayDimensions []uint32  // absent if nil
	Value           ValueFunc // nil: a Variable's value is null, a VariableType has none

	// Of Variable.
	AccessLevel             byte    // the user's access level is the same; whether a user may write is for Write to say
	MinimumSamplingInterval float64 // milliseconds; 0 is "by exception", -1 "unknown"
	Historizing             bool
	// Momentary says that a value may run out with nobody there to tell of it, as when the process was stopped for a while: what waits to be published is
	// read again before it is sent.
	Momentary bool
	Write     WriteFunc // nil: nobody can

	// Executable is of Method; the user's is the same.
	Executable bool

	// DataTypeDefinition is of DataType: *ua.StructureDefinition, *ua.EnumDefinition, or nil if absent. It is a
	// function because it is rarely asked for, and large. A Source may build it at every call.
	DataTypeDefinition func() any
}

// Text returns a LocalizedText without a locale.
func Text(s string) ua.LocalizedText { return *ua.NewLocalizedText(s) }

// Constant returns a ValueFunc for a value that never changes. The value is one that ua.NewVariant takes; an error says
// that it is not one.
func Constant(v any) (ValueFunc, error) {
	va, err := ua.NewVariant(v)
	if err != nil {
		return nil, err
	}
	dv := &ua.DataValue{EncodingMask: ua.DataValueValue, Value: va}
	return func(ReadContext) *ua.DataValue { return dv }, nil
}
