package host

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"spacehost/gpu"
	"spacehost/gpu/nvml"
	"spacehost/internal/clock"
	"spacehost/internal/config"
	"spacehost/internal/console"
	"spacehost/internal/control"
	"spacehost/internal/deviceapi"
	"spacehost/internal/hubapi"
	"spacehost/internal/lease"
	"spacehost/internal/metrics"
	"spacehost/internal/payer"
	"spacehost/internal/people"
	"spacehost/internal/proctree"
	"spacehost/internal/token"
	"spacehost/internal/views"
	"spacehost/internal/web"
	"spacehost/migrations"
	"spacehost/queue"
	"spacehost/quota"
	"spacehost/server"
)

// Host is one running `spacehost run` or `spacehost serve`: New takes what it needs and fails early, Run builds and serves,
// Close gives everything back.
type Host struct {
	settings  config.Settings
	screen    *screen
	log       *zap.Logger
	spaces    []*spaceRun
	state     State
	clock     clock.Clock
	db        *sql.DB
	reads     *sql.DB // of the same database
	tiers     quota.Tiers
	ledger    *quota.Ledger
	refusals  quota.Refusals
	signer    *token.Signer
	people    *people.Store
	stops     *people.DelegationDenyList
	signIn    *console.SignIn
	payer     *payer.Rule
	inventory gpu.Inventory
	pool      *gpu.Pool
	seen      *config.Hardware // by Spaces outside of their GPU functions; nil: no ZeroGPU
	processes *proctree.Processes
	broker    *lease.Broker
	device    *deviceapi.API
	metrics   *metrics.Metrics
	server    *server.Server
	console   server.Site
	devices   server.Site // loopback only, behind secret paths
	closers   []func()
}

// New opens everything that can fail without the Space: its folder, the state, the addresses, the database, the GPUs.
func New(s config.Settings, stdout, stderr io.Writer) (*Host, error) {
	h := &Host{settings: s, screen: newScreen(s.ReadyJSON, stdout, stderr)}
	for _, step := range []func() error{h.openSpaces, h.openState, h.openLog, h.openTiers, h.listen, h.openDatabase, h.contain, h.endOrphans, h.openGPUs, h.wire, h.declarePeople} {
		if err := step(); err != nil {
			h.Close()
			return nil, err
		}
	}
	return h, nil
}

// Close may be called twice, and after any error of New.
func (h *Host) Close() {
	for i := len(h.closers) - 1; i >= 0; i-- {
		h.closers[i]()
	}
	h.closers = nil
}

func (h *Host) onClose(f func()) { h.closers = append(h.closers, f) }

func (h *Host) openSpaces() error {
	opened, err := h.settings.OpenSpaces()
	for i, one := range opened {
		h.spaces = append(h.spaces, &spaceRun{host: h, space: one, settings: h.settings.Spaces[i], failed: make(chan struct{})})
		for _, warning := range one.Warnings {
			h.screen.note(one.Name + ": warning: " + warning)
		}
	}
	return err
}

func (h *Host) openState() (err error) {
	if h.state, err = OpenState(h.settings.State); err == nil {
		h.onClose(h.state.Close)
	}
	return err
}

func (h *Host) openLog() (err error) {
	h.log, err = openLog(h.state.path("logs", "spacehost.log"))
	if err == nil {
		h.onClose(func() { _ = h.log.Sync() }) // a log that cannot be flushed has nobody to tell
	}
	return err
}

func (h *Host) openTiers() error {
	presets, err := config.ReadTiers(h.settings.Preset.Value)
	if err != nil {
		return fmt.Errorf("%s: %w", h.settings.Preset.Source, err)
	}
	h.tiers = presets.With(h.settings.OwnTiers...)
	if _, err = h.tiers.Get(h.settings.LocalTier.Value); err != nil {
		return fmt.Errorf("%s: %w", h.settings.LocalTier.Source, err)
	}
	return nil
}

// listen takes the addresses before any long work.
func (h *Host) listen() (err error) {
	h.server = server.New(h.log.Named("server"))
	h.onClose(h.server.Close)
	if len(h.settings.Proxies) > 0 {
		h.server.Visitor = web.Proxies(h.settings.Proxies).Visitor
	}
	if err := h.listenForSpaces(); err != nil {
		return err
	}
	if h.console, err = h.server.Mount(h.settings.Console.Value, h.settings.Console.Source); err != nil {
		return err
	}
	h.devices, err = h.server.Mount("127.0.0.1:0", "nothing")
	return err
}

