package opcua

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"quorate/opcua/session"
)

const (
	// MaxClientNodes is the most nodes of one Read or Watch.
	MaxClientNodes = 1000
	// DefaultPublishingInterval is a Watch's where none is given.
	DefaultPublishingInterval = 100 * time.Millisecond
	// MaxPublishingInterval is the longest that a Watch may ask for.
	MaxPublishingInterval = time.Minute

	// keepAlive is how long a server may be silent: then it says that it is still there.
	keepAlive = 2 * time.Second
	// silence is how long a Watch waits beyond a keep-alive that is due before it gives the connection up.
	silence = 3 * time.Second
	// publishTimeout bounds a Publish: more than the longest interval and what comes on top of it.
	publishTimeout = 2 * time.Minute
	// openTimeout bounds opening a session and its subscription.
	openTimeout = 10 * time.Second
	// firstReconnect and lastReconnect are the times between attempts to reconnect: they double.
	firstReconnect = 100 * time.Millisecond
	lastReconnect  = 2 * time.Second
	// watchQueue is how many changes a server keeps for each node between two publishes.
	watchQueue = 100
)

// ClientConfig says which server to talk to, and how.
type ClientConfig struct {
	// Endpoint is the URL of the server: opc.tcp://HOST:PORT[/PATH].
	Endpoint string
	// Options are the security and the user; zero is anonymous, and None where the server offers it.
	session.Options
}

// Reading is what was read of a node. It is made for people and for JSON.
type Reading struct {
	// Node is the node as the caller wrote it.
	Node string `json:"node"`
	// Value is nil, a bool, number, string, time.Time, a structure, or a slice of these.
	Value any `json:"value"`
	// Status is the symbolic name, such as Good or BadNodeIdUnknown.
	Status          string     `json:"status"`
	SourceTimestamp *time.Time `json:"sourceTimestamp,omitempty"`
	ServerTimestamp *time.Time `json:"serverTimestamp,omitempty"`
}

// wellKnown are the nodes that may be named instead of numbered, in lower case.
var wellKnown = map[string]uint32{
	"servicelevel":         id.Server_ServiceLevel,
	"serverarray":          id.Server_ServerArray,
	"namespacearray":       id.Server_NamespaceArray,
	"serverstatus":         id.Server_ServerStatus,
	"state":                id.Server_ServerStatus_State,
	"currenttime":          id.Server_ServerStatus_CurrentTime,
	"starttime":            id.Server_ServerStatus_StartTime,
	"buildinfo":            id.Server_ServerStatus_BuildInfo,
	"secondstillshutdown":  id.Server_ServerStatus_SecondsTillShutdown,
	"shutdownreason":       id.Server_ServerStatus_ShutdownReason,
	"estimatedreturntime":  id.Server_EstimatedReturnTime,
	"redundancysupport":    redundancySupport,
	"redundantserverarray": redundantServerArray,
	"serveruriarray":       serverURIArray,
	"currentserverid":      currentServerID,
}

// WellKnownNames returns the names that ParseNode takes, in lower case and sorted: for completions.
func WellKnownNames() []string { return slices.Sorted(maps.Keys(wellKnown)) }

// ParseNode returns the NodeId of a node: i=2267, ns=2;s=servers/m1/Role, or a well-known name in any case, such as ServiceLevel.
func ParseNode(s string) (*ua.NodeID, error) {
	if nodeID, ok := wellKnown[strings.ToLower(s)]; ok {
		return ua.NewNumericNodeID(0, nodeID), nil
	}
	if !strings.Contains(s, "=") { // Without it, any text at all is a NodeId to gopcua.
		return nil, fmt.Errorf("node %q: neither a NodeId, such as i=2267, nor one of %s", s, strings.Join(WellKnownNames(), ", "))
	}
	nodeID, err := ua.ParseNodeID(s)
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", s, err)
	}
	return nodeID, nil
}

