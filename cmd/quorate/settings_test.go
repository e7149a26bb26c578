package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const memberYAML = `
member: m1
site: plant.example
dataDir: data
raft: {address: "0.0.0.0:7301", advertise: "10.0.0.1:7301", timing: wan}
storage: {logStore: wal}
grpc: {address: "10.0.0.1:7101"}
http: {address: "10.0.0.1:7201"}
opcua: {address: "10.0.0.1:4841"}
tls: {ca: ca.pem, cert: m1.pem, key: m1.key}
bootstrap:
  - {member: m1, raft: "10.0.0.1:7301"}
  - {member: m2, raft: "10.0.0.2:7301"}
redundancy: {probeInterval: 1s}
`

func settingsFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "member.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestFlagsOverEnvironmentOverFile(t *testing.T) {
	file := settingsFile(t, memberYAML)
	environment := []string{
		"QUORATE_DATA_DIR=env", "QUORATE_REDUNDANCY_FAILED_SAMPLES=5", "QUORATE_LOG_LEVEL=warn",
		"QUORATE_OPCUA_ALLOW_NONE=true", "QUORATE_ADDR=127.0.0.1:1", "HOME=/",
		"QUORATE_BOOTSTRAP=m1=10.0.0.1:7301, m3=10.0.0.3:7301",
	}
	s, err := loadSettings(file, environment, []string{"log.level=debug", "redundancy.recoverDwell=2m"})
	if err != nil {
		t.Fatal(err)
	}
	want := defaultSettings(false)
	want.Member, want.Site, want.DataDir = "m1", "plant.example", "env"
	want.Raft = raftSettings{Address: "0.0.0.0:7301", Advertise: "10.0.0.1:7301", Timing: "wan"}
	want.Storage.LogStore = "wal"
	want.GRPC = listenSettings{Address: "10.0.0.1:7101", Advertise: "10.0.0.1:7101"}
	want.HTTP = listenSettings{Address: "10.0.0.1:7201", Advertise: "10.0.0.1:7201"}
	want.OPCUA = opcuaSettings{Address: "10.0.0.1:4841", EndpointURL: "opc.tcp://10.0.0.1:4841", ApplicationURI: "urn:quorate:plant.example:m1", AllowNone: true,
		Limits: defaultOPCUALimits()}
	want.TLS = tlsSettings{CA: "ca.pem", Cert: "m1.pem", Key: "m1.key"}
	want.Bootstrap = []bootstrapMember{{"m1", "10.0.0.1:7301"}, {"m3", "10.0.0.3:7301"}}
	want.Redundancy.ProbeInterval, want.Redundancy.FailedSamples, want.Redundancy.RecoverDwell = time.Second, 5, 2*time.Minute
	want.Log.Level = "debug"
	if !reflect.DeepEqual(*s, want) {
		t.Errorf("settings are\n%+v\nwant\n%+v", *s, want)
	}
}

func TestDevDecidesDefaults(t *testing.T) {
	file := settingsFile(t, memberYAML)
	s, err := loadSettings(file, nil, []string{"dev=true", "opcua.allowAnonymous=false"})
	if err != nil {
		t.Fatal(err)
	}
	if !s.OPCUA.AllowNone || !s.OPCUA.TrustAll || s.OPCUA.AllowAnonymous {
		t.Errorf("allowNone %v, trustAll %v, allowAnonymous %v; want the defaults of dev and the one that was set", s.OPCUA.AllowNone, s.OPCUA.TrustAll, s.OPCUA.AllowAnonymous)
	}
}

func TestSettingsErrorsNameTheKey(t *testing.T) {
	file := settingsFile(t, memberYAML)
	for _, test := range []struct {
		set  []string
		want string
	}{
		{[]string{"member=M1"}, "member: must match"},
		{[]string{"site="}, "site: must be a name"},
		{[]string{"dataDir="}, "dataDir: is missing"},
		{[]string{"raft.address=here"}, `raft.address: must be HOST:PORT, got "here"`},
		{[]string{"raft.advertise="}, "raft.advertise: is missing: others can't connect to 0.0.0.0:7301"},
		{[]string{"raft.advertise=0.0.0.0:1"}, "raft.advertise: others can't connect to 0.0.0.0:1"},
		{[]string{"raft.timing=moon"}, `raft.timing: must be one of lan, wan, got "moon"`},
		{[]string{"storage.logStore=paper"}, "storage.logStore: must be one of bolt, wal"},
		{[]string{"storage.snapshotEntries=127"}, "storage.snapshotEntries: must be from 128 to 1048576, got 127"},
		{[]string{"grpc.address=10.0.0.1:99999"}, "grpc.address: must be HOST:PORT with a port from 0 to 65535"},
		{[]string{"grpc.address=:7101"}, "grpc.advertise: is missing"},
		{[]string{"http.address=10.0.0.1:7101"}, "http.address: is the same as grpc.address"},
		{[]string{"opcua.address=:4841"}, "opcua.endpointUrl: is missing"},
		{[]string{"opcua.endpointUrl=http://10.0.0.1:4841"}, "opcua.endpointUrl: must be opc.tcp://HOST:PORT[/PATH]"},
		{[]string{"opcua.applicationUri=m1"}, "opcua.applicationUri: must begin with urn: or opc.tcp://"},
		{[]string{"tls.key="}, "tls.key: is missing: only dev runs without certificates"},
		{[]string{"dev=true", "tls.ca="}, "tls.ca: is missing"},
		{[]string{"bootstrap=m1=10.0.0.1:7301,m1=10.0.0.2:7301"}, "bootstrap[1].member: is the same as that of bootstrap[0]"},
		{[]string{"bootstrap=m1=10.0.0.1:7301,m2=10.0.0.1:7301"}, "bootstrap[1].raft: is the same as that of bootstrap[0]"},
		{[]string{"bootstrap=m2=10.0.0.2:7301"}, "bootstrap: does not name this member, m1"},
		{[]string{"bootstrap=m1=10.0.0.9:7301"}, "bootstrap[0].raft: is 10.0.0.9:7301, but this member's raft.advertise is 10.0.0.1:7301"},
		{[]string{"bootstrap=m1"}, `bootstrap: "m1" must be MEMBER=HOST:PORT`},
		{[]string{"redundancy.probeInterval=0s"}, "redundancy.probeInterval: must be from"},
		{[]string{"redundancy.probeTimeout=2h"}, "redundancy.probeTimeout: must be from"},
		{[]string{"redundancy.failedSamples=0"}, "redundancy.failedSamples: must be from 1 to 100, got 0"},
		{[]string{"redundancy.goodSamples=101"}, "redundancy.goodSamples: must be from 1 to 100, got 101"},
		{[]string{"redundancy.recoverDwell=-1s"}, "redundancy.recoverDwell: must be from"},
		{[]string{"redundancy.recoverDwell=long"}, "redundancy.recoverDwell: "},
		{[]string{"redundancy.witnessNode=x"}, "redundancy.witnessNode: must be a NodeId"},
		{[]string{"redundancy.applyHook.command=reload", "redundancy.applyHook.timeout=1h"}, "redundancy.applyHook: timeout: 1h0m0s is not within"},
		{[]string{"log.level=loud"}, "log.level: must be one of"},
		{[]string{"log.format=xml"}, "log.format: must be one of text, json"},
		{[]string{"raft.addr=x"}, "unknown key raft.addr"},
		{[]string{"raft=x"}, "unknown key raft"},
		{[]string{"log.level"}, "must be KEY=VALUE"},
	} {
		_, err := loadSettings(file, nil, test.set)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: error %v, want %q", test.set, err, test.want)
		}
	}
}