// listenForSpaces gives each its own address, or its name at the one that they share.
func (h *Host) listenForSpaces() (err error) {
	var shared *server.Shared
	for _, s := range h.spaces {
		if own := s.settings.Addr; own.Value != "" {
			if s.site, err = h.server.Mount(own.Value, own.Source); err != nil {
				return err
			}
			continue
		}
		if shared == nil {
			if shared, err = h.server.MountShared(h.settings.Address.Value, h.settings.Address.Source); err != nil {
				return err
			}
		}
		s.site = shared.Site(s.settings.Host)
	}
	return nil
}

// visitable is an address that can be opened: a listener on every interface is visited on config.Loopback.
func visitable(s server.Site) string {
	if s.Addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", s.Addr.Port)
	}
	return s.Addr.String()
}

func (h *Host) openDatabase() (err error) {
	if h.db, err = migrations.Open(context.Background(), h.state.path("spacehost.db")); err != nil {
		return err
	}
	h.onClose(func() { _ = h.db.Close() }) // everything in it is committed
	if h.reads, err = migrations.OpenReads(h.state.path("spacehost.db")); err != nil {
		return err
	}
	h.onClose(func() { _ = h.reads.Close() })
	h.ledger = quota.New(h.db, quota.Config{Now: h.clock.Now, Reads: h.reads})
	h.people = people.NewStore(h.db)
	h.people.Now, h.people.Reads = h.clock.Now, h.reads
	h.onClose(h.people.Close)
	if h.stops, err = people.OpenDelegationDenyList(context.Background(), h.db); err != nil {
		return err
	}
	h.stops.Now = h.clock.Now
	if h.signer, err = token.OpenSigner(h.state.dir); err == nil {
		h.signer.Now = h.clock.Now
	}
	return err
}

// declarePeople comes last: a start that fails before it has taken nobody's token. `run` has none, and leaves those of another start.
func (h *Host) declarePeople() error {
	if !h.settings.IsServe() {
		return nil
	}
	if err := h.people.Declare(context.Background(), h.settings.People); err != nil {
		return fmt.Errorf("%s: %w", h.settings.File, err)
	}
	return nil
}

// contain decides how the ends of Spaces and workers are found, before anybody is ended.
func (h *Host) contain() error {
	h.processes = &proctree.Processes{Logger: h.log.Named("worker")}
	h.log.Info("containment", zap.String("by", h.processes.Contain()))
	return nil
}

// endOrphans ends what a crashed host left running, before anybody looks at the memory of a Device.
func (h *Host) endOrphans() error {
	markers, err := lease.Orphans(context.Background(), h.db)
	for _, marker := range markers {
		h.processes.EndOrphans(marker)
	}
	return err
}

func (h *Host) openGPUs() (err error) {
	gpus := h.settings.GPUs
	h.inventory, err = openInventory(gpus.Value)
	if needed := (*noGPUError)(nil); errors.As(err, &needed) && !h.settings.IsServe() {
		h.screen.note("No NVIDIA GPU was found: GPUs are SIMULATED (1 x H200). GPU functions run, on the CPU; see --gpus.")
		h.inventory, err = nvml.Simulated("1xH200")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", gpus.Source, gpus.Value, err)
	}
	h.onClose(func() { _ = h.inventory.Close() })
	if h.pool, err = gpu.NewPool(context.Background(), h.inventory, h.settings.Share); err != nil || !h.zeroGPU() {
		return err
	}
	seen, err := h.hardware()
	h.seen = &seen
	return err
}

// zeroGPU reports whether @spaces.GPU functions get a GPU at all.
func (h *Host) zeroGPU() bool { return h.settings.GPUs.Value != "none" }

// simulated reports whether GPUs are, and none is there.
func (h *Host) simulated() bool {
	_, simulated := h.inventory.(gpu.Simulator)
	return simulated && h.zeroGPU()
}

