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
	// kind is what bounds its calls.
	kind kind
}

// kind sorts methods by how long they take for want of anything to do, so that those who wait don't keep out those who work.
type kind int

const (
	// kindCall is a unary call, and kindWatch a stream on which the member tells what happens.
	kindCall kind = iota
	kindWatch
	// kindRenewal is a unary call that waits until there is something to tell.
	kindRenewal
	// kindQuestions is a stream on which the caller asks and the member answers.
	kindQuestions
)

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

	"/quorate.v1.EventService/WatchEvents": {role: pki.RoleViewer, kind: kindWatch},

	"/quorate.v1.PartitionService/CreatePartitions":     {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/SetPlacement":         {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/DeletePartition":      {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/GetPartition":         {role: pki.RoleViewer},
	"/quorate.v1.PartitionService/ListPartitions":       {role: pki.RoleViewer},
	"/quorate.v1.PartitionService/ListMigrations":       {role: pki.RoleViewer},
	"/quorate.v1.PartitionService/ListPlacements":       {role: pki.RoleViewer},
	"/quorate.v1.PartitionService/Resolve":              {role: pki.RoleViewer},
	"/quorate.v1.PartitionService/StreamResolve":        {role: pki.RoleViewer, kind: kindQuestions},
	"/quorate.v1.PartitionService/BeginMigration":       {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/ReportMigration":      {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/CutoverMigration":     {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/CompleteMigration":    {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/AbortMigration":       {role: pki.RoleOperator, changes: true},
	"/quorate.v1.PartitionService/GetPartitionSettings": {role: pki.RoleViewer},
	"/quorate.v1.PartitionService/SetPartitionSettings": {role: pki.RoleAdministrator, changes: true},

	// An instance stands for itself: its session is the right to renew and to leave. To remove another one takes an operator (gate.go).
	"/quorate.v1.GateService/CheckGate":        {role: pki.RoleViewer},
	"/quorate.v1.GateService/CheckGates":       {role: pki.RoleViewer},
	"/quorate.v1.GateService/StreamGates":      {role: pki.RoleViewer, kind: kindQuestions},
	"/quorate.v1.GateService/RegisterInstance": {role: pki.RoleViewer, changes: true},
	"/quorate.v1.GateService/RenewGate":        {role: pki.RoleViewer, kind: kindRenewal},
	"/quorate.v1.GateService/RemoveInstance":   {role: pki.RoleViewer, changes: true},
	"/quorate.v1.GateService/ListInstances":    {role: pki.RoleViewer},

	"/grpc.health.v1.Health/Check": {role: pki.RoleViewer},
	"/grpc.health.v1.Health/List":  {role: pki.RoleViewer},
	"/grpc.health.v1.Health/Watch": {role: pki.RoleViewer, kind: kindWatch},

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {role: pki.RoleViewer, kind: kindWatch},
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {role: pki.RoleViewer, kind: kindWatch},

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
			r, ok := rules[name]
			if !ok {
				return fmt.Errorf("rpc: method %s has no row in the role table", name)
			}
			if streams := r.kind == kindWatch || r.kind == kindQuestions; streams != method.IsServerStream {
				return fmt.Errorf("rpc: method %s is bounded like one of another kind", name)
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

// authorize refuses a caller whose role is too low. A method without a row is refused to all.
func (c *call) authorize() error {
	if c.rule.role != pki.RoleNone && c.caller.role >= c.rule.role {
		return nil
	}
	return permissionDenied(c.caller, c.method, c.rule.role)
}
