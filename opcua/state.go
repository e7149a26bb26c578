package opcua

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	"quorate/opcua/space"
	"quorate/redundancy"
)

// The fixed nodes of the state namespace.
var (
	quorateKey = stateKey("quorate")
	serversKey = stateKey("servers")
)

// stateNodes are the fixed part of the state namespace.
func (e *Endpoint) stateNodes(b *builder) {
	b.object(standard(id.ObjectsFolder), space.Organizes, quorateKey, "Quorate", id.FolderType)
	b.object(quorateKey, space.Organizes, serversKey, "Servers", id.FolderType)
	e.topologyNodes(b)
	e.partitionNodes(b)
}

// stateFor is the replicated state that a value shows: one for all values of a request, so that what belongs together is read together.
func (e *Endpoint) stateFor(ctx space.ReadContext) *fsm.State {
	if ctx.Shared == nil {
		return e.cfg.Group.Local().State
	}
	state, ok := (*ctx.Shared).(*fsm.State)
	if !ok {
		state = e.cfg.Group.Local().State
		*ctx.Shared = state
	}
	return state
}

// serverVariables are what the state namespace shows of each server. All members show the same of the replicated state; of
// the band a member knows its own, and what its probes saw of the servers of its set.
var serverVariables = []struct {
	variable
	value func(e *Endpoint, ctx space.ReadContext, state *fsm.State, server string) *ua.DataValue
}{
	{variable{"Set", "The redundant set that the server is in.", id.String, false}, (*Endpoint).serverSet},
	{variable{"Role", "The server's declared role under the generation that it adopted: Primary or Backup.", id.String, false}, (*Endpoint).serverRole},
	{variable{"ConfigGenerationId", "The number of the topology that the server adopted.", id.UInt64, false}, (*Endpoint).serverGeneration},
	{variable{"TopologyDigest", "SHA-256 of the topology that the server adopted, in hex.", id.String, false}, (*Endpoint).serverDigest},
	{variable{"AppliedGeneration", "The number of the last topology that the server applied well; 0 if it has applied none.", id.UInt64, false}, (*Endpoint).serverApplied},
	{variable{"Band", "The name of the server's ServiceLevel.", id.String, false}, (*Endpoint).serverBand},
	{variable{"BandReasons", "Why the band is what it is; known of the server that is asked only.", id.String, true}, (*Endpoint).serverReasons},
	{variable{"Revision", "The revision of the replicated state that these values reflect.", id.UInt64, false}, (*Endpoint).revision},
}

func serverKey(server string) space.Key { return stateKey("servers/" + server) }

func serverVariableKey(server, name string) space.Key {
	return stateKey("servers/" + server + "/" + name)
}

// followTopology makes the servers' nodes those of the current topology, and collects the keys that are pushed.
func (e *Endpoint) followTopology() error {
	wanted := map[string]struct{}{}
	for _, set := range e.cfg.Group.Local().State.CurrentGeneration().GetTopology().GetSets() {
		for _, s := range set.GetServers() {
			wanted[s.GetMember()] = struct{}{}
		}
	}
	if maps.Equal(wanted, e.servers) && e.pushed.Load() != nil {
		return nil
	}
	if err := e.table.Edit(func(edit *space.Edit) error {
		b := &builder{edit: edit}
		for server := range e.servers {
			if _, ok := wanted[server]; !ok {
				removeServer(b, server)
			}
		}
		for _, server := range slices.Sorted(maps.Keys(wanted)) {
			if _, ok := e.servers[server]; !ok {
				e.addServer(b, server)
			}
		}
		return b.err
	}); err != nil {
		return fmt.Errorf("servers of the topology: %w", err)
	}
	e.servers = wanted
	p := &pushed{byLevel: slices.Clone(levelKeys), byState: slices.Concat(redundancyKeys, topologyKeys, partitionCountKeys)}
	for server := range wanted {
		p.byLevel = append(p.byLevel, serverVariableKey(server, "Band"), serverVariableKey(server, "BandReasons"))
		p.byState = append(p.byState, serverKeys(server)...)
	}
	e.pushed.Store(p)
	return nil
}