// wire joins the rooms. Whoever reads how they hang together, reads this.
func (h *Host) wire() (err error) {
	h.payer = payer.New(payer.Config{
		Spaces: h, People: h.people, Signer: h.signer, Denied: h.stops, Tiers: h.tiers, Processes: h.processes,
		LocalTier: h.settings.LocalTier.Value, Shared: h.settings.IsServe(), Hub: h.settings.IsHub(), Logger: h.log.Named("payer"),
	})
	h.metrics = metrics.New()
	h.broker, err = lease.New(lease.Config{
		DB: h.db, Reads: h.reads, Sync: migrations.Syncer(h.state.path("spacehost.db")), Free: lease.FreeAt(h.state.dir), Ledger: h.ledger, Pool: h.pool, Processes: h.processes,
		QueueTimeout: h.settings.QueueTimeout, WarmFor: h.settings.WarmFor, Priorities: h.tiers.Priorities(), PerSpace: h.perSpace, Expired: h.expired,
		Unleased: h.unleased, EndUnleased: h.settings.EndUnleased, Reported: h.reported(), Changed: h.metrics.Changed, Now: h.clock.Now, Logger: h.log.Named("lease"),
	})
	if err != nil {
		return err
	}
	for _, s := range h.spaces {
		s.wire()
	}
	h.device = deviceapi.New(deviceapi.Config{
		Broker: h.broker, Signer: h.signer, Payers: h.payer, Notifier: h, Logger: h.log.Named("deviceapi"),
	})
	return h.register()
}

var _ lease.Processes = (*proctree.Processes)(nil)

var (
	_ deviceapi.Payers   = (*payer.Rule)(nil)
	_ deviceapi.Notifier = (*Host)(nil)
	_ hubapi.Payers      = (*payer.Rule)(nil)
	_ hubapi.Spaces      = (*Host)(nil)
	_ views.Payers       = (*payer.Rule)(nil)
	_ views.Spaces       = (*Host)(nil)
	_ console.Host       = (*Host)(nil)
	_ console.SignInHost = (*Host)(nil)
	_ control.Host       = (*Host)(nil)
	_ control.Payers     = (*payer.Rule)(nil)
	_ metrics.Spaces     = (*Host)(nil)
)

// find returns the Space of that name, nil if there is none.
func (h *Host) find(name string) *spaceRun {
	for _, s := range h.spaces {
		if s.space.Name == name {
			return s
		}
	}
	return nil
}

// register says what is answered where.
func (h *Host) register() error {
	h.openSignIn()
	for _, s := range h.spaces {
		s.register()
	}
	server.Gate(h.devices.Echo, nil)
	h.device.Register(h.devices.Echo)
	accounts := views.NewAccounts(views.AccountsConfig{
		Ledger: h.ledger, Refusals: &h.refusals, Broker: h.broker, People: h.people, Payers: h.payer, Spaces: h, Now: h.clock.Now,
	})
	server.Gate(h.console.Echo, h.consoleNames())
	h.console.Pre(server.SameOrigin)
	h.signIn.RegisterConsole(h.console.Echo)
	console.New(h, accounts).Register(h.console.Echo)
	h.metrics.Register(h.console.Echo, metrics.Config{Spaces: h, Pool: h.pool, Broker: h.broker}, h.settings.MetricsFrom)
	hubapi.New(hubapi.Config{Ledger: h.ledger, Payers: h.payer, Spaces: h, Now: h.clock.Now}).Register(h.console.Echo)
	socket, err := h.server.MountSocket(h.state.path("control.sock"), h.isSpaceProcess)
	if err != nil {
		return err
	}
	control.New(control.Config{
		Host: h, Payers: h.payer, Accounts: accounts, People: h.people, Delegations: h.stops, Ledger: h.ledger, Broker: h.broker, Pool: h.pool,
		Inventory: h.inventory, Clock: &h.clock, Now: h.clock.Now,
	}).Register(socket.Echo)
	return nil
}

// RestartSpace begins a restart of a Space and returns at once.
func (h *Host) RestartSpace(name string) { h.find(name).supervisor.Restart() }

// SpaceViews are of all Spaces.
func (h *Host) SpaceViews() (all []views.Space) {
	for _, s := range h.spaces {
		all = append(all, s.view())
	}
	return all
}

// PublicSpaceViews are of the Spaces that are visible to everyone.
func (h *Host) PublicSpaceViews() (all []views.Space) {
	for _, s := range h.spaces {
		if s.settings.Visibility == config.Public {
			all = append(all, s.view())
		}
	}
	return all
}

// ClockMoved has everything done that is due by now.
func (h *Host) ClockMoved() {
	ahead := h.clock.Advanced()
	h.log.Warn("clock advanced", zap.Duration("ahead", ahead))
	h.screen.note(fmt.Sprintf("The host's clock is %s ahead of the true time.", ahead))
	h.broker.LookAgain()
	for _, s := range h.spaces {
		s.queue.LookAgain()
	}
}

