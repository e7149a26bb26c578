package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/cmd/quorate/migration"
	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
)

const (
	// defaultParallel is how many migrations are driven at a time.
	defaultParallel = 4
	// maxHookTimeout bounds --hook-timeout.
	maxHookTimeout = 7 * 24 * time.Hour
	// maxDriven bounds the partitions of one command, which are planned before the first begins: as many as may migrate at a time.
	maxDriven = fsm.MaxMigrations
	// maxNote is the group's limit for a note, in bytes.
	maxNote = fsm.MaxTextBytes
)

// driveFlags are those of the commands that drive whole migrations.
type driveFlags struct {
	beginFlags
	copyHook, verifyHook, finalHook string
	noCopy                          bool
	hookTimeout                     time.Duration
	note                            string
	parallel                        int
	failFast, dryRun                bool
	// hookWords are the arguments after --, which belong to the copy hook.
	hookWords []string
}

func (f *driveFlags) add(o *options, cmd *cobra.Command) {
	f.beginFlags.add(o, cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.copyHook, "copy-hook", "", "`COMMAND` that copies the data; it is split into words and run without a shell, and what follows -- is appended to it")
	flags.StringVar(&f.verifyHook, "verify-hook", "", "`COMMAND` that compares the copy with its source, before the cutover")
	flags.StringVar(&f.finalHook, "final-hook", "", "`COMMAND` that copies the rest, once the drain barrier has passed and nobody writes")
	flags.BoolVar(&f.noCopy, "no-copy", false, "there is nothing to copy, or it is copied already: do not wait for it")
	flags.DurationVar(&f.hookTimeout, "hook-timeout", 0, "how long a hook may take (default: as long as it likes)")
	flags.StringVar(&f.note, "note", "", "why, for people; up to 256 bytes")
	flags.IntVar(&f.parallel, "parallel", defaultParallel, fmt.Sprintf("how many migrations at a time, 1 to %d", migration.MaxParallel))
	flags.BoolVar(&f.failFast, "fail-fast", false, "begin no more after one has failed; those that run are carried to their end")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what would happen and what is in the way, and change nothing")
}

// hookHelp is the part of the help that is about hooks.
const hookHelp = `

Hooks are run without a shell, with QUORATE_PARTITION, QUORATE_FROM, QUORATE_TO, QUORATE_EPOCH, QUORATE_HOOK (copy, verify or final) and QUORATE_REQUEST in
their environment, and QUORATE_ADDR, QUORATE_CACERT, QUORATE_CERT and QUORATE_KEY as this command has them. A line "progress DONE TOTAL [TEXT]" or "progress
PERCENT% [TEXT]" that a hook writes becomes a bar, and is reported to the group once a second at most; other lines are shown. Exit code 0 means that it is
done. Writes go on while the copy hook runs and after it, until the cutover: it has to leave something behind that follows them, or --final-hook has to copy the
rest. A hook must stand to be run again. Without a copy hook the command waits until the copy is reported as complete (quorate partition report ID --copied).`

// driverOptions checks the flags and makes of them what the driver wants.
func (f *driveFlags) driverOptions(o *options) (migration.Options, error) {
	m := migration.Options{Barrier: f.barrier, Early: f.early, RequireVerified: f.requireVerified, Servers: f.servers, Note: f.note, NothingToCopy: f.noCopy}
	switch {
	case f.noCopy && f.copyHook != "":
		return m, errors.New("--no-copy: there is a --copy-hook; give one of them")
	case len(f.hookWords) > 0 && f.copyHook == "":
		return m, errors.New("--copy-hook: missing; what follows -- is for it")
	case f.parallel < 1 || f.parallel > migration.MaxParallel:
		return m, fmt.Errorf("--parallel: must be from 1 to %d, got %d", migration.MaxParallel, f.parallel)
	case f.hookTimeout < 0 || f.hookTimeout > maxHookTimeout:
		return m, fmt.Errorf("--hook-timeout: must be more than 0 and at most %s, got %s", maxHookTimeout, f.hookTimeout)
	case len(f.note) > maxNote:
		return m, fmt.Errorf("--note: at most %d bytes, got %d", maxNote, len(f.note))
	case len(f.servers) > fsm.MaxMigrationServers:
		return m, fmt.Errorf("--server: at most %d, got %d", fsm.MaxMigrationServers, len(f.servers))
	case len(o.requestID) > migration.MaxRequestBytes:
		return m, fmt.Errorf("--request-id: at most %d characters here, got %d", migration.MaxRequestBytes, len(o.requestID))
	}
	if err := f.checkBarrier(); err != nil {
		return m, err
	}
	environment := []string{"QUORATE_ADDR=" + strings.Join(o.endpoints, ","), "QUORATE_CACERT=" + o.caFile, "QUORATE_CERT=" + o.certFile, "QUORATE_KEY=" + o.keyFile}
	for _, h := range []struct {
		flag, command string
		more          []string
		into          *migration.Hook
	}{
		{"copy-hook", f.copyHook, f.hookWords, &m.Copy}, {"verify-hook", f.verifyHook, nil, &m.Verify}, {"final-hook", f.finalHook, nil, &m.Final},
	} {
		hook, err := newHook(h.flag, h.command, h.more, f.hookTimeout, environment)
		if err != nil {
			return m, err
		}
		*h.into = hook
	}
	return m, nil
}

