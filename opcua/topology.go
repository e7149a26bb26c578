package opcua

import (
	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
)

var topologyKey = stateKey("topology")

// topologyVariables show the current topology. Before the first publish all but the number are null.
var topologyVariables = []struct {
	variable
	value func(g *quoratev1.Generation) any
}{
	{variable{"ConfigGenerationId", "The number of the current topology, 0 before the first publish.", id.UInt64, false},
		func(g *quoratev1.Generation) any { return g.GetNumber() }},
	{variable{"TopologyDigest", "SHA-256 of the current topology, in hex.", id.String, false},
		func(g *quoratev1.Generation) any { return g.GetDigest() }},
	{variable{"PublishedAt", "Wall time of the publish.", id.UtcTime, false},
		func(g *quoratev1.Generation) any { return g.GetPublishedAt().AsTime() }},
	{variable{"PublishedBy", "Who published it.", id.String, false},
		func(g *quoratev1.Generation) any { return g.GetActor().GetName() }},
}

var topologyKeys = func() (list []space.Key) {
	for _, v := range topologyVariables {
		list = append(list, topologyVariableKey(v.name))
	}
	return list
}()

func topologyVariableKey(name string) space.Key { return stateKey("topology/" + name) }

func (e *Endpoint) topologyNodes(b *builder) {
	b.object(quorateKey, space.HasComponent, topologyKey, "Topology", id.BaseObjectType)
	for _, v := range topologyVariables {
		b.variable(topologyKey, topologyVariableKey(v.name), v.variable, func(ctx space.ReadContext) *ua.DataValue {
			g := e.stateFor(ctx).CurrentGeneration()
			if g == nil && v.name != "ConfigGenerationId" {
				return null(ctx)
			}
			return good(ctx, v.value(g))
		})
	}
}

// adopted returns the generation that a server adopted, or nil.
func adopted(state *fsm.State, server string) *quoratev1.Generation {
	record, ok := state.Member(server)
	if !ok || record.GetAdoptedGeneration() == 0 {
		return nil
	}
	g, _ := state.Generation(record.GetAdoptedGeneration())
	return g
}
