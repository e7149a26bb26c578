package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quorate/opcua"
	"quorate/opcua/certstore"
	"quorate/opcua/session"
	"quorate/pki"
)

// maxPasswordBytes bounds the file of --password-file.
const maxPasswordBytes = 4096

func newUA(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ua",
		Short: "An OPC UA client, for members and for any other server",
		Args:  cobra.ArbitraryArgs,
		RunE:  noVerb,
	}
	cmd.AddCommand(newUARead(o), newUABrowse(o), newUAWatch(o), newUADiscover(o), newUAFailover(o))
	return cmd
}

// uaFlags say which server is meant and how to log in.
type uaFlags struct {
	endpoint        string
	policy          string
	securityMode    string
	certificateDir  string
	user            string
	passwordFile    string
	userCertificate string
	userKey         string
	trust           []string
}

func addUAFlags(cmd *cobra.Command) *uaFlags {
	f := &uaFlags{}
	flags := cmd.Flags()
	addEndpointFlag(cmd, &f.endpoint)
	flags.StringVar(&f.policy, "policy", "", "security `POLICY`: "+strings.Join(session.PolicyNames(), ", ")+" (default: the strongest that the server offers)")
	flags.StringVar(&f.securityMode, "security-mode", "", "security `MODE`: Sign or SignAndEncrypt (default: SignAndEncrypt where the server offers it)")
	flags.StringVar(&f.certificateDir, "certificate-dir", "", "`DIR` of this client's application certificate, made if there is none (default: quorate in the user's configuration directory)")
	flags.StringVar(&f.user, "user", "", "log in as `NAME` (default: anonymous)")
	flags.StringVar(&f.passwordFile, "password-file", "", "`FILE` with the password of --user")
	flags.StringVar(&f.userCertificate, "user-certificate", "", "log in by the certificate (RSA, DER or PEM) in `FILE`")
	flags.StringVar(&f.userKey, "user-key", "", "`FILE` with the key (PEM) of --user-certificate")
	flags.StringArrayVar(&f.trust, "trust", nil, "`FILE` (DER or PEM) with the certificate of the server, or of who signed it; again for more. Without it the certificate that a server "+
		"shows first is remembered in known_servers of --certificate-dir, and another one is refused; servers at loopback addresses are not asked")
	cmd.MarkFlagsMutuallyExclusive("user", "user-certificate")
	cmd.MarkFlagsRequiredTogether("user-certificate", "user-key")
	must(cmd.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions(session.PolicyNames(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("security-mode", cobra.FixedCompletions(session.ModeNames(), cobra.ShellCompDirectiveNoFileComp)))
	cmd.ValidArgsFunction = cobra.FixedCompletions(opcua.WellKnownNames(), cobra.ShellCompDirectiveNoFileComp)
	return f
}

func addEndpointFlag(cmd *cobra.Command, endpoint *string) {
	cmd.Flags().StringVar(endpoint, "endpoint", "", "`URL` of the server: opc.tcp://HOST:PORT[/PATH]")
}

// client checks the flags and turns them into the client's configuration. notices is told which server is trusted from now on.
func (f *uaFlags) client(nodes []string, notices io.Writer) (opcua.ClientConfig, error) {
	config := opcua.ClientConfig{Endpoint: f.endpoint}
	if err := checkServerURL(f.endpoint); err != nil {
		return config, err
	}
	if len(nodes) > opcua.MaxClientNodes {
		return config, fmt.Errorf("NODE: at most %d, got %d", opcua.MaxClientNodes, len(nodes))
	}
	for _, node := range nodes {
		if _, err := opcua.ParseNode(node); err != nil {
			return config, err
		}
	}
	config.Name, config.User = "quorate ua", f.user
	if f.passwordFile != "" {
		password, err := readPassword(f.passwordFile)
		if err != nil {
			return config, fmt.Errorf("--password-file: %w", err)
		}
		config.Password = password
	}
	if f.userCertificate != "" {
		if err := f.loadUser(&config); err != nil {
			return config, err
		}
	}
	if err := f.checkSecurity(); err != nil {
		return config, err
	}
	config.Policy, config.Mode = f.policy, f.securityMode
	if f.policy == session.None {
		if len(f.trust) > 0 {
			return config, fmt.Errorf("--trust: with policy %s a server shows no certificate", session.None)
		}
		return config, nil
	}
	// Where nothing is asked for, the server's offer decides. Where there is no place for a certificate, None alone is left, and the
	// session says what it lacks.
	dir, err := f.loadCertificate(&config)
	if asked := f.policy != "" || f.securityMode != "" || f.certificateDir != "" || len(f.trust) > 0; err != nil && asked {
		return config, err
	}
	trust, err := newServerTrust(f.trust, dir, notices)
	if err != nil {
		return config, err
	}
	config.Verify = trust.verify
	return config, nil
}

func (f *uaFlags) checkSecurity() error {
	policies, modes := session.PolicyNames(), session.ModeNames()
	switch {
	case f.policy != "" && !slices.Contains(policies, f.policy):
		return fmt.Errorf("--policy: must be one of %s, got %q", strings.Join(policies, ", "), f.policy)
	case f.securityMode != "" && !slices.Contains(modes, f.securityMode):
		return fmt.Errorf("--security-mode: must be %s, got %q", strings.Join(modes, " or "), f.securityMode)
	case f.securityMode != "" && f.policy == session.None:
		return fmt.Errorf("--security-mode: policy %s has none, got %q", session.None, f.securityMode)
	}
	return nil
}

// loadUser reads the certificate of a person, and the key that proves it.
func (f *uaFlags) loadUser(config *opcua.ClientConfig) error {
	certificates, err := certstore.ReadCertificates(f.userCertificate)
	if err != nil {
		return fmt.Errorf("--user-certificate: %w", err)
	}
	key, err := pki.ReadRSAKey(f.userKey)
	if err != nil {
		return fmt.Errorf("--user-key: %w", err)
	}
	if !key.PublicKey.Equal(certificates[0].PublicKey) {
		return errors.New("--user-key: is not the key of --user-certificate")
	}
	config.UserCertificate, config.UserKey = certificates[0].Raw, key
	return nil
}

// checkServerURL checks --endpoint.
func checkServerURL(given string) error {
	if given == "" {
		return errors.New("--endpoint: missing")
	}
	if endpoint, err := url.Parse(given); err != nil || endpoint.Scheme != "opc.tcp" || endpoint.Host == "" {
		return fmt.Errorf("--endpoint: must be opc.tcp://HOST:PORT[/PATH], got %q", given)
	}
	return nil
}

func readPassword(name string) (string, error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	if len(raw) > maxPasswordBytes {
		return "", fmt.Errorf("longer than %d bytes", maxPasswordBytes)
	}
	return strings.TrimRight(string(raw), "\r\n"), nil
}

// loadCertificate gives the client an identity of its own, which servers can be told to trust. It is kept, because they
// know it by its thumbprint. dir is where, empty if there is no place for it.
func (f *uaFlags) loadCertificate(config *opcua.ClientConfig) (dir string, err error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	if dir = f.certificateDir; dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("--certificate-dir: missing: %w", err)
		}
		dir = filepath.Join(base, "quorate")
	}
	config.Certificate, config.Key, err = pki.EnsureApplicationCertificate(dir, "urn:quorate:client:"+host, []string{host}, time.Now())
	return dir, err
}