func (e *Endpoint) addServer(b *builder, server string) {
	b.object(serversKey, space.Organizes, serverKey(server), server, id.BaseObjectType)
	for _, v := range serverVariables {
		b.variable(serverKey(server), serverVariableKey(server, v.name), v.variable, func(ctx space.ReadContext) *ua.DataValue {
			return v.value(e, ctx, e.stateFor(ctx), server)
		})
	}
	e.addApply(b, server)
}

func removeServer(b *builder, server string) {
	for _, k := range serverKeys(server) {
		b.edit.Remove(k)
	}
	b.edit.Remove(applyKey(server))
	b.edit.Remove(serverKey(server))
}

// serverKeys are the keys of all variables of a server.
func serverKeys(server string) []space.Key {
	var list []space.Key
	for _, v := range serverVariables {
		list = append(list, serverVariableKey(server, v.name))
	}
	return append(list, applyKeys(server)...)
}

func (e *Endpoint) serverSet(ctx space.ReadContext, state *fsm.State, server string) *ua.DataValue {
	set, _, ok := state.Server(server)
	if !ok {
		return bad(ctx, ua.StatusBadNodeIDUnknown) // It left the topology a moment ago.
	}
	return good(ctx, set.GetId())
}

func (e *Endpoint) serverRole(ctx space.ReadContext, state *fsm.State, server string) *ua.DataValue {
	if role, ok := roleOf(state, server); ok {
		return good(ctx, role)
	}
	return bad(ctx, ua.StatusBadNodeIDUnknown)
}

// roleOf returns the role of a server under the generation that it adopted.
func roleOf(state *fsm.State, server string) (string, bool) {
	for _, set := range adopted(state, server).GetTopology().GetSets() {
		for _, s := range set.GetServers() {
			if s.GetMember() == server {
				return s.GetRole(), true
			}
		}
	}
	if _, s, ok := state.Server(server); ok { // It has adopted none yet, or one that it was not in.
		return s.GetRole(), true
	}
	return "", false
}

func (e *Endpoint) serverGeneration(ctx space.ReadContext, state *fsm.State, server string) *ua.DataValue {
	record, _ := state.Member(server)
	return good(ctx, record.GetAdoptedGeneration())
}

func (e *Endpoint) serverDigest(ctx space.ReadContext, state *fsm.State, server string) *ua.DataValue {
	g := adopted(state, server)
	if g.GetDigest() == "" {
		return null(ctx)
	}
	return good(ctx, g.GetDigest())
}

func (e *Endpoint) serverApplied(ctx space.ReadContext, state *fsm.State, server string) *ua.DataValue {
	return good(ctx, state.AppliedGeneration(server))
}

func (e *Endpoint) revision(ctx space.ReadContext, state *fsm.State, _ string) *ua.DataValue {
	return good(ctx, state.Revision())
}

// serverBand is live for this server. Of a peer it is what the last good probe saw, with a status that says so once the peer is
// unreachable; of a server of another set nothing is known here.
func (e *Endpoint) serverBand(ctx space.ReadContext, state *fsm.State, server string) *ua.DataValue {
	if server == e.cfg.Member {
		return good(ctx, e.cfg.Redundancy.Level().Band.String())
	}
	peer, ok := e.cfg.Redundancy.Peer(server)
	if !ok || !peer.Known {
		return bad(ctx, ua.StatusBadNoCommunication)
	}
	set, s, _ := state.Server(server)
	band, ok := redundancy.PoliciesOf(set).BandOf(peer.ServiceLevel, s.GetRole())
	if !ok { // The peer is still, or already, under another topology.
		return bad(ctx, ua.StatusBadWaitingForInitialData)
	}
	v := &ua.DataValue{Value: ua.MustVariant(band.String()), SourceTimestamp: peer.LastSeen}
	if !peer.Reachable {
		v.Status = ua.StatusUncertainNoCommunicationLastUsableValue
	}
	return v
}

func (e *Endpoint) serverReasons(ctx space.ReadContext, _ *fsm.State, server string) *ua.DataValue {
	if server != e.cfg.Member {
		return bad(ctx, ua.StatusBadNoCommunication)
	}
	return good(ctx, append([]string{}, e.cfg.Redundancy.Level().Reasons...))
}
