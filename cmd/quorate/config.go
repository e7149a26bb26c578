package main

import (
	"os"

	"github.com/spf13/cobra"
)

func newConfig(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "The configuration of a member",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newConfigCheck(o))
	return cmd
}

func newConfigCheck(o *options) *cobra.Command {
	var set []string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file as serve would, and start nothing",
		Long: `Check reads the file, the environment and --set as "quorate serve" does, and reports everything that is wrong, each
with its key. It does not look at the certificates' files, the data directory or the ports.`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	addSetFlag(cmd, &set)
	cmd.RunE = func(_ *cobra.Command, arguments []string) error {
		s, err := loadSettings(arguments[0], os.Environ(), set)
		if err != nil {
			return err
		}
		answer := map[string]any{"file": arguments[0], "member": s.Member, "valid": true}
		return o.showPlain(answer, func(p *printer) { p.line("%s is valid: member %s of site %s", arguments[0], s.Member, s.Site) })
	}
	return cmd
}

// addSetFlag adds --set. StringArray, not StringSlice: a bootstrap list holds commas.
func addSetFlag(cmd *cobra.Command, set *[]string) {
	cmd.Flags().StringArrayVar(set, "set", nil, "`KEY=VALUE` of a setting, over the environment and the file; repeatable")
	must(cmd.RegisterFlagCompletionFunc("set", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var keys []string
		for _, key := range sortedKeys(settingKeys()) {
			keys = append(keys, key+"=")
		}
		return keys, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}))
}
