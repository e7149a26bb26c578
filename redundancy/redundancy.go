// Package redundancy decides how fit a server is: it turns the replicated state, the server's serving lease and what the
// probes see of the other servers into the ServiceLevel that this member's OPC UA endpoint advertises.
//
// The decision itself is [Evaluate], a pure function of [Inputs] over the band table of redundancy.md §2; nothing else
// computes a level, so that `topology plan` predicts exactly what servers will do. The [Manager] gathers the inputs of
// one member. It looks again whenever the state machine applied something, a probe came back or time passed, and tells its
// subscribers when the level moved. What depends on the moment — whether the serving lease still runs, whether the
// manager's own loop still turns — is judged again at each [Manager.Level], so that a process that was stopped for a
// while never serves a level that has run out meanwhile.
//
// Around it stand the serving lease (serving.go: may this server be Healthy now?), the prober (probes.go: is a peer reachable, and
// what does it say of itself?), recovery (recovery.go: back from a fault, how long until healthy?), adoption (adopt.go: the
// record in the log that this member works under a generation), applies (apply.go: this server's turn in a roll-out) and the
// history of levels (history.go). Roles are declared in the topology; nothing here ever elects one.
//
// One order holds throughout: a change of state is first judged, then told to the subscribers, and only then does the group hear that
// this server works under it (standing). Whoever the group makes Healthy in its place can't be so before it has stopped.
package redundancy

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"quorate/fsm"
	"quorate/mutant"
	"quorate/node"
	logv1 "quorate/proto/quorate/log/v1"
	peerv1 "quorate/proto/quorate/peer/v1"
	quoratev1 "quorate/proto/quorate/v1"
	"quorate/telemetry"
)

const (
	// WatchdogLimit is the age at which a computation of the level is no longer believed.
	WatchdogLimit = 10 * time.Second

	// refreshInterval bounds how long a change that nothing announces, such as divergence, goes unseen.
	refreshInterval = 250 * time.Millisecond
	// watchdogInterval is how often the watchdog looks whether subscribers must be told that the level ran out.
	watchdogInterval = time.Second
)

// Group is the replicated state, as *node.Node gives it.
type Group interface {
	// Local returns the member's own state as it is.
	Local() node.View
	// Read waits for a state that is as fresh as its options ask; nil means linearizable.
	Read(context.Context, *quoratev1.ReadOptions) (node.View, error)
	// Changed is closed when the next batch has been applied.
	Changed() <-chan struct{}
	// Diverged reports whether this member's state was found to differ from the majority's.
	Diverged() bool
	// Propose puts a command into the log. Refusals are in the outcome.
	Propose(context.Context, *logv1.Command) (*logv1.Outcome, error)
	// RenewServing asks the leader for a serving lease, and tells it what this member sees.
	RenewServing(context.Context, *peerv1.RenewServingRequest) (*peerv1.RenewServingResponse, error)
}

// Config is what a Manager needs. Member, Group and Prober are required.
type Config struct {
	// Member is the id of this member, and so the name of its server.
	Member string
	Group  Group
	Prober Prober
	// ApplicationURI is what this member's own OPC UA certificate says. A topology that declares another one for its server is
	// an inconsistency (redundancy.md §5). Empty means that it is not compared.
	ApplicationURI string
	// EndpointURL is where this member's own OPC UA endpoint listens: the witness node is read through it.
	EndpointURL string
	// Applier puts a generation into effect that this server has to apply. Nil means that there is nothing to do but to say so.
	Applier  Applier
	Settings Settings
	// Now is the clock that judges; nil means time.Now. Its readings must carry a monotonic part where they decide.
	Now    func() time.Time
	Logger *slog.Logger // nil means slog.Default
	// Metrics get what this manager measures. Nil means that nobody asks.
	Metrics *telemetry.Metrics
}

// Settings are the numbers that an operator may change. A zero means the default.
type Settings struct {
	ProbeInterval time.Duration // between probes of one peer: 2 s
	ProbeTimeout  time.Duration // of one probe: 1 s
	FailedSamples int           // consecutive failed samples that make a peer unreachable: 3
	GoodSamples   int           // consecutive good samples that make it reachable again: 1
	RecoverDwell  time.Duration // least time in Recovering: 60 s
	WitnessNode   string        // NodeId that must be read once to leave Recovering: i=2258, CurrentTime
}

