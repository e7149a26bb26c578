package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/maps"
	"github.com/knadh/koanf/v2"

	"quorate/fsm"
	"quorate/node"
	"quorate/redundancy"
)

// maxSettingsBytes bounds a configuration file.
const maxSettingsBytes = 1 << 20

// settings are the configuration of one member. The tags are the keys, in the file and in --set; the environment has them
// in upper case: dataDir is QUORATE_DATA_DIR.
type settings struct {
	// Member is the id of the member.
	Member string `koanf:"member"`
	// Site is the trust domain of the certificates.
	Site string `koanf:"site"`
	// DataDir holds all that the member keeps.
	DataDir string `koanf:"dataDir"`
	// Dev allows plain text and anonymous callers.
	Dev        bool               `koanf:"dev"`
	Raft       raftSettings       `koanf:"raft"`
	Storage    storageSettings    `koanf:"storage"`
	GRPC       listenSettings     `koanf:"grpc"`
	HTTP       listenSettings     `koanf:"http"`
	OPCUA      opcuaSettings      `koanf:"opcua"`
	TLS        tlsSettings        `koanf:"tls"`
	Bootstrap  []bootstrapMember  `koanf:"bootstrap"`
	Redundancy redundancySettings `koanf:"redundancy"`
	Log        logSettings        `koanf:"log"`
	Clock      clockSettings      `koanf:"clock"`
	Upgrade    upgradeSettings    `koanf:"upgrade"`
}

// listenSettings are one listener: where it listens, and what others connect to where that differs.
type listenSettings struct {
	Address   string `koanf:"address"`
	Advertise string `koanf:"advertise"`
}

type raftSettings struct {
	Address   string `koanf:"address"`
	Advertise string `koanf:"advertise"`
	// Timing is a profile: lan or wan.
	Timing string `koanf:"timing"`
}

type storageSettings struct {
	// LogStore is bolt or wal.
	LogStore string `koanf:"logStore"`
	// SnapshotEntries is how many log entries are written before the next snapshot, and how many are kept behind it.
	SnapshotEntries int `koanf:"snapshotEntries"`
}

type opcuaSettings struct {
	Address        string `koanf:"address"`
	EndpointURL    string `koanf:"endpointUrl"`
	ApplicationURI string `koanf:"applicationUri"`
	// AllowNone offers an endpoint without security, AllowAnonymous sessions without a user; without it only the servers of the topology get one, by
	// their certificates, to probe each other. Both default to dev.
	AllowNone      bool `koanf:"allowNone"`
	AllowAnonymous bool `koanf:"allowAnonymous"`
	// TrustAll takes every client application, whatever its certificate; it defaults to dev. Otherwise those are trusted that are
	// in dataDir/opcua/trusted, or signed by an authority that is.
	TrustAll bool `koanf:"trustAll"`
	// RequireRevocationLists refuses applications and users whose authority has no revocation list, or one that is out of date.
	RequireRevocationLists bool `koanf:"requireRevocationLists"`
	// CA is a file with authorities that are trusted too: that of the members' application certificates.
	CA string `koanf:"ca"`
	// Cert and Key are this member's application certificate; without them it makes one that is self-signed.
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// Limits bound what clients can make this member keep and do.
	Limits opcuaLimits `koanf:"limits"`
}

