package rpc

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	quoratev1 "quorate/proto/quorate/v1"
)

type eventService struct {
	quoratev1.UnimplementedEventServiceServer
	server *Server
}

// eventBody is the oneof whose fields are the kinds of events.
var eventBody = (&quoratev1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body")

// kindFilter returns the kinds to send; nil means all.
func kindFilter(kinds []string) (map[protoreflect.Name]bool, error) {
	if len(kinds) == 0 {
		return nil, nil
	}
	wanted := make(map[protoreflect.Name]bool, len(kinds))
	for i, kind := range kinds {
		name := protoreflect.Name(kind)
		if eventBody.Fields().ByName(name) == nil {
			return nil, invalid(fmt.Sprintf("kinds[%d]", i), "%q is no kind of event", kind)
		}
		wanted[name] = true
	}
	return wanted, nil
}

func wants(wanted map[protoreflect.Name]bool, event *quoratev1.Event) bool {
	if wanted == nil {
		return true
	}
	field := event.ProtoReflect().WhichOneof(eventBody)
	return field != nil && wanted[field.Name()]
}

// about returns an event as a watch of some partitions sees it: nil if it is not about any of them, and of partitions that were created together only
// those.
func about(partitions map[string]bool, event *quoratev1.Event) *quoratev1.Event {
	switch body := event.GetBody().(type) {
	case *quoratev1.Event_PartitionChanged:
		if partitions[body.PartitionChanged.GetPartition().GetId()] {
			return event
		}
	case *quoratev1.Event_PartitionsCreated:
		others := func(id string) bool { return !partitions[id] }
		ids := body.PartitionsCreated.GetIds()
		if !slices.ContainsFunc(ids, others) {
			return event
		}
		if ids = slices.DeleteFunc(slices.Clone(ids), others); len(ids) > 0 {
			return restricted(event, ids)
		}
	}
	return nil
}

// restricted returns a copy of an event that tells of the creation of these partitions alone. The event itself is shared by all watches.
func restricted(event *quoratev1.Event, ids []string) *quoratev1.Event {
	event = proto.CloneOf(event)
	event.GetPartitionsCreated().Ids = ids
	return event
}

// WatchEvents streams events in order. The header of each message tells the revision up to which everything has been
// sent, so a watch that broke resumes from the one after it.
func (e *eventService) WatchEvents(request *quoratev1.WatchEventsRequest, stream quoratev1.EventService_WatchEventsServer) error {
	wanted, err := kindFilter(request.GetKinds())
	if err != nil {
		return err
	}
	partitions := make(map[string]bool, len(request.GetPartitions()))
	for _, id := range request.GetPartitions() {
		partitions[id] = true
	}
	watch, err := e.server.config.Node.Watch(request.GetFromRevision())
	if err != nil {
		return err
	}
	defer watch.Close()
	for {
		events, revision, err := watch.Next(stream.Context())
		if err != nil {
			return err
		}
		// Where nothing matches, the empty message tells the client how far it is, so that it needn't resume from long ago.
		var matching []*quoratev1.Event
		for _, event := range events {
			if !wants(wanted, event) {
				continue
			}
			if len(partitions) > 0 {
				event = about(partitions, event)
			}
			if event != nil {
				matching = append(matching, event)
			}
		}
		if err := e.send(stream, matching, revision); err != nil {
			return err
		}
	}
}

// send sends what belongs together in messages of bounded size.
func (e *eventService) send(stream quoratev1.EventService_WatchEventsServer, events []*quoratev1.Event, revision uint64) error {
	for {
		n := fitting(events, e.server.config.Limits.MaxPageBytes)
		header := headerOf(e.server.config.Node.Local())
		header.Revision = revision
		if n < len(events) {
			// A client that resumes from here gets the events of one revision again rather than only some of them.
			header.Revision = events[n].GetRevision() - 1
		}
		if n > 0 {
			header.Generation = events[n-1].GetGeneration()
			header.ClusterTime = events[n-1].GetClusterTime()
		}
		if err := stream.Send(&quoratev1.WatchEventsResponse{Header: header, Events: events[:n]}); err != nil {
			return err
		}
		if events = events[n:]; len(events) == 0 {
			return nil
		}
	}
}

// fitting returns how many of the items go into one message: as many as fit, and at least one if there is one.
func fitting[M proto.Message](items []M, limit int) int {
	bytes := 0
	for i, item := range items {
		if bytes += proto.Size(item); bytes > limit && i > 0 {
			return i
		}
	}
	return len(items)
}
