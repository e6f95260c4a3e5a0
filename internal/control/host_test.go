package control

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"spacehost/gpu"
	"spacehost/internal/doctor"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/internal/placement"
	"spacehost/internal/spacelog"
	"spacehost/internal/stages"
	"spacehost/internal/views"
	"spacehost/quota"
)

// fakeHost implements Host, Payers and the interfaces of packages views and console.
type fakeHost struct {
	spaces    []string
	functions []views.Function
	caller    identity.Identity // at the console address
	limit     people.SpaceLimit // of its token
	denied    func(payer identity.Identity) error
	moves     int      // of the clock
	ending    []string // reasons of the leases that LeaseEnding was called for
	rebuild   func(name string, progress func(BuildStep)) (RebuildAnswer, error)
	tier      *quota.Tier
	paused    *stages.Pause
	moved     string // the last Space
	waits     string // why all Spaces wait for a node
	state     string // folder of the logs
	query     spacelog.Query
}

func (h *fakeHost) SpaceViews() (all []views.Space) {
	for _, name := range h.spaces {
		all = append(all, views.Space{Name: name, Stage: "RUNNING", Paused: h.paused})
	}
	return all
}
func (h *fakeHost) PublicSpaceViews() []views.Space                 { return nil }
func (h *fakeHost) SpaceNames(*identity.Identity) []string          { return h.spaces }
func (h *fakeHost) Functions(*identity.Identity) []views.Function   { return h.functions }
func (h *fakeHost) RestartSpace(string, string, bool) time.Duration { return 0 }
func (h *fakeHost) PauseSpace(_ context.Context, name, reason, by string, now bool) (PauseAnswer, error) {
	h.paused = &stages.Pause{Reason: reason, By: by}
	return PauseAnswer{Space: name, Pause: *h.paused}, nil
}
func (h *fakeHost) ResumeSpace(context.Context, string, string) error { h.paused = nil; return nil }
func (h *fakeHost) MoveSpace(name, to, _ string, _ bool) (time.Duration, error) {
	if to != "gpu1" {
		return 0, &placement.MoveError{Why: "no node is named " + to}
	}
	h.moved = name
	return time.Minute, nil
}
func (h *fakeHost) WaitsForNode(string) string { return h.waits }
func (h *fakeHost) SpaceDetail(_ context.Context, name string, limit int) (SpaceDetail, error) {
	return SpaceDetail{Space: views.Space{Name: name, Queued: limit}}, nil
}
func (h *fakeHost) SpaceLog(name string, kind spacelog.Kind, q spacelog.Query) (spacelog.Page, error) {
	h.query = q
	return spacelog.ReadPage(h.state, name, kind, q)
}
func (h *fakeHost) RebuildSpace(_ context.Context, name, _ string, _ bool, progress func(BuildStep)) (RebuildAnswer, error) {
	return h.rebuild(name, progress)
}
func (h *fakeHost) Prune(_ context.Context, r PruneRequest) (PruneAnswer, error) {
	return PruneAnswer{DryRun: r.DryRun, Items: []PrunedItem{}, Kept: []PrunedItem{}}, nil
}
func (h *fakeHost) Reload(context.Context, bool) (ReloadAnswer, error) { return ReloadAnswer{}, nil }
func (h *fakeHost) ClockMoved()                                        { h.moves++ }
func (h *fakeHost) LoginLink() (url string, ok bool)                   { return "", false }
func (h *fakeHost) RescanGPUs(_ context.Context, simulate string) (RescanAnswer, error) {
	if simulate != "" {
		return RescanAnswer{}, &RescanRefusedError{Why: "real GPUs"}
	}
	return RescanAnswer{Joined: []gpu.Device{{UUID: "MIG-1"}}, Left: []gpu.Device{}, Stayed: 2}, nil
}

func (h *fakeHost) LeaseEnding(ending lease.Ended, reason string) {
	h.ending = append(h.ending, reason)
}
func (h *fakeHost) Info() HostInfo                                   { return HostInfo{} }
func (h *fakeHost) ConfigValues() []ConfigValue                      { return []ConfigValue{} }
func (h *fakeHost) Doctor(context.Context) ([]doctor.Finding, error) { return []doctor.Finding{}, nil }
func (h *fakeHost) StateSizes(context.Context) ([]FolderSize, error) { return []FolderSize{}, nil }
func (h *fakeHost) Operator(context.Context) string                  { return "uid 1000" }
func (h *fakeHost) AccountReader(*http.Request) (identity.Identity, people.SpaceLimit, error) {
	return h.caller, h.limit, nil
}

func (h *fakeHost) GPUHealth() views.GPUs { return views.GPUs{} }
func (h *fakeHost) Tiers() []quota.Tier {
	return []quota.Tier{{Name: "free", Quota: 210 * time.Second, Runs: 3}}
}
func (h *fakeHost) Standing(name string) Standing {
	return Standing{Admin: name == "ada", Group: map[string]string{"ada": "staff", "ben": "staff"}[name], Spaces: h.spaces}
}

func (h *fakeHost) CheckTier(name string) error {
	if slices.Contains([]string{"free", "pro"}, name) {
		return nil
	}
	return fmt.Errorf("no tier %q, there are: free, pro", name)
}

func (h *fakeHost) CurrentAllowance(context.Context, identity.Identity) (quota.Tier, error) {
	if h.tier != nil {
		return *h.tier, nil
	}
	return quota.Tier{Name: "free", Quota: 210 * time.Second}, nil
}

func (h *fakeHost) CheckDelegation(payer identity.Identity) error {
	if h.denied == nil {
		return nil
	}
	return h.denied(payer)
}
