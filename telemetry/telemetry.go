// Package telemetry is how Quorate tells what it does. For now it holds HCLog, which lets libraries that log through hclog, such as
// hashicorp/raft, write to the process's one slog.Logger, so that every line has the same format and level.
package telemetry
