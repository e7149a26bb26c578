package space

import "github.com/gopcua/opcua/ua"

// attribute returns the value of any attribute but Value of a Variable, in a form that ua.NewVariant takes. Attributes
// that the node's class does not have, and optional ones that are absent, are BadAttributeIdInvalid (Part 3 §5.2 to
// §5.8).
func (n *Node) attribute(id ua.AttributeID) (any, ua.StatusCode) {
	switch id {
	case ua.AttributeIDNodeID:
		return n.Key.NodeID(), ua.StatusOK
	case ua.AttributeIDNodeClass:
		return int32(n.Class), ua.StatusOK
	case ua.AttributeIDBrowseName:
		return &n.BrowseName, ua.StatusOK
	case ua.AttributeIDDisplayName:
		return &n.DisplayName, ua.StatusOK
	case ua.AttributeIDDescription:
		return optionalText(&n.Description)
	case ua.AttributeIDWriteMask, ua.AttributeIDUserWriteMask:
		return uint32(0), ua.StatusOK // No attribute but Value is ever writable.
	}
	var v any
	switch n.Class {
	case ua.NodeClassObject:
		if id == ua.AttributeIDEventNotifier {
			v = n.EventNotifier
		}
	case ua.NodeClassVariable:
		v = n.variableAttribute(id)
	case ua.NodeClassMethod:
		if id == ua.AttributeIDExecutable || id == ua.AttributeIDUserExecutable {
			v = n.Executable
		}
	case ua.NodeClassObjectType, ua.NodeClassVariableType, ua.NodeClassReferenceType, ua.NodeClassDataType:
		v = n.typeAttribute(id)
	case ua.NodeClassView:
		v = n.viewAttribute(id)
	}
	if v == nil {
		return nil, ua.StatusBadAttributeIDInvalid
	}
	return v, ua.StatusOK
}

// variableAttribute returns an attribute of Variable (Part 3 §5.6.2), or nil.
func (n *Node) variableAttribute(id ua.AttributeID) any {
	switch id {
	case ua.AttributeIDAccessLevel, ua.AttributeIDUserAccessLevel:
		return n.AccessLevel
	case ua.AttributeIDAccessLevelEx:
		return uint32(n.AccessLevel)
	case ua.AttributeIDMinimumSamplingInterval:
		return n.MinimumSamplingInterval
	case ua.AttributeIDHistorizing:
		return n.Historizing
	}
	return n.dataAttribute(id)
}

// dataAttribute returns an attribute that Variable and VariableType share, or nil.
func (n *Node) dataAttribute(id ua.AttributeID) any {
	switch id {
	case ua.AttributeIDDataType:
		return n.DataType.NodeID()
	case ua.AttributeIDValueRank:
		return n.ValueRank
	case ua.AttributeIDArrayDimensions:
		if n.ArrayDimensions != nil {
			return n.ArrayDimensions
		}
	}
	return nil
}

// typeAttribute returns an attribute of the four type classes (Part 3 §5.3.2, §5.5.2, §5.6.5, §5.8.3), or nil.
func (n *Node) typeAttribute(id ua.AttributeID) any {
	if id == ua.AttributeIDIsAbstract {
		return n.IsAbstract
	}
	switch n.Class {
	case ua.NodeClassVariableType:
		return n.dataAttribute(id)
	case ua.NodeClassReferenceType:
		switch {
		case id == ua.AttributeIDSymmetric:
			return n.Symmetric
		case id == ua.AttributeIDInverseName && n.InverseName.Text != "":
			return &n.InverseName
		}
	case ua.NodeClassDataType:
		if id == ua.AttributeIDDataTypeDefinition && n.DataTypeDefinition != nil {
			return ua.NewExtensionObject(n.DataTypeDefinition())
		}
	}
	return nil
}

// viewAttribute returns an attribute of View (Part 3 §5.4), or nil.
func (n *Node) viewAttribute(id ua.AttributeID) any {
	switch id {
	case ua.AttributeIDEventNotifier:
		return n.EventNotifier
	case ua.AttributeIDContainsNoLoops:
		return n.ContainsNoLoops
	}
	return nil
}

func optionalText(t *ua.LocalizedText) (any, ua.StatusCode) {
	if t.Text == "" {
		return nil, ua.StatusBadAttributeIDInvalid
	}
	return t, ua.StatusOK
}
