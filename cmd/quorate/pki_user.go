package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"quorate/opcua/certstore"
	"quorate/opcua/login"
	"quorate/opcua/server"
)

func newPKIUser(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "The users that a member lets log in over OPC UA",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	dataDir := cmd.PersistentFlags().String("data-dir", "", "data `DIR` of the member: the dataDir of its settings")
	must(cmd.MarkPersistentFlagDirname("data-dir"))
	cmd.AddCommand(newPKIUserAdd(o, dataDir), newPKIUserRemove(o, dataDir), newPKIUserList(o, dataDir))
	return cmd
}

func newPKIUserAdd(o *options, dataDir *string) *cobra.Command {
	var role, passwordFile, certificateFile string
	cmd := &cobra.Command{
		Use:   "add NAME --data-dir DIR --role ROLE (--password-file FILE | --certificate FILE)",
		Short: "Add a user, or change a password or a role",
		Long: `Add lets somebody log in over OPC UA, by a password or by a certificate (RSA, DER or PEM), which is trusted with it. The
password is the first line of a file, or of standard input; only a hash of it is kept. A running member takes it at once. Run this as the user that the member runs as.`,
		Example: `  quorate pki user add ada --data-dir /var/lib/quorate --role operator --password-file -
  quorate pki user add press-4 --data-dir /var/lib/quorate --role viewer --certificate press-4.der`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVar(&role, "role", "", "what the user may do: viewer, operator or administrator")
	flags.StringVar(&passwordFile, "password-file", "", "`FILE` with the password; - for standard input")
	flags.StringVar(&certificateFile, "certificate", "", "`FILE` with the user's certificate")
	cmd.MarkFlagsMutuallyExclusive("password-file", "certificate")
	must(cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(server.RoleNames(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.RunE = func(_ *cobra.Command, arguments []string) error {
		if err := checkDataDir(*dataDir); err != nil {
			return err
		}
		user, file := login.User{Name: arguments[0], Role: role}, userFile(*dataDir)
		switch {
		case passwordFile != "":
			password, err := firstLine(o, passwordFile)
			if err != nil {
				return fmt.Errorf("--password-file: %w", err)
			}
			if err := login.Add(file, server.RoleNames(), user, password); err != nil {
				return err
			}
		case certificateFile != "":
			if err := addCertifiedUser(*dataDir, user, certificateFile); err != nil {
				return err
			}
		default:
			return errors.New("--password-file, --certificate: one is needed")
		}
		return o.showPlain(map[string]string{"name": user.Name, "role": user.Role}, func(p *printer) {
			p.line("%s may log in as %s", user.Name, user.Role)
		})
	}
	return cmd
}

func addCertifiedUser(dataDir string, user login.User, certificateFile string) error {
	certificates, err := certstore.ReadCertificates(certificateFile)
	if err != nil {
		return fmt.Errorf("--certificate: %w", err)
	}
	store, err := (&folderFlags{dataDir: dataDir, users: true}).open()
	if err != nil {
		return err
	}
	leaf := certificates[0].Raw
	// The role goes first: who is trusted and not in the list is a viewer.
	if err := login.AddCertificate(userFile(dataDir), server.RoleNames(), user, certstore.Fingerprint(leaf)); err != nil {
		return err
	}
	_, err = store.Add(leaf)
	return err
}

// firstLine reads a secret. It never comes from the arguments, which others on the machine can see.
func firstLine(o *options, name string) ([]byte, error) {
	from := o.std.in
	if name != "-" {
		file, err := os.Open(filepath.Clean(name))
		if err != nil {
			return nil, err
		}
		defer closeQuietly(file)
		from = file
	}
	raw, err := io.ReadAll(io.LimitReader(from, maxPasswordBytes+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxPasswordBytes {
		return nil, fmt.Errorf("longer than %d bytes", maxPasswordBytes)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	return []byte(strings.TrimSuffix(line, "\r")), nil
}

func newPKIUserRemove(o *options, dataDir *string) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME --data-dir DIR",
		Short:   "Remove a user; sessions that are open stay until they end",
		Example: `  quorate pki user remove ada --data-dir /var/lib/quorate`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, arguments []string) error {
			if err := checkDataDir(*dataDir); err != nil {
				return err
			}
			if err := removeUser(*dataDir, arguments[0]); err != nil {
				return err
			}
			return o.showPlain(map[string]string{"name": arguments[0]}, func(p *printer) { p.line("%s is removed", arguments[0]) })
		},
	}
}

// removeUser takes the trust from the user's certificates too, which would make the user a viewer otherwise.
func removeUser(dataDir, name string) error {
	entries, err := login.List(userFile(dataDir), server.RoleNames())
	if err != nil {
		return err
	}
	store, err := (&folderFlags{dataDir: dataDir, users: true}).open()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name != name || e.Fingerprint == "" {
			continue
		}
		if _, err := store.Reject(e.Fingerprint); err != nil && !errors.Is(err, certstore.ErrUnknown) {
			return err
		}
	}
	return login.Remove(userFile(dataDir), server.RoleNames(), name)
}

// listedUser is a user as `pki user list` shows it.
type listedUser struct {
	Name        string `json:"name"`
	Role        string `json:"role"`
	By          string `json:"by"`
	Fingerprint string `json:"fingerprint,omitempty"`
}

func newPKIUserList(o *options, dataDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list --data-dir DIR",
		Short: "List the users",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := checkDataDir(*dataDir); err != nil {
				return err
			}
			entries, err := login.List(userFile(*dataDir), server.RoleNames())
			if err != nil {
				return err
			}
			users := make([]listedUser, 0, len(entries))
			for _, e := range entries {
				u := listedUser{Name: e.Name, Role: e.Role, By: "password", Fingerprint: e.Fingerprint}
				if e.Fingerprint != "" {
					u.By = "certificate"
				}
				users = append(users, u)
			}
			return o.showPlain(map[string]any{"users": users}, func(p *printer) {
				rows := make([][]cell, 0, len(users))
				for _, u := range users {
					rows = append(rows, text(u.Name, u.Role, u.By, u.Fingerprint))
				}
				p.table([]string{"NAME", "ROLE", "BY", "FINGERPRINT"}, rows)
			})
		},
	}
}
