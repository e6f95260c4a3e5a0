package host

import (
	"context"
	"time"

	"spacehost/gradioapi"
	"spacehost/internal/control"
	"spacehost/internal/dashboard"
	"spacehost/internal/identity"
	"spacehost/internal/views"
	"spacehost/migrations"
)

// AccessOf implements dashboard.Host. The local visitor of `run` owns the host. Under `serve`, the file names the admins.
func (h *Host) AccessOf(person identity.Identity) dashboard.Access {
	switch {
	case person.Kind == identity.Local && !h.settings().IsServe():
		return dashboard.Admin
	case person.Kind != identity.User:
		return dashboard.Visitor
	case h.settings().IsAdmin(person.Name):
		return dashboard.Admin
	}
	return dashboard.Member
}

// SpacesOf implements dashboard.Host. What only the operator may see is left out for a person.
func (h *Host) SpacesOf(person *identity.Identity) (all []views.Space) {
	if person == nil {
		return h.SpaceViews()
	}
	for _, s := range h.all() {
		if s.isVisible(person) {
			all = append(all, s.view())
		}
	}
	return all
}

// infoTimeout bounds the request to a Space for its endpoints.
const infoTimeout = 5 * time.Second

// SpaceAPI implements dashboard.Host.
func (h *Host) SpaceAPI(ctx context.Context, person *identity.Identity, name string) (dashboard.SpaceAPI, bool) {
	s := h.find(name)
	if s == nil || !s.isVisible(person) {
		return dashboard.SpaceAPI{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	answer := dashboard.SpaceAPI{URL: s.url()}
	var err error
	if answer.Info, err = s.api.Info(ctx); err != nil {
		answer.Info, answer.Unknown = gradioapi.Info{Endpoints: []gradioapi.Endpoint{}}, gradioapi.ErrNoInfo.Error()
	}
	return answer, true
}

// pageSampleAge is the age up to which the console's pages show the broker's last sample of the GPUs. Only a host that has just
// started has none.
const pageSampleAge = time.Minute

// registerDashboard mounts the API of the console's pages.
func (h *Host) registerDashboard(accounts *views.Accounts, api *control.API) {
	commits := migrations.NewCommits(h.readDB)
	h.onClose(commits.Close)
	h.changes = dashboard.NewChanges(dashboard.Sources{
		Views: map[dashboard.Topic]func(context.Context) (any, error){
			dashboard.Spaces: func(context.Context) (any, error) { return h.SpaceViews(), nil },
			dashboard.Leases: func(ctx context.Context) (any, error) { return api.Leases(ctx, dashboard.EndedLeases) },
			dashboard.GPUs:   func(ctx context.Context) (any, error) { return api.GPUs(ctx, pageSampleAge), nil },
			dashboard.People: func(ctx context.Context) (any, error) { return api.People(ctx) },
			dashboard.Audit:  func(ctx context.Context) (any, error) { return api.AuditState(ctx) },
		},
		Leases: h.leaseChanges, Version: commits.Version, Idle: commits.Close, Logger: h.log.Named("console"),
	})
	dashboard.RegisterPages(h.console.Echo)
	dashboard.New(dashboard.Config{Host: h, Authenticate: h.signIn.Authenticate, Recheck: h.signIn.Recheck, Accounts: accounts, Control: api, Changes: h.changes, People: h.people, Nodes: h.settings().IsFront(), Now: h.clock.Now, Record: h.recordAction}).Register(h.console.Echo)
}

// leaseChanges implements dashboard.Sources. A receiver that is busy misses no change: one is always pending after it.
func (h *Host) leaseChanges(ctx context.Context) <-chan struct{} {
	notices := make(chan struct{}, 1)
	go func() {
		for range h.broker.Watch(ctx) {
			select {
			case notices <- struct{}{}:
			default:
			}
		}
		close(notices)
	}()
	return notices
}