// Limits of the settings.
const (
	MinProbeInterval = 10 * time.Millisecond
	MaxProbeInterval = time.Minute
	MinProbeTimeout  = time.Millisecond
	MaxProbeTimeout  = time.Minute
	MaxSamples       = 100
	MaxRecoverDwell  = time.Hour
)

func (s Settings) withDefaults() (Settings, error) {
	if s.ProbeInterval == 0 {
		s.ProbeInterval = 2 * time.Second
	}
	if s.ProbeTimeout == 0 {
		s.ProbeTimeout = time.Second
	}
	if s.FailedSamples == 0 {
		s.FailedSamples = 3
	}
	if s.GoodSamples == 0 {
		s.GoodSamples = 1
	}
	if s.RecoverDwell == 0 {
		s.RecoverDwell = time.Minute
	}
	if s.WitnessNode == "" {
		s.WitnessNode = "i=2258"
	}
	switch {
	case s.ProbeInterval < MinProbeInterval || s.ProbeInterval > MaxProbeInterval:
		return s, fmt.Errorf("redundancy.probeInterval: %v is not within %v and %v", s.ProbeInterval, MinProbeInterval, MaxProbeInterval)
	case s.ProbeTimeout < MinProbeTimeout || s.ProbeTimeout > MaxProbeTimeout:
		return s, fmt.Errorf("redundancy.probeTimeout: %v is not within %v and %v", s.ProbeTimeout, MinProbeTimeout, MaxProbeTimeout)
	case s.FailedSamples < 1 || s.FailedSamples > MaxSamples:
		return s, fmt.Errorf("redundancy.failedSamples: %d is not within 1 and %d", s.FailedSamples, MaxSamples)
	case s.GoodSamples < 1 || s.GoodSamples > MaxSamples:
		return s, fmt.Errorf("redundancy.goodSamples: %d is not within 1 and %d", s.GoodSamples, MaxSamples)
	case s.RecoverDwell < 0 || s.RecoverDwell > MaxRecoverDwell:
		return s, fmt.Errorf("redundancy.recoverDwell: %v is not within 0 and %v", s.RecoverDwell, MaxRecoverDwell)
	}
	if err := checkNodeID(s.WitnessNode); err != nil {
		return s, fmt.Errorf("redundancy.witnessNode: %w", err)
	}
	return s, nil
}

// Manager keeps the level of one member's server.
type Manager struct {
	member         string
	group          Group
	applicationURI string
	endpointURL    string
	applier        Applier
	settings       Settings
	now            func() time.Time
	log            *slog.Logger

	// beat is when Run last computed, 0 before; in nanoseconds since start, which is monotonic.
	start time.Time
	beat  atomic.Int64
	// poke wakes Run when a probe or the witness has news.
	poke chan struct{}
	// initialised is set once the state of the group was seen as of now, and not as of some snapshot of long ago.
	initialised atomic.Bool
	judgement   atomic.Pointer[judgement]
	computing   sync.Mutex // held while a judgement is made, so that an older one never replaces a newer one
	failed      attempt    // the last of this server that failed; under computing

	probes    *probes
	recovery  *recovery
	serving   serving
	standings *standings
	history   history
	asking    struct{ answered, failed atomic.Uint64 } // questions for a serving lease

	notifying   sync.Mutex // guards what follows
	advertised  Level
	peersSeen   uint64
	subscribers map[*func()]struct{}
}

// judgement is a level for each way in which the moment can matter, all made from one state and one serving lease. It is one value that is replaced as
// a whole: who reads a level reads the lease that it stands on with it.
type judgement struct {
	revision, version uint64 // of the state, and of what Manager itself knows
	inputs            Inputs
	lease             lease
	epoch             uint64

	healthy     Level // while the Healthy part of the lease runs
	confirmed   Level // while the lease runs
	unconfirmed Level
	stale       Level
	diverged    Level
	wants, fit  bool // as in standing
}

// at returns the level at a moment of the manager's monotonic clock.
func (j *judgement) at(now time.Duration) Level {
	switch {
	case now < j.lease.healthy || mutant.ServingForEver && j.lease.healthy > 0:
		return j.healthy
	case now < j.lease.confirmed:
		return j.confirmed
	}
	return j.unconfirmed
}