type tlsSettings struct {
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

// bootstrapMember is one voter of the group's first configuration.
type bootstrapMember struct {
	Member string `koanf:"member"`
	Raft   string `koanf:"raft"`
}

type redundancySettings struct {
	ProbeInterval time.Duration `koanf:"probeInterval"`
	ProbeTimeout  time.Duration `koanf:"probeTimeout"`
	FailedSamples int           `koanf:"failedSamples"`
	GoodSamples   int           `koanf:"goodSamples"`
	RecoverDwell  time.Duration `koanf:"recoverDwell"`
	WitnessNode   string        `koanf:"witnessNode"`
	// ApplyHook is run for each generation that this member's server applies.
	ApplyHook hookSettings `koanf:"applyHook"`
}

// hookSettings are a command of the operator's: an argument vector, with no shell. No command is no hook.
type hookSettings struct {
	Command []string      `koanf:"command"`
	Timeout time.Duration `koanf:"timeout"`
}

type logSettings struct {
	// Level is debug, info, warn or error; Format is text or json.
	Level  string `koanf:"level"`
	Format string `koanf:"format"`
}

type clockSettings struct {
	// WallOffsetFile has a duration by which the wall time that this member records is shifted: it shows that nothing depends on it.
	WallOffsetFile string `koanf:"wallOffsetFile"`
}

type upgradeSettings struct {
	// CommandVersion is the highest command version that the member says it can apply.
	CommandVersion uint32 `koanf:"commandVersion"`
}

// defaultSettings are the values of keys that nobody gives. Those of redundancy are requirements of redundancy.md.
func defaultSettings(dev bool) settings {
	return settings{
		Dev:     dev,
		Raft:    raftSettings{Timing: "lan"},
		Storage: storageSettings{LogStore: "bolt", SnapshotEntries: node.DefaultSnapshotEntries},
		OPCUA:   opcuaSettings{AllowNone: dev, AllowAnonymous: dev, TrustAll: dev, Limits: defaultOPCUALimits()},
		Redundancy: redundancySettings{
			ProbeInterval: 2 * time.Second, ProbeTimeout: time.Second, FailedSamples: 3, GoodSamples: 1,
			RecoverDwell: time.Minute, WitnessNode: "i=2258",
			ApplyHook: hookSettings{Timeout: redundancy.DefaultHookTimeout},
		},
		Log:     logSettings{Level: "info", Format: "text"},
		Upgrade: upgradeSettings{CommandVersion: fsm.CommandVersion},
	}
}

// clientVariables are variables of the same prefix that belong to the client's commands.
var clientVariables = map[string]bool{"QUORATE_ADDR": true, "QUORATE_CACERT": true, "QUORATE_CERT": true, "QUORATE_KEY": true}

// loadSettings reads and checks the settings of one member: flags (KEY=VALUE) over the environment (NAME=VALUE) over the
// file. An unknown key is an error wherever it stands, because a misspelt setting would silently keep its default.
func loadSettings(file string, environment, flags []string) (*settings, error) {
	k := newKoanf()
	if file != "" {
		tree, err := readSettingsFile(file)
		if err != nil {
			return nil, err
		}
		if err := k.Load(source(tree), nil); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	fromEnvironment, err := environmentValues(environment)
	if err != nil {
		return nil, err
	}
	fromFlags, err := flagValues(flags)
	if err != nil {
		return nil, err
	}
	for _, values := range []map[string]any{fromEnvironment, fromFlags} {
		if err := k.Load(source(maps.Unflatten(values, ".")), nil); err != nil {
			return nil, err
		}
	}
	return decodeSettings(k)
}

func newKoanf() *koanf.Koanf { return koanf.New(".") }

// source is a tree of settings that was read already, as koanf takes it.
type source map[string]any

// Read returns the tree.
func (s source) Read() (map[string]any, error) { return s, nil }

// ReadBytes is the other half of koanf.Provider, for sources that need a parser.
func (s source) ReadBytes() ([]byte, error) { return nil, errors.New("parsed already") }

func decodeSettings(k *koanf.Koanf) (*settings, error) {
	// Whether it is dev decides other defaults, so it is looked at first.
	s := defaultSettings(false)
	if err := decode(k, &s); err != nil {
		return nil, err
	}
	s = defaultSettings(s.Dev)
	if err := decode(k, &s); err != nil {
		return nil, err
	}
	s.derive()
	if err := s.check(); err != nil {
		return nil, err
	}
	return &s, nil
}

func decode(k *koanf.Koanf, into *settings) error {
	err := k.UnmarshalWithConf("", into, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", Result: into, ErrorUnused: true, WeaklyTypedInput: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), parseBootstrap),
	}})
	if err == nil {
		return nil
	}
	return errors.New(strings.Join(wrongValues(err), "; "))
}

// wrongValues takes the decoder's tree of errors apart, into one text for each key.
func wrongValues(err error) []string {
	switch e := err.(type) { //nolint:errorlint // It walks the tree itself.
	case *mapstructure.DecodeError:
		return []string{e.Name() + ": " + e.Unwrap().Error()}
	case interface{ Unwrap() []error }:
		var texts []string
		for _, one := range e.Unwrap() {
			texts = append(texts, wrongValues(one)...)
		}
		return texts
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return wrongValues(inner)
		}
	}
	return []string{err.Error()}
}

