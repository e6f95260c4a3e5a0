package control

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/quota"
)

// TestAccountOfLimitedToken reads an account with a token that is limited to Spaces: each view has the balance, and of the rest only
// what belongs to these Spaces or to none.
func TestAccountOfLimitedToken(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	ada := identity.Identity{Kind: identity.User, Name: "ada"}
	host := &fakeHost{
		spaces:    []string{"spa", "spb"},
		functions: []views.Function{{Space: "spa", Name: "draw", Declared: time.Minute, Size: "large"}, {Space: "spb", Name: "sing", Declared: time.Minute, Size: "large"}},
		caller:    ada, tier: &quota.Tier{Name: "free", Quota: 3000 * time.Second},
	}
	e, ledger := newAccounts(t, host, func() time.Time { return now })
	for i := range 2 * 12 { // more than the account shows
		at := host.functions[i/12]
		ledger.run(t, string(rune('a'+i)), quota.HoldRequest{Identity: ada.Key(), Tier: *host.tier, Space: at.Space, Task: at.Name, Declared: time.Minute, Now: now})
	}
	for _, at := range host.functions {
		ledger.refusals.Add(quota.Refusal{At: now, Identity: ada.Key(), Space: at.Space, Task: at.Name, Err: &quota.IllegalDurationError{Requested: time.Hour}})
	}
	if err := ledger.Grant(t.Context(), quota.Adjustment{Identity: ada.Key(), Amount: time.Minute, Reason: "for ada", By: "root"}); err != nil {
		t.Fatal(err)
	}
	get := func(path string) string {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, mine+path, nil))
		return w.Body.String()
	}
	for _, row := range []struct {
		limit      people.SpaceLimit
		path       string
		spa, spb   int // how often they are named
		has, hasNo string
	}{
		{nil, "quota", 2, 12, `"leftSeconds":3036`, "-"}, // a function and an advice of each, and the latest ten charges
		{people.SpaceLimit{"spa"}, "quota", 12, 0, `"leftSeconds":3036`, "sing"},
		{people.SpaceLimit{"spb"}, "quota", 0, 12, `"leftSeconds":3036`, "draw"},
		{people.SpaceLimit{"gone"}, "quota", 0, 0, `"leftSeconds":3036`, "sing"},
		{people.SpaceLimit{"spa", "spb"}, "advice", 1, 1, "draw", "-"},
		{people.SpaceLimit{"spa"}, "advice", 1, 0, "draw", "sing"},
		{nil, "ledger", 24, 24, "for ada", "-"},
		{people.SpaceLimit{"spa"}, "ledger", 24, 0, "for ada", "sing"},
		{people.SpaceLimit{"spa"}, "ledger?space=spb", 0, 0, "[]", "sing"},
		{people.SpaceLimit{"spa"}, "explain?seconds=60", 13, 0, `"fits":true`, "sing"}, // as in quota, and a refusal
		{people.SpaceLimit{"spa"}, "explain?space=spb", 0, 0, "unknown Space", "sing"},
		{people.SpaceLimit{"spa"}, "explain?function=sing", 0, 0, "known functions: draw", "known functions: draw, sing"},
	} {
		host.limit = row.limit
		text := get(row.path)
		spa, spb := strings.Count(text, `"space":"spa"`), strings.Count(text, `"space":"spb"`)
		if spa != row.spa || spb != row.spb || !strings.Contains(text, row.has) || row.hasNo != "-" && strings.Contains(text, row.hasNo) {
			t.Errorf("%v, %s: spa %d times, spb %d times, want %d and %d with %q and without %q: %s", row.limit, row.path, spa, spb, row.spa, row.spb, row.has, row.hasNo, text)
		}
	}
	host.limit = people.SpaceLimit{"spa"}
	if lines := strings.Split(strings.TrimSpace(get("ledger.csv")), "\n"); len(lines) != 1+24+1 || strings.Contains(strings.Join(lines, ""), "spb") {
		t.Errorf("the CSV file has %d lines, want a heading, 24 of spa and a grant: %q", len(lines), lines)
	}
}
