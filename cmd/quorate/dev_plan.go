package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/maps"
	"sigs.k8s.io/yaml"

	"quorate/fsm"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/redundancy"
)

const (
	// maxDevMembers is how many ports there are between one kind and the next.
	maxDevMembers = 9
	devSite       = "demo"
	devHost       = "127.0.0.1"
	// demoRequestID makes the publish of the demo topology one and the same, however often dev is started.
	demoRequestID = "quorate-dev-demo"
	demoSet       = "line-a"
	// readyPoll is how often a starting member is asked whether it is ready.
	readyPoll = 25 * time.Millisecond
	// readyCall bounds one such question.
	readyCall = 2 * time.Second
)

// devPlan is all that is decided before a member starts.
type devPlan struct {
	dir     string
	members []*devMember
}

// devMember is one member of a dev group. Its JSON form is an interface that other programs rely on.
type devMember struct {
	ID    string `json:"id"`
	PID   int    `json:"pid"`
	GRPC  string `json:"grpc"`
	HTTP  string `json:"http"`
	OPCUA string `json:"opcua"`

	dir      string
	settings *settings
	document []byte
}

func (m *devMember) configFile() string { return filepath.Join(m.dir, m.ID+".yaml") }
func (m *devMember) logFile() string    { return filepath.Join(m.dir, m.ID+".log") }

func (p *devPlan) demoFile() string    { return filepath.Join(p.dir, demoSet+".yaml") }
func (p *devPlan) swappedFile() string { return filepath.Join(p.dir, "swapped.yaml") }

func (p *devPlan) endpoints(separator string) string {
	var all []string
	for _, m := range p.members {
		all = append(all, m.GRPC)
	}
	return strings.Join(all, separator)
}

// planDev works out and checks everything, and changes nothing but that it makes a temporary directory where none is given.
func planDev(f *devFlags) (*devPlan, error) {
	if f.members < 1 || f.members > maxDevMembers {
		return nil, fmt.Errorf("--members: must be from 1 to %d, got %d", maxDevMembers, f.members)
	}
	if f.basePort < 0 || f.basePort > 65535-40 {
		return nil, fmt.Errorf("--base-port: must be from 1 to %d, got %d", 65535-40, f.basePort)
	}
	values, err := flagValues(f.set)
	if err != nil {
		return nil, err
	}
	for _, flag := range f.set {
		if key, _, _ := strings.Cut(flag, "="); devDecides(key) {
			return nil, fmt.Errorf("--set %s: dev decides %s itself", flag, key)
		}
	}
	plan := &devPlan{}
	if f.data == "" {
		plan.dir, err = os.MkdirTemp("", "quorate-dev-")
	} else {
		plan.dir, err = filepath.Abs(f.data)
	}
	if err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	for i := 1; i <= f.members; i++ {
		m, err := plan.member(i, f, values)
		if err != nil {
			if f.data == "" {
				err = errors.Join(err, os.RemoveAll(plan.dir))
			}
			return nil, err
		}
		plan.members = append(plan.members, m)
	}
	return plan, nil
}

// devDecides tells whether a key is what makes the members of a dev group different from each other, or dev.
func devDecides(key string) bool {
	switch key {
	case "member", "site", "dataDir", "dev", "bootstrap", "opcua.endpointUrl", "opcua.applicationUri":
		return true
	}
	return strings.HasSuffix(key, ".address") || strings.HasSuffix(key, ".advertise") || strings.HasPrefix(key, "tls.")
}

// ports returns the ports of member i.
func (f *devFlags) ports(i int) (grpc, http, opcua, raft string) {
	at := func(port int) string { return net.JoinHostPort(devHost, strconv.Itoa(port)) }
	if f.basePort == 0 {
		return at(7100 + i), at(7200 + i), at(4840 + i), at(7300 + i)
	}
	return at(f.basePort + i), at(f.basePort + 10 + i), at(f.basePort + 20 + i), at(f.basePort + 30 + i)
}

func memberID(i int) string { return fmt.Sprintf("m%d", i) }

