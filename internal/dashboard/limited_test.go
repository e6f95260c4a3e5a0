package dashboard

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/lease/brokertest"
	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/migrations"
	"spacehost/quota"
)

// limitedHost has a GPU function in each Space.
type limitedHost struct{ rightsHost }

func (limitedHost) CurrentAllowance(context.Context, identity.Identity) (quota.Tier, error) {
	return quota.Tier{Name: "free", Quota: time.Minute}, nil
}
func (limitedHost) CheckDelegation(identity.Identity) error { return nil }
func (limitedHost) WaitsForNode(string) string              { return "" }
func (limitedHost) Functions(*identity.Identity) []views.Function {
	return []views.Function{{Space: "demo", Name: "draw"}, {Space: "other", Name: "sing"}}
}

// TestStreamOfLimitedToken reads the account of a stream with tokens that are limited to Spaces.
func TestStreamOfLimitedToken(t *testing.T) {
	l := newRightsLab(t)
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ledger, refusals := quota.New(db, quota.Config{}), &quota.Refusals{}
	broker := brokertest.WithoutGPU(t, lease.Config{DB: db, Ledger: ledger, Free: func() (uint64, error) { return 1 << 40, nil }})
	for _, f := range (limitedHost{}).Functions(nil) {
		refusals.Add(quota.Refusal{At: time.Now(), Identity: "user:ben", Space: f.Space, Task: f.Name, Err: &quota.IllegalDurationError{Requested: time.Hour}})
	}
	accounts := views.NewAccounts(views.AccountsConfig{
		Ledger: ledger, Refusals: refusals, Broker: broker, People: l.people, Payers: limitedHost{}, Spaces: limitedHost{}, Now: time.Now,
		Advisor: func() views.Advisor { return views.Advisor{Ledger: ledger} },
	})
	api := New(Config{Host: limitedHost{}, Accounts: accounts, Now: time.Now})
	for _, row := range []struct {
		rights      people.Rights
		demo, other int // functions, Spaces and refusals that name it
	}{
		{people.FullRights(), 3, 3},
		{people.Rights{Scope: people.ScopeRead, Spaces: []string{"demo"}}, 3, 0},
		{people.Rights{Scope: people.ScopeRead, Spaces: []string{"gone"}}, 0, 0},
	} {
		text, _ := l.token("ben", row.rights)
		proof, err := l.people.ProofOf(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		s := &stream{api: api, r: httptest.NewRequest(http.MethodGet, "/", nil), later: time.NewTimer(time.Hour)}
		account, sent := s.accountOf(caller{who: proof.Who, role: Member, proof: proof})
		if demo, other := strings.Count(string(account), `"demo"`), strings.Count(string(account), `"other"`); !sent || demo != row.demo || other != row.other {
			t.Errorf("%v: demo %d times, other %d times, want %d and %d: %s", row.rights.Spaces, demo, other, row.demo, row.other, account)
		}
	}
}
