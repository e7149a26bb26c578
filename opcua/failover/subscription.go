package failover

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gopcua/opcua/ua"
)

// Client handles: what the server says of itself, and then the nodes.
const (
	levelHandle   = 0
	setHandle     = 1
	supportHandle = 2
	nodeHandle    = 3
)

const (
	// itemsPerCall bounds the items of one request: servers may have limits, and few are below.
	itemsPerCall = 200
	// maxRepublish bounds how many messages of a gap are asked for; servers keep about as many as Publish requests may wait.
	maxRepublish = 100
	// lifetime is the life of a subscription in keep-alives: after that much silence of ours the server drops it.
	lifetime = 10
)

// subscription is the one subscription of a connection. It has the server's own variables and, from the role disabled on, the
// nodes. Only publish and next run beside the other methods; they share id, quiet and conn, which do not change after create.
type subscription struct {
	link *link
	conn conn
	url  string

	id    uint32
	quiet time.Duration // after it the server is taken for dead

	role  role
	items []uint32    // ids of the monitored nodes, once they were made
	bad   []itemValue // nodes that can't be monitored
	told  [2]bool     // whether setHandle and supportHandle had their first value

	next uint32 // the sequence number that is expected; publish's own
}

// create makes the subscription, with what the server says of itself.
func (s *subscription) create(ctx context.Context) error {
	cfg := &s.link.client.cfg
	keepAlives := max(math.Round(float64(cfg.KeepAlive)/float64(cfg.PublishingInterval)), 1)
	created, err := send[*ua.CreateSubscriptionResponse](ctx, s.conn, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: milliseconds(cfg.PublishingInterval),
		RequestedMaxKeepAliveCount:  uint32(keepAlives),
		RequestedLifetimeCount:      uint32(lifetime * keepAlives),
		PublishingEnabled:           true,
	})
	if err != nil {
		return err
	}
	s.id, s.next = created.SubscriptionID, 1
	// The server may have revised both.
	quiet := created.RevisedPublishingInterval * float64(created.RevisedMaxKeepAliveCount)
	if !(quiet > 0 && quiet < milliseconds(publishTimeout)) {
		quiet = milliseconds(publishTimeout) // Nonsense; the request's own time-out still counts.
	}
	s.quiet = time.Duration(quiet*float64(time.Millisecond)) + silence
	results, err := s.monitor(ctx, ua.MonitoringModeReporting, levelHandle, serviceLevel, serverURIArray, redundancySupport)
	if err != nil {
		return err
	}
	// A server that knows no ServiceLevel can't be watched, and need not; it may know no set either.
	if status := results[0].StatusCode; status != ua.StatusOK && status != ua.StatusBadNodeIDUnknown {
		return fmt.Errorf("monitor ServiceLevel: %w", status)
	}
	return nil
}

// monitor makes items; their handles count from first.
func (s *subscription) monitor(ctx context.Context, mode ua.MonitoringMode, first int, nodes ...*ua.NodeID) ([]*ua.MonitoredItemCreateResult, error) {
	cfg := &s.link.client.cfg
	request := &ua.CreateMonitoredItemsRequest{SubscriptionID: s.id, TimestampsToReturn: ua.TimestampsToReturnBoth}
	for i, n := range nodes {
		parameters := &ua.MonitoringParameters{ClientHandle: uint32(first + i), QueueSize: 1, DiscardOldest: true}
		if first >= nodeHandle {
			parameters.QueueSize, parameters.SamplingInterval = cfg.QueueSize, milliseconds(cfg.SamplingInterval)
		}
		request.ItemsToCreate = append(request.ItemsToCreate, &ua.MonitoredItemCreateRequest{
			ItemToMonitor:       &ua.ReadValueID{NodeID: n, AttributeID: ua.AttributeIDValue, DataEncoding: &ua.QualifiedName{}},
			MonitoringMode:      mode,
			RequestedParameters: parameters,
		})
	}
	response, err := send[*ua.CreateMonitoredItemsResponse](ctx, s.conn, request)
	if err != nil {
		return nil, err
	}
	if len(response.Results) != len(nodes) {
		return nil, fmt.Errorf("create monitored items: %d results for %d nodes", len(response.Results), len(nodes))
	}
	for _, r := range response.Results {
		if r == nil {
			return nil, errors.New("create monitored items: a result is missing")
		}
	}
	return response.Results, nil
}

// mode is the monitoring mode of the nodes in a role.
func (r role) mode() ua.MonitoringMode {
	switch r {
	case sampling:
		return ua.MonitoringModeSampling
	case reporting:
		return ua.MonitoringModeReporting
	}
	return ua.MonitoringModeDisabled
}

