package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/labstack/echo/v4"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"spacehost/internal/audit"
	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/space"
	"spacehost/quota"
	"spacehost/server"
	"spacehost/worker"
)

// reload is one application of the configuration file. Until commit it changes nothing but reservations that rollback returns.
type reload struct {
	host     *Host
	by       string // the actor, for the log and the ledger
	checked  config.Checked
	settings *config.Settings
	tiers    quota.Tiers
	changes  []config.Change
	stays    []stay
	failed   []control.FailedSpace // whose files are wrong
	added    []*spaceRun
	removed  []*spaceRun
	opened   []server.Site // addresses taken for this reload
	taken    []server.Site // addresses of Spaces that leave them, with the routes of their next Space
	shared   bool          // the shared address was taken for this reload
}

// stay is a Space that both configurations have.
type stay struct {
	run     *spaceRun
	next    spaceState
	restart bool
}

// Reload implements control.Host: the actor is the admin at the console, or the user at the other end of the control socket.
func (h *Host) Reload(ctx context.Context, dryRun bool) (control.ReloadAnswer, error) {
	by := "a local user"
	if uid, ok := server.PeerOf(ctx); ok {
		by = fmt.Sprintf("local user %s (%d)", UserName(uid), uid)
	}
	if admin := control.Actor(ctx); admin != "" {
		by = admin
	}
	if dryRun {
		return h.previewReload()
	}
	return h.reloadBy(ctx, by) // the request is recorded like every other one
}

// ReloadBy applies the configuration file again, as Reload does, without a request. by names the cause, such as SIGHUP.
func (h *Host) ReloadBy(ctx context.Context, by string) (control.ReloadAnswer, error) {
	answer, err := h.reloadBy(ctx, by)
	a := control.Action{Actor: by, Route: "POST " + control.Reload.Path, Origin: audit.Host, Status: http.StatusOK}
	if err != nil {
		a.Status, a.Refusal = http.StatusUnprocessableEntity, err.Error()
	}
	h.recordAction(a)
	return answer, err
}

