package opcua

import (
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

// The variables of ServerRedundancy that gopcua's ids know by the names of the standard's file.
const (
	redundancySupport    = id.Server_ServerRedundancy_RedundancySupport
	redundantServerArray = id.Server_ServerRedundancy_RedundantServerArray
	serverURIArray       = id.Server_ServerRedundancy_ServerURIArray
	currentServerID      = id.Server_ServerRedundancy_CurrentServerID
)

// redundancyNodes are the nodes of redundancy.md §7 that say who else serves, and how fit this server is (Part 5 §6.3.7 to §6.3.10).
func (e *Endpoint) redundancyNodes(b *builder) {
	b.override(id.Server_ServiceLevel, e.serviceLevel, momentary)
	b.override(id.Server_ServerArray, e.serverArray)
	b.override(id.Server_ServerRedundancy, nil, func(n *space.Node) { n.TypeDefinition = standard(id.NonTransparentRedundancyType) })
	b.override(redundancySupport, e.redundancySupport)
	b.override(redundantServerArray, e.redundantServerArray, array, momentary)
	b.override(serverURIArray, e.serverURIArray, array)
	b.override(currentServerID, e.currentServerID)
	// These hang nowhere in the standard's file, because only redundant servers have them.
	for _, property := range []uint32{redundantServerArray, serverURIArray, currentServerID} {
		b.edit.Link(standard(id.Server_ServerRedundancy), space.HasProperty, standard(property))
	}
}

// momentary is a value that depends on the serving lease: a process that was stopped must not go on with one of before.
func momentary(n *space.Node) { n.Momentary = true }

func array(n *space.Node) { n.ValueRank, n.ArrayDimensions = space.RankOneDimension, nil }

// levelKeys are told of when the level moved or what is known of a peer.
var levelKeys = []space.Key{
	standard(id.Server_ServiceLevel), standard(redundantServerArray), standard(id.Server_ServerStatus_State),
}

// redundancyKeys are told of when something was applied.
var redundancyKeys = []space.Key{
	standard(id.Server_ServiceLevel), standard(id.Server_ServerArray), standard(redundancySupport), standard(redundantServerArray),
	standard(serverURIArray), standard(id.Server_ServerStatus_State), standard(id.Server_EstimatedReturnTime),
}

// levels are the variants of all ServiceLevels: it is the value that is read most.
var levels = func() (v [256]*ua.Variant) {
	for i := range v {
		v[i] = ua.MustVariant(byte(i))
	}
	return v
}()

func (e *Endpoint) serviceLevel(ctx space.ReadContext) *ua.DataValue {
	return &ua.DataValue{Value: levels[e.cfg.Redundancy.Level().Value], SourceTimestamp: ctx.Now}
}

// set returns this member's set, and its servers in the order that all arrays have: self first, then the others by
// ApplicationUri. A witness is in no set.
func (e *Endpoint) set() (set *quoratev1.RedundantSet, servers []*quoratev1.RedundantServer) {
	set, self, ok := e.cfg.Group.Local().State.Server(e.cfg.Member)
	if !ok {
		return nil, nil
	}
	servers = slices.SortedFunc(slices.Values(set.GetServers()), func(a, b *quoratev1.RedundantServer) int {
		switch {
		case a == b:
			return 0
		case a.GetMember() == self.GetMember():
			return -1
		case b.GetMember() == self.GetMember():
			return 1
		}
		return strings.Compare(a.GetApplicationUri(), b.GetApplicationUri())
	})
	return set, servers
}

// serverArray has this application's own URI first, whatever the topology says (Part 5 §6.3.1).
func (e *Endpoint) serverArray(ctx space.ReadContext) *ua.DataValue {
	uris := []string{e.cfg.ApplicationURI}
	_, servers := e.set()
	for _, s := range servers {
		if uri := s.GetApplicationUri(); s.GetMember() != e.cfg.Member && uri != e.cfg.ApplicationURI {
			uris = append(uris, uri)
		}
	}
	return good(ctx, uris)
}

func (e *Endpoint) serverURIArray(ctx space.ReadContext) *ua.DataValue {
	uris := []string{}
	_, servers := e.set()
	for _, s := range servers {
		uris = append(uris, s.GetApplicationUri())
	}
	return good(ctx, uris)
}

// support maps a set's mode to RedundancySupport (Part 5 §12.5).
func support(set *quoratev1.RedundantSet) ua.RedundancySupport {
	switch set.GetMode() {
	case "COLD":
		return ua.RedundancySupportCold
	case "WARM":
		return ua.RedundancySupportWarm
	case "HOT":
		return ua.RedundancySupportHot
	}
	return ua.RedundancySupportNone
}

func (e *Endpoint) redundancySupport(ctx space.ReadContext) *ua.DataValue {
	set, _ := e.set()
	return good(ctx, int32(support(set)))
}

func (e *Endpoint) currentServerID(ctx space.ReadContext) *ua.DataValue {
	return good(ctx, e.cfg.Member)
}

// redundantServerArray has this server's own level and state, and of the others what the probes saw last. A server that can't be
// reached is in an unknown state, without data: its last level would draw clients to it.
func (e *Endpoint) redundantServerArray(ctx space.ReadContext) *ua.DataValue {
	list := []*ua.ExtensionObject{}
	_, servers := e.set()
	for _, s := range servers {
		d := &ua.RedundantServerDataType{ServerID: s.GetMember(), ServiceLevel: redundancy.NoData.Value(s.GetRole()), ServerState: ua.ServerStateUnknown}
		if s.GetMember() == e.cfg.Member {
			d.ServiceLevel, d.ServerState = e.cfg.Redundancy.Level().Value, e.state()
		} else if peer, ok := e.cfg.Redundancy.Peer(s.GetMember()); ok && peer.Known && peer.Reachable {
			d.ServiceLevel, d.ServerState = peer.ServiceLevel, peer.State
		}
		list = append(list, ua.NewExtensionObject(d))
	}
	return good(ctx, list)
}

// discover is FindServers' list: every server of the set, with the URL that the topology gives (Part 4 §6.6.2.4.5).
func (e *Endpoint) discover() []*ua.ApplicationDescription {
	_, servers := e.set()
	list := make([]*ua.ApplicationDescription, 0, len(servers))
	for _, s := range servers {
		list = append(list, &ua.ApplicationDescription{
			ApplicationURI:  s.GetApplicationUri(),
			ProductURI:      productURI,
			ApplicationName: ua.NewLocalizedText(applicationName(s.GetMember())),
			ApplicationType: ua.ApplicationTypeServer,
			DiscoveryURLs:   []string{s.GetEndpointUrl()},
		})
	}
	return list
}
