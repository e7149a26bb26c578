package opcua

import (
	"math"
	"runtime/debug"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/space"
	"quorate/redundancy"
)

const (
	productURI  = "urn:quorate"
	productName = "Quorate"
)

// clockSampling is how often, in milliseconds, a watched clock is worth a look.
const clockSampling = 100

func applicationName(member string) string { return productName + " " + member }

// statusNodes are ServerStatus and what stands beside it on the Server object (Part 5 §6.3.1, §12.10).
func (e *Endpoint) statusNodes(b *builder) {
	b.constant(id.Server_NamespaceArray, e.space.Namespaces())
	b.constant(id.Server_Auditing, false)
	b.constant(id.Server_ServerDiagnostics_EnabledFlag, false)
	b.override(id.Server_EstimatedReturnTime, e.estimatedReturn)
	b.override(id.Server_ServerStatus, e.serverStatus, sampled(clockSampling))
	b.constant(id.Server_ServerStatus_StartTime, e.start)
	b.override(id.Server_ServerStatus_CurrentTime, func(ctx space.ReadContext) *ua.DataValue { return good(ctx, ctx.Now) }, sampled(clockSampling))
	b.override(id.Server_ServerStatus_State, func(ctx space.ReadContext) *ua.DataValue { return good(ctx, int32(e.state())) })
	b.override(id.Server_ServerStatus_SecondsTillShutdown, e.secondsTillShutdown, sampled(1000))
	b.override(id.Server_ServerStatus_ShutdownReason, func(ctx space.ReadContext) *ua.DataValue {
		return good(ctx, e.shutdownReason())
	})
	b.constant(id.Server_ServerStatus_BuildInfo, ua.NewExtensionObject(&e.build))
	b.constant(id.Server_ServerStatus_BuildInfo_ProductURI, e.build.ProductURI)
	b.constant(id.Server_ServerStatus_BuildInfo_ManufacturerName, e.build.ManufacturerName)
	b.constant(id.Server_ServerStatus_BuildInfo_ProductName, e.build.ProductName)
	b.constant(id.Server_ServerStatus_BuildInfo_SoftwareVersion, e.build.SoftwareVersion)
	b.constant(id.Server_ServerStatus_BuildInfo_BuildNumber, e.build.BuildNumber)
	b.constant(id.Server_ServerStatus_BuildInfo_BuildDate, e.build.BuildDate)
}

// endingKeys are told of when the server is about to stop.
var endingKeys = []space.Key{
	standard(id.Server_ServerStatus), standard(id.Server_ServerStatus_State), standard(id.Server_ServerStatus_SecondsTillShutdown),
	standard(id.Server_ServerStatus_ShutdownReason), standard(redundantServerArray),
}

// state is the ServerState (Part 5 §12.6).
func (e *Endpoint) state() ua.ServerState {
	if e.ending.Load() != nil {
		return ua.ServerStateShutdown
	}
	if e.cfg.Redundancy.Level().Band == redundancy.Maintenance {
		return ua.ServerStateSuspended
	}
	return ua.ServerStateRunning
}

func (e *Endpoint) serverStatus(ctx space.ReadContext) *ua.DataValue {
	return good(ctx, ua.NewExtensionObject(&ua.ServerStatusDataType{
		StartTime:           e.start,
		CurrentTime:         ctx.Now,
		State:               e.state(),
		BuildInfo:           &e.build,
		SecondsTillShutdown: e.secondsLeft(ctx.Now),
		ShutdownReason:      e.shutdownReason(),
	}))
}

func (e *Endpoint) secondsTillShutdown(ctx space.ReadContext) *ua.DataValue {
	return good(ctx, e.secondsLeft(ctx.Now))
}

func (e *Endpoint) secondsLeft(now time.Time) uint32 {
	if ending := e.ending.Load(); ending != nil {
		return uint32(math.Ceil(max(ending.at.Sub(now), 0).Seconds()))
	}
	return 0
}

func (e *Endpoint) shutdownReason() *ua.LocalizedText {
	if ending := e.ending.Load(); ending != nil {
		return ua.NewLocalizedText(ending.reason)
	}
	return &ua.LocalizedText{}
}

// estimatedReturn is null unless an operator said, with the maintenance, when the server will be back. A declaration outlives that its server is in a set; then the
// server runs as any witness does.
func (e *Endpoint) estimatedReturn(ctx space.ReadContext) *ua.DataValue {
	m, ok := e.cfg.Group.Local().State.Maintenance(e.cfg.Member)
	if !ok || m.GetEstimatedReturn() == nil || e.cfg.Redundancy.Level().Band != redundancy.Maintenance {
		return null(ctx)
	}
	return good(ctx, m.GetEstimatedReturn().AsTime())
}

// buildInfo says what this program is, with what the Go tool chain recorded of its source.
func buildInfo(version string) ua.BuildInfo {
	b := ua.BuildInfo{ProductURI: productURI, ManufacturerName: productName, ProductName: productName, SoftwareVersion: version}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.BuildNumber = s.Value
			case "vcs.time":
				if at, err := time.Parse(time.RFC3339, s.Value); err == nil {
					b.BuildDate = at
				}
			}
		}
	}
	return b
}