// trueTime is what the machine's clock says, without what an operator has advanced.
func trueTime() time.Time { return time.Now().Round(0) }

// clockLeapt mends what somebody did who has set the machine's clock.
func (h *Host) clockLeapt(by time.Duration) {
	h.log.Warn("clock was set", zap.Duration("by", by))
	if by > time.Hour {
		h.screen.note(fmt.Sprintf("warning: this machine's clock has jumped ahead by %s: quota windows that end before %s have ended",
			by.Round(time.Second), h.clock.Now().Local().Format("Jan 2 15:04:05")))
	}
	if by < 0 {
		moved, err := h.ledger.Reanchor(context.Background(), h.clock.Now())
		if err != nil {
			h.log.Error("reanchor windows", zap.Error(err))
		}
		h.screen.note(fmt.Sprintf("warning: this machine's clock was set back by %s: %d quota windows begin now", (-by).Round(time.Second), moved))
	}
	h.broker.LookAgain()
}

func (h *Host) isSpaceProcess(pid int) bool {
	for _, s := range h.spaces {
		if _, ours := h.processes.Owns(s.space.Name, pid); ours || pid == s.supervisor.Status().PID {
			return true
		}
	}
	return false
}

// expired tells visitor and operator which limit was hit, and what to change.
func (h *Host) expired(end lease.End) {
	text := fmt.Sprintf("GPU time is over: %g s declared, ended after %.1f s. ", end.Declared.Seconds(), end.Used.Seconds())
	if end.Event == "" || h.Alive(end.Space, end.Event) { // what a Space calls by itself is of no Event
		text += "Raise @spaces.GPU(duration=...) if the function needs longer."
	} else {
		text += "Its call had ended, and the Space has not given the GPU back: a thread still ran there, or what the function returned or raised could not be unpickled."
	}
	h.screen.note(end.Space + ": " + text)
	h.WarnVisitor(end.Space, end.Event, text)
}

// WarnVisitor shows a warning to the visitor of an Event.
func (h *Host) WarnVisitor(space, event, text string) {
	h.find(space).queue.Warn(queue.EventID(event), "ZeroGPU", text)
}

// reported says aloud that a GPU is condemned; what an application has done wrong, once of each kind.
func (h *Host) reported() func(gpu.DeviceUUID, gpu.Xid) {
	said := map[string]bool{}
	return func(uuid gpu.DeviceUUID, xid gpu.Xid) {
		h.metrics.Reported(uuid, xid)
		text := fmt.Sprintf("the driver reports %s, as applications cause it: %s works on.", xid, uuid)
		if xid.Condemns() {
			text = fmt.Sprintf("WARNING: the driver reports %s: nobody gets %s until `spacehost gpu return` (see `spacehost gpu`).", xid, uuid)
		}
		if !said[text] || xid.Condemns() {
			said[text] = true
			h.screen.note(text)
		}
	}
}

// unleased says aloud what keeps a GPU from everybody.
func (h *Host) unleased(u lease.Unleased) {
	h.metrics.Uninvited(u)
	switch {
	case u.Space == "":
		h.screen.note(fmt.Sprintf("WARNING: pid %d, which is no Space's, is on %s: nobody gets that GPU until it has left. It is not ended.", u.PID, u.Device))
	case u.Ended:
		h.screen.note(fmt.Sprintf("%s: WARNING: pid %d used %s outside @spaces.GPU, and is ended.", u.Space, u.PID, u.Device))
	default:
		h.screen.note(fmt.Sprintf("%s: WARNING: pid %d uses %s outside @spaces.GPU: nobody gets that GPU until it has left. "+
			"ZeroGPU has no GPU there: do such work in a GPU function.", u.Space, u.PID, u.Device))
	}
}

// LeaseWaits tells a visitor what to expect of the line for a GPU. (That they wait the client has said.)
func (h *Host) LeaseWaits(r lease.Request, f lease.Forecast) {
	if r.Event == "" { // nobody sees it
		return
	}
	h.find(r.Space).queue.Inform(queue.EventID(r.Event), "ZeroGPU queue", h.expectation(r, f))
}

