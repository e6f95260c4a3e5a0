package console

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/migrations"
	"spacehost/quota"
)

// TestNoClockShowsNonsense: whatever the clock says, a wait is from a second to 24 hours, in each of our views.
func TestNoClockShowsNonsense(t *testing.T) {
	opened := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	var now atomic.Int64 // from the opening
	e, ledger := accountsAt(t, func() time.Time { return opened.Add(time.Duration(now.Load())) })
	tx, err := ledger.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	hold := quota.HoldRequest{Lease: "a", Identity: "local", Tier: quota.Tier{Quota: 210 * time.Second}, Space: "demo", Task: "draw", Declared: 200 * time.Second, Factor: 1, Now: opened}
	if _, err := ledger.Hold(t.Context(), tx, hold); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Open(t.Context(), tx, "a", opened); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Settle(t.Context(), tx, quota.Settlement{Lease: "a", Charged: 200 * time.Second, Reason: "released", Now: opened}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	good := regexp.MustCompile(`^([0-9]|1[0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$|^24:00:00$`)
	for what, row := range map[string]struct {
		at time.Duration // from the opening
		in string        // "": the window is over
	}{
		"as it opens":               {0, "24:00:00"},
		"set back by a week":        {-7 * 24 * time.Hour, "24:00:00"},
		"set back by a millisecond": {-time.Millisecond, "24:00:00"},
		"a millisecond before":      {quota.Span - time.Millisecond, "0:00:01"},
		"a second before":           {quota.Span - time.Second, "0:00:01"},
		"a little more":             {quota.Span - 1001*time.Millisecond, "0:00:02"},
		"at the end":                {quota.Span, ""},
		"advanced by a year":        {365 * 24 * time.Hour, ""},
	} {
		now.Store(int64(row.at))
		var said Explanation
		body := get(t, e, "/explain?identity=local&seconds=60", &said)
		if said.ResetsIn != row.in || len(said.Calls) != 1 || said.Calls[0].In != row.in || said.Calls[0].Fits != (row.in == "") {
			t.Errorf("%s: resets in %q, a call %+v; want %q\n%s", what, said.ResetsIn, said.Calls, row.in, body)
		}
		if row.in != "" && !good.MatchString(said.ResetsIn) || strings.Contains(body, "0:00:00") || strings.Contains(body, "-1 day") {
			t.Errorf("%s: %s", what, body)
		}
	}
}

// TestQuestionsAboutNothing: what there is not is no call that fits, and what the operator forbids is none either.
func TestQuestionsAboutNothing(t *testing.T) {
	ada := identity.Identity{Kind: identity.User, Name: "ada"}
	e, _ := accountsAt(t, time.Now, func(c *AccountsConfig) {
		c.Spaces = func(*identity.Identity) []string { return []string{"spa", "spb"} }
		c.Functions = func(*identity.Identity) []Function {
			return []Function{{Space: "spa", Name: "draw", Declared: time.Minute}, {Space: "spb", Name: "sing"}}
		}
		c.Reader = func(*http.Request) (identity.Identity, error) { return ada, nil }
		c.CheckVia = func(payer identity.Identity) error {
			switch {
			case payer.Via == "spa":
				return &people.DelegationDeniedError{Space: "spa"}
			case payer.Via == "spb" && payer.Kind == identity.Local:
				return &people.DelegationDeniedError{Space: "spb", Identity: "local"}
			}
			return nil
		}
	})
	const mine = "/api/spacehost/"
	for path, want := range map[string]string{
		"/explain?identity=local&space=nope":                  `no Space here is called \"nope\"; there are: spa, spb`,
		"/explain?identity=local&via=nope":                    `no Space here is called \"nope\"; there are: spa, spb`,
		"/explain?identity=local&function=nope":               `there is no GPU function \"nope\"; there are: draw, sing`,
		"/explain?identity=local&space=spb&function=draw":     `there is no GPU function \"draw\"; there are: sing`,
		"/explain?identity=local&size=xlarge":                 "say with seconds how long it would be",
		"/explain?identity=local&size=small&seconds=1":        "there are large and xlarge",
		"/ledger?identity=local&limit=0":                      `limit=\"0\": say how many rows to list, from 1 to 10000`,
		"/ledger?identity=local&limit=x":                      `limit=\"x\"`,
		mine + "ledger?limit=-1":                              `limit=\"-1\"`,
		mine + "explain?space=nope":                           "no Space here is called",
		"/explain?identity=local&space=spa&function=draw":     "",
		"/explain?identity=local&seconds=1&size=xlarge":       "",
		"/ledger?identity=local&limit=99999":                  "",
		mine + "explain?space=spb&function=sing&via=not-seen": "",
	} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if body := w.Body.String(); want == "" && w.Code != http.StatusOK || want != "" && (w.Code != http.StatusBadRequest || !strings.Contains(body, want)) {
			t.Errorf("GET %s: %d %s, want %q", path, w.Code, body, want)
		}
	}
	for path, want := range map[string]string{
		"/explain?identity=local&via=spa": "forbidden by the operator: spa may not spend its visitors' seconds at other Spaces; `spacehost space via spa --on` allows it again",
		"/explain?identity=local&via=spb": "forbidden by the operator: spb may not spend its visitors' seconds at other Spaces; `spacehost space via spb --on --identity local` allows it again",
		mine + "explain?via=spa":          "The operator has forbidden the Space spa to use its visitors' ZeroGPU quota at other Spaces.",
	} {
		var said Explanation
		get(t, e, path, &said)
		if len(said.Calls) != 2 || said.Calls[0].Fits || said.Calls[0].At != nil || said.Calls[0].Why != want || said.Calls[1].Why != want {
			t.Errorf("GET %s: %+v, want %q", path, said.Calls, want)
		}
	}
}

