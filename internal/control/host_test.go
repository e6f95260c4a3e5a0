package control

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/views"
	"spacehost/quota"
)

// fakeHost implements Host, Payers and the interfaces of packages views and console.
type fakeHost struct {
	spaces    []string
	functions []views.Function
	caller    identity.Identity // at the console address
	denied    func(payer identity.Identity) error
	moves     int // of the clock
	tier      *quota.Tier
}

func (h *fakeHost) SpaceViews() []views.Space                                { return nil }
func (h *fakeHost) PublicSpaceViews() []views.Space                          { return nil }
func (h *fakeHost) SpaceNames(*identity.Identity) []string                   { return h.spaces }
func (h *fakeHost) Functions(*identity.Identity) []views.Function            { return h.functions }
func (h *fakeHost) RestartSpace(string, string, bool) time.Duration          { return 0 }
func (h *fakeHost) Reload(context.Context, bool) (ReloadAnswer, error)       { return ReloadAnswer{}, nil }
func (h *fakeHost) ClockMoved()                                              { h.moves++ }
func (h *fakeHost) LoginLink() (url string, ok bool)                         { return "", false }
func (h *fakeHost) Operator(context.Context) string                          { return "uid 1000" }
func (h *fakeHost) ConsoleIdentity(*http.Request) (identity.Identity, error) { return h.caller, nil }

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