// member writes the configuration of member i and reads it back as serve would, so that both are the same.
func (p *devPlan) member(i int, f *devFlags, overrides map[string]any) (*devMember, error) {
	id := memberID(i)
	grpc, http, opcua, raft := f.ports(i)
	var bootstrap []any
	for j := 1; j <= f.members; j++ {
		_, _, _, address := f.ports(j)
		bootstrap = append(bootstrap, map[string]any{"member": memberID(j), "raft": address})
	}
	values := map[string]any{
		"member": id, "site": devSite, "dataDir": filepath.Join(p.dir, id), "dev": true,
		"raft.address": raft, "grpc.address": grpc, "http.address": http, "opcua.address": opcua,
		"bootstrap": bootstrap,
	}
	for key, value := range overrides {
		values[key] = value
	}
	document, err := yaml.Marshal(maps.Unflatten(values, "."))
	if err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", id, err)
	}
	m := &devMember{ID: id, PID: os.Getpid(), GRPC: grpc, HTTP: http, OPCUA: "opc.tcp://" + opcua, dir: p.dir, document: document}
	if m.settings, err = parseSettings(document); err != nil {
		return nil, fmt.Errorf("--set: %w", err)
	}
	return m, nil
}

// write writes the configurations and the topology documents.
func (p *devPlan) write() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	for _, m := range p.members {
		if err := m.sameGroup(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(p.members[len(p.members)-1].siblingConfig(len(p.members) + 1)); err == nil {
		return fmt.Errorf("--members: %s holds a larger group; use the same number, or another --data", p.dir)
	}
	files := map[string][]byte{}
	for _, m := range p.members {
		files[m.configFile()] = m.document
	}
	for name, swapped := range map[string]bool{p.demoFile(): false, p.swappedFile(): true} {
		document, err := formatTopology(p.topology(swapped), outputYAML)
		if err != nil {
			return err
		}
		files[name] = document
	}
	for _, name := range sortedKeys(files) {
		if err := os.WriteFile(name, files[name], 0o600); err != nil {
			return fmt.Errorf("--data: %w", err)
		}
	}
	return nil
}

func (m *devMember) siblingConfig(i int) string { return filepath.Join(m.dir, memberID(i)+".yaml") }

// sameGroup refuses to go on with the data of a group that has other members or raft addresses: its log names them, and so
// its members would wait for each other for ever.
func (m *devMember) sameGroup() error {
	before, err := os.ReadFile(m.configFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	s, err := parseSettings(before)
	if err != nil {
		return fmt.Errorf("--data: %s: %w", m.configFile(), err)
	}
	if !slices.Equal(s.Bootstrap, m.settings.Bootstrap) {
		return fmt.Errorf("--data: %s holds a group of other members or ports (%v); use the same --members and --base-port, or another --data", m.dir, s.Bootstrap)
	}
	return nil
}

// topology is the demo: one set of the first two members, the Primary first. Every other member is a witness.
func (p *devPlan) topology(swapped bool) *quoratev1.Topology {
	set := &quoratev1.RedundantSet{Id: demoSet, Mode: "WARM"}
	roles := []string{"Primary", "Backup"}
	if swapped && len(p.members) > 1 {
		slices.Reverse(roles)
	}
	for i, m := range p.members {
		if i == len(roles) {
			break
		}
		set.Servers = append(set.Servers, &quoratev1.RedundantServer{
			Member: m.ID, ApplicationUri: m.settings.OPCUA.ApplicationURI, EndpointUrl: m.OPCUA,
			HealthUrl: "http://" + m.HTTP + "/healthz", Role: roles[i],
		})
	}
	return &quoratev1.Topology{Sets: []*quoratev1.RedundantSet{set}}
}

// ready waits until all members serve and, with the demo, its topology is published and adopted.
func (p *devPlan) ready(ctx context.Context, demo bool) error {
	client := &http.Client{Timeout: readyCall, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, m := range p.members {
		if err := m.ready(ctx, client); err != nil {
			return err
		}
	}
	if !demo {
		return nil
	}
	group, err := p.connect()
	if err != nil {
		return err
	}
	defer group.Close()
	if err := announced(ctx, quoratev1.NewMemberServiceClient(group)); err != nil {
		return err
	}
	generation, published, err := publishDemo(ctx, quoratev1.NewTopologyServiceClient(group), p.topology(false))
	if err != nil {
		return fmt.Errorf("publish the demo topology: %w", err)
	}
	if published {
		if err := createDemoPartitions(ctx, quoratev1.NewPartitionServiceClient(group)); err != nil {
			return fmt.Errorf("create the demo's partitions: %w", err)
		}
	}
	return adopted(ctx, quoratev1.NewMemberServiceClient(group), generation)
}

func (p *devPlan) connect() (*connection, error) {
	o := &options{timeout: defaultTimeout}
	for _, m := range p.members {
		o.endpoints = append(o.endpoints, m.GRPC)
	}
	return o.connect()
}

// ready waits until /readyz says so.
func (m *devMember) ready(ctx context.Context, client *http.Client) error {
	last := errors.New("was never asked")
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.HTTP+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("/readyz says %s", response.Status)
		}
		// That time ran out is no reason: why it was not ready before is.
		if ctx.Err() == nil {
			last = err
		}
		if !sleep(ctx, readyPoll) {
			return fmt.Errorf("member %s, whose log is %s: %w", m.ID, m.logFile(), last)
		}
	}
}

// announced waits until all members have said who they are: before the group knows what all of them can do, what is published is not rolled out.
func announced(ctx context.Context, client quoratev1.MemberServiceClient) error {
	for {
		list, err := client.ListMembers(ctx, &quoratev1.ListMembersRequest{})
		if err != nil {
			return err
		}
		waiting := ""
		for _, m := range list.GetMembers() {
			if m.GetGrpcAddress() == "" {
				waiting = m.GetId()
			}
		}
		if waiting == "" {
			return nil
		}
		if !sleep(ctx, readyPoll) {
			return fmt.Errorf("member %s has not announced itself", waiting)
		}
	}
}

// publishDemo publishes the demo topology as the first generation. Where there is one already, that one stays. A leader that is new has yet to
// put the members into the state, and until then the topology names members that nobody knows.
func publishDemo(ctx context.Context, client quoratev1.TopologyServiceClient, demo *quoratev1.Topology) (_ *quoratev1.Generation, published bool, err error) {
	current, err := client.GetTopology(ctx, &quoratev1.GetTopologyRequest{})
	if err != nil {
		return nil, false, err
	}
	if current.GetGeneration() != nil {
		return current.GetGeneration(), false, nil
	}
	for {
		var first uint64
		answer, err := client.PublishTopology(ctx, &quoratev1.PublishTopologyRequest{
			RequestId: demoRequestID, ExpectedGeneration: &first, Topology: demo,
		})
		if err == nil {
			return answer.GetGeneration(), true, nil
		}
		var remote *remoteError
		if !errors.As(err, &remote) || reasonOf(remote.err) != fsm.ReasonUnknownMember || !sleep(ctx, readyPoll) {
			return nil, false, err
		}
	}
}

// adopted waits until every server of a generation works under it, with the group's word on its role, and says so: whoever reads a level next reads
// the right one.
func adopted(ctx context.Context, client quoratev1.MemberServiceClient, generation *quoratev1.Generation) error {
	servers := map[string]bool{}
	for _, set := range generation.GetTopology().GetSets() {
		for _, server := range set.GetServers() {
			servers[server.GetMember()] = true
		}
	}
	for {
		list, err := client.ListMembers(ctx, &quoratev1.ListMembersRequest{})
		if err != nil {
			return err
		}
		waiting := ""
		for _, m := range list.GetMembers() {
			begun := m.GetAdoptedGeneration() >= generation.GetNumber() &&
				m.GetBand() != redundancy.NoData.String() && m.GetBand() != redundancy.Unconfirmed.String()
			if servers[m.GetId()] && !begun {
				waiting = m.GetId()
			}
		}
		if waiting == "" {
			return nil
		}
		if !sleep(ctx, readyPoll) {
			return fmt.Errorf("member %s has not adopted generation %d", waiting, generation.GetNumber())
		}
	}
}
