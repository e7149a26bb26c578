package space

import "github.com/gopcua/opcua/ua"

// Limits of one Browse.
const (
	// MaxBrowseReferences bounds the references in one Page.
	MaxBrowseReferences = 1000
	// MaxBrowseScan bounds the references that one Browse looks at, so that a filter which nothing fits costs no more
	// than one that everything fits. What is left is for the next Browse.
	MaxBrowseScan = 10_000
	// MaxTypeDepth bounds the way up from a type to its base: a loop of HasSubtype references must not hang a server.
	MaxTypeDepth = 64

	scanPage = 64 // references that are asked of a source at once where nothing is to be kept
)

// Position is where a Browse stopped, and where the next one goes on. The zero Position is the beginning.
type Position struct {
	source int // 0 is the type definition; i+1 is sources[i]
	cursor Cursor
}

// Page is a part of the result of a Browse.
type Page struct {
	References []*ua.ReferenceDescription
	More       bool     // There may be more: go on at Next.
	Next       Position // Counts only if More.
	Scanned    int      // References that were looked at, and places where there could have been some: what it cost.
}

// Browse returns at most max references of a node that fit the description (Part 4 §5.8.2), beginning at from. max is
// reduced to MaxBrowseReferences; 0 means just that. A page with More may be short, even empty: no call looks at more
// than MaxBrowseScan references. The status is OK, BadNodeIdUnknown, BadReferenceTypeIdInvalid or
// BadBrowseDirectionInvalid.
//
// References to nodes that no source has, and all but the first of equal ones, are left out.
func (s *Space) Browse(d *ua.BrowseDescription, from Position, max int) (Page, ua.StatusCode) {
	n, ok := s.Node(KeyOf(d.NodeID))
	if !ok {
		return Page{}, ua.StatusBadNodeIDUnknown
	}
	if d.BrowseDirection >= ua.BrowseDirectionInvalid {
		return Page{}, ua.StatusBadBrowseDirectionInvalid
	}
	f := filter{
		space: s, node: n, classes: ua.NodeClass(d.NodeClassMask),
		forward: d.BrowseDirection != ua.BrowseDirectionInverse, inverse: d.BrowseDirection != ua.BrowseDirectionForward,
	}
	if !f.setType(KeyOf(d.ReferenceTypeID), d.IncludeSubtypes) {
		return Page{}, ua.StatusBadReferenceTypeIDInvalid
	}
	if max <= 0 || max > MaxBrowseReferences {
		max = MaxBrowseReferences
	}

	page := Page{Next: from, More: true}
	budget := MaxBrowseScan
	for page.More && budget > 0 && len(page.References) < max {
		at := page.Next
		var refs []Reference
		refs, page.Next, page.More = f.step(at, min(max-len(page.References), budget))
		budget -= len(refs) + 1
		for _, r := range refs {
			if target := f.target(at, r); target != nil {
				page.References = append(page.References, describe(r, target, ua.BrowseResultMask(d.ResultMask)))
			}
		}
	}
	if len(page.References) == max {
		page.More = page.More && f.anyAfter(page.Next, &budget)
	}
	page.Scanned = MaxBrowseScan - budget
	return page, ua.StatusOK
}

// step returns the next references of n, at most max from one source, and where they end; more is false at the end of
// all.
func (s *Space) step(n *Node, at Position, max int) (refs []Reference, next Position, more bool) {
	if at.source == 0 {
		if !n.TypeDefinition.IsNull() {
			refs = []Reference{{Type: HasTypeDefinition, Forward: true, Target: n.TypeDefinition}}
		}
		return refs, Position{source: 1}, len(s.sources) > 0
	}
	if at.source > len(s.sources) {
		return nil, at, false
	}
	refs, cursor := s.sources[at.source-1].References(n.Key, at.cursor, max)
	if cursor != "" {
		return refs, Position{source: at.source, cursor: cursor}, true
	}
	return refs, Position{source: at.source + 1}, at.source < len(s.sources)
}

// filter says which references of a node are wanted.
type filter struct {
	space            *Space
	node             *Node
	forward, inverse bool
	refType          Key // null: any
	subtypes         bool
	classes          ua.NodeClass // 0: any

	// A node has references of few types, but many of each: what was found out about a type is kept.
	known []typeVerdict
}

type typeVerdict struct {
	refType Key
	wanted  bool
}

// setType reports false if t is neither null nor a reference type.
func (f *filter) setType(t Key, subtypes bool) bool {
	if t.IsNull() {
		return true
	}
	n, ok := f.space.Node(t)
	f.refType, f.subtypes = t, subtypes
	return ok && n.Class == ua.NodeClassReferenceType
}

// step is Space.step of the node, but passes over a source none of whose references there is wanted.
func (f *filter) step(at Position, max int) (refs []Reference, next Position, more bool) {
	if at.source > 0 && at.source <= len(f.space.sources) && at.cursor == "" {
		if u, ok := f.space.sources[at.source-1].(Uniform); ok {
			if alike, ok := u.Uniform(f.node.Key); ok && !f.wantsAlike(alike) {
				return nil, Position{source: at.source + 1}, at.source < len(f.space.sources)
			}
		}
	}
	return f.space.step(f.node, at, max)
}

