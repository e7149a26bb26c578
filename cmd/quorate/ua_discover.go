package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/opcua"
)

func newUADiscover(o *options) *cobra.Command {
	var endpoint string
	cmd := &cobra.Command{
		Use:   "discover --endpoint URL",
		Short: "Ask a server for the servers that it knows and for its endpoints",
		Long: `Discover asks with FindServers and GetEndpoints. Neither needs a session, a certificate or a user, so nothing of the answer is
proven: compare the thumbprint before you trust a certificate.`,
		Example:           `  quorate ua discover --endpoint opc.tcp://127.0.0.1:4841`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addEndpointFlag(cmd, &endpoint)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkServerURL(endpoint); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
		defer cancel()
		found, err := opcua.Discover(ctx, endpoint)
		if err != nil {
			return &serverError{err}
		}
		return o.showPlain(found, func(p *printer) {
			rows := make([][]cell, 0, len(found.Servers))
			for _, s := range found.Servers {
				rows = append(rows, text(s.ApplicationURI, s.Name, s.Type, strings.Join(s.URLs, " ")))
			}
			p.table([]string{"SERVER", "NAME", "TYPE", "URLS"}, rows)
			p.line("")
			rows = make([][]cell, 0, len(found.Endpoints))
			for _, e := range found.Endpoints {
				expires := ""
				if e.NotAfter != nil {
					expires = e.NotAfter.Format(time.DateOnly)
				}
				rows = append(rows, text(e.URL, e.Policy, e.Mode, strings.Join(e.Users, ","), e.SecurityLevel, e.Thumbprint, expires))
			}
			p.table([]string{"ENDPOINT", "POLICY", "MODE", "USERS", "LEVEL", "CERTIFICATE", "EXPIRES"}, rows)
			if found.More {
				p.line("…")
			}
		})
	}
	return cmd
}
