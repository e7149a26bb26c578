package space

// Nodes of namespace 0 that the rules of the address space itself speak of (Part 5, Part 6 annex A).
var (
	HasTypeDefinition = NumericKey(0, 40)
	HasSubtype        = NumericKey(0, 45)
	HasProperty       = NumericKey(0, 46)
	HasComponent      = NumericKey(0, 47)
	Organizes         = NumericKey(0, 35)

	structureType        = NumericKey(0, 22)
	baseDataVariableType = NumericKey(0, 63)
)