func (h *Host) expectation(r lease.Request, f lease.Forecast) string {
	text := fmt.Sprintf("Your call is number %d in line for a GPU. ", f.Rank+1)
	switch f.Limit {
	case lease.OfSpace:
		text = fmt.Sprintf("At most %d of this Space's calls have a GPU at once; yours is number %d in line. ", h.perSpace(r.Space), f.Rank+1)
	case lease.OfIdentity:
		text = fmt.Sprintf("At most %d of your calls have a GPU at once; this one is number %d in line. ", r.Tier.Concurrency, f.Rank+1)
	}
	now := h.clock.Now()
	switch {
	case f.Start == nil:
		return text + "No GPU is in sight: each is out of service, or used from outside of this host."
	case f.Start.After(f.GivesUp):
		return text + fmt.Sprintf("If the calls before it take all their time it would start in %s, but it waits no longer than %s.",
			clock.InSeconds(f.Start.Sub(now)), clock.InSeconds(f.GivesUp.Sub(now)))
	}
	return text + fmt.Sprintf("If the calls before it take all their time it starts in %s.", clock.InSeconds(f.Start.Sub(now)))
}

// perSpace is how many calls of a Space may have a GPU at once; 0: as many as there are places.
func (h *Host) perSpace(name string) int {
	if s := h.find(name); s != nil && s.settings.Concurrency != nil {
		return *s.settings.Concurrency
	}
	return h.settings.PerSpace
}

