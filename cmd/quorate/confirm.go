package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// confirmation is asked for before a change that takes something away. Off a terminal nobody can answer, so that a script
// has to say --yes.
type confirmation struct {
	yes bool
}

func (c *confirmation) add(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask for confirmation")
}

// ask returns nil if the change was confirmed.
func (c *confirmation) ask(o *options, change string) error {
	if c.yes {
		return nil
	}
	if !isTerminal(o.std.in) {
		return fmt.Errorf("--yes: needed to %s, because standard input is not a terminal", change)
	}
	if _, err := fmt.Fprintf(o.std.err, "Really %s? [y/N] ", change); err != nil {
		return err
	}
	answer, err := bufio.NewReader(o.std.in).ReadString('\n')
	if err != nil {
		return errors.New("not confirmed")
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	default:
		return errors.New("not confirmed")
	}
}
