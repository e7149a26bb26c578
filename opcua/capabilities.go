package opcua

import (
	"slices"
	"time"

	"github.com/gopcua/opcua/id"

	"quorate/opcua/server"
	"quorate/opcua/space"
	"quorate/opcua/wire"
)

// unsupported is what the standard's Server object has room for and this server doesn't have: a client that finds a node
// may rely on it.
var unsupported = keys(
	id.Server_URIsVersion, id.Server_LocalTime, id.Server_SetSubscriptionDurable,
	id.Server_ServerRedundancy_ServerNetworkGroups, id.ServerConfiguration, id.PublishSubscribe,
	id.Dictionaries, id.Resources, id.Server_ServerCapabilities_RoleSet, id.HistoryServerCapabilities,
	id.Server_ServerCapabilities_AggregateFunctions, id.Server_ServerCapabilities_SoftwareCertificates,
	id.Server_ServerCapabilities_ConformanceUnits,
	id.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadEvents,
	id.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryUpdateData, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryUpdateEvents,
	id.Server_ServerCapabilities_OperationLimits_MaxNodesPerNodeManagement,
)

// unsupported is what the standard has and this server doesn't have, as it is configured.
func (c *Config) unsupported() []space.Key {
	if c.SetMaintenance != nil {
		return unsupported
	}
	return append(slices.Clone(unsupported), standard(id.Server_RequestServerStateChange))
}

func keys(ids ...uint32) []space.Key {
	list := make([]space.Key, len(ids))
	for i, nodeID := range ids {
		list[i] = standard(nodeID)
	}
	return list
}

// capabilityNodes publish the limits that the runtime enforces (Part 5 §6.3.2).
func (e *Endpoint) capabilityNodes(b *builder) {
	l, def := e.cfg.Limits, server.DefaultLimits
	limit := func(set, standard int) uint32 { return uint32(or(set, standard)) }
	operations := limit(l.MaxOperations, def.MaxOperations)
	b.constant(id.Server_ServerCapabilities_ServerProfileArray, []string{}) // None is claimed before it is tested.
	b.constant(id.Server_ServerCapabilities_LocaleIDArray, []string{"en"})
	b.constant(id.Server_ServerCapabilities_MinSupportedSampleRate, float64(or(l.MinSamplingInterval, def.MinSamplingInterval))/float64(time.Millisecond))
	b.constant(id.Server_ServerCapabilities_MaxBrowseContinuationPoints, uint16(or(l.MaxContinuationPoints, def.MaxContinuationPoints)))
	b.constant(id.Server_ServerCapabilities_MaxQueryContinuationPoints, uint16(0))
	b.constant(id.Server_ServerCapabilities_MaxHistoryContinuationPoints, uint16(0))
	decoding, defaults := e.cfg.ChannelLimits.Decoding, wire.DefaultLimits
	b.constant(id.Server_ServerCapabilities_MaxArrayLength, limit(decoding.MaxArrayLength, defaults.MaxArrayLength))
	b.constant(id.Server_ServerCapabilities_MaxStringLength, limit(decoding.MaxStringLength, defaults.MaxStringLength))
	b.constant(id.Server_ServerCapabilities_MaxByteStringLength, limit(decoding.MaxByteStringLength, defaults.MaxByteStringLength))
	b.constant(id.Server_ServerCapabilities_MaxSessions, limit(l.MaxSessions, def.MaxSessions))
	b.constant(id.Server_ServerCapabilities_MaxSubscriptions, limit(l.MaxSubscriptions, def.MaxSubscriptions))
	b.constant(id.Server_ServerCapabilities_MaxMonitoredItems, limit(l.MaxMonitoredItems, def.MaxMonitoredItems))
	b.constant(id.Server_ServerCapabilities_MaxSubscriptionsPerSession, limit(l.MaxSubscriptionsPerSession, def.MaxSubscriptionsPerSession))
	b.constant(id.Server_ServerCapabilities_MaxMonitoredItemsPerSubscription, limit(l.MaxItemsPerSubscription, def.MaxItemsPerSubscription))
	b.constant(id.Server_ServerCapabilities_MaxMonitoredItemsQueueSize, limit(l.MaxQueueSize, def.MaxQueueSize))
	b.constant(id.Server_ServerCapabilities_OperationLimits_MaxNodesPerMethodCall, limit(l.MaxMethodsPerCall, def.MaxMethodsPerCall))
	b.constant(id.Server_ServerCapabilities_MaxSelectClauseParameters, limit(l.MaxSelectClauses, def.MaxSelectClauses))
	b.constant(id.Server_ServerCapabilities_MaxWhereClauseParameters, limit(l.MaxWhereOperands, def.MaxWhereOperands))
	for _, nodeID := range []uint32{
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead, id.Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRegisterNodes,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIDs,
		id.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
	} {
		b.constant(nodeID, operations)
	}
}

// or gives the default where nothing is set.
func or[T int | time.Duration](set, standard T) T {
	if set == 0 {
		return standard
	}
	return set
}