func parseNodes(nodes []string) ([]*ua.NodeID, error) {
	if len(nodes) == 0 || len(nodes) > MaxClientNodes {
		return nil, fmt.Errorf("nodes: %d given, want 1 to %d", len(nodes), MaxClientNodes)
	}
	ids := make([]*ua.NodeID, len(nodes))
	for i, n := range nodes {
		var err error
		if ids[i], err = ParseNode(n); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// Read reads the values of nodes, once. A node that can't be read has its status in the result; an error is about the connection.
func Read(ctx context.Context, cfg ClientConfig, nodes ...string) ([]Reading, error) {
	ids, err := parseNodes(nodes)
	if err != nil {
		return nil, err
	}
	s, err := session.Open(ctx, cfg.Endpoint, cfg.Options)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	values, err := s.Read(ctx, ids...)
	if err != nil {
		return nil, err
	}
	readings := make([]Reading, len(values))
	for i, v := range values {
		readings[i] = ReadingOf(nodes[i], v)
	}
	return readings, nil
}

// Watch subscribes to nodes and calls fn with their first values and with each change, in order, until ctx ends, whose error it
// returns. interval is the publishing interval, 0 meaning the default. A first connection that fails is an error; one that is lost
// is made again, and meanwhile fn gets every node once with status BadNoCommunication.
func Watch(ctx context.Context, cfg ClientConfig, interval time.Duration, nodes []string, fn func(Reading)) error {
	ids, err := parseNodes(nodes)
	if err != nil {
		return err
	}
	if interval == 0 {
		interval = DefaultPublishingInterval
	}
	if interval < 0 || interval > MaxPublishingInterval {
		return fmt.Errorf("interval: %v is not within 0 and %v", interval, MaxPublishingInterval)
	}
	w := &watcher{cfg: cfg, interval: interval, nodes: nodes, ids: ids, fn: fn}
	delay := firstReconnect
	for first := true; ; first = false {
		reached, err := w.once(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !reached && first:
			return err
		case reached:
			delay = firstReconnect
			for _, n := range nodes {
				fn(ReadingOf(n, &ua.DataValue{Status: ua.StatusBadNoCommunication}))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
			delay = min(2*delay, lastReconnect)
		}
	}
}

type watcher struct {
	cfg      ClientConfig
	interval time.Duration
	nodes    []string
	ids      []*ua.NodeID
	fn       func(Reading)
}

// once watches over one connection until it fails. reached says whether the subscription was ever there.
func (w *watcher) once(ctx context.Context) (reached bool, err error) {
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	options := w.cfg.Options
	options.RequestTimeout = publishTimeout
	s, err := session.Open(opening, w.cfg.Endpoint, options)
	if err != nil {
		return false, err
	}
	defer s.Close()
	created, err := session.Call[*ua.CreateSubscriptionResponse](opening, s, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: float64(w.interval) / float64(time.Millisecond),
		RequestedMaxKeepAliveCount:  uint32(max(keepAlive/w.interval, 1)),
		RequestedLifetimeCount:      uint32(max(10*keepAlive/w.interval, 10)),
		PublishingEnabled:           true,
	})
	if err != nil {
		return false, fmt.Errorf("create a subscription: %w", err)
	}
	if err := w.monitor(opening, s, created.SubscriptionID); err != nil {
		return false, err
	}
	// The server may have revised both; a client that knows better than the server when to give up only flaps.
	quiet := time.Duration(created.RevisedPublishingInterval*float64(created.RevisedMaxKeepAliveCount))*time.Millisecond + silence
	var acks []*ua.SubscriptionAcknowledgement
	for {
		published, err := w.publish(ctx, s, quiet, acks)
		if err != nil {
			return true, err
		}
		acks = nil
		message := published.NotificationMessage
		if message == nil || len(message.NotificationData) == 0 {
			continue // A keep-alive, which is not acknowledged.
		}
		acks = []*ua.SubscriptionAcknowledgement{{SubscriptionID: published.SubscriptionID, SequenceNumber: message.SequenceNumber}}
		if err := w.deliver(message); err != nil {
			return true, err
		}
	}
}

// monitor asks for all nodes; a node that can't be monitored is told of with its status.
func (w *watcher) monitor(ctx context.Context, s *session.Session, subscription uint32) error {
	request := &ua.CreateMonitoredItemsRequest{SubscriptionID: subscription, TimestampsToReturn: ua.TimestampsToReturnBoth}
	for i, nodeID := range w.ids {
		request.ItemsToCreate = append(request.ItemsToCreate, &ua.MonitoredItemCreateRequest{
			ItemToMonitor:  &ua.ReadValueID{NodeID: nodeID, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
			MonitoringMode: ua.MonitoringModeReporting,
			RequestedParameters: &ua.MonitoringParameters{
				ClientHandle: uint32(i), QueueSize: watchQueue, DiscardOldest: true, SamplingInterval: 0,
			},
		})
	}
	response, err := session.Call[*ua.CreateMonitoredItemsResponse](ctx, s, request)
	if err != nil {
		return fmt.Errorf("create monitored items: %w", err)
	}
	if len(response.Results) != len(w.ids) {
		return fmt.Errorf("create monitored items: %d results for %d nodes", len(response.Results), len(w.ids))
	}
	for i, r := range response.Results {
		if r.StatusCode != ua.StatusOK {
			w.fn(ReadingOf(w.nodes[i], &ua.DataValue{Status: r.StatusCode}))
		}
	}
	return nil
}

// publish asks for the next message, and waits as long as a server that lives may be quiet.
func (w *watcher) publish(ctx context.Context, s *session.Session, quiet time.Duration, acks []*ua.SubscriptionAcknowledgement) (*ua.PublishResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	return session.Call[*ua.PublishResponse](ctx, s, &ua.PublishRequest{SubscriptionAcknowledgements: acks})
}

// deliver hands the changes of a message on.
func (w *watcher) deliver(message *ua.NotificationMessage) error {
	for _, data := range message.NotificationData {
		if data == nil {
			continue
		}
		switch n := data.Value.(type) {
		case *ua.DataChangeNotification:
			for _, item := range n.MonitoredItems {
				if int(item.ClientHandle) >= len(w.nodes) || item.Value == nil {
					return errors.New("the server notifies of what was not asked for")
				}
				w.fn(ReadingOf(w.nodes[item.ClientHandle], item.Value))
			}
		case *ua.StatusChangeNotification:
			return fmt.Errorf("the server ended the subscription: %w", n.Status)
		}
	}
	return nil
}
