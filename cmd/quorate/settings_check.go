package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"quorate/fsm"
	"quorate/node"
	"quorate/pki"
	"quorate/redundancy"
)

// maxBootstrapMembers bounds the first list of voters: more of them make every commit slower and no group safer.
const maxBootstrapMembers = 9

var (
	memberForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	siteForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

// derive fills in what follows from other settings.
func (s *settings) derive() {
	for _, l := range []struct{ address, advertise *string }{
		{&s.Raft.Address, &s.Raft.Advertise}, {&s.GRPC.Address, &s.GRPC.Advertise}, {&s.HTTP.Address, &s.HTTP.Advertise},
	} {
		if *l.advertise == "" && !unspecified(*l.address) {
			*l.advertise = *l.address
		}
	}
	if s.OPCUA.EndpointURL == "" && s.OPCUA.Address != "" && !unspecified(s.OPCUA.Address) {
		s.OPCUA.EndpointURL = "opc.tcp://" + s.OPCUA.Address
	}
	if s.OPCUA.ApplicationURI == "" {
		s.OPCUA.ApplicationURI = pki.ApplicationURI(s.Site, s.Member)
	}
}

// findings collects everything that is wrong, so that a file needs to be corrected only once.
type findings []string

func (f *findings) add(key, format string, arguments ...any) {
	*f = append(*f, key+": "+fmt.Sprintf(format, arguments...))
}

// check returns one error that names each wrong field.
func (s *settings) check() error {
	var f findings
	if !memberForm.MatchString(s.Member) {
		f.add("member", "must match %s, got %q", memberForm, s.Member)
	}
	if len(s.Site) > 253 || !siteForm.MatchString(s.Site) {
		f.add("site", "must be a name of lower-case letters, digits, '-' and '.', got %q", s.Site)
	}
	if s.DataDir == "" {
		f.add("dataDir", "is missing")
	}
	s.checkListeners(&f)
	s.checkOPCUA(&f)
	s.checkTLS(&f)
	s.checkBootstrap(&f)
	s.checkRedundancy(&f)
	oneOf(&f, "raft.timing", s.Raft.Timing, "lan", "wan")
	oneOf(&f, "storage.logStore", s.Storage.LogStore, node.LogStoreBolt, node.LogStoreWAL)
	between(&f, "storage.snapshotEntries", s.Storage.SnapshotEntries, node.MinSnapshotEntries, node.MaxSnapshotEntries)
	between(&f, "upgrade.commandVersion", s.Upgrade.CommandVersion, 1, fsm.CommandVersion)
	oneOf(&f, "log.level", s.Log.Level, "debug", "info", "warn", "error")
	oneOf(&f, "log.format", s.Log.Format, "text", "json")
	if len(f) > 0 {
		return errors.New(strings.Join(f, "; "))
	}
	return nil
}

func (s *settings) checkListeners(f *findings) {
	seen := map[string]string{}
	for _, l := range []struct{ noun, address, advertise string }{
		{"raft", s.Raft.Address, s.Raft.Advertise},
		{"grpc", s.GRPC.Address, s.GRPC.Advertise},
		{"http", s.HTTP.Address, s.HTTP.Advertise},
		{"opcua", s.OPCUA.Address, ""},
	} {
		key := l.noun + ".address"
		if err := checkHostPort(l.address); err != nil {
			f.add(key, "%v", err)
			continue
		}
		if other, ok := seen[l.address]; ok && !strings.HasSuffix(l.address, ":0") {
			f.add(key, "is the same as %s", other)
		}
		seen[l.address] = key
		if l.noun == "opcua" {
			continue
		}
		if unspecified(l.address) && l.advertise == "" {
			f.add(l.noun+".advertise", "is missing: others can't connect to %s", l.address)
			continue
		}
		if err := checkHostPort(l.advertise); err != nil {
			f.add(l.noun+".advertise", "%v", err)
		} else if unspecified(l.advertise) {
			f.add(l.noun+".advertise", "others can't connect to %s", l.advertise)
		}
	}
}

func (s *settings) checkOPCUA(f *findings) {
	switch endpoint, err := url.Parse(s.OPCUA.EndpointURL); {
	case s.OPCUA.EndpointURL == "":
		f.add("opcua.endpointUrl", "is missing")
	case err != nil || endpoint.Scheme != "opc.tcp" || endpoint.Hostname() == "" || endpoint.Port() == "":
		f.add("opcua.endpointUrl", "must be opc.tcp://HOST:PORT[/PATH], got %q", s.OPCUA.EndpointURL)
	}
	if uri := s.OPCUA.ApplicationURI; !strings.HasPrefix(uri, "urn:") && !strings.HasPrefix(uri, "opc.tcp://") {
		f.add("opcua.applicationUri", "must begin with urn: or opc.tcp://, got %q", uri)
	}
	switch {
	case s.OPCUA.Cert != "" && s.OPCUA.Key == "":
		f.add("opcua.key", "is missing: opcua.cert is given")
	case s.OPCUA.Cert == "" && s.OPCUA.Key != "":
		f.add("opcua.cert", "is missing: opcua.key is given")
	}
	s.OPCUA.Limits.check(f)
}

func (s *settings) checkTLS(f *findings) {
	given := s.TLS.CA != "" || s.TLS.Cert != "" || s.TLS.Key != ""
	if !given && s.Dev {
		return
	}
	for _, t := range []struct{ key, value string }{{"tls.ca", s.TLS.CA}, {"tls.cert", s.TLS.Cert}, {"tls.key", s.TLS.Key}} {
		if t.value == "" {
			f.add(t.key, "is missing: only dev runs without certificates")
		}
	}
}

func (s *settings) checkBootstrap(f *findings) {
	if len(s.Bootstrap) > maxBootstrapMembers {
		f.add("bootstrap", "has %d members, at most %d are allowed", len(s.Bootstrap), maxBootstrapMembers)
		return
	}
	ids, addresses, self := map[string]int{}, map[string]int{}, len(s.Bootstrap) == 0
	for i, m := range s.Bootstrap {
		at := fmt.Sprintf("bootstrap[%d]", i)
		if !memberForm.MatchString(m.Member) {
			f.add(at+".member", "must match %s, got %q", memberForm, m.Member)
		}
		if err := checkHostPort(m.Raft); err != nil {
			f.add(at+".raft", "%v", err)
		}
		if other, ok := ids[m.Member]; ok {
			f.add(at+".member", "is the same as that of bootstrap[%d]", other)
		}
		if other, ok := addresses[m.Raft]; ok {
			f.add(at+".raft", "is the same as that of bootstrap[%d]", other)
		}
		ids[m.Member], addresses[m.Raft] = i, i
		if m.Member == s.Member {
			self = true
			if m.Raft != s.Raft.Advertise {
				f.add(at+".raft", "is %s, but this member's raft.advertise is %s", m.Raft, s.Raft.Advertise)
			}
		}
	}
	if !self {
		f.add("bootstrap", "does not name this member, %s", s.Member)
	}
}

func (s *settings) checkRedundancy(f *findings) {
	r := s.Redundancy
	between(f, "redundancy.probeInterval", r.ProbeInterval, redundancy.MinProbeInterval, redundancy.MaxProbeInterval)
	between(f, "redundancy.probeTimeout", r.ProbeTimeout, time.Millisecond, redundancy.MaxProbeInterval)
	between(f, "redundancy.failedSamples", r.FailedSamples, 1, redundancy.MaxSamples)
	between(f, "redundancy.goodSamples", r.GoodSamples, 1, redundancy.MaxSamples)
	// Zero would mean the default to the packages below, so it can't be asked for.
	between(f, "redundancy.recoverDwell", r.RecoverDwell, time.Millisecond, redundancy.MaxRecoverDwell)
	if _, err := parseNodeID(r.WitnessNode); err != nil {
		f.add("redundancy.witnessNode", "%v", err)
	}
	if len(r.ApplyHook.Command) > 0 {
		if _, err := redundancy.NewHook(r.ApplyHook.Command, r.ApplyHook.Timeout); err != nil {
			f.add("redundancy.applyHook", "%v", err)
		}
	}
}

// nodeIDForm is stricter than gopcua's parser, which takes a mistyped id for a text id in namespace 0.
var nodeIDForm = regexp.MustCompile(`^(ns=[0-9]+;)?[isgb]=.+$`)

func parseNodeID(text string) (*ua.NodeID, error) {
	if nodeIDForm.MatchString(text) {
		if id, err := ua.ParseNodeID(text); err == nil {
			return id, nil
		}
	}
	return nil, fmt.Errorf("must be a NodeId such as i=2258 or ns=2;s=m1, got %q", text)
}

func between[T interface{ ~int | ~int64 | ~uint32 }](f *findings, key string, value, least, most T) {
	if value < least || value > most {
		f.add(key, "must be from %v to %v, got %v", least, most, value)
	}
}

func oneOf(f *findings, key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		f.add(key, "must be one of %s, got %q", strings.Join(allowed, ", "), value)
	}
}

// checkHostPort checks the form HOST:PORT.
func checkHostPort(address string) error {
	if address == "" {
		return errors.New("is missing")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || strings.ContainsAny(host, "/ ") {
		return fmt.Errorf("must be HOST:PORT, got %q", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("must be HOST:PORT with a port from 0 to 65535, got %q", address)
	}
	return nil
}

// unspecified tells whether an address says "all addresses of this machine", or lets the system choose the port: nothing
// that others could connect to.
func unspecified(address string) bool {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return true
	}
	ip := net.ParseIP(host)
	return host == "" || port == "0" || (ip != nil && ip.IsUnspecified())
}

func (s *settings) logLevel() slog.Level {
	var level slog.Level
	must(level.UnmarshalText([]byte(s.Log.Level)))
	return level
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
