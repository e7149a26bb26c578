package space

import (
	"math"
	"strconv"
	"testing"

	"github.com/gopcua/opcua/ua"
)

func step(refType Key, name string) *ua.RelativePathElement {
	return &ua.RelativePathElement{ReferenceTypeID: refType.NodeID(), IncludeSubtypes: true, TargetName: &ua.QualifiedName{Name: name}}
}

func path(elements ...*ua.RelativePathElement) *ua.RelativePath {
	return &ua.RelativePath{Elements: elements}
}

func TestTranslate(t *testing.T) {
	front := NewTable()
	s, _ := world(t, front)
	a, b, v := NumericKey(1, 1), NumericKey(1, 2), NumericKey(1, 3)
	edit(t, front, func(e *Edit) {
		e.Put(object(a, "A"))
		e.Put(object(b, "B"))
		e.Put(variable(t, v, "V", 1.0))
		e.Link(root, Organizes, a)
		e.Link(root, Organizes, b)
		e.Link(a, HasComponent, v)
		e.Link(b, HasComponent, v)
	})
	inverse := step(hierarchical, "")
	inverse.IsInverse = true
	wrongNamespace := step(hierarchical, "A")
	wrongNamespace.TargetName.NamespaceIndex = 1
	exact := step(hierarchical, "A")
	exact.IncludeSubtypes = false
	long := make([]*ua.RelativePathElement, MaxPathElements+1)
	for i := range long {
		long[i] = step(hierarchical, "A")
	}
	for _, c := range []struct {
		name   string
		start  Key
		path   *ua.RelativePath
		want   []Key
		status ua.StatusCode
	}{
		{"one step", root, path(step(hierarchical, "A")), []Key{a}, ua.StatusOK},
		{"two steps", root, path(step(hierarchical, "A"), step(hierarchical, "V")), []Key{v}, ua.StatusOK},
		{"any reference type", root, path(step(Key{}, "FolderType")), []Key{folderType}, ua.StatusOK},
		{"no name: all targets", root, path(step(hierarchical, "")), []Key{a, b}, ua.StatusOK},
		{"inverse", v, path(inverse), []Key{a, b}, ua.StatusOK},
		{"two ways to one node", root, path(step(Key{}, "A"), step(Key{}, "V")), []Key{v}, ua.StatusOK},
		{"no such name", root, path(step(hierarchical, "X")), nil, ua.StatusBadNoMatch},
		{"other namespace", root, path(wrongNamespace), nil, ua.StatusBadNoMatch},
		{"not a reference type", root, path(step(folderType, "A")), nil, ua.StatusBadNoMatch},
		{"without subtypes", root, path(exact), nil, ua.StatusBadNoMatch},
		{"unknown start", NumericKey(1, 404), path(step(hierarchical, "A")), nil, ua.StatusBadNodeIDUnknown},
		{"empty", root, path(), nil, ua.StatusBadNothingToDo},
		{"nil", root, nil, nil, ua.StatusBadNothingToDo},
		{"no name on the way", root, path(step(hierarchical, ""), step(hierarchical, "V")), nil, ua.StatusBadBrowseNameInvalid},
		{"nil element", root, path(nil), nil, ua.StatusBadBrowseNameInvalid},
		{"too long", root, path(long...), nil, ua.StatusBadQueryTooComplex},
	} {
		targets, status := s.Translate(c.start, c.path)
		if status != c.status || len(targets) != len(c.want) {
			t.Errorf("%s: %v, %d targets, want %v, %d", c.name, status, len(targets), c.status, len(c.want))
			continue
		}
		for i, target := range targets {
			if KeyOf(target.TargetID.NodeID) != c.want[i] || target.RemainingPathIndex != math.MaxUint32 {
				t.Errorf("%s: target %d is %v", c.name, i, target)
			}
		}
	}
}

func TestTranslateInABigFolder(t *testing.T) {
	plain := &crowd{folder: NumericKey(1, 1), n: 100_000}
	s, _ := world(t, plain)
	if _, status := s.Translate(plain.folder, path(step(hierarchical, "Child99999"))); status != ua.StatusBadQueryTooComplex {
		t.Errorf("without an index: %v", status)
	}
	if plain.looked > MaxPathScan {
		t.Errorf("looked at %d references, want at most %d", plain.looked, MaxPathScan)
	}
	if _, status := s.Translate(plain.folder, path(step(hierarchical, ""))); status != ua.StatusBadTooManyMatches {
		t.Errorf("all children: %v", status)
	}

	indexed := &indexedCrowd{crowd{folder: NumericKey(1, 1), n: 100_000}}
	s, _ = world(t, indexed)
	for _, i := range []int{0, 99_999} {
		targets, status := s.Translate(indexed.folder, path(step(hierarchical, "Child"+strconv.Itoa(i))))
		if status != ua.StatusOK || len(targets) != 1 || KeyOf(targets[0].TargetID.NodeID) != NumericKey(2, uint32(i)) {
			t.Errorf("child %d: %v %v", i, status, targets)
		}
	}
	if _, status := s.Translate(indexed.folder, path(step(hierarchical, "Nobody"))); status != ua.StatusBadNoMatch {
		t.Errorf("unknown child: %v", status)
	}
	if indexed.looked != 0 {
		t.Errorf("looked at %d references although there is an index", indexed.looked)
	}
}
