package opcua

import (
	"strings"

	"quorate/opcua/channel"
	"quorate/opcua/server"
	"quorate/telemetry"
)

// numbers are what one scrape is told of the runtime.
type numbers struct {
	server.Stats
	counts   server.Counts
	channels channel.Stats
}

// measure registers the numbers of the runtime, which counts by itself.
func (e *Endpoint) measure(metrics *telemetry.Metrics) error {
	take := func() numbers { return numbers{e.server.Stats(), e.server.Counts(), e.server.Channels()} }
	return telemetry.Register(metrics, take,
		telemetry.Gauge("quorate_opcua_connections", "OPC UA connections that are open.", func(n numbers) int { return n.channels.Connections }),
		telemetry.Counter("quorate_opcua_connections_total", "OPC UA connections that got a place.", func(n numbers) uint64 { return n.channels.Accepted }),
		telemetry.CounterBy("quorate_opcua_connections_rejected_total", "OPC UA connections that this server refused or ended, by reason.",
			[]string{"reason"}, func(n numbers, report telemetry.Report) {
				for reason, count := range n.channels.Rejected {
					report(float64(count), string(reason))
				}
			}),
		telemetry.CounterBy("quorate_opcua_channels_opened_total", "Secure channels that were opened, by security policy.",
			[]string{"policy"}, func(n numbers, report telemetry.Report) {
				for _, c := range n.channels.Channels {
					report(float64(c.Opened), policyName(c.PolicyURI))
				}
			}),
		telemetry.CounterBy("quorate_opcua_channels_renewed_total", "Renewals of secure channels, by security policy.",
			[]string{"policy"}, func(n numbers, report telemetry.Report) {
				for _, c := range n.channels.Channels {
					report(float64(c.Renewed), policyName(c.PolicyURI))
				}
			}),
		telemetry.Counter("quorate_opcua_panics_total", "Panics that were confined to their OPC UA connection.", func(n numbers) uint64 { return n.channels.Panics }),
		telemetry.Gauge("quorate_opcua_incomplete_request_bytes", "Memory that OPC UA requests hold of which not all chunks have come.",
			func(n numbers) int64 { return n.channels.PartialBytes }),
		telemetry.Gauge("quorate_opcua_sessions", "OPC UA sessions.", func(n numbers) int { return n.Sessions }),
		telemetry.Gauge("quorate_opcua_subscriptions", "Subscriptions, those without a session included.", func(n numbers) int { return n.Subscriptions }),
		telemetry.Gauge("quorate_opcua_subscriptions_detached", "Subscriptions that have outlived their sessions.", func(n numbers) int { return n.DetachedSubscriptions }),
		telemetry.Gauge("quorate_opcua_monitored_items", "Monitored items, those of events included.", func(n numbers) int { return n.MonitoredItems }),
		telemetry.Gauge("quorate_opcua_monitored_items_of_events", "Monitored items that hear of events.", func(n numbers) int { return n.EventItems }),
		telemetry.Gauge("quorate_opcua_queue_places", "Places in the queues of all monitored items that have more than one.", func(n numbers) int { return n.QueuePlaces }),
		telemetry.Gauge("quorate_opcua_publishes_parked", "Publish requests that wait for something to be published.", func(n numbers) int { return n.ParkedPublishes }),
		telemetry.CounterBy("quorate_opcua_requests_total",
			"OPC UA requests that were answered, by service and result: good; denied for want of identity, trust or permission; limited, because a limit was reached; bad.",
			[]string{"service", "result"}, func(n numbers, report telemetry.Report) {
				for _, r := range n.counts.Requests {
					report(float64(r.Count), r.Service, r.Result)
				}
			}),
		telemetry.Counter("quorate_opcua_values_lost_total", "Values that monitored items lost because their queues were full. Queues of one place lose none.",
			func(n numbers) uint64 { return n.counts.LostValues }),
		telemetry.Counter("quorate_opcua_events_lost_total", "Events that monitored items lost because their queues were full.",
			func(n numbers) uint64 { return n.counts.LostEvents }),
		telemetry.GaugeBy("quorate_opcua_limit", "Limits as they are configured, by the metric that they bound: connections, sessions, subscriptions, monitored_items, queue_places.",
			[]string{"of"}, func(_ numbers, report telemetry.Report) {
				l, def := e.cfg.Limits, server.DefaultLimits
				report(float64(or(e.cfg.ChannelLimits.MaxConnections, channel.DefaultMaxConnections)), "connections")
				report(float64(or(l.MaxSessions, def.MaxSessions)), "sessions")
				report(float64(or(l.MaxSubscriptions, def.MaxSubscriptions)), "subscriptions")
				report(float64(or(l.MaxMonitoredItems, def.MaxMonitoredItems)), "monitored_items")
				report(float64(or(l.MaxQueuedValues, def.MaxQueuedValues)), "queue_places")
			}),
	)
}

// policyName is the last part of the URI of a security policy, such as Basic256Sha256.
func policyName(uri string) string { return uri[strings.LastIndexByte(uri, '#')+1:] }