// New checks the configuration. The error names the setting that is wrong.
func New(cfg Config) (*Manager, error) {
	switch {
	case cfg.Member == "":
		return nil, fmt.Errorf("redundancy: member is empty")
	case cfg.Group == nil:
		return nil, fmt.Errorf("redundancy: group is missing")
	case cfg.Prober == nil:
		return nil, fmt.Errorf("redundancy: prober is missing")
	}
	settings, err := cfg.Settings.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	m := &Manager{
		member:         cfg.Member,
		group:          cfg.Group,
		applicationURI: cfg.ApplicationURI,
		endpointURL:    cfg.EndpointURL,
		applier:        cfg.Applier,
		settings:       settings,
		now:            cfg.Now,
		log:            cfg.Logger,
		start:          cfg.Now(),
		poke:           make(chan struct{}, 1),
		subscribers:    make(map[*func()]struct{}),
	}
	m.probes = newProbes(cfg.Prober, settings, cfg.Now, cfg.Logger, m.wake)
	m.recovery = newRecovery(settings.RecoverDwell)
	m.standings = newStandings()
	m.history = newHistory()
	m.advertised = m.Level()
	if err := m.measure(cfg.Metrics); err != nil {
		return nil, err
	}
	return m, nil
}

// Run keeps the level fresh until ctx ends; it returns when everything it started has ended. It must run once.
func (m *Manager) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer func() {
		cancel()
		m.probes.stop()
		running.Wait()
		m.probes.prober.Close()
	}()
	running.Go(func() { m.watchdog(ctx) })
	running.Go(func() { m.adopt(ctx) })
	running.Go(func() { m.witness(ctx) })
	running.Go(func() { m.renew(ctx) })
	running.Go(func() { m.apply(ctx) })
	running.Go(func() { m.record(ctx) })
	alarm := time.NewTimer(refreshInterval)
	defer alarm.Stop()
	for {
		changed := m.group.Changed() // Before looking, so that no change falls between.
		m.step(ctx)
		alarm.Reset(m.untilNext())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-m.poke:
		case <-alarm.C:
		}
	}
}

// step looks at everything once.
func (m *Manager) step(ctx context.Context) {
	now := m.now()
	if m.group.Diverged() || m.stalled(now) {
		// A server that was faulted may have missed anything, so it has to prove itself again.
		m.recovery.fault()
	} else {
		m.recovery.look(now)
	}
	m.probes.follow(ctx, m.group.Local().State, m.member)
	m.serving.look(m.elapsed())
	j := m.compute()
	m.beat.Store(int64(max(m.elapsed(), 1)))
	m.notify()
	// Only now may the group hear of it. notify has told of this judgement, or of a newer one.
	sound := !m.group.Diverged()
	m.standings.set(standing{
		generation: j.inputs.Generation, epoch: j.epoch, ready: m.initialised.Load() && sound, placed: j.inputs.Set != "",
		primary: j.inputs.Role == Primary, wants: j.wants && sound, fit: j.fit && sound,
	})
}

// elapsed is the manager's monotonic clock.
func (m *Manager) elapsed() time.Duration { return m.now().Sub(m.start) }

// untilNext is how long Run may sleep: until the refresh, or until the moment at which a part of the lease runs out.
func (m *Manager) untilNext() time.Duration {
	wait, now := refreshInterval, m.elapsed()
	if j := m.judgement.Load(); j != nil {
		for _, until := range []time.Duration{j.lease.healthy, j.lease.confirmed} {
			if until > now {
				wait = min(wait, until-now)
			}
		}
	}
	return wait
}

// stalled reports whether Run has computed before, but not for WatchdogLimit.
func (m *Manager) stalled(now time.Time) bool {
	beat := time.Duration(m.beat.Load())
	return beat > 0 && now.Sub(m.start)-beat > WatchdogLimit
}

// Level returns the level that this member advertises at this moment. It is cheap enough for each read of ServiceLevel.
//
// A level of it was true at some moment of the call, which is all that a reader can be promised: the judgement that was loaded was in force when it
// was, for neither the revision nor the version has moved up to the later comparison, and neither ever moves back; and the clock is read
// last, so that the lease ran then, too. So a call that begins after a step down was judged can't return a level of before.
func (m *Manager) Level() Level {
	j := m.judgement.Load()
	if j == nil || j.revision != m.group.Local().State.Revision() || j.version != m.inputsVersion() {
		j = m.compute()
	}
	if m.group.Diverged() {
		return j.diverged
	}
	now := m.elapsed()
	if beat := time.Duration(m.beat.Load()); beat == 0 || now-beat > WatchdogLimit {
		return j.stale
	}
	return j.at(now)
}