// enter puts the nodes into a role, and reports those that can't be monitored when they should report.
func (s *subscription) enter(ctx context.Context, r role) error {
	nodes := s.link.client.cfg.Nodes
	switch {
	case r >= disabled && s.role < disabled && s.items == nil:
		for at := 0; at < len(nodes); at += itemsPerCall {
			part := nodes[at:min(at+itemsPerCall, len(nodes))]
			results, err := s.monitor(ctx, r.mode(), nodeHandle+at, part...)
			if err != nil {
				return err
			}
			for i, result := range results {
				if result.StatusCode != ua.StatusOK {
					s.bad = append(s.bad, itemValue{at + i, &ua.DataValue{EncodingMask: ua.DataValueStatusCode, Status: result.StatusCode}, true})
					continue
				}
				s.items = append(s.items, result.MonitoredItemID)
			}
		}
	case r.mode() != s.role.mode():
		for at := 0; at < len(s.items); at += itemsPerCall {
			part := s.items[at:min(at+itemsPerCall, len(s.items))]
			response, err := send[*ua.SetMonitoringModeResponse](ctx, s.conn, &ua.SetMonitoringModeRequest{
				SubscriptionID: s.id, MonitoringMode: r.mode(), MonitoredItemIDs: part,
			})
			if err != nil {
				return err
			}
			for _, status := range response.Results {
				if status != ua.StatusOK {
					return fmt.Errorf("set monitoring mode: %w", status)
				}
			}
		}
	}
	if r == reporting && s.role != reporting && len(s.bad) > 0 {
		s.link.report(ctx, event{values: s.bad})
	}
	s.role = r
	return nil
}

// returns reads EstimatedReturnTime, zero where there is none.
func (s *subscription) returns(ctx context.Context) time.Time {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	values, err := readValues(ctx, s.conn, estimatedReturnTime)
	if err != nil {
		return time.Time{} // The server is in maintenance: it may be as good as gone.
	}
	return timeOf(values[0])
}

// message is what a Publish gave.
type message struct {
	items []*ua.MonitoredItemNotification
	lost  int // messages before it that can't be had again
	err   error
}

// publish asks for one message after another, until one fails or the context ends.
func (s *subscription) publish(ctx context.Context, to chan<- message) {
	var acks []*ua.SubscriptionAcknowledgement
	for {
		sent := time.Now()
		m, received := s.receive(ctx, acks)
		acks = received
		// A server that answers at once with nothing would keep both sides busy for nothing.
		if early := s.link.client.cfg.PublishingInterval/2 - time.Since(sent); early > 0 && m.err == nil && len(m.items) == 0 {
			pause := time.NewTimer(early)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
			}
		}
		select {
		case to <- m:
			if m.err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// receive waits for the next message, and fetches what was missed before it. received are to be acknowledged.
func (s *subscription) receive(ctx context.Context, acks []*ua.SubscriptionAcknowledgement) (m message, received []*ua.SubscriptionAcknowledgement) {
	within, cancel := context.WithTimeout(ctx, s.quiet)
	defer cancel()
	response, err := send[*ua.PublishResponse](within, s.conn, &ua.PublishRequest{SubscriptionAcknowledgements: acks})
	if err != nil {
		if within.Err() != nil && ctx.Err() == nil {
			err = fmt.Errorf("the server was silent for %v: %w", s.quiet, err)
		}
		return message{err: err}, nil
	}
	n := response.NotificationMessage
	if n == nil || response.SubscriptionID != s.id {
		return message{err: fmt.Errorf("publish: %w", ua.StatusBadUnknownResponse)}, nil
	}
	// A keep-alive has the number of the message that is next (Part 4 §5.14.1.1), so it shows a gap too.
	for missing := 0; s.next != n.SequenceNumber; missing++ {
		if missing == maxRepublish {
			m.lost += int(n.SequenceNumber - s.next)
			s.next = n.SequenceNumber
			break
		}
		again, err := send[*ua.RepublishResponse](within, s.conn, &ua.RepublishRequest{SubscriptionID: s.id, RetransmitSequenceNumber: s.next})
		switch {
		case err == nil && again.NotificationMessage != nil:
			received = append(received, &ua.SubscriptionAcknowledgement{SubscriptionID: s.id, SequenceNumber: s.next})
			if err := m.add(again.NotificationMessage); err != nil {
				return message{err: err}, nil
			}
		case err == nil || errors.Is(err, ua.StatusBadMessageNotAvailable):
			m.lost++
		default:
			return message{err: err}, nil
		}
		s.next = after(s.next)
	}
	if len(n.NotificationData) == 0 {
		return m, received
	}
	received = append(received, &ua.SubscriptionAcknowledgement{SubscriptionID: s.id, SequenceNumber: n.SequenceNumber})
	s.next = after(s.next)
	if err := m.add(n); err != nil {
		return message{err: err}, nil
	}
	return m, received
}

// after is the sequence number that follows: they begin again at 1 (Part 4 §7.27).
func after(number uint32) uint32 {
	if number == math.MaxUint32 {
		return 1
	}
	return number + 1
}

// add takes what a notification message holds.
func (m *message) add(n *ua.NotificationMessage) error {
	for _, data := range n.NotificationData {
		if data == nil {
			continue
		}
		switch d := data.Value.(type) {
		case *ua.DataChangeNotification:
			for _, item := range d.MonitoredItems {
				if item == nil || item.Value == nil {
					return errors.New("publish: a notification without a value")
				}
				m.items = append(m.items, item)
			}
		case *ua.StatusChangeNotification:
			return fmt.Errorf("the server ended the subscription: %w", d.Status)
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
