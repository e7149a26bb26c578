package space

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/ua"
)

// Member is the kind of all members of a Collection: objects of one type, with the same variables.
type Member struct {
	// Namespace and Prefix begin the NodeIds of members: that of member "a" is the string Prefix+"a", and that of its variable "V" is Prefix+"a/V".
	// Ids are not empty and have no '/'. BrowseNames are ids and the names of variables, in the namespace.
	Namespace uint16
	Prefix    string
	// Type is the type of the objects.
	Type      Key
	Variables []MemberVariable
}

// MemberVariable is a variable that every member has. It can't be written, and who changes it says so with Space.Changed.
type MemberVariable struct {
	// Name has no '/'.
	Name, Description string
	DataType          Key
	ValueRank         int32
	// Value is the ValueFunc of one member's variable. A member may be gone since it was found: then it is BadNodeIdUnknown.
	Value func(ctx ReadContext, id string) *ua.DataValue
}

// Listing is a folder with members of a Collection. Its functions are called from many goroutines at once.
type Listing struct {
	// Folder is the node of the folder, which another source has.
	Folder Key
	// Has says whether a member is in the folder.
	Has func(id string) bool
	// IDs gives the ids of those in the folder that follow one, in ascending order; from the first on if it is empty.
	IDs func(after string) iter.Seq[string]
}

// Collection is a Source of objects that are kept elsewhere, and of which there may be millions: partitions, devices. A node is made when it is asked
// for and forgotten again, so a member costs nothing until somebody looks. Folders have members in the order of their ids, and a cursor is the
// id that a page ended with: so pages neither repeat nor leave out what stays, whatever comes and goes meanwhile.
type Collection struct {
	member   Member
	listings []Listing
}

var (
	_ Source  = (*Collection)(nil)
	_ Finder  = (*Collection)(nil)
	_ Uniform = (*Collection)(nil)
)

// NewCollection returns a collection of members that are all in the first listing; the others have some of them. The error names what is wrong.
func NewCollection(m Member, listings ...Listing) (*Collection, error) {
	switch {
	case m.Prefix == "":
		return nil, errors.New("space: collection: Prefix is empty")
	case m.Type.IsNull():
		return nil, errors.New("space: collection: Type is null")
	case len(listings) == 0:
		return nil, errors.New("space: collection: there is no listing")
	}
	for i, v := range m.Variables {
		switch {
		case v.Name == "" || strings.Contains(v.Name, "/"):
			return nil, fmt.Errorf("space: collection: Variables[%d]: %q is no name", i, v.Name)
		case slices.ContainsFunc(m.Variables[:i], func(o MemberVariable) bool { return o.Name == v.Name }):
			return nil, fmt.Errorf("space: collection: Variables[%d]: %q is there twice", i, v.Name)
		case v.DataType.IsNull() || v.Value == nil:
			return nil, fmt.Errorf("space: collection: Variables[%d]: %q has no DataType, or no Value", i, v.Name)
		}
	}
	for i, l := range listings {
		if l.Folder.IsNull() || l.Has == nil || l.IDs == nil {
			return nil, fmt.Errorf("space: collection: listings[%d] has no Folder, no Has, or no IDs", i)
		}
	}
	return &Collection{member: m, listings: slices.Clone(listings)}, nil
}

// Key returns the key of a member.
func (c *Collection) Key(id string) Key {
	return StringKey(c.member.Namespace, c.member.Prefix+id)
}

// VariableKey returns the key of a variable of a member.
func (c *Collection) VariableKey(id, name string) Key {
	return StringKey(c.member.Namespace, c.member.Prefix+id+"/"+name)
}

// Changed is Space.Changed of a member, which came, went or changed, and of its variables. Members change by the thousand in a second, and mostly nobody
// waits for any: then no key is made.
func (c *Collection) Changed(s *Space, id string) {
	if s.waiting(Key{ns: c.member.Namespace}).Load() > 0 {
		s.Changed(c.Keys(id)...)
	}
}

// Keys returns the keys of a member and of its variables.
func (c *Collection) Keys(id string) []Key {
	keys := make([]Key, 1, 1+len(c.member.Variables))
	keys[0] = c.Key(id)
	for _, v := range c.member.Variables {
		keys = append(keys, c.VariableKey(id, v.Name))
	}
	return keys
}

// Owns reports whether a key is of the form of a member's or one of its variables', whether or not there is such a member.
func (c *Collection) Owns(k Key) bool {
	_, _, ok := c.parse(k)
	return ok
}

