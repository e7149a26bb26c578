package admin

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	quoratev1 "quorate/proto/quorate/v1"
)

// maintenanceChange declares that a server is in maintenance, or withdraws it.
var maintenanceChange = change{
	pattern: redundancyPath + "/{set}/maintenance", params: []string{"set", "server", "active"},
	method: quoratev1.MaintenanceService_SetMaintenance_FullMethodName,
	plan:   planMaintenance, make: makeMaintenance,
}

// Fields of the form that declares maintenance.
const (
	reasonField = "reason"
	// backField is in how many minutes the server is expected back, counted from when the form was made: so a form that is sent twice asks for the same.
	backField = "minutes"
	madeField = "made"
)

// maxMinutes is the longest maintenance that can be announced here: 30 days.
const maxMinutes = 30 * 24 * 60

// maintenanceView is what maintenance of a server brings.
type maintenanceView struct {
	Server serverView
	Active bool
	// Others are the other servers of the set, and Healthy says that one of them is.
	Others  []serverView
	Healthy bool
	// Made is when the form was made, in Unix seconds.
	Made int64
}

// maintain leads to what can be done about the maintenance of a server.
func maintain(server *serverView) *action {
	a := &action{ID: "maintenance-" + server.ID, Label: "Maintenance…", Dialog: true}
	active := "true"
	if server.Maintenance != nil {
		a.Label, active = "End maintenance…", "false"
	}
	a.Path = setPath(server.Set) + "/maintenance?" + url.Values{"server": {server.ID}, "active": {active}}.Encode()
	return a
}

func planMaintenance(ctx context.Context, r *reader) (plan, error) {
	o, err := r.overview(ctx, r.arguments["set"], 0)
	if err != nil {
		return plan{}, err
	}
	id, active := r.arguments["server"], r.arguments["active"] == "true"
	view := maintenanceView{Active: active, Made: r.now.Unix()}
	for _, server := range newSetView(o, findSet(o.GetGeneration().GetTopology(), r.arguments["set"]), r).Servers {
		if server.ID == id {
			view.Server = server
			continue
		}
		view.Others = append(view.Others, server)
		if value, err := strconv.Atoi(server.Level.Value); err == nil && value >= healthy {
			view.Healthy = true
		}
	}
	if view.Server.ID == "" {
		return plan{}, notFound("server", fmt.Sprintf("set %s has no server %q", r.arguments["set"], id))
	}
	p := plan{Template: "redundancy.maintenance", Data: view, Back: setPath(r.arguments["set"])}
	if active {
		p.Title, p.Button, p.Danger, p.Inputs = "Put "+id+" into maintenance", "Put "+id+" into maintenance", true, "redundancy.maintenanceInputs"
	} else {
		p.Title, p.Button = "End the maintenance of "+id, "End maintenance"
	}
	return p, nil
}

func makeMaintenance(ctx context.Context, r *reader, o order) (done, error) {
	request := &quoratev1.SetMaintenanceRequest{
		RequestId: o.id, Server: r.arguments["server"], Active: r.arguments["active"] == "true", Reason: o.form.Get(reasonField),
	}
	back, err := expectedBack(o.form.Get(madeField), o.form.Get(backField))
	if err != nil {
		return done{}, err
	}
	if request.Active {
		request.EstimatedReturn = back
	}
	answer, err := quoratev1.NewMaintenanceServiceClient(r.conn).SetMaintenance(ctx, request)
	if err != nil {
		return done{}, err
	}
	text := "The maintenance of " + request.GetServer() + " is over."
	if request.GetActive() {
		text = request.GetServer() + " is in maintenance."
	}
	return done{text: text, revision: answer.GetHeader().GetRevision(), back: setPath(r.arguments["set"])}, nil
}

// expectedBack is so many minutes after the form was made; nil where nobody knows.
func expectedBack(made, minutes string) (*timestamppb.Timestamp, error) {
	if minutes == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(minutes)
	if err != nil || n < 1 || n > maxMinutes {
		return nil, invalid(backField, fmt.Sprintf("must be a number of minutes from 1 to %d", maxMinutes))
	}
	at, err := strconv.ParseInt(cmp.Or(made, "none"), 10, 64)
	if err != nil || at < 0 || at > 1<<40 {
		return nil, invalid(madeField, "is not a time")
	}
	return timestamppb.New(time.Unix(at, 0).Add(time.Duration(n) * time.Minute)), nil
}
