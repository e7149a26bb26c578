package rpc

import (
	"fmt"

	"google.golang.org/grpc"

	"quorate/pki"
)

// rule says who may call a method.
type rule struct {
	// role is the least that may.
	role pki.Role
	// changes says that the method changes something, so that each call goes into the audit trail.
	changes bool
}

// rules has a row for every method that the server offers; New fails if it has not. Viewers look, operators do what
// running a plant takes, administrators decide who is in the group.
var rules = map[string]rule{
	"/quorate.v1.TopologyService/GetTopology":      {role: pki.RoleViewer},
	"/quorate.v1.TopologyService/PlanTopology":     {role: pki.RoleViewer},
	"/quorate.v1.TopologyService/PublishTopology":  {role: pki.RoleOperator, changes: true},
	"/quorate.v1.TopologyService/ListGenerations":  {role: pki.RoleViewer},
	"/quorate.v1.TopologyService/DiffTopology":     {role: pki.RoleViewer},
	"/quorate.v1.TopologyService/RollbackTopology": {role: pki.RoleOperator, changes: true},

	"/quorate.v1.LeaseService/BeginLease": {role: pki.RoleOperator, changes: true},
	"/quorate.v1.LeaseService/EndLease":   {role: pki.RoleOperator, changes: true},
	"/quorate.v1.LeaseService/ListLeases": {role: pki.RoleViewer},

	"/quorate.v1.ApplyService/GetApplyStatus": {role: pki.RoleViewer},
	"/quorate.v1.ApplyService/ResumeApply":    {role: pki.RoleOperator, changes: true},
	"/quorate.v1.ApplyService/RollbackApply":  {role: pki.RoleOperator, changes: true},

	"/quorate.v1.ServingService/ListServing":      {role: pki.RoleViewer},
	"/quorate.v1.ServingService/ListLevelChanges": {role: pki.RoleViewer},

	"/quorate.v1.MaintenanceService/SetMaintenance":  {role: pki.RoleOperator, changes: true},
	"/quorate.v1.MaintenanceService/ListMaintenance": {role: pki.RoleViewer},

	"/quorate.v1.MemberService/ListMembers":        {role: pki.RoleViewer},
	"/quorate.v1.MemberService/TransferLeadership": {role: pki.RoleAdministrator, changes: true},
	"/quorate.v1.MemberService/AddLearner":         {role: pki.RoleAdministrator, changes: true},
	"/quorate.v1.MemberService/PromoteMember":      {role: pki.RoleAdministrator, changes: true},
	"/quorate.v1.MemberService/RemoveMember":       {role: pki.RoleAdministrator, changes: true},

	"/quorate.v1.EventService/WatchEvents": {role: pki.RoleViewer},
	"/quorate.v1.EventService/ListEvents":  {role: pki.RoleViewer},

	"/quorate.v1.OverviewService/GetOverview": {role: pki.RoleViewer},

	"/grpc.health.v1.Health/Check": {role: pki.RoleViewer},
	"/grpc.health.v1.Health/List":  {role: pki.RoleViewer},
	"/grpc.health.v1.Health/Watch": {role: pki.RoleViewer},

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {role: pki.RoleViewer},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {role: pki.RoleViewer},

	// What channelz shows of other callers' connections is for administrators.
	"/grpc.channelz.v1.Channelz/GetTopChannels":   {role: pki.RoleAdministrator},
	"/grpc.channelz.v1.Channelz/GetServers":       {role: pki.RoleAdministrator},
	"/grpc.channelz.v1.Channelz/GetServer":        {role: pki.RoleAdministrator},
	"/grpc.channelz.v1.Channelz/GetServerSockets": {role: pki.RoleAdministrator},
	"/grpc.channelz.v1.Channelz/GetChannel":       {role: pki.RoleAdministrator},
	"/grpc.channelz.v1.Channelz/GetSubchannel":    {role: pki.RoleAdministrator},
	"/grpc.channelz.v1.Channelz/GetSocket":        {role: pki.RoleAdministrator},
}

// checkRules fails if a method of the server has no row, or a row no method: a table that is wrong is found at the start
// and not by a caller.
func checkRules(services map[string]grpc.ServiceInfo) error {
	offered := make(map[string]bool)
	for service, info := range services {
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			if _, ok := rules[name]; !ok {
				return fmt.Errorf("rpc: method %s has no row in the role table", name)
			}
			offered[name] = true
		}
	}
	for name := range rules {
		if !offered[name] {
			return fmt.Errorf("rpc: the role table has a row for %s, which is not offered", name)
		}
	}
	return nil
}

// May tells whether a role may call a method, by its full name: what the web page offers is decided by the table that decides what is allowed.
func May(role pki.Role, method string) bool {
	r, ok := rules[method]
	return ok && role >= r.role
}

// authorize refuses a caller whose role is too low. A method without a row is refused to all.
func authorize(c caller, method string) error {
	if May(c.role, method) {
		return nil
	}
	return permissionDenied(c, method, rules[method].role)
}
