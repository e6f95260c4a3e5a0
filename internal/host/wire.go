package host

import (
	"spacehost/gradioapi"
	"spacehost/internal/console"
	"spacehost/internal/control"
	"spacehost/internal/dashboard"
	"spacehost/internal/deviceapi"
	"spacehost/internal/hubapi"
	"spacehost/internal/lease"
	"spacehost/internal/metrics"
	"spacehost/internal/payer"
	"spacehost/internal/proctree"
	"spacehost/internal/shelf"
	"spacehost/internal/views"
	"spacehost/internal/web"
	"spacehost/migrations"
	"spacehost/server"
	"spacehost/worker"
)

// The interfaces through which the packages meet. No package imports its counterpart.
var (
	_ lease.Processes    = (*proctree.Processes)(nil)
	_ gradioapi.Upstream = (*worker.Supervisor)(nil)
	_ gradioapi.Shelf    = (*shelf.Shelf)(nil)
	_ payer.Spaces       = (*Host)(nil)
	_ payer.Space        = (*spaceRun)(nil)
	_ deviceapi.Payers   = (*payer.Rule)(nil)
	_ deviceapi.Notifier = (*Host)(nil)
	_ deviceapi.Space    = (*spaceRun)(nil)
	_ hubapi.Payers      = (*payer.Rule)(nil)
	_ hubapi.Spaces      = (*Host)(nil)
	_ views.Payers       = (*payer.Rule)(nil)
	_ views.Spaces       = (*Host)(nil)
	_ console.Host       = (*Host)(nil)
	_ console.SignInHost = (*Host)(nil)
	_ control.Host       = (*Host)(nil)
	_ dashboard.Host     = (*Host)(nil)
	_ control.Payers     = (*payer.Rule)(nil)
	_ metrics.Spaces     = (*Host)(nil)
)

// wire creates and connects the components. It is the one place that shows how the packages depend on each other.
func (h *Host) wire() (err error) {
	h.payer = payer.New(payer.Config{
		Spaces: h, People: h.people, Signer: h.signer, Denied: h.denyList, Tiers: *h.tiers.Load(), Processes: h.processes,
		LocalTier: h.settings().LocalTier.Value, AdvisoryRuns: h.settings().AdvisoryRuns, Shared: h.settings().IsServe(), Hub: h.settings().IsHub(), Logger: h.log.Named("payer"),
	})
	h.metrics = metrics.New()
	h.openNotices()
	h.openSampler()
	h.quotaWatch = h.newQuotaWatch()
	nodes, err := h.leaseNodes()
	if err != nil {
		return err
	}
	h.broker, err = lease.New(lease.Config{
		DB: h.db, Reads: h.readDB, Sync: migrations.Syncer(h.state.path("spacehost.db")), Free: lease.FreeAt(h.state.dir), Ledger: h.ledger,
		Machine:      h.machine(nodes),
		QueueTimeout: h.settings().QueueTimeout, WarmFor: h.settings().WarmFor, Priorities: h.tiers.Load().Priorities(), PerSpace: h.perSpace, Expired: h.reportExpired,
		Unleased: h.reportUnleased, EndUnleased: h.settings().EndUnleased, Reported: h.xidReporter(), Changed: func(c lease.Change) { h.metrics.Changed(c); h.quotaWatch.onChange(c) }, Drained: h.reportDrained, Unreadable: h.reportUnreadable, Now: h.clock.Now, Logger: h.log.Named("lease"),
	})
	if err != nil {
		return err
	}
	for _, s := range h.all() {
		s.wire()
		if err := s.loadPause(); err != nil {
			return err
		}
		if err := s.loadNode(); err != nil {
			return err
		}
	}
	h.device = deviceapi.New(deviceapi.Config{
		Broker: h.broker, Signer: h.signer, Payers: h.payer, Notifier: h, Logger: h.log.Named("deviceapi"),
	})
	return h.register()
}

// register mounts the routes of every address and of the control socket.
func (h *Host) register() error {
	accounts := views.NewAccounts(views.AccountsConfig{
		Ledger: h.ledger, Refusals: &h.refusals, Broker: h.broker, People: h.people, Payers: h.payer, Spaces: h, Advisor: h.advisor, Now: h.clock.Now,
	})
	h.openSignIn(accounts)
	for _, s := range h.all() {
		s.register()
	}
	server.Gate(h.devices.Echo, nil)
	h.device.Register(h.devices.Echo)
	server.GateBy(h.console.Echo, h.consoleHostNames)
	h.console.Pre(h.atConsoleAddress)
	h.console.Pre(openFolder)
	h.console.Pre(server.SameOrigin(web.ReceivedHost))
	h.signIn.RegisterConsole(h.console.Echo)
	console.New(h, accounts).Register(h.console.Echo)
	h.metrics.Register(h.console.Echo, metrics.Config{Spaces: h, Broker: h.broker, Nodes: h.nodeGauges, Waiting: h.waitingSpaces, Free: lease.FreeAt(h.state.dir), IsSpace: h.isSpace}, h.settings().MetricsFrom)
	h.registerHub()
	return h.registerControl(accounts)
}

// registerHub mounts the Hub's API at the console's address, and alone at that address in the networks of Spaces.
func (h *Host) registerHub() {
	hub := hubapi.New(hubapi.Config{Ledger: h.ledger, Payers: h.payer, Spaces: h, Now: h.clock.Now})
	hub.Register(h.console.Echo)
	h.hubSite = h.server.NewSite()
	server.GateBy(h.hubSite, h.consoleHostNames)
	hubapi.New(hubapi.Config{Ledger: h.ledger, Payers: h.payer, Spaces: spacesInside{h}, Now: h.clock.Now}).Register(h.hubSite)
}

// registerControl mounts the API of the command line at the control socket.
func (h *Host) registerControl(accounts *views.Accounts) error {
	key, err := control.CreateKey(h.state.dir)
	if err != nil {
		return err
	}
	socket, err := h.server.MountSocket(h.state.path("control.sock"), h.processes.Untrusted)
	if err != nil {
		return err
	}
	socket.Pre(control.RequireKey(h.state.dir, key))
	socket.Use(control.Audit(h.Operator, h.recordAction))
	api := control.New(control.Config{
		Host: h, Payers: h.payer, Accounts: accounts, People: h.people, Delegations: h.denyList, Ledger: h.ledger, Broker: h.broker, Notices: h.notices, Audit: h.audit, Nodes: h, Pool: h.pool.Load,
		Inventory: h.inventory, Clock: &h.clock, Now: h.clock.Now,
	})
	api.Register(socket.Echo)
	h.registerDashboard(accounts, api)
	return nil
}

// perSpace returns how many calls of a Space may hold a GPU at a time; 0: as many as there are Slots.
func (h *Host) perSpace(name string) int {
	if s := h.find(name); s != nil && s.settings().Concurrency != nil {
		return *s.settings().Concurrency
	}
	return h.settings().PerSpace
}
