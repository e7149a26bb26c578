// Package space is the address space of an OPC UA server: nodes, the references between them, and how they are read,
// browsed and watched (OPC 10000-3, and the View and Attribute services of OPC 10000-4).
//
// A [Space] is an ordered list of [Source]s. A source gives nodes and references: the generated namespace 0, a [Table]
// that the program fills by hand, or a [Collection] of a million devices that are computed page by page from state and never
// built as objects. All sources together form one graph: a node is taken from the first source that has it, so that a
// table in front of the standard's nodes overrides their attributes and values, and a node's references are the union
// of what all sources say of it. Sources are safe for use by many goroutines, and reading takes no lock.
//
// A variable's value comes from [Node.Value], a function. What changes by itself says so with [Space.Changed], and
// those who wait with [Space.Subscribe] are called at once: nobody polls for a value that is pushed.
//
// Start with [Node] and [Source], then [Space.Read] and [Space.Browse]. The package knows nothing of sessions, encoding
// or transport; it speaks the types of gopcua's ua package because the wire does.
package space