// target returns the node at the other end of a reference that was found at a position, or nil if the reference is not
// wanted.
func (f *filter) target(at Position, r Reference) *Node {
	if !f.wantsDirection(r.Forward) || !f.wantsType(r.Type) {
		return nil
	}
	for i := range at.source - 1 {
		if l, ok := f.space.sources[i].(Linker); ok && l.Linked(f.node.Key, r) {
			return nil
		}
	}
	target, ok := f.space.Node(r.Target)
	if !ok || !f.wantsClass(target.Class) {
		return nil
	}
	// The instance that a source in front has may be of another type than the one behind it says.
	if r.Type == HasTypeDefinition && !r.Forward && target.TypeDefinition != f.node.Key {
		return nil
	}
	return target
}

func (f *filter) wantsAlike(a Alike) bool {
	return f.wantsDirection(a.Forward) && f.wantsType(a.Type) && f.wantsClass(a.Class)
}

func (f *filter) wantsDirection(forward bool) bool {
	if forward {
		return f.forward
	}
	return f.inverse
}

func (f *filter) wantsClass(class ua.NodeClass) bool { return f.classes == 0 || f.classes&class != 0 }

func (f *filter) wantsType(t Key) bool {
	if f.refType.IsNull() || t == f.refType {
		return true
	}
	if !f.subtypes {
		return false
	}
	for _, v := range f.known {
		if v.refType == t {
			return v.wanted
		}
	}
	wanted := f.space.IsSubtype(t, f.refType)
	f.known = append(f.known, typeVerdict{t, wanted})
	return wanted
}

// anyAfter reports whether a wanted reference follows. It gives up with true when the budget is used up.
func (f *filter) anyAfter(at Position, budget *int) bool {
	for more := true; more; {
		if *budget <= 0 {
			return true
		}
		var refs []Reference
		before := at
		refs, at, more = f.step(at, min(scanPage, *budget))
		*budget -= len(refs) + 1
		for _, r := range refs {
			if f.target(before, r) != nil {
				return true
			}
		}
	}
	return false
}

// Fields that a result mask leaves out are null, not nil: the encoder writes them all.
var (
	nullExpandedID = &ua.ExpandedNodeID{NodeID: ua.NewTwoByteNodeID(0)}
	nullID         = ua.NewTwoByteNodeID(0)
	nullName       = &ua.QualifiedName{}
	nullText       = &ua.LocalizedText{}
)

// description is a ReferenceDescription with what it points to, in one block. The names are copies: a target may be made for this reference alone, and
// a page is to keep no more of it than it shows.
type description struct {
	ua.ReferenceDescription
	target, typ ua.ExpandedNodeID
	name        ua.QualifiedName
	text        ua.LocalizedText
}

// describe builds the ReferenceDescription with the fields of the mask (Part 4 §7.30).
func describe(r Reference, target *Node, mask ua.BrowseResultMask) *ua.ReferenceDescription {
	d := &description{target: ua.ExpandedNodeID{NodeID: target.Key.NodeID()}}
	d.ReferenceDescription = ua.ReferenceDescription{
		ReferenceTypeID: nullID,
		NodeID:          &d.target,
		BrowseName:      nullName,
		DisplayName:     nullText,
		TypeDefinition:  nullExpandedID,
	}
	if mask&ua.BrowseResultMaskReferenceTypeID != 0 {
		d.ReferenceTypeID = r.Type.NodeID()
	}
	if mask&ua.BrowseResultMaskIsForward != 0 {
		d.IsForward = r.Forward
	}
	if mask&ua.BrowseResultMaskNodeClass != 0 {
		d.NodeClass = target.Class
	}
	if mask&ua.BrowseResultMaskBrowseName != 0 {
		d.name = target.BrowseName
		d.BrowseName = &d.name
	}
	if mask&ua.BrowseResultMaskDisplayName != 0 {
		d.text = target.DisplayName
		d.DisplayName = &d.text
	}
	if mask&ua.BrowseResultMaskTypeDefinition != 0 && !target.TypeDefinition.IsNull() {
		d.typ.NodeID = target.TypeDefinition.NodeID()
		d.TypeDefinition = &d.typ
	}
	return &d.ReferenceDescription
}

// IsSubtype reports whether type k is of, or a direct or indirect subtype of it.
func (s *Space) IsSubtype(k, of Key) bool {
	for range MaxTypeDepth {
		if k == of {
			return true
		}
		var ok bool
		if k, ok = s.Supertype(k); !ok {
			return false
		}
	}
	return false
}

// Supertype returns the source of the HasSubtype reference to k: a type has at most one (Part 3 §7.10).
func (s *Space) Supertype(k Key) (Key, bool) {
	n, ok := s.Node(k)
	if !ok {
		return Key{}, false
	}
	at, budget := Position{source: 1}, MaxBrowseScan
	for more := true; more && budget > 0; {
		var refs []Reference
		refs, at, more = s.step(n, at, min(scanPage, budget))
		budget -= len(refs) + 1
		for _, r := range refs {
			if r.Type == HasSubtype && !r.Forward {
				return r.Target, true
			}
		}
	}
	return Key{}, false
}