// inputsVersion changes whenever an input changed that is not in the replicated state. It never moves back.
func (m *Manager) inputsVersion() uint64 {
	v := m.probes.version.Load() + m.recovery.version.Load() + m.serving.version.Load()
	if m.initialised.Load() {
		v++
	}
	return v
}

// compute makes a judgement of the state as it is now.
func (m *Manager) compute() *judgement {
	m.computing.Lock()
	defer m.computing.Unlock()
	version := m.inputsVersion() // Before looking: if it moves meanwhile, the next reader computes again.
	state := m.group.Local().State
	last := m.judgement.Load()
	if last != nil && last.revision == state.Revision() && last.version == version {
		return last
	}
	in := m.inputs(state, last)
	lease, epoch, unanswered := m.serving.place(in.entitlement())
	if unanswered && in.Fault == NoFault {
		in.Fault = Unanswered
	}
	if in.Lease, in.Denied = Right, lease.denied; lease.standIn {
		in.Lease = StandIn
	}
	j := &judgement{}
	if last != nil && last.inputs.equal(in) {
		*j = *last // Most of what is applied concerns no level.
	} else {
		*j = judge(in)
	}
	j.revision, j.version, j.lease, j.epoch = state.Revision(), version, lease, epoch
	m.judgement.Store(j)
	return j
}

// judge evaluates the inputs for each way in which the moment can matter. Their lease is that of its Healthy part.
func judge(in Inputs) judgement {
	evaluate := func(fault Fault, lease Lease) Level {
		in := in
		in.Lease = lease
		if in.Fault == NoFault {
			in.Fault = fault
		}
		return Evaluate(in)
	}
	j := judgement{
		inputs:      in,
		healthy:     evaluate(NoFault, in.Lease),
		confirmed:   evaluate(NoFault, Confirmed),
		unconfirmed: evaluate(NoFault, NoLease),
		stale:       evaluate(Stale, NoLease),
		diverged:    evaluate(Diverged, NoLease),
	}
	if in.Fault == Unanswered {
		in.Fault = NoFault // It is over with the answer.
	}
	right := StandIn
	if in.Role == Primary {
		right = Right
	}
	best := evaluate(NoFault, right)
	j.wants = in.Set != "" && best.Value >= Healthy && (in.Role == Primary || in.Policies.StandIn != 0)
	j.fit = in.Set != "" && best.Band <= Isolated
	return j
}

// inputs gathers what the level depends on, except for the serving lease and what is judged at each read. The policies are those of the last judgement
// where that is of the same generation.
func (m *Manager) inputs(state *fsm.State, last *judgement) Inputs {
	var in Inputs
	generation := state.CurrentGeneration()
	in.Generation = generation.GetNumber()
	if !m.initialised.Load() {
		in.Fault = NotInitialised
	}
	set, server, ok := state.Server(m.member)
	if !ok {
		return in
	}
	in.Set, in.Role = set.GetId(), server.GetRole()
	if last != nil && last.inputs.Generation == in.Generation {
		in.Policies = last.inputs.Policies
	} else {
		in.Policies = PoliciesOf(set)
	}
	in.Inconsistencies = m.inconsistencies(generation, set, server)
	for _, s := range peersOf(set, m.member) {
		in.Peers = append(in.Peers, s.GetMember())
		if m.probes.unreachable(s.GetMember()) {
			in.Unreachable = append(in.Unreachable, s.GetMember())
		}
	}
	in.MidApply = state.MidApply(m.member)
	if f, failed := failedApply(state, set.GetId(), m.member); failed && f != m.failed {
		// Whoever ended it, its lease is closed by the same entry: the level must not rise for a moment.
		m.failed = f
		m.recovery.fault()
	}
	in.Recovering = m.recovery.active()
	if mt, ok := state.Maintenance(m.member); ok && mt.GetActive() {
		in.Maintenance, in.MaintenanceReason = true, mt.GetReason()
	}
	return in
}

// wake makes Run look again.
func (m *Manager) wake() {
	select {
	case m.poke <- struct{}{}:
	default: // A wake-up is on its way already.
	}
}
