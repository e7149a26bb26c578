package space

import (
	"math"

	"github.com/gopcua/opcua/ua"
)

// Limits of one Translate.
const (
	// MaxPathElements bounds the length of a browse path; more is BadQueryTooComplex.
	MaxPathElements = 64
	// MaxPathMatches bounds the nodes that a path leads to, and those on the way; more is BadTooManyMatches.
	MaxPathMatches = 1000
	// MaxPathScan bounds the references that are looked at; more is BadQueryTooComplex. Folders of more children than
	// that are found by their source's Finder.
	MaxPathScan = 20_000
)

// Translate follows a browse path (Part 4 §5.8.4) and returns the nodes that it leads to, each once. The status is OK,
// BadNodeIdUnknown, BadNothingToDo, BadBrowseNameInvalid, BadNoMatch, BadTooManyMatches or BadQueryTooComplex.
func (s *Space) Translate(start Key, path *ua.RelativePath) ([]*ua.BrowsePathTarget, ua.StatusCode) {
	budget := MaxPathScan
	return s.TranslateWithin(start, path, &budget)
}

// TranslateWithin is Translate, but looks at no more references than budget says, which it reduces by what it looked at.
// More is BadQueryTooComplex, as it is beyond MaxPathScan.
func (s *Space) TranslateWithin(start Key, path *ua.RelativePath, budget *int) ([]*ua.BrowsePathTarget, ua.StatusCode) {
	if _, ok := s.Node(start); !ok {
		return nil, ua.StatusBadNodeIDUnknown
	}
	if path == nil || len(path.Elements) == 0 {
		return nil, ua.StatusBadNothingToDo
	}
	if len(path.Elements) > MaxPathElements {
		return nil, ua.StatusBadQueryTooComplex
	}
	for i, e := range path.Elements {
		last := i == len(path.Elements)-1
		if e == nil || (e.TargetName == nil || e.TargetName.Name == "") && !last {
			return nil, ua.StatusBadBrowseNameInvalid
		}
	}

	left := min(*budget, MaxPathScan)
	whole := left
	defer func() { *budget -= whole - left }()
	keys := []Key{start}
	for _, e := range path.Elements {
		var status ua.StatusCode
		if keys, status = s.follow(keys, e, &left); status != ua.StatusOK {
			return nil, status
		}
	}
	targets := make([]*ua.BrowsePathTarget, len(keys))
	for i, k := range keys {
		targets[i] = &ua.BrowsePathTarget{
			TargetID:           &ua.ExpandedNodeID{NodeID: k.NodeID()},
			RemainingPathIndex: math.MaxUint32, // The whole path was processed: no reference leads to another server.
		}
	}
	return targets, ua.StatusOK
}

// follow returns the nodes that one element of a path leads to.
func (s *Space) follow(from []Key, e *ua.RelativePathElement, budget *int) ([]Key, ua.StatusCode) {
	f := filter{space: s, forward: !e.IsInverse, inverse: e.IsInverse}
	if !f.setType(KeyOf(e.ReferenceTypeID), e.IncludeSubtypes) {
		return nil, ua.StatusBadNoMatch
	}
	var found []Key
	seen := make(map[Key]struct{})
	for _, k := range from {
		n, ok := s.Node(k)
		if !ok {
			continue
		}
		f.node = n
		for at, more := (Position{}), true; more; {
			if *budget <= 0 {
				return nil, ua.StatusBadQueryTooComplex
			}
			var refs []Reference
			before := at
			refs, at, more = f.candidates(at, e.TargetName, min(scanPage, *budget))
			*budget -= len(refs) + 1
			for _, r := range refs {
				target := f.target(before, r)
				if target == nil || e.TargetName != nil && e.TargetName.Name != "" && target.BrowseName != *e.TargetName {
					continue
				}
				if _, ok := seen[target.Key]; ok {
					continue
				}
				if len(found) == MaxPathMatches {
					return nil, ua.StatusBadTooManyMatches
				}
				seen[target.Key] = struct{}{}
				found = append(found, target.Key)
			}
		}
	}
	if len(found) == 0 {
		return nil, ua.StatusBadNoMatch
	}
	return found, ua.StatusOK
}

// candidates is step, but asks a source that has an index of names for those of the name only.
func (f *filter) candidates(at Position, name *ua.QualifiedName, max int) (refs []Reference, next Position, more bool) {
	sources := f.space.sources
	if at.source > 0 && at.source <= len(sources) && at.cursor == "" && name != nil && name.Name != "" {
		if finder, ok := sources[at.source-1].(Finder); ok {
			if refs, ok := finder.Find(f.node.Key, *name); ok {
				return refs, Position{source: at.source + 1}, at.source < len(sources)
			}
		}
	}
	return f.step(at, max)
}