func newUARead(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "read --endpoint URL NODE…",
		Short: "Read the values of nodes",
		Example: `  quorate ua read --endpoint opc.tcp://127.0.0.1:4841 ServiceLevel i=2258
  quorate ua read --endpoint opc.tcp://127.0.0.1:4841 i=2267 -o json`,
		Args: cobra.MinimumNArgs(1),
	}
	f := addUAFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, nodes []string) error {
		config, err := f.client(nodes, o.std.err)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
		defer cancel()
		readings, err := opcua.Read(ctx, config, nodes...)
		if err != nil {
			return &serverError{err}
		}
		err = o.showPlain(map[string]any{"endpoint": f.endpoint, "readings": readings}, func(p *printer) {
			rows := make([][]cell, 0, len(readings))
			for _, r := range readings {
				rows = append(rows, readingRow(r, r.SourceTimestamp))
			}
			p.table([]string{"NODE", "VALUE", "STATUS", "SOURCE TIME"}, rows)
		})
		return errors.Join(err, badReadings(readings))
	}
	return cmd
}

// badReadings is an error if a node could not be read, so that a script need not look at every status.
func badReadings(readings []opcua.Reading) error {
	var failed []string
	for _, r := range readings {
		if strings.HasPrefix(r.Status, "Bad") {
			failed = append(failed, r.Node+" "+r.Status)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &serverError{fmt.Errorf("%d of %d nodes can't be read: %s", len(failed), len(readings), strings.Join(failed, ", "))}
}

func readingRow(r opcua.Reading, at *time.Time) []cell {
	status := cell{text: r.Status, colour: good}
	if r.Status != "Good" {
		status.colour = bad
	}
	when := ""
	if at != nil {
		when = at.Local().Format("2006-01-02 15:04:05.000")
	}
	return text(r.Node, valueText(r.Value), status, when)
}

// valueText shows scalars as they are and everything else as JSON.
func valueText(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	if raw, err := json.Marshal(value); err == nil {
		return string(raw)
	}
	return fmt.Sprint(value)
}

func newUAWatch(o *options) *cobra.Command {
	var interval time.Duration
	var count int
	cmd := &cobra.Command{
		Use:   "watch --endpoint URL NODE…",
		Short: "Subscribe to nodes and print each change, until it is interrupted",
		Long: `Watch prints the first value of each node and then every change, one line each; with -o json one line of JSON each. A
connection that is lost is made again, and said with status BadNoCommunication.`,
		Example: `  quorate ua watch --endpoint opc.tcp://127.0.0.1:4842 ServiceLevel`,
		Args:    cobra.MinimumNArgs(1),
	}
	f := addUAFlags(cmd)
	cmd.Flags().DurationVar(&interval, "interval", opcua.DefaultPublishingInterval, "publishing interval that is asked for")
	cmd.Flags().IntVar(&count, "count", 0, "end after `N` lines (default: go on)")
	cmd.RunE = func(cmd *cobra.Command, nodes []string) error {
		config, err := f.client(nodes, o.std.err)
		if err != nil {
			return err
		}
		if interval <= 0 || interval > opcua.MaxPublishingInterval {
			return fmt.Errorf("--interval: must be more than 0 and at most %s, got %s", opcua.MaxPublishingInterval, interval)
		}
		ctx, enough := context.WithCancel(cmd.Context())
		defer enough()
		var failure error
		lines := 0
		err = opcua.Watch(ctx, config, interval, nodes, func(r opcua.Reading) {
			if ctx.Err() != nil {
				return
			}
			now := time.Now()
			if failure = o.showLine(readingRow(r, &now), r); failure != nil {
				enough()
			}
			if lines++; lines == count {
				enough()
			}
		})
		switch {
		case failure != nil:
			return failure
		case ctx.Err() != nil:
			return nil // That is how a watch ends.
		default:
			return &serverError{err}
		}
	}
	return cmd
}

// showLine prints one line at once, since the next may not come for hours: the row, or the value as one line of JSON or as one
// document of YAML.
func (o *options) showLine(row []cell, value any) error {
	if o.output == outputTable {
		p := newPrinter(o.std.out)
		for len(row) > 1 && row[len(row)-1].text == "" {
			row = row[:len(row)-1]
		}
		for i, c := range row {
			if i > 0 {
				p.buffer.WriteString("  ")
			}
			c.text = singleLine(c.text)
			p.coloured(c)
		}
		p.buffer.WriteByte('\n')
		return p.flush()
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("print %s: %w", row[0].text, err)
	}
	if o.output == outputJSON {
		_, err = o.std.out.Write(append(raw, '\n'))
		return err
	}
	if _, err := fmt.Fprintln(o.std.out, "---"); err != nil {
		return err
	}
	return writeDocument(o.std.out, outputYAML, raw)
}

// serverError is a failure of an OPC UA server, or of the way to it.
type serverError struct{ err error }

func (e *serverError) Error() string { return e.err.Error() }
func (e *serverError) Unwrap() error { return e.err }
