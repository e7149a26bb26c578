package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/pki"
)

// defaultAuthorityDir is where the development authority is kept unless it is told otherwise.
const defaultAuthorityDir = "pki"

func newPKI(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "A development certificate authority, and who is trusted over OPC UA",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	dir := cmd.PersistentFlags().String("dir", defaultAuthorityDir, "`DIR` of the authority")
	must(cmd.MarkPersistentFlagDirname("dir"))
	cmd.AddCommand(newPKIInit(o, dir), newPKIIssue(o, dir), newPKIList(o, dir), newPKITrust(o), newPKIReject(o), newPKIUser(o))
	return cmd
}

func newPKIInit(o *options, dir *string) *cobra.Command {
	var site string
	cmd := &cobra.Command{
		Use:     "init --site SITE",
		Short:   "Make the authority of a site; one that is there is left alone",
		Example: `  quorate pki init --dir pki --site plant.example`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if site == "" {
				return errors.New("--site: missing")
			}
			if err := pki.Init(*dir, site); err != nil {
				return err
			}
			file := filepath.Join(*dir, pki.AuthorityFile)
			return o.showPlain(map[string]string{"site": site, "caFile": file}, func(p *printer) {
				p.line("authority of %s: %s", site, file)
			})
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "the `SITE`: the trust domain of all its certificates")
	return cmd
}

func newPKIIssue(o *options, dir *string) *cobra.Command {
	var role, applicationURI string
	var applicationOnly bool
	request := pki.IssueRequest{}
	cmd := &cobra.Command{
		Use:   "issue (--member ID --host HOST… | --person NAME --role ROLE)",
		Short: "Issue the certificates of a member, for TLS and as an OPC UA application, or that of a person",
		Example: `  quorate pki issue --member m1 --host 10.0.0.1 --host m1.plant.example
  quorate pki issue --person ada --role operator`,
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&request.Member, "member", "", "`ID` of a member")
	flags.StringSliceVar(&request.Hosts, "host", nil, "DNS name or IP `ADDRESS` under which the member is reached; repeatable")
	flags.StringVar(&applicationURI, "application-uri", "", "`URI` of the member as an OPC UA application (default: urn:quorate:SITE:ID)")
	flags.BoolVar(&applicationOnly, "application-only", false, "only the OPC UA application certificate, for a member that has the other one")
	flags.StringVar(&request.Person, "person", "", "`NAME` of a person")
	flags.StringVar(&role, "role", "", "what the person may do: viewer, operator or administrator")
	flags.DurationVar(&request.Validity, "validity", pki.DefaultValidity, "how long it lasts")
	must(cmd.RegisterFlagCompletionFunc("role",
		cobra.FixedCompletions([]string{"viewer", "operator", "administrator"}, cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(*cobra.Command, []string) error {
		if request.Member != "" && len(request.Hosts) == 0 {
			return errors.New("--host: missing; clients check the name or address by which they reach the member")
		}
		if role != "" {
			var err error
			if request.Role, err = pki.ParseRole(role); err != nil {
				return fmt.Errorf("--role: %w", err)
			}
		}
		if request.Member == "" && (applicationURI != "" || applicationOnly) {
			return errors.New("--application-uri, --application-only: only a member has such a certificate")
		}
		issued := issuedFiles{}
		if !applicationOnly {
			var err error
			if issued.CertFile, issued.KeyFile, err = pki.Issue(*dir, request); err != nil {
				return err
			}
		}
		if request.Member != "" {
			var err error
			if issued.ApplicationCertFile, issued.ApplicationKeyFile, err = pki.IssueApplication(*dir, pki.ApplicationRequest{
				Member: request.Member, ApplicationURI: applicationURI, Hosts: request.Hosts, Validity: request.Validity,
			}); err != nil {
				return err
			}
		}
		return o.showPlain(issued, func(p *printer) {
			if issued.CertFile != "" {
				p.line("certificate %s, key %s", issued.CertFile, issued.KeyFile)
			}
			if issued.ApplicationCertFile != "" {
				p.line("OPC UA application certificate %s, key %s", issued.ApplicationCertFile, issued.ApplicationKeyFile)
			}
		})
	}
	return cmd
}

// issuedFiles are the files that `pki issue` wrote.
type issuedFiles struct {
	CertFile            string `json:"certFile,omitempty"`
	KeyFile             string `json:"keyFile,omitempty"`
	ApplicationCertFile string `json:"applicationCertFile,omitempty"`
	ApplicationKeyFile  string `json:"applicationKeyFile,omitempty"`
}

// certificate is a certificate as `pki list` shows it.
type certificate struct {
	File      string    `json:"file"`
	Kind      string    `json:"kind"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Hosts     []string  `json:"hosts"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

func newPKIList(o *options, dir *string) *cobra.Command {
	var folders *folderFlags
	cmd := &cobra.Command{
		Use:   "list [--data-dir DIR]",
		Short: "List the authority and what it issued, or whom a member trusts over OPC UA",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if folders.dataDir != "" {
				return listFolders(o, folders)
			}
			listed, err := pki.List(*dir)
			if err != nil {
				return err
			}
			certificates := make([]certificate, 0, len(listed))
			for _, l := range listed {
				certificates = append(certificates, describeCertificate(l))
			}
			return o.showPlain(map[string]any{"certificates": certificates}, func(p *printer) {
				rows := make([][]cell, 0, len(certificates))
				for _, c := range certificates {
					rows = append(rows, text(c.Kind, c.Name, c.Role, strings.Join(c.Hosts, ","), c.NotAfter.Format(time.DateOnly), c.File))
				}
				p.table([]string{"KIND", "NAME", "ROLE", "HOSTS", "EXPIRES", "FILE"}, rows)
			})
		},
	}
	folders = addFolderFlags(cmd)
	return cmd
}

func describeCertificate(l pki.Listed) certificate {
	c := certificate{File: l.File, Name: l.Identity.Name, Hosts: l.Hosts, Serial: l.Serial, NotBefore: l.NotBefore.UTC(), NotAfter: l.NotAfter.UTC()}
	switch {
	case l.Authority:
		c.Kind, c.Name = "authority", l.Identity.Site
	case l.Application:
		c.Kind = "application"
	case l.Identity.Member:
		c.Kind = "member"
	default:
		c.Kind, c.Role = "person", l.Identity.Role.String()
	}
	if c.Hosts == nil {
		c.Hosts = []string{}
	}
	return c
}
