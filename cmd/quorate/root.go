package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	// defaultEndpoint is the gRPC address of the first member of "quorate dev".
	defaultEndpoint = "127.0.0.1:7101"
	// defaultTimeout is how long a command tries, over all endpoints and repetitions. It is longer than an election.
	defaultTimeout = 10 * time.Second
	// maxTimeout bounds --timeout: a member remembers request ids for this long, so a later repetition might be
	// executed twice.
	maxTimeout = 10 * time.Minute
)

// options are the flags that all commands share.
type options struct {
	std       streams
	endpoints []string
	caFile    string
	certFile  string
	keyFile   string
	output    string
	requestID string
	timeout   time.Duration
}

// newRoot builds the whole command tree. It holds no global state, so that tests may build it often.
func newRoot(std streams) *cobra.Command {
	o := &options{std: std}
	root := &cobra.Command{
		Use:   "quorate",
		Short: "One agreed answer to: may I believe and act on this value now?",
		Long: `Quorate is a control plane for industrial data. A small group of members agrees on which OPC UA server of a
redundant set clients should use, and each member advertises it as ServiceLevel.

Start with "quorate dev": three members on loopback, with a demo topology.

Exit codes: 0 done, 1 local error, 2 refused or failed remotely, 3 precondition failed or no leader.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return o.complete() },
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	flags := root.PersistentFlags()
	flags.StringSliceVar(&o.endpoints, "addr", nil,
		"gRPC `HOST:PORT` of a member; repeat it to name several, which are tried in turn (env QUORATE_ADDR, default "+defaultEndpoint+")")
	flags.StringVar(&o.caFile, "cacert", "", "certificate `FILE` of the authority that members are checked against (env QUORATE_CACERT)")
	flags.StringVar(&o.certFile, "cert", "", "own certificate `FILE` (env QUORATE_CERT)")
	flags.StringVar(&o.keyFile, "key", "", "own private key `FILE` (env QUORATE_KEY)")
	flags.StringVarP(&o.output, "output", "o", outputTable, "`FORMAT` of the answer: table, json or yaml")
	flags.StringVar(&o.requestID, "request-id", "", "`ID` of this change; repeating a change with its id returns the first answer (default: a new one)")
	flags.DurationVar(&o.timeout, "timeout", defaultTimeout, "how long to try, over all endpoints")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputFormats, cobra.ShellCompDirectiveNoFileComp)))

	root.AddCommand(
		newDev(o), newServe(o),
		newStatus(o), newTop(o),
		newTopology(o), newApply(o), newLevel(o), newLease(o), newMaintenance(o), newMember(o),
		newPartition(o), newInstance(o),
		newUA(o), newPKI(o), newConfig(o), newVersion(o),
	)
	return root
}

// complete fills in what the environment gives and checks the shared flags.
func (o *options) complete() error {
	if len(o.endpoints) == 0 {
		o.endpoints = strings.FieldsFunc(os.Getenv("QUORATE_ADDR"), func(r rune) bool { return r == ',' || r == ' ' })
	}
	if len(o.endpoints) == 0 {
		o.endpoints = []string{defaultEndpoint}
	}
	if len(o.endpoints) > maxEndpoints {
		return fmt.Errorf("--addr: at most %d endpoints, got %d", maxEndpoints, len(o.endpoints))
	}
	for _, endpoint := range o.endpoints {
		if err := checkHostPort(endpoint); err != nil {
			return fmt.Errorf("--addr: %w", err)
		}
	}
	fromEnvironment(&o.caFile, "QUORATE_CACERT")
	fromEnvironment(&o.certFile, "QUORATE_CERT")
	fromEnvironment(&o.keyFile, "QUORATE_KEY")
	if o.timeout <= 0 || o.timeout > maxTimeout {
		return fmt.Errorf("--timeout: must be more than 0 and at most %s, got %s", maxTimeout, o.timeout)
	}
	return checkOutput(o.output)
}

func fromEnvironment(value *string, name string) {
	if *value == "" {
		*value = os.Getenv(name)
	}
}

// newRequestID returns the id given by --request-id, or a new one. 128 random bits: two changes never share one.
func (o *options) newRequestID() string {
	if o.requestID != "" {
		return o.requestID
	}
	return strings.ToLower(rand.Text())
}

// must is for errors that only a mistake in this program can cause: a flag that does not exist.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// noVerb is the RunE of a noun: an unknown verb is an error, not a page of help.
func noVerb(cmd *cobra.Command, arguments []string) error {
	if len(arguments) > 0 {
		return fmt.Errorf("unknown command %q for %q", arguments[0], cmd.CommandPath())
	}
	return cmd.Help()
}
