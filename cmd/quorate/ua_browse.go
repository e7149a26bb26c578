package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"quorate/opcua"
)

func newUABrowse(o *options) *cobra.Command {
	var depth int
	cmd := &cobra.Command{
		Use:   "browse --endpoint URL [NODE]",
		Short: "Show the tree of nodes below a node",
		Long: fmt.Sprintf(`Browse follows the hierarchical references from a node (default: the Objects folder, %s) and shows what it finds as a tree.
A node that hangs at several places has its children at the first only; the others are marked. At most %d nodes are shown.`,
			opcua.DefaultBrowseRoot, opcua.MaxBrowsedNodes),
		Example: `  quorate ua browse --endpoint opc.tcp://127.0.0.1:4841
  quorate ua browse --endpoint opc.tcp://127.0.0.1:4841 i=2253 --depth 3 -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	f := addUAFlags(cmd)
	cmd.Flags().IntVar(&depth, "depth", opcua.DefaultBrowseDepth, fmt.Sprintf("`STEPS` below the node, up to %d", opcua.MaxBrowseDepth))
	cmd.RunE = func(cmd *cobra.Command, nodes []string) error {
		if len(nodes) == 0 {
			nodes = []string{opcua.DefaultBrowseRoot}
		}
		config, err := f.client(nodes, o.std.err)
		if err != nil {
			return err
		}
		if depth < 0 || depth > opcua.MaxBrowseDepth {
			return fmt.Errorf("--depth: must be from 0 to %d, got %d", opcua.MaxBrowseDepth, depth)
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
		defer cancel()
		top, err := opcua.Browse(ctx, config, nodes[0], depth)
		if err != nil {
			return &serverError{err}
		}
		unlisted := 0
		err = o.showPlain(top, func(p *printer) { showBranch(p, top, "", "") })
		countUnlisted(top, &unlisted)
		if unlisted > 0 {
			err = errors.Join(err, &serverError{fmt.Errorf("the children of %d nodes can't be listed", unlisted)})
		}
		return err
	}
	return cmd
}

// showBranch prints a node behind first, and those below it behind rest.
func showBranch(p *printer, b *opcua.Branch, first, rest string) {
	name := b.DisplayName
	if name == "" {
		name = b.BrowseName
	}
	p.buffer.WriteString(first + singleLine(name))
	p.coloured(cell{text: "  " + singleLine(b.Node) + "  " + b.Class, colour: faint})
	switch {
	case b.Status != "":
		p.coloured(cell{text: "  " + b.Status, colour: bad})
	case b.Elsewhere:
		p.coloured(cell{text: "  (elsewhere)", colour: faint})
	}
	p.buffer.WriteByte('\n')
	for i, child := range b.Children {
		if i == len(b.Children)-1 && !b.More {
			showBranch(p, child, rest+"└─ ", rest+"   ")
		} else {
			showBranch(p, child, rest+"├─ ", rest+"│  ")
		}
	}
	if b.More {
		p.line("%s└─ …", rest)
	}
}

func countUnlisted(b *opcua.Branch, n *int) {
	if b.Status != "" {
		*n++
	}
	for _, child := range b.Children {
		countUnlisted(child, n)
	}
}