func newPartitionMigrate(o *options) *cobra.Command {
	f := &driveFlags{}
	var file string
	var resume bool
	var expect uint64
	cmd := &cobra.Command{
		Use:   "migrate ID… --to PLACEMENT [-- ARG…]",
		Short: "Drive whole migrations: begin, copy, verify, cutover, drain barrier, complete",
		Long: `Migrate plans first, and then takes each partition through draining, where the copy hook moves the data, and cutover, where nobody may write until the drain
barrier has passed, to its new placement. An interrupt (Ctrl-C) at any moment leaves the partition in one of these phases, as the group holds it, and prints the commands
that go on or give up; --resume goes on from the phase that a partition is in, whoever began it, and skips what was done. A second interrupt ends it at once.` + hookHelp,
		Example: `  quorate partition migrate tank-1 --to rack-8 --dry-run
  quorate partition migrate tank-1 --to rack-8 --copy-hook rsync-tank -- --compress
  quorate partition migrate -f ids.txt --to rack-8 --no-copy --parallel 16`,
		ValidArgsFunction: o.completePartitions(completedArguments),
	}
	f.add(o, cmd)
	o.addToFlag(cmd, &f.to, "the new `PLACEMENT`")
	addIDFileFlag(cmd, &file)
	cmd.Flags().BoolVar(&resume, "resume", false, "go on with what has begun, begin what has not, and take what is there already for done")
	cmd.Flags().Uint64Var(&expect, "expect-epoch", 0, "refuse unless the partition is at this `EPOCH` (default: any)")
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if at := cmd.ArgsLenAtDash(); at >= 0 {
			arguments, f.hookWords = arguments[:at], arguments[at:]
		}
		if err := f.check(); err != nil {
			return err
		}
		if err := checkPartitionID("--to", f.to); err != nil {
			return err
		}
		ids, err := readIDs(o.std.in, arguments, file)
		if err != nil {
			return err
		}
		if len(ids) > maxDriven {
			return fmt.Errorf("ID: at most %d partitions at a time, got %d", maxDriven, len(ids))
		}
		if len(ids) > 1 && expect != 0 {
			return fmt.Errorf("--expect-epoch: is of one partition, and there are %d", len(ids))
		}
		jobs := make([]migration.Job, len(ids))
		for i, id := range ids {
			jobs[i] = migration.Job{Partition: id, To: f.to, Resume: resume, ExpectedEpoch: expect}
		}
		again := &again{cmd: cmd, flags: f, arguments: arguments, file: file}
		return o.drive(cmd.Context(), f, again, func(context.Context, quoratev1.PartitionServiceClient) ([]migration.Job, error) { return jobs, nil })
	}
	return cmd
}

func newPartitionReverse(o *options) *cobra.Command {
	f := &driveFlags{}
	cmd := &cobra.Command{
		Use:   "reverse ID… [-- ARG…]",
		Short: "Move partitions back to where they were before, as migrate does",
		Long: `Reverse migrates each partition to its previous placement. One that still migrates is not reversed but aborted (quorate partition abort ID). What it prints to
go on is a migrate, since a partition that is back has another previous placement.` + hookHelp,
		ValidArgsFunction: o.completePartitions(completedArguments),
	}
	f.add(o, cmd)
	cmd.RunE = func(cmd *cobra.Command, arguments []string) error {
		if at := cmd.ArgsLenAtDash(); at >= 0 {
			arguments, f.hookWords = arguments[:at], arguments[at:]
		}
		ids, err := readIDs(o.std.in, arguments, "")
		if err != nil {
			return err
		}
		return o.drive(cmd.Context(), f, &again{cmd: cmd, flags: f}, func(ctx context.Context, client quoratev1.PartitionServiceClient) ([]migration.Job, error) {
			return reversedJobs(ctx, client, ids)
		})
	}
	return cmd
}

// reversedJobs finds out where each partition was before.
func reversedJobs(ctx context.Context, client quoratev1.PartitionServiceClient, ids []string) ([]migration.Job, error) {
	jobs := make([]migration.Job, len(ids))
	for i, id := range ids {
		answer, err := client.GetPartition(ctx, &quoratev1.GetPartitionRequest{Partition: id})
		if err != nil {
			return nil, err
		}
		p := answer.GetPartition()
		switch {
		case p.GetMigration() != nil:
			return nil, &migration.Stopped{Partition: id, Why: fmt.Sprintf("still migrates, from %s to %s: abort that instead", p.GetPlacement(), p.GetMigration().GetTo())}
		case p.GetPreviousPlacement() == "":
			return nil, &migration.Stopped{Partition: id, Why: "was nowhere else before"}
		}
		jobs[i] = migration.Job{Partition: id, To: p.GetPreviousPlacement(), ExpectedEpoch: p.GetEpoch()}
	}
	return jobs, nil
}