// Run recovers what a crashed host left, builds, starts the Space and serves until ctx ends or the Space
// turns out not to start.
func (h *Host) Run(ctx context.Context) error {
	if err := h.recover(ctx); err != nil {
		return err
	}
	h.greet()
	serving, stopServing := context.WithCancel(context.Background())
	lending, stopLending := context.WithCancel(context.Background())
	defer stopServing()
	defer stopLending()
	var group errgroup.Group
	failed := make(chan error, 2+len(h.spaces))
	report := func(what string, run func() error) {
		group.Go(func() error {
			if err := run(); err != nil && !errors.Is(err, context.Canceled) {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	report("server", func() error { return h.server.Run(serving) })
	group.Go(func() error { clock.Watch(serving, trueTime, h.clockLeapt); return nil })
	group.Go(func() error { h.retention().run(serving); return nil })
	report("leases", func() error { return h.broker.Run(lending) })
	report("processes", func() error { return h.processes.Run(lending) })
	for _, s := range h.spaces {
		report("queue", func() error { return s.queue.Run(serving) })
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with failed's last word or with Run
		select {
		case err := <-failed:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	err := h.runSpaces(ctx)
	if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
		err = nil // Ctrl-C, also in the middle of a build
	} else if err == nil {
		err = cause
	}
	// The order of the end: intake and Jobs, then Spaces (runSpaces has ended them), Leases, database.
	stopServing()
	stopLending()
	_ = group.Wait() // report hands errors on by itself
	return err
}

// runSpaces runs all until ctx ends. One that does not start ends the others with `run`: whoever started them
// together needs them together, and waits for an exit code. With `serve` they have visitors of their own.
func (h *Host) runSpaces(ctx context.Context) error {
	running, ctx := errgroup.WithContext(ctx)
	for _, s := range h.spaces {
		run := s.run
		if h.settings.IsServe() {
			run = s.keep
		}
		running.Go(func() error { return h.named(s, run(ctx)) })
	}
	running.Go(func() error { return h.announce(ctx) })
	return running.Wait()
}

// named says which of several Spaces an error is about.
func (h *Host) named(s *spaceRun, err error) error {
	if err == nil || len(h.spaces) == 1 {
		return err
	}
	return fmt.Errorf("%s: %w", s.space.Name, err)
}

// announce says when all Spaces answer for the first time, or have failed to; of these each later, once it does.
func (h *Host) announce(ctx context.Context) error {
	var late errgroup.Group
	for _, s := range h.spaces {
		select {
		case <-s.supervisor.Ready():
			s.answers()
		case <-s.failed:
			late.Go(func() error { return s.answersLate(ctx) })
		case <-ctx.Done():
		}
	}
	if ctx.Err() == nil {
		h.ready()
	}
	return late.Wait()
}

func (h *Host) recover(ctx context.Context) error {
	moved, err := h.ledger.Reanchor(ctx, h.clock.Now())
	if err != nil {
		return err
	}
	if moved > 0 {
		h.screen.note(fmt.Sprintf("warning: %d quota windows begin in the future of this clock (after a clock advance, or a wrong one); they begin now", moved))
	}
	return h.broker.Recover(ctx)
}

func (h *Host) retention() retention {
	return retention{keep: h.settings.Keep, now: h.clock.Now, history: h.broker.Forget, tokens: h.people.Forget, log: h.log.Named("retention")}
}

func (h *Host) greet() {
	tier, _ := h.tiers.Get(h.settings.LocalTier.Value) // checked in openTiers
	allowance := fmt.Sprintf("%g s a day", tier.Quota.Seconds())
	if tier.Unlimited {
		allowance = "no limit"
	}
	for _, s := range h.spaces {
		h.screen.note(fmt.Sprintf("%s: Gradio Space in %s", s.space.Name, s.space.Dir))
		if warning := s.oauthWarning(); warning != "" {
			s.note("warning: " + warning)
		}
	}
	if h.settings.IsServe() {
		h.screen.note(fmt.Sprintf("People known by %s: %d. Everybody else is known by address, as %q: %s of GPU time by the numbers of %s.",
			h.settings.File, len(h.settings.People), tier.Name, allowance, h.tiers.Preset))
		h.screen.note("Spaces are not protected from each other, nor this machine from them: serve only code that you would run by hand.")
		return
	}
	h.screen.note(fmt.Sprintf("You are a %q visitor: %s of GPU time by the numbers of %s (--tier, --quota).", tier.Name, allowance, h.tiers.Preset))
}

// ReadyLine is what --ready-json prints, once all Spaces answer or, with `serve`, have failed to. Its own URL is the first Space's.
type ReadyLine struct {
	Event   string       `json:"event"`
	URL     string       `json:"url"`
	Console string       `json:"console"`
	Link    string       `json:"link,omitempty"` // signs its first visitor in at the console, as the local visitor
	State   string       `json:"state"`
	Socket  string       `json:"socket"`
	PID     int          `json:"pid"`
	Spaces  []ReadySpace `json:"spaces"`
}

type ReadySpace struct {
	Name   string `json:"name"`
	URL    string `json:"url"`
	Stage  string `json:"stage"`
	Gradio string `json:"gradio"`        // "" of one that does not run
	Zero   string `json:"spacesPackage"` // version of the package that asks for GPUs
}

func (h *Host) ready() {
	consoleURL := "http://" + visitable(h.console)
	if !h.settings.ReadyJSON {
		if !h.settings.IsServe() {
			consoleURL = h.newLink()
		}
		h.screen.ready("* Console:               " + consoleURL)
		return
	}
	line := ReadyLine{
		Event: "ready", URL: h.spaces[0].url(), Console: consoleURL, State: h.state.dir, Socket: h.state.path("control.sock"), PID: os.Getpid(),
	}
	if !h.settings.IsServe() {
		line.Link = h.newLink()
	}
	for _, s := range h.spaces {
		one := ReadySpace{Name: s.space.Name, URL: s.url(), Stage: string(s.supervisor.Status().Stage)}
		select {
		case <-s.supervisor.Ready(): // only then env is read: it is made anew with each try
			one.Gradio, one.Zero = s.env.Gradio, s.env.Spaces
		default:
		}
		line.Spaces = append(line.Spaces, one)
	}
	text, _ := json.Marshal(line) // plain strings
	h.screen.ready(string(text))
}

// noGPUError: `auto` has found no driver.
type noGPUError struct{ err error }

func (e *noGPUError) Error() string {
	return "no NVIDIA GPU was found: `spacehost doctor` says what is missing; `gpus: mock:1xH200` serves with simulated GPUs, `gpus: none` without ZeroGPU"
}

func (e *noGPUError) Unwrap() error { return e.err }

// openInventory opens the GPUs: auto (or *noGPUError), none, mock:2xH200, mock:2xH200-MIG-3g.71gb.
func openInventory(spec string) (gpu.Inventory, error) {
	kind, machine, _ := strings.Cut(spec, ":")
	switch kind {
	case "none":
		return gpu.None{}, nil
	case "mock":
		return nvml.Simulated(machine)
	case "auto":
		inventory, err := nvml.Open()
		var noLibrary *gpu.NoLibraryError
		var noDriver *gpu.NoDriverError
		if errors.As(err, &noLibrary) || errors.As(err, &noDriver) {
			return nil, &noGPUError{err}
		}
		if err != nil {
			return nil, err
		}
		return inventory, nil
	}
	return nil, errors.New("say auto, none, or mock:2xH200")
}

func (h *Host) logFolder(parts ...string) string {
	return filepath.Join(append([]string{h.state.path("logs")}, parts...)...)
}