// reloadBy applies the configuration file again. It is a transaction: a file with a mistake, or with a change that needs a
// restart of the host, changes nothing. A Space whose own files are wrong keeps them, and the rest is applied. by names the actor in the log. Concurrent calls wait for each other. Errors:
// *control.ReloadRefusedError.
func (h *Host) reloadBy(ctx context.Context, by string) (control.ReloadAnswer, error) {
	now := unix.Timespec{}
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // fails for an unknown clock only
	h.notifyManager(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
	defer h.notifyManager(daemon.SdNotifyReady)
	answer, err := h.applyReload(ctx, by)
	if err != nil {
		h.log.Warn("configuration not reloaded", zap.String("by", by), zap.Error(err))
		h.screen.note(fmt.Sprintf("Configuration not reloaded (by %s), nothing has changed: %v", by, err))
		return answer, err
	}
	var lines []string
	for _, c := range answer.Changes {
		lines = append(lines, c.Text)
	}
	h.log.Info("configuration reloaded", zap.String("by", by), zap.String("digest", answer.Digest), zap.Strings("changes", lines))
	h.screen.note(strings.Join(append([]string{fmt.Sprintf("Configuration %s reloaded (by %s), changes: %d.", answer.Digest, by, len(lines))}, lines...), "\n  "))
	if text := failedText(answer.Failed); text != "" {
		h.log.Warn("spaces not reloaded", zap.String("by", by), zap.String("reason", text))
		h.screen.note("WARNING: not reloaded:\n  " + text)
	}
	return answer, nil
}

func (h *Host) applyReload(ctx context.Context, by string) (control.ReloadAnswer, error) {
	h.reloading.Lock()
	defer h.reloading.Unlock()
	r, err := h.newReload(by)
	if err == nil {
		err = r.refuse()
	}
	if err != nil {
		return control.ReloadAnswer{}, err
	}
	if err := r.prepare(); err != nil {
		r.rollback()
		return control.ReloadAnswer{}, refused(err)
	}
	if err := h.people.Declare(ctx, r.settings.People); err != nil { // the last step that can fail
		r.rollback()
		return control.ReloadAnswer{}, refused(fmt.Errorf("%s: %w", r.settings.File, err))
	}
	r.commit()
	answer := r.answer()
	answer.Applied = true
	return answer, nil
}

// previewReload finds the difference. Addresses are not tried.
func (h *Host) previewReload() (control.ReloadAnswer, error) {
	h.reloading.Lock()
	defer h.reloading.Unlock()
	r, err := h.newReload("")
	if err != nil {
		return control.ReloadAnswer{}, err
	}
	answer := r.answer()
	if err := r.refuse(); err != nil {
		answer.Refused = err.Error()
	}
	return answer, nil
}

func refused(err error) error { return &control.ReloadRefusedError{Err: err} }

// newReload reads and checks the file.
func (h *Host) newReload(by string) (*reload, error) {
	now := h.settings()
	if !now.IsServe() {
		return nil, refused(errors.New("this host has no configuration file: only `spacehost serve` reloads one; press Ctrl-C and start `spacehost run` again"))
	}
	select {
	case <-h.started:
	default:
		return nil, refused(errors.New("the host is still starting; try again when it answers"))
	}
	if h.running.over {
		return nil, refused(errors.New("the host is stopping; start it again to apply the file"))
	}
	var err error
	var checked config.Checked
	if checked.Settings, checked.Warnings, err = config.Load(now.File, now.StateFlag); err != nil {
		return nil, refused(err)
	}
	next := checked.Settings
	if next.State == "" {
		if next.State, err = config.StateFolder(""); err != nil {
			return nil, refused(err)
		}
	}
	next.ReadyJSON, next.WatchConfig = now.ReadyJSON, now.WatchConfig
	r := &reload{host: h, by: by, checked: checked, settings: &next}
	if err := r.openSpaces(); err != nil {
		return nil, refused(err)
	}
	if r.tiers, err = tiersOf(r.settings); err != nil {
		return nil, refused(err)
	}
	r.changes = config.Difference(*now, next, *h.tiers.Load(), r.tiers)
	return r, nil
}

// refuse returns an error if the file changes what only a start of the host can change.
func (r *reload) refuse() error {
	var texts []string
	for _, c := range r.changes {
		if c.Effect == config.NewHost {
			texts = append(texts, strings.TrimPrefix(strings.TrimPrefix(strings.TrimSuffix(c.String(), " (needs a restart of the host)"), "~ "), "host: "))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return refused(fmt.Errorf("%s: the host must be restarted for: %s. Nothing of the file is applied; restart spacehost, or take these changes back", r.settings.File, strings.Join(texts, "; ")))
}

func (r *reload) answer() control.ReloadAnswer {
	a := control.ReloadAnswer{File: r.settings.File, Digest: config.Digest(*r.settings, r.tiers), Changes: []control.ConfigChange{}, Failed: append([]control.FailedSpace{}, r.failed...), Warnings: append([]string{}, r.checked.Warnings...)}
	for _, c := range r.changes {
		a.Changes = append(a.Changes, control.ConfigChange{
			Subject: c.Subject, Name: c.Name, Change: string(c.Verb), Key: c.Key, From: c.From, To: c.To, Effect: string(c.Effect), Text: c.String(),
		})
	}
	return a
}

// mustRestart reports whether a change of the Space needs a new start of it.
func (r *reload) mustRestart(name string) bool {
	return slices.ContainsFunc(r.changes, func(c config.Change) bool {
		return c.Subject == "space" && c.Name == name && c.Effect == config.Restart
	})
}

// prepare does everything that can fail, except the commit of the people.
func (r *reload) prepare() error {
	kept := map[string]bool{}
	drafts := make([]*spaceRun, len(r.checked.Spaces))
	for i, opened := range r.checked.Spaces {
		kept[opened.Name] = true
		drafts[i] = newSpaceRun(r.host, r.settings.Spaces[i], opened)
	}
	for _, s := range r.host.all() {
		switch {
		case s.leaving.Load() && kept[s.space().Name]:
			return fmt.Errorf("the Space %s, which an earlier reload has removed, still ends; try again in a minute", s.space().Name)
		case !kept[s.space().Name]:
			r.removed = append(r.removed, s)
		}
	}
	for i, draft := range drafts {
		if err := r.prepareSpace(draft, r.settings.Spaces[i]); err != nil {
			return err
		}
	}
	return nil
}

// prepareSpace checks a draft of a Space with its next settings, and takes its address.
func (r *reload) prepareSpace(draft *spaceRun, settings config.SpaceSettings) error {
	existing := r.host.find(draft.space().Name)
	if err := r.checkIsolation(draft); err != nil {
		return err
	}
	routes := r.host.server.NewSite()
	if existing != nil {
		routes = existing.site().Echo
	}
	site, err := r.siteFor(existing, settings, routes)
	if err != nil {
		return err
	}
	draft.change(func(state *spaceState) { state.site = site })
	if existing == nil {
		if err := draft.loadPause(); err != nil {
			return err
		}
		if err := draft.loadNode(); err != nil {
			return err
		}
		draft.isFresh.Store(r.reasonOf(draft.space().Name) == "")
		r.added = append(r.added, draft)
		return nil
	}
	r.stays = append(r.stays, stay{existing, *draft.state.Load(), r.mustRestart(draft.space().Name)})
	return nil
}

// checkIsolation determines the level of a draft. What was not tried at the start of the host needs another start.
func (r *reload) checkIsolation(draft *spaceRun) error {
	h, set := r.host, draft.settings()
	untried := set.Isolation != config.IsolationNone && !h.levels.tried || set.Isolation == config.IsolationUsers && !h.levels.usersTried
	if untried {
		return set.Places["isolation"].Mistake("no Space of this start has the level %s, so it was not tried; restart the host", set.Isolation)
	}
	if err := h.reserveUIDsOf([]*spaceRun{draft}); err != nil {
		return err
	}
	if err := draft.selectLevel(); err != nil {
		return err
	}
	if set.NodesByLease && draft.isSandboxed() && h.nodes == nil {
		return set.Places["gpu_nodes"].Mistake("no Space of this start has `gpu_nodes: lease`, so the nodes are not managed; restart the host")
	}
	if err := draft.checkFolder(); err != nil {
		return err
	}
	if draft.isSandboxed() {
		return draft.checkEgress()
	}
	return nil
}

// siteFor returns the Site of a Space with its next settings. existing may be nil.
func (r *reload) siteFor(existing *spaceRun, settings config.SpaceSettings, routes *echo.Echo) (server.Site, error) {
	h, addr := r.host, settings.Addr.Value
	if existing != nil {
		now := existing.latest()
		if now.settings.Addr.Value == addr && (addr != "" || slices.Equal(now.settings.Routes(), settings.Routes())) {
			return now.site, nil
		}
	}
	if addr == "" {
		return r.sharedSite(routes)
	}
	if holder := r.leavingFrom(addr); holder != nil {
		site := holder.latest().site.With(routes)
		r.taken = append(r.taken, site)
		return site, nil
	}
	if existing != nil && existing.state.Load().settings.Addr.Value == addr { // a reload takes back the change of an earlier one
		return existing.site(), nil
	}
	site, err := h.server.MountEcho(routes, addr, settings.Addr.Source)
	if err != nil {
		return site, r.addressError(err, addr)
	}
	r.opened = append(r.opened, site)
	return site, nil
}

// sharedSite returns the Site of a Space at the shared address.
func (r *reload) sharedSite(routes *echo.Echo) (server.Site, error) {
	h := r.host
	shared := h.shared.Load()
	if shared != nil && shared.value != r.settings.Address.Value {
		return server.Site{}, fmt.Errorf("%s: the former shared address %s is still in use; try again in a minute, or restart the host if the console answers there too", r.settings.File, shared.value)
	}
	if shared == nil {
		if err := h.openShared(r.settings); err != nil {
			return server.Site{}, r.addressError(err, r.settings.Address.Value)
		}
		shared = h.shared.Load()
		h.shareConsole()
		r.shared, r.opened = true, append(r.opened, shared.Front())
	}
	return shared.At(routes), nil
}

// leavingFrom returns the Space that this file removes or moves from an address, nil if there is none.
func (r *reload) leavingFrom(addr string) *spaceRun {
	_, port, _ := net.SplitHostPort(addr)
	if n, err := strconv.Atoi(port); err != nil || n == 0 {
		return nil
	}
	for _, s := range r.host.all() {
		if s.latest().settings.Addr.Value != addr || s.leaving.Load() {
			continue
		}
		at := slices.IndexFunc(r.checked.Spaces, func(one *space.Space) bool { return one.Name == s.space().Name })
		if at < 0 || r.settings.Spaces[at].Addr.Value != addr {
			return s
		}
	}
	return nil
}

// addressError explains an address that cannot be taken while the host runs.
func (r *reload) addressError(err error, addr string) error {
	for _, s := range r.host.all() {
		if own := s.state.Load().settings.Addr.Value; own != "" && config.Collide(own, addr) {
			return fmt.Errorf("%s is still used by the Space %s (%s); restart the host, or choose another address", addr, s.space().Name, own)
		}
	}
	return err
}

// rollback gives back what prepare has taken.
func (r *reload) rollback() {
	for _, site := range r.opened {
		r.host.server.Unmount(site)
	}
	if r.shared {
		r.host.shared.Store(nil)
	}
}

// commit puts the file in force. Nothing in it fails.
func (r *reload) commit() {
	h := r.host
	changed := h.settings().TotalLimits != r.settings.TotalLimits
	h.current.Store(r.settings)
	if changed {
		h.limitTotal()
	}
	h.tiers.Store(&r.tiers)
	h.payer.SetTiers(r.tiers)
	h.notices.Configure(r.settings.Webhooks)
	for _, s := range r.added {
		s.wire()
		s.register()
	}
	r.storeSpaces()
	for _, site := range r.taken {
		h.server.HandOver(site)
	}
	for _, one := range r.stays {
		r.nameAtShared(one.next)
		one.run.apply(one.next, one.restart, r.by)
	}
	for _, s := range r.added {
		r.nameAtShared(*s.state.Load())
	}
	for _, site := range r.opened {
		h.server.Serve(site)
	}
	for _, s := range r.removed {
		s.leaving.Store(true)
		s.stop(&worker.StopCause{Reason: "The operator has removed this Space from the host.", Ledger: space.EndedByRemoval + r.by, Cause: worker.CauseSettings, By: r.by})
	}
	for _, s := range r.added {
		s.greet()
		h.launchSpace(s)
		h.running.group.Go(func() error { return s.announceWhenReady(h.running.spaces) })
	}
	if h.server.TLS != nil {
		h.server.TLS.Use(r.settings.TLS.Cert, r.settings.TLS.Key)
	}
	h.server.SetLimits(h.connectionLimits())
	h.broker.LookAgain() // concurrency may have risen
	h.endRefused()
}

// nameAtShared lets a Space answer at its host name of the shared address.
func (r *reload) nameAtShared(state spaceState) {
	if state.settings.Addr.Value == "" {
		r.host.shared.Load().Site(state.settings.Routes(), state.site.Echo)
	}
}

// storeSpaces lists the Spaces in the order of the file, then those that end.
func (r *reload) storeSpaces() {
	var all []*spaceRun
	for _, opened := range r.checked.Spaces {
		byName := func(s *spaceRun) bool { return s.space().Name == opened.Name }
		from := r.added
		if !slices.ContainsFunc(from, byName) {
			from = r.host.all()
		}
		all = append(all, from[slices.IndexFunc(from, byName)])
	}
	all = append(all, r.removed...)
	r.host.spaces.Store(&all)
}

// forget gives back what a removed Space has. Its folders and its ledger stay: the Space may be added again.
func (h *Host) forget(s *spaceRun) {
	if s.onNodes != nil {
		s.onNodes.forget()
	}
	h.reloading.Lock()
	defer h.reloading.Unlock()
	s.api.Close()
	state := s.state.Load()
	if state.settings.Addr.Value != "" {
		h.server.Unmount(state.site)
	} else {
		h.shared.Load().Remove(state.settings.Routes(), state.site.Echo)
	}
	left := slices.DeleteFunc(slices.Clone(h.all()), func(one *spaceRun) bool { return one == s })
	h.spaces.Store(&left)
	h.releaseSharedLocked()
	h.log.Info("space removed", zap.String("space", s.space().Name))
	s.note("removed.")
	s.closeLogs()
	close(s.gone)
}

// restartCause is the reason for which the calls of a restarting Space end.
func restartCause(by string) error {
	return &worker.StopCause{Reason: "The operator has changed the settings of the Space, and it starts again.", Ledger: space.EndedByRestart + by, Again: true, Cause: worker.CauseSettings, By: by}
}