func TestApplyHookIsAListOfArguments(t *testing.T) {
	s, err := loadSettings(settingsFile(t, strings.Replace(memberYAML, "redundancy: {", "redundancy: {applyHook: {command: [/usr/bin/reload, --all], timeout: 90s}, ", 1)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := hookSettings{Command: []string{"/usr/bin/reload", "--all"}, Timeout: 90 * time.Second}
	if !reflect.DeepEqual(s.Redundancy.ApplyHook, want) {
		t.Errorf("applyHook is %+v, want %+v", s.Redundancy.ApplyHook, want)
	}
	if applier, err := s.applier(); err != nil || applier == nil {
		t.Errorf("applier %v, %v", applier, err)
	}
	s.Redundancy.ApplyHook = hookSettings{}
	if applier, err := s.applier(); err != nil || applier != nil {
		t.Errorf("without a command there is an applier: %v, %v", applier, err)
	}
}

func TestAllSettingsErrorsAtOnce(t *testing.T) {
	_, err := loadSettings(settingsFile(t, memberYAML), nil, []string{"member=M1", "log.level=loud"})
	if err == nil || !strings.Contains(err.Error(), "member:") || !strings.Contains(err.Error(), "log.level:") {
		t.Errorf("error %v", err)
	}
}

func TestBootstrapIsBounded(t *testing.T) {
	list := "m1=10.0.0.1:7301"
	for _, id := range strings.Fields("a b c d e f g h") {
		list += "," + id + "=" + id + ":1"
	}
	file := settingsFile(t, memberYAML)
	if _, err := loadSettings(file, nil, []string{"bootstrap=" + list}); err != nil {
		t.Errorf("%d members: %v", maxBootstrapMembers, err)
	}
	if _, err := loadSettings(file, nil, []string{"bootstrap=" + list + ",i=i:1"}); err == nil || !strings.Contains(err.Error(), "at most 9") {
		t.Errorf("%d members: %v", maxBootstrapMembers+1, err)
	}
}

func TestUnknownKeysAreErrors(t *testing.T) {
	for text, want := range map[string]string{
		"membr: m1":                                   "unknown key membr",
		"raft: {addr: x}\nlogs: {}":                   "unknown key logs, raft.addr",
		"bootstrap: [{member: m1, port: 1}]":          "unknown key bootstrap[0].port",
		"\"raft.address\": \"127.0.0.1:1\"":           "unknown key raft.address",
		"member: m1\nmember: m2":                      "already defined",
		"raft: [1]":                                   "raft: ",
		"- member":                                    "must be a mapping of settings, got a list",
		"member: m1\n---\nmember: m2":                 "more than one document",
		"redundancy: {probeInterval: {seconds: two}}": "redundancy.probeInterval: ",
	} {
		_, err := loadSettings(settingsFile(t, text), nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	if _, err := loadSettings("", []string{"QUORATE_RAFT_ADDR=x"}, nil); err == nil || !strings.Contains(err.Error(), "environment: QUORATE_RAFT_ADDR is no setting") {
		t.Errorf("error %v", err)
	}
}

func TestSettingsFileSizeIsBounded(t *testing.T) {
	name := settingsFile(t, string(bytes.Repeat([]byte("#"), maxSettingsBytes+1)))
	if _, err := loadSettings(name, nil, nil); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseSettings(f *testing.F) {
	f.Add([]byte(memberYAML))
	f.Add([]byte("bootstrap: m1=a:1,m2=b:2"))
	f.Add([]byte("raft: &r {address: *r}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseSettings(raw)
		if err == nil && s.check() != nil {
			t.Fatal("accepted settings do not stand their own check")
		}
	})
}
