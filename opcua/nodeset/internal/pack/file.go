package pack

import (
	"errors"
	"sort"
)

// File is a file of nodes that is read in place. It is safe for use by many goroutines.
type File struct {
	nodes                                int
	ids, recordAt, linkAt, textAt, types string
	references, records, texts           string
}

// Open reads the header of a file that Encode made. The file is part of the program and trusted: only its shape is
// checked.
func Open(s string) (*File, error) {
	if len(s) < headerSize || s[:len(magic)] != magic {
		return nil, errors.New("pack: not a file of nodes of this version")
	}
	var counts [5]int
	for i := range counts {
		counts[i] = u32(s[len(magic):], i)
	}
	f := &File{nodes: counts[0]}
	rest, ok := s[headerSize:], true
	take := func(n int) (part string) {
		if n < 0 || n > len(rest) {
			ok = false
			return ""
		}
		part, rest = rest[:n], rest[n:]
		return part
	}
	f.ids = take(2 * counts[0])
	f.recordAt = take(4 * counts[0])
	f.linkAt = take(4 * (counts[0] + 1))
	f.textAt = take(4 * (counts[1] + 1))
	f.types = take(2 * counts[2])
	f.references = take(referenceSize * counts[3])
	f.records = take(counts[4])
	if !ok || u32(f.textAt, counts[1]) != len(rest) {
		return nil, errors.New("pack: the file is cut off")
	}
	f.texts = rest
	return f, nil
}

// Len returns the number of nodes.
func (f *File) Len() int { return f.nodes }

// ID returns the id of the node at index i.
func (f *File) ID(i int) uint16 { return u16(f.ids, i) }

// Index returns the index of the node with that id.
func (f *File) Index(id uint16) (i int, ok bool) {
	i = sort.Search(f.nodes, func(i int) bool { return f.ID(i) >= id })
	return i, i < f.nodes && f.ID(i) == id
}

// Node decodes the node at index i, without its references. Its strings point into the file.
func (f *File) Node(i int) Node {
	r := reader{f: f, s: f.records[u32(f.recordAt, i):]}
	n := Node{ID: f.ID(i)}
	flags := r.s[1]
	n.Class, n.EventNotifier, n.AccessLevel = r.s[0], r.s[2], r.s[3]
	n.IsAbstract, n.Symmetric = flags&flagAbstract != 0, flags&flagSymmetric != 0
	n.Executable, n.NoValue = flags&flagExecutable != 0, flags&flagNoValue != 0
	r.s = r.s[4:]
	for _, to := range []*string{&n.BrowseName, &n.DisplayName, &n.Description, &n.InverseName, &n.Value, &n.Definition} {
		*to = r.text()
	}
	n.TypeDefinition, n.DataType = uint16(r.number()), uint16(r.number())
	rank := r.number()
	n.ValueRank = int32(rank>>1) ^ -int32(rank&1) // as binary.AppendVarint writes it
	n.SamplingMillis = uint32(r.number())
	if dims := r.number(); dims > 0 {
		n.ArrayDimensions = make([]uint32, dims-1)
		for d := range n.ArrayDimensions {
			n.ArrayDimensions[d] = uint32(r.number())
		}
	}
	return n
}

// References returns the number of references of the node at index i.
func (f *File) References(i int) int { return u32(f.linkAt, i+1) - u32(f.linkAt, i) }

// Reference returns reference j of the node at index i.
func (f *File) Reference(i, j int) Reference {
	at := (u32(f.linkAt, i) + j) * referenceSize
	b := f.references[at : at+referenceSize]
	return Reference{Type: u16(f.types, int(b[0]>>1)), Forward: b[0]&1 != 0, Target: u16(b[1:], 0)}
}

type reader struct {
	f *File
	s string
}

func (r *reader) number() uint64 {
	var n uint64
	for shift := 0; ; shift += 7 {
		b := r.s[0]
		r.s = r.s[1:]
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (r *reader) text() string {
	i := int(r.number())
	return r.f.texts[u32(r.f.textAt, i):u32(r.f.textAt, i+1)]
}

func u16(s string, i int) uint16 { return uint16(s[2*i]) | uint16(s[2*i+1])<<8 }

func u32(s string, i int) int {
	s = s[4*i : 4*i+4]
	return int(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24)
}
