package fsm

import (
	logv1 "quorate/proto/quorate/log/v1"
)

// The commands of partitions and instances; command.go has the others.

// describePartition is describe for them.
func describePartition(c *logv1.Command) (commandInfo, bool) {
	switch c.GetBody().(type) {
	case *logv1.Command_CreatePartitions:
		return commandInfo{name: "create_partitions", public: true, since: partitionVersion}, true
	case *logv1.Command_SetPlacement:
		return commandInfo{name: "set_placement", public: true, since: partitionVersion}, true
	case *logv1.Command_DeletePartition:
		return commandInfo{name: "delete_partition", public: true, since: partitionVersion}, true
	case *logv1.Command_BeginMigration:
		return commandInfo{name: "begin_migration", public: true, since: partitionVersion}, true
	case *logv1.Command_ReportMigration:
		return commandInfo{name: "report_migration", public: true, since: partitionVersion}, true
	case *logv1.Command_CutoverMigration:
		return commandInfo{name: "cutover_migration", public: true, since: partitionVersion}, true
	case *logv1.Command_CompleteMigration:
		return commandInfo{name: "complete_migration", public: true, since: partitionVersion}, true
	case *logv1.Command_AbortMigration:
		return commandInfo{name: "abort_migration", public: true, since: partitionVersion}, true
	case *logv1.Command_SetPartitionSettings:
		return commandInfo{name: "set_partition_settings", public: true, since: partitionVersion}, true
	case *logv1.Command_RegisterInstance:
		return commandInfo{name: "register_instance", public: true, since: partitionVersion}, true
	case *logv1.Command_RemoveInstance:
		return commandInfo{name: "remove_instance", public: true, since: partitionVersion}, true
	case *logv1.Command_ForgetInstance:
		return commandInfo{name: "forget_instance", since: partitionVersion}, true
	default:
		return commandInfo{}, false
	}
}

// dispatchPartition is dispatch for them.
func (a *application) dispatchPartition() (*logv1.Outcome, *Refusal) {
	switch b := a.command.GetBody().(type) {
	case *logv1.Command_CreatePartitions:
		return a.createPartitions(b.CreatePartitions)
	case *logv1.Command_SetPlacement:
		return a.setPlacement(b.SetPlacement)
	case *logv1.Command_DeletePartition:
		return a.deletePartition(b.DeletePartition)
	case *logv1.Command_BeginMigration:
		return a.beginMigration(b.BeginMigration)
	case *logv1.Command_ReportMigration:
		return a.reportMigration(b.ReportMigration)
	case *logv1.Command_CutoverMigration:
		return a.cutoverMigration(b.CutoverMigration)
	case *logv1.Command_CompleteMigration:
		return a.completeMigration(b.CompleteMigration)
	case *logv1.Command_AbortMigration:
		return a.abortMigration(b.AbortMigration)
	case *logv1.Command_SetPartitionSettings:
		return a.setPartitionSettings(b.SetPartitionSettings)
	case *logv1.Command_RegisterInstance:
		return a.registerInstance(b.RegisterInstance)
	case *logv1.Command_RemoveInstance:
		return a.removeInstance(b.RemoveInstance)
	case *logv1.Command_ForgetInstance:
		return a.forgetInstance(b.ForgetInstance)
	default:
		// ApplyEntry has asked describe for every command, and a test holds the two lists together.
		return nil, refuse(logv1.Kind_KIND_UNSUPPORTED, ReasonNotYetSupported, "", "the command has no applier")
	}
}