// parse takes a key of this collection's form apart. The variable is nil if it is a member's own.
func (c *Collection) parse(k Key) (id string, v *MemberVariable, ok bool) {
	text, ok := k.Text()
	if !ok || k.Namespace() != c.member.Namespace {
		return "", nil, false
	}
	rest, ok := strings.CutPrefix(text, c.member.Prefix)
	if !ok {
		return "", nil, false
	}
	id, name, isVariable := strings.Cut(rest, "/")
	if id == "" || !isVariable {
		return id, nil, id != ""
	}
	for i := range c.member.Variables {
		if v = &c.member.Variables[i]; v.Name == name {
			return id, v, true
		}
	}
	return "", nil, false
}

// find is parse for members that there are.
func (c *Collection) find(k Key) (id string, v *MemberVariable, ok bool) {
	id, v, ok = c.parse(k)
	return id, v, ok && c.listings[0].Has(id)
}

// listing returns the listing whose folder a node is, or nil.
func (c *Collection) listing(k Key) *Listing {
	for i := range c.listings {
		if c.listings[i].Folder == k {
			return &c.listings[i]
		}
	}
	return nil
}

// Node implements Source.
func (c *Collection) Node(k Key) (*Node, bool) {
	id, v, ok := c.find(k)
	if !ok {
		return nil, false
	}
	if v == nil {
		return &Node{
			Key: k, Class: ua.NodeClassObject, BrowseName: c.name(id), DisplayName: Text(id), TypeDefinition: c.member.Type,
		}, true
	}
	return &Node{
		Key: k, Class: ua.NodeClassVariable, BrowseName: c.name(v.Name), DisplayName: Text(v.Name), Description: Text(v.Description),
		TypeDefinition: baseDataVariableType, DataType: v.DataType, ValueRank: v.ValueRank, AccessLevel: AccessCurrentRead,
		Value: func(ctx ReadContext) *ua.DataValue { return v.Value(ctx, id) },
	}, true
}

func (c *Collection) name(name string) ua.QualifiedName {
	return ua.QualifiedName{NamespaceIndex: c.member.Namespace, Name: name}
}

// References implements Source.
func (c *Collection) References(k Key, from Cursor, max int) (refs []Reference, next Cursor) {
	if max <= 0 {
		return nil, ""
	}
	if l := c.listing(k); l != nil {
		for id := range l.IDs(string(from)) {
			if len(refs) == max {
				return refs, next
			}
			refs = append(refs, Reference{Type: Organizes, Forward: true, Target: c.Key(id)})
			next = Cursor(id)
		}
		return refs, ""
	}
	id, v, ok := c.find(k)
	switch {
	case !ok:
		return nil, ""
	case v == nil:
		return c.ofMember(id, from, max)
	case from != "":
		return nil, ""
	}
	return []Reference{{Type: HasComponent, Target: c.Key(id)}}, ""
}

// ofMember returns references of a member. Each has a place of its own, the folders before the variables, and the cursor is the first place that is
// left, so that a member which enters or leaves a folder between two pages moves none of the others.
func (c *Collection) ofMember(id string, from Cursor, max int) (refs []Reference, next Cursor) {
	place, end := 0, len(c.listings)+len(c.member.Variables)
	if from != "" {
		var err error
		if place, err = strconv.Atoi(string(from)); err != nil || place < 0 {
			return nil, ""
		}
	}
	for ; place < end && len(refs) < max; place++ {
		if i := place - len(c.listings); i >= 0 {
			refs = append(refs, Reference{Type: HasComponent, Forward: true, Target: c.VariableKey(id, c.member.Variables[i].Name)})
		} else if c.listings[place].Has(id) {
			refs = append(refs, Reference{Type: Organizes, Target: c.listings[place].Folder})
		}
	}
	if place < end {
		next = Cursor(strconv.Itoa(place))
	}
	return refs, next
}

// Find implements Finder for the folders.
func (c *Collection) Find(k Key, name ua.QualifiedName) (refs []Reference, ok bool) {
	l := c.listing(k)
	if l == nil {
		return nil, false
	}
	if name.NamespaceIndex != c.member.Namespace || !l.Has(name.Name) {
		return nil, true
	}
	return []Reference{{Type: Organizes, Forward: true, Target: c.Key(name.Name)}}, true
}

// Uniform implements Uniform for the folders: they have members alone.
func (c *Collection) Uniform(k Key) (alike Alike, ok bool) {
	return Alike{Type: Organizes, Forward: true, Class: ua.NodeClassObject}, c.listing(k) != nil
}
