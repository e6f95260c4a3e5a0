package host

import (
	"cmp"
	"context"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"

	"spacehost/internal/config"
	"spacehost/internal/hubapi"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/views"
	"spacehost/queue"
	"spacehost/quota"
	"spacehost/server"
)

// lastAsked is what the functions of a Space last asked for, by taskId. It says more than the decorator where each call
// says its own duration, and where `spaces` multiplies it (spaces/zero/configs.json, duration_factor).
type lastAsked struct {
	mu   sync.Mutex
	last map[string]lease.Request
}

// maxAsked bounds what a Space can have remembered by making up taskIds.
const maxAsked = 500

func (a *lastAsked) note(r lease.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[string]lease.Request{}
	}
	if _, known := a.last[r.Task]; known || len(a.last) < maxAsked {
		a.last[r.Task] = lease.Request{Declared: r.Declared, Size: r.Size}
	}
}

func (a *lastAsked) of(task string) (lease.Request, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.last[task]
	return r, ok
}

// function notes what is asked for, and returns the function's name.
func (s *spaceRun) function(r lease.Request) string {
	s.asked.note(r)
	manifest, _ := s.queue.Manifest()
	return manifest.Tasks[r.Task].Name
}

// Functions are those of the Spaces that viewer may see, of all for nil, by Space and name.
func (h *Host) Functions(viewer *identity.Identity) (all []views.Function) {
	for _, s := range h.spaces {
		if s.isVisible(viewer) {
			all = append(all, s.functions()...)
		}
	}
	return all
}

// SpaceNames are the names of the Spaces that viewer may see, of all for nil.
func (h *Host) SpaceNames(viewer *identity.Identity) (names []string) {
	for _, s := range h.spaces {
		if s.isVisible(viewer) {
			names = append(names, s.space.Name)
		}
	}
	return names
}

func (s *spaceRun) isVisible(viewer *identity.Identity) bool {
	return viewer == nil || s.settings.Visibility == config.Public || s.settings.Visibility == config.Private && s.isMember(*viewer)
}

func (s *spaceRun) functions() (all []views.Function) {
	manifest, _ := s.queue.Manifest()
	for id, task := range manifest.Tasks {
		all = append(all, s.known(id, task))
	}
	slices.SortFunc(all, func(a, b views.Function) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Declared, b.Declared))
	})
	return all
}

func (s *spaceRun) known(id string, task queue.Task) views.Function {
	f := views.Function{Space: s.space.Name, Name: task.Name, Size: cmp.Or(task.Size, "large"), Declared: task.Declared, From: views.FromDecorator}
	if task.Varies {
		f.Declared, f.From = 0, ""
	}
	if last, called := s.asked.of(id); called && last.Declared != f.Declared {
		f.Declared, f.From, f.Size = last.Declared, views.FromCall, cmp.Or(last.Size, f.Size)
	}
	return f
}

// LeaseRefused remembers why, and tells a visitor who did not ask themselves: the words of the `spaces` package speak of
// "your quota", whoever reads them.
func (h *Host) LeaseRefused(r lease.Request, err quota.Refused) {
	h.refusals.Add(quota.Refusal{At: h.clock.Now(), Identity: r.Payer.Key(), Space: r.Space, Task: r.Function, Err: err})
	if r.Event == "" || r.Payer.Via == "" && r.Payer.Kind != identity.Space {
		return
	}
	whose := fmt.Sprintf("the Space %s refused this call by the ZeroGPU quota of %s", r.Space, r.Payer.Key())
	if r.Payer.Via != "" {
		whose += ", which " + r.Payer.Via + " spends on their behalf"
	}
	h.find(r.Space).queue.Warn(queue.EventID(r.Event), "ZeroGPU", whose+": "+reasonText(err))
}

// reasonText is why the quota refused, and when it will not.
func reasonText(err quota.Refused) string {
	if temporary, ok := err.(interface{ Again() time.Duration }); ok {
		return fmt.Sprintf("%s; again in %s", err.Reason(), views.Countdown(temporary.Again()))
	}
	return err.Reason()
}

// RunsOver prints once that this call would be refused without the leniency of `run` without --tier.
func (h *Host) RunsOver(r lease.Request) {
	h.runsOver.Do(func() {
		h.screen.note(fmt.Sprintf("note: %d runs in 24 hours are used: a %q visitor would be refused now (quota %s). Calls go on; --tier %s refuses them.",
			r.Tier.Runs, r.Tier.Name, h.tiers.Preset, r.Tier.Name))
	})
}

// HubSpace is the Space of that name, for whoever may know of it. A protected one is known to who is known here, and to
// the host's other Spaces.
func (h *Host) HubSpace(who identity.Identity, name string) (hubapi.Space, bool) {
	s := h.find(name)
	if s == nil || s.settings.Visibility == config.Private && !s.isMember(who) || s.settings.Visibility == config.Protected && who.Kind == identity.Address {
		return hubapi.Space{}, false
	}
	hardware := "cpu-basic"
	if h.zeroGPU() {
		hardware = "zero-a10g" // as in ACCELERATOR
	}
	return hubapi.Space{
		Name: s.space.Name, Title: s.space.Title, SDKVersion: s.space.SDKVersion, URL: s.url(), Stage: string(s.supervisor.Status().Stage),
		Hardware: hardware, Private: s.settings.Visibility == config.Private,
	}, true
}

// Operator names who asks over the socket, for the ledger.
func (h *Host) Operator(ctx context.Context) string {
	uid, ok := server.PeerOf(ctx)
	if !ok {
		return "operator"
	}
	return UserName(uid)
}

// UserName returns the login name of a user, else "uid N".
func UserName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return "uid " + id
}