// TestAFullDiskIsExplained: what to do about it only to the operator.
func TestAFullDiskIsExplained(t *testing.T) {
	e, b := accountsAt(t, time.Now, func(c *AccountsConfig) {
		c.Reader = func(*http.Request) (identity.Identity, error) {
			return identity.Identity{Kind: identity.User, Name: "ada"}, nil
		}
	})
	b.free.Store(1 << 20)
	for path, advised := range map[string]bool{"/explain?identity=local&seconds=1": true, "/api/spacehost/explain?seconds=1": false} {
		var said Explanation
		get(t, e, path, &said)
		if len(said.Calls) != 1 || said.Calls[0].Fits || !strings.Contains(said.Calls[0].Why, "its disk has 1 MB free") || strings.Contains(said.Calls[0].Why, "make room") != advised {
			t.Errorf("GET %s: %+v", path, said.Calls)
		}
	}
}

// book is a Ledger with its database, on a disk that has as much room as the test says.
type book struct {
	*quota.Ledger
	db   *sql.DB
	free *atomic.Uint64
}

func accountsAt(t *testing.T, now func() time.Time, alter ...func(*AccountsConfig)) (*echo.Echo, book) {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	pool, err := gpu.NewPool(t.Context(), gpu.None{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	ledger := quota.New(db, quota.Config{Now: now})
	var free atomic.Uint64
	free.Store(1 << 40)
	broker, err := lease.New(lease.Config{DB: db, Ledger: ledger, Pool: pool, Now: now, Free: func() (uint64, error) { return free.Load(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = broker.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	e := echo.New()
	config := AccountsConfig{
		Ledger: ledger, Refusals: &quota.Refusals{}, Broker: broker, People: people.NewStore(db), Now: now,
		TierOf: func(context.Context, identity.Identity) (quota.Tier, error) {
			return quota.Tier{Name: "free", Quota: 210 * time.Second}, nil
		},
		Functions: func(*identity.Identity) []Function { return nil }, Spaces: func(*identity.Identity) []string { return nil },
		CheckVia: func(identity.Identity) error { return nil },
	}
	for _, f := range alter {
		f(&config)
	}
	NewAccounts(config).RegisterControl(e)
	NewAccounts(config).RegisterOwn(e)
	return e, book{ledger, db, &free}
}

func get(t *testing.T, e *echo.Echo, path string, into any) string {
	t.Helper()
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil || w.Code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}
