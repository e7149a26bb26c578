package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"quorate/opcua/certstore"
)

// folderFlags say whose trust is meant: a member's, in applications or in users.
type folderFlags struct {
	dataDir string
	users   bool
}

func addFolderFlags(cmd *cobra.Command) *folderFlags {
	f := &folderFlags{}
	cmd.Flags().StringVar(&f.dataDir, "data-dir", "", "data `DIR` of the member: the dataDir of its settings")
	cmd.Flags().BoolVar(&f.users, "users", false, "the certificates of users instead of those of applications")
	must(cmd.MarkFlagDirname("data-dir"))
	return f
}

// open opens the folders. The data directory must be there, since a misspelt one would be made.
func (f *folderFlags) open() (*certstore.Store, error) {
	if err := checkDataDir(f.dataDir); err != nil {
		return nil, err
	}
	if f.users {
		return certstore.Open(usersDir(f.dataDir), certstore.Options{Use: certstore.User})
	}
	return certstore.Open(opcuaDir(f.dataDir), certstore.Options{})
}

func checkDataDir(dir string) error {
	if dir == "" {
		return errors.New("--data-dir: missing")
	}
	switch info, err := os.Stat(dir); {
	case err != nil:
		return fmt.Errorf("--data-dir: %w", err)
	case !info.IsDir():
		return fmt.Errorf("--data-dir: %s is no directory", dir)
	}
	return nil
}

// storedCertificate is a certificate of the folders as commands show it.
type storedCertificate struct {
	State          string    `json:"state"`
	Name           string    `json:"name"`
	ApplicationURI string    `json:"applicationUri"`
	Fingerprint    string    `json:"fingerprint"`
	NotBefore      time.Time `json:"notBefore"`
	NotAfter       time.Time `json:"notAfter"`
	File           string    `json:"file"`
}

func describeStored(e certstore.Entry) storedCertificate {
	c := storedCertificate{
		State: string(e.State), Name: e.Certificate.Subject.CommonName, Fingerprint: e.Fingerprint, File: e.File,
		NotBefore: e.Certificate.NotBefore.UTC(), NotAfter: e.Certificate.NotAfter.UTC(),
	}
	if len(e.Certificate.URIs) > 0 {
		c.ApplicationURI = e.Certificate.URIs[0].String()
	}
	return c
}

func listFolders(o *options, f *folderFlags) error {
	store, err := f.open()
	if err != nil {
		return err
	}
	entries, err := store.List()
	if err != nil {
		return err
	}
	return showStored(o, entries)
}

func showStored(o *options, entries []certstore.Entry) error {
	certificates := make([]storedCertificate, 0, len(entries))
	for _, e := range entries {
		certificates = append(certificates, describeStored(e))
	}
	return o.showPlain(map[string]any{"certificates": certificates}, func(p *printer) {
		rows := make([][]cell, 0, len(certificates))
		for _, c := range certificates {
			rows = append(rows, text(c.State, c.Name, c.ApplicationURI, c.NotAfter.Format(time.DateOnly), c.Fingerprint))
		}
		p.table([]string{"STATE", "NAME", "APPLICATION URI", "EXPIRES", "FINGERPRINT"}, rows)
	})
}

// fingerprintForm is what is taken for the beginning of a fingerprint.
var fingerprintForm = regexp.MustCompile(`^[0-9A-Fa-f:]{8,}$`)

func newPKITrust(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust --data-dir DIR (FINGERPRINT | FILE)…",
		Short: "Let a member trust certificates over OPC UA, at once",
		Long: `Trust moves certificates that the member has refused from rejected to trusted, by the first 8 or more digits of their
SHA-256, which "quorate pki list --data-dir DIR" shows. Compare them with what the client says of itself.

It also takes files, DER or PEM: certificates of applications that have not come yet, or of an authority whose applications shall
all be trusted. The member need not be restarted, nor run. Run this as the user that the member runs as.`,
		Example: `  quorate pki list --data-dir /var/lib/quorate
  quorate pki trust --data-dir /var/lib/quorate 5f0a93c2
  quorate pki trust --data-dir /var/lib/quorate pki/opcua-ca.pem`,
		Args: cobra.MinimumNArgs(1),
	}
	f := addFolderFlags(cmd)
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	cmd.RunE = func(_ *cobra.Command, arguments []string) error {
		return moveStored(o, f, arguments, func(store *certstore.Store, argument string) ([]certstore.Entry, error) {
			if _, err := os.Stat(argument); err != nil && fingerprintForm.MatchString(argument) {
				e, err := store.Trust(argument)
				return []certstore.Entry{e}, err
			}
			certificates, err := certstore.ReadCertificates(argument)
			if err != nil {
				return nil, err
			}
			var added []certstore.Entry
			for _, c := range certificates {
				e, err := store.Add(c.Raw)
				if err != nil {
					return added, err
				}
				added = append(added, e)
			}
			return added, nil
		})
	}
	return cmd
}

func newPKIReject(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reject --data-dir DIR FINGERPRINT…",
		Short: "Take the trust over OPC UA from certificates",
		Long: `Reject moves certificates from trusted to rejected. New connections are refused at once; those that are open end when
their security token is due for renewal, within an hour. What an authority has signed stays trusted as long as the authority is.`,
		Example: `  quorate pki reject --data-dir /var/lib/quorate 5f0a93c2`,
		Args:    cobra.MinimumNArgs(1),
	}
	f := addFolderFlags(cmd)
	cmd.RunE = func(_ *cobra.Command, arguments []string) error {
		return moveStored(o, f, arguments, func(store *certstore.Store, argument string) ([]certstore.Entry, error) {
			e, err := store.Reject(argument)
			return []certstore.Entry{e}, err
		})
	}
	return cmd
}

// moveStored does one thing for each argument and shows what came of it, up to the first that failed.
func moveStored(o *options, f *folderFlags, arguments []string, do func(*certstore.Store, string) ([]certstore.Entry, error)) error {
	store, err := f.open()
	if err != nil {
		return err
	}
	var done []certstore.Entry
	for _, argument := range arguments {
		moved, err := do(store, argument)
		if err != nil {
			if len(done) > 0 {
				err = errors.Join(err, showStored(o, done))
			}
			return err
		}
		done = append(done, moved...)
	}
	return showStored(o, done)
}
