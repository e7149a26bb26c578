package opcua

import (
	"context"
	"fmt"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
)

const (
	// DefaultBrowseRoot is where a Browse begins unless it is told otherwise: the Objects folder.
	DefaultBrowseRoot = "i=85"
	// DefaultBrowseDepth is how many steps below its root a Browse goes unless it is told otherwise.
	DefaultBrowseDepth = 2
	// MaxBrowseDepth is the most steps that it can be told.
	MaxBrowseDepth = 32
	// MaxBrowsedNodes is the most nodes of one Browse. What is beyond is left out, and said so.
	MaxBrowsedNodes = 10_000

	// browseNodes and browseReferences bound one request: how many nodes, and how many references of each.
	browseNodes      = 50
	browseReferences = 1000
	// browsePages bounds the pages of one request: a server may give empty ones, but not for ever.
	browsePages = 1000
)

// Branch is a node with those below it.
type Branch struct {
	Node        string `json:"node"`
	BrowseName  string `json:"browseName"`
	DisplayName string `json:"displayName"`
	// Class is Object, Variable, Method, ObjectType, VariableType, ReferenceType, DataType or View.
	Class string `json:"class"`
	// Type is the NodeId of the type definition of an object or a variable.
	Type string `json:"type,omitempty"`
	// Reference is the NodeId of the reference type by which it hangs below its parent.
	Reference string    `json:"reference,omitempty"`
	Children  []*Branch `json:"children,omitempty"`
	// Elsewhere says that the children are at another place: the node is in the tree already, or it belongs to another server.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// More says that there are children that a limit left out.
	More bool `json:"more,omitempty"`
	// Status is why the children can't be listed.
	Status string `json:"status,omitempty"`

	id *ua.NodeID
}

// Browse returns the tree of nodes below root along hierarchical references, depth steps deep; 0 is root alone. A node whose
// children can't be listed says so in its Status; an error is about the connection, or about root.
func Browse(ctx context.Context, cfg ClientConfig, root string, depth int) (*Branch, error) {
	nodeID, err := ParseNode(root)
	if err != nil {
		return nil, err
	}
	if depth < 0 || depth > MaxBrowseDepth {
		return nil, fmt.Errorf("depth: %d is not within 0 and %d", depth, MaxBrowseDepth)
	}
	s, err := session.Open(ctx, cfg.Endpoint, cfg.Options)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return browse(ctx, s, nodeID, depth, MaxBrowsedNodes)
}

// browse takes one level after another, so that a limit leaves out what is deepest.
func browse(ctx context.Context, s *session.Session, root *ua.NodeID, depth, limit int) (*Branch, error) {
	top, err := describe(ctx, s, root)
	if err != nil {
		return nil, err
	}
	b := &browser{session: s, seen: map[string]bool{top.Node: true}, left: limit - 1}
	level := []*Branch{top}
	for range depth {
		var below []*Branch
		for len(level) > 0 {
			part := level[:min(len(level), browseNodes)]
			level = level[len(part):]
			if err := b.children(ctx, part); err != nil {
				return nil, err
			}
			for _, branch := range part {
				for _, child := range branch.Children {
					if !child.Elsewhere {
						below = append(below, child)
					}
				}
			}
		}
		level = below
	}
	return top, nil
}

// describe reads what a reference would say of a node.
func describe(ctx context.Context, s *session.Session, nodeID *ua.NodeID) (*Branch, error) {
	request := &ua.ReadRequest{TimestampsToReturn: ua.TimestampsToReturnNeither}
	for _, attribute := range []ua.AttributeID{ua.AttributeIDNodeClass, ua.AttributeIDBrowseName, ua.AttributeIDDisplayName} {
		request.NodesToRead = append(request.NodesToRead, &ua.ReadValueID{NodeID: nodeID, AttributeID: attribute, DataEncoding: &ua.QualifiedName{}})
	}
	response, err := session.Call[*ua.ReadResponse](ctx, s, request)
	if err != nil {
		return nil, err
	}
	if len(response.Results) != len(request.NodesToRead) {
		return nil, fmt.Errorf("read of %s gave %d results: %w", nodeID, len(response.Results), ua.StatusBadUnknownResponse)
	}
	b := &Branch{Node: nodeID.String(), id: nodeID}
	for i, v := range response.Results {
		if v == nil || v.Status != ua.StatusOK || v.Value == nil {
			status := ua.StatusBadUnknownResponse
			if v != nil && v.Status != ua.StatusOK {
				status = v.Status
			}
			return nil, fmt.Errorf("node %s: %s", nodeID, statusName(status))
		}
		switch value := v.Value.Value().(type) {
		case int32:
			b.Class = className(ua.NodeClass(value))
		case *ua.QualifiedName:
			b.BrowseName = plain(value).(string)
		case *ua.LocalizedText:
			b.DisplayName = value.Text
		default:
			return nil, fmt.Errorf("node %s: attribute %d is a %T", nodeID, request.NodesToRead[i].AttributeID, value)
		}
	}
	return b, nil
}