// readSettingsFile reads the file, up to its limit.
func readSettingsFile(name string) (map[string]any, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	defer closeQuietly(file)
	raw, err := io.ReadAll(io.LimitReader(file, maxSettingsBytes+1))
	if err == nil && len(raw) > maxSettingsBytes {
		err = fmt.Errorf("longer than %d bytes", maxSettingsBytes)
	}
	var tree map[string]any
	if err == nil {
		tree, err = parseTree(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return tree, nil
}

// parseTree parses YAML and refuses keys that no setting has.
func parseTree(raw []byte) (map[string]any, error) {
	document, err := parseYAML(raw)
	if err != nil {
		return nil, err
	}
	tree, ok := document.(map[string]any)
	if !ok && document != nil {
		return nil, fmt.Errorf("must be a mapping of settings, got %s", describe(document))
	}
	if unknown := unknownKeys("", tree, reflect.TypeFor[settings]()); len(unknown) > 0 {
		return nil, fmt.Errorf("unknown key %s", strings.Join(unknown, ", "))
	}
	return tree, nil
}

// parseSettings reads and checks settings that are one document and nothing else.
func parseSettings(raw []byte) (*settings, error) {
	tree, err := parseTree(raw)
	if err != nil {
		return nil, err
	}
	k := newKoanf()
	if err := k.Load(source(tree), nil); err != nil {
		return nil, err
	}
	return decodeSettings(k)
}

// unknownKeys returns the paths that are in the tree and not in the type.
func unknownKeys(path string, tree any, t reflect.Type) []string {
	var unknown []string
	switch node := tree.(type) {
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return nil // A wrong kind of value, which decoding reports.
		}
		fields := map[string]reflect.Type{}
		for i := range t.NumField() {
			fields[t.Field(i).Tag.Get("koanf")] = t.Field(i).Type
		}
		for _, key := range sortedKeys(node) {
			if field, ok := fields[key]; ok {
				unknown = append(unknown, unknownKeys(join(path, key), node[key], field)...)
			} else {
				unknown = append(unknown, join(path, key))
			}
		}
	case []any:
		if t.Kind() != reflect.Slice {
			return nil
		}
		for i, element := range node {
			unknown = append(unknown, unknownKeys(fmt.Sprintf("%s[%d]", path, i), element, t.Elem())...)
		}
	}
	return unknown
}

// settingKeys returns the keys of all settings, each to its full path: raft.address.
func settingKeys() map[string]bool {
	keys := map[string]bool{}
	var walk func(path string, t reflect.Type)
	walk = func(path string, t reflect.Type) {
		for i := range t.NumField() {
			field := t.Field(i)
			at := join(path, field.Tag.Get("koanf"))
			if field.Type.Kind() == reflect.Struct {
				walk(at, field.Type)
			} else {
				keys[at] = true
			}
		}
	}
	walk("", reflect.TypeFor[settings]())
	return keys
}

// variableName returns the environment variable of a key: raft.address is QUORATE_RAFT_ADDRESS.
func variableName(key string) string {
	var name strings.Builder
	name.WriteString("QUORATE_")
	for _, r := range key {
		switch {
		case r == '.':
			name.WriteByte('_')
		case unicode.IsUpper(r):
			name.WriteByte('_')
			name.WriteRune(r)
		default:
			name.WriteRune(unicode.ToUpper(r))
		}
	}
	return name.String()
}

func environmentValues(environment []string) (map[string]any, error) {
	known := map[string]string{}
	for key := range settingKeys() {
		known[variableName(key)] = key
	}
	values := map[string]any{}
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, "QUORATE_") || clientVariables[name] {
			continue
		}
		key, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("environment: %s is no setting", name)
		}
		values[key] = value
	}
	return values, nil
}

func flagValues(flags []string) (map[string]any, error) {
	known := settingKeys()
	values := map[string]any{}
	for _, flag := range flags {
		key, value, ok := strings.Cut(flag, "=")
		if !ok {
			return nil, fmt.Errorf("--set %s: must be KEY=VALUE", flag)
		}
		if !known[key] {
			return nil, fmt.Errorf("--set %s: unknown key %s", flag, key)
		}
		values[key] = value
	}
	return values, nil
}

// parseBootstrap reads the bootstrap list where it is one text, as it is in the environment and in flags:
// m1=HOST:PORT,m2=HOST:PORT.
func parseBootstrap(from, to reflect.Type, value any) (any, error) {
	if from.Kind() != reflect.String || to != reflect.TypeFor[[]bootstrapMember]() {
		return value, nil
	}
	var members []bootstrapMember
	for _, entry := range strings.FieldsFunc(value.(string), func(r rune) bool { return r == ',' }) {
		id, address, ok := strings.Cut(entry, "=")
		if !ok {
			return nil, fmt.Errorf("bootstrap: %q must be MEMBER=HOST:PORT", entry)
		}
		members = append(members, bootstrapMember{Member: strings.TrimSpace(id), Raft: strings.TrimSpace(address)})
	}
	return members, nil
}

// closeQuietly closes a file that was only read: nothing can be lost any more.
func closeQuietly(file io.Closer) { _ = file.Close() }
