package main

import (
	"errors"
	"fmt"
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
	var file string
	var set []string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Check a configuration file as serve would, and start nothing",
		Long: `Check reads the file, the environment and --set as "quorate serve" does, and reports everything that is wrong, each
with its key. Then it loads the certificates that the file names, and shows all settings as they take effect, defaults included. It does
not look at the data directory or the ports.
The file may be named as for serve too, by --config.`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	addConfigFlag(cmd, &file)
	addSetFlag(cmd, &set)
	cmd.RunE = func(_ *cobra.Command, arguments []string) error {
		switch {
		case len(arguments) == 1 && file != "":
			return fmt.Errorf("--config: names a file, and %s is another: give one", arguments[0])
		case len(arguments) == 1:
			file = arguments[0]
		case file == "":
			return errors.New("FILE: missing")
		}
		s, err := loadSettings(file, os.Environ(), set)
		if err != nil {
			return err
		}
		if _, err := s.loadCredentials(); err != nil {
			return err
		}
		effective := s.effective()
		answer := map[string]any{"file": file, "member": s.Member, "settings": effective, "valid": true}
		return o.showPlain(answer, func(p *printer) {
			p.line("%s is valid: member %s of site %s", file, s.Member, s.Site)
			for _, key := range sortedKeys(effective) {
				p.line("%s: %v", key, effective[key])
			}
		})
	}
	return cmd
}

// addConfigFlag adds --config.
func addConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "configuration `FILE`")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
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