func className(c ua.NodeClass) string { return strings.TrimPrefix(c.String(), "NodeClass") }

// browser collects a tree.
type browser struct {
	session *session.Session
	seen    map[string]bool
	left    int // how many nodes may still be taken
}

// children lists what is below a few nodes.
func (b *browser) children(ctx context.Context, branches []*Branch) error {
	request := &ua.BrowseRequest{View: &ua.ViewDescription{ViewID: ua.NewTwoByteNodeID(0)}, RequestedMaxReferencesPerNode: browseReferences}
	for _, branch := range branches {
		request.NodesToBrowse = append(request.NodesToBrowse, &ua.BrowseDescription{
			NodeID: branch.id, BrowseDirection: ua.BrowseDirectionForward, ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences),
			IncludeSubtypes: true, ResultMask: uint32(ua.BrowseResultMaskAll),
		})
	}
	response, err := session.Call[*ua.BrowseResponse](ctx, b.session, request)
	if err != nil {
		return err
	}
	results := response.Results
	for page := 0; ; page++ { // One page of each node that has more.
		if len(results) != len(branches) {
			return fmt.Errorf("browse of %d nodes gave %d results: %w", len(branches), len(results), ua.StatusBadUnknownResponse)
		}
		var unfinished []*Branch
		var points [][]byte
		for i, result := range results {
			if result == nil {
				return fmt.Errorf("browse: %w", ua.StatusBadUnknownResponse)
			}
			if result.StatusCode != ua.StatusOK {
				branches[i].Status = statusName(result.StatusCode)
			}
			b.add(branches[i], result.References)
			if len(result.ContinuationPoint) > 0 {
				unfinished, points = append(unfinished, branches[i]), append(points, result.ContinuationPoint)
			}
		}
		if len(points) == 0 {
			return nil
		}
		release := b.left == 0 || page == browsePages
		next, err := session.Call[*ua.BrowseNextResponse](ctx, b.session, &ua.BrowseNextRequest{ReleaseContinuationPoints: release, ContinuationPoints: points})
		if err != nil {
			return err
		}
		if release {
			for _, branch := range unfinished {
				branch.More = true
			}
			return nil
		}
		branches, results = unfinished, next.Results
	}
}

// add hangs nodes below a node, as many as may be.
func (b *browser) add(parent *Branch, references []*ua.ReferenceDescription) {
	for _, r := range references {
		if r == nil || r.NodeID == nil || r.NodeID.NodeID == nil {
			continue
		}
		if b.left == 0 {
			parent.More = true
			return
		}
		b.left--
		child := &Branch{Node: r.NodeID.String(), Class: className(r.NodeClass), id: r.NodeID.NodeID}
		if r.BrowseName != nil {
			child.BrowseName = plain(r.BrowseName).(string)
		}
		if r.DisplayName != nil {
			child.DisplayName = r.DisplayName.Text
		}
		if r.TypeDefinition != nil && r.TypeDefinition.NodeID != nil && !isNull(r.TypeDefinition.NodeID) {
			child.Type = r.TypeDefinition.String()
		}
		if r.ReferenceTypeID != nil {
			child.Reference = r.ReferenceTypeID.String()
		}
		// A node of another server can't be followed here (Part 4 §7.16), nor one whose namespace has no index.
		child.Elsewhere = b.seen[child.Node] || r.NodeID.ServerIndex != 0 || r.NodeID.NamespaceURI != ""
		b.seen[child.Node] = true
		parent.Children = append(parent.Children, child)
	}
}

func isNull(n *ua.NodeID) bool {
	return n.Namespace() == 0 && n.IntID() == 0 && n.StringID() == ""
}
