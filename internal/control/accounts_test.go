package control

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/console"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/lease/brokertest"
	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/migrations"
	"spacehost/quota"
)

// TestCountdownAtAnyClock: at any time of the clock, a countdown is from a second to 24 hours, in each view.
func TestCountdownAtAnyClock(t *testing.T) {
	opened := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	var now atomic.Int64 // since the opening
	e, ledger := newAccounts(t, &fakeHost{}, func() time.Time { return opened.Add(time.Duration(now.Load())) })
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
		at time.Duration // since the opening
		in string        // "": the window has ended
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
		var got views.Explanation
		body := get(t, e, "/explain?identity=local&seconds=60", &got)
		if got.ResetsIn != row.in || len(got.Calls) != 1 || got.Calls[0].In != row.in || got.Calls[0].Fits != (row.in == "") {
			t.Errorf("%s: resets in %q, a call %+v; want %q\n%s", what, got.ResetsIn, got.Calls, row.in, body)
		}
		if row.in != "" && !good.MatchString(got.ResetsIn) || strings.Contains(body, "0:00:00") || strings.Contains(body, "-1 day") {
			t.Errorf("%s: %s", what, body)
		}
	}
}

// mine is the console's path of the caller's own account.
const mine = "/api/spacehost/"

// newTwoSpaces registers the accounts of a host with two Spaces. The delegation of spa is denied for all payers, and that of spb
// for local.
func newTwoSpaces(t *testing.T) *echo.Echo {
	t.Helper()
	host := &fakeHost{
		spaces:    []string{"spa", "spb"},
		functions: []views.Function{{Space: "spa", Name: "draw", Declared: time.Minute}, {Space: "spb", Name: "sing"}},
		caller:    identity.Identity{Kind: identity.User, Name: "ada"},
	}
	host.denied = func(payer identity.Identity) error {
		switch {
		case payer.Via == "spa":
			return &people.DelegationDeniedError{Space: "spa"}
		case payer.Via == "spb" && payer.Kind == identity.Local:
			return &people.DelegationDeniedError{Space: "spb", Identity: "local"}
		}
		return nil
	}
	e, _ := newAccounts(t, host, time.Now)
	return e
}

// TestExplainRefusesUnknownNames: an unknown Space, function or size is an error.
func TestExplainRefusesUnknownNames(t *testing.T) {
	e := newTwoSpaces(t)
	for path, want := range map[string]string{
		"/explain?identity=local&space=nope":                  `unknown Space \"nope\"; Spaces of this host: spa, spb`,
		"/explain?identity=local&via=nope":                    `unknown Space \"nope\"; Spaces of this host: spa, spb`,
		"/explain?identity=local&function=nope":               `unknown GPU function \"nope\"; known functions: draw, sing`,
		"/explain?identity=local&space=spb&function=draw":     `unknown GPU function \"draw\"; known functions: sing`,
		"/explain?identity=local&size=xlarge":                 "size=xlarge requires seconds; add the duration that the call would declare",
		"/explain?identity=local&size=small&seconds=1":        "give large or xlarge",
		"/ledger?identity=local&limit=0":                      `limit=\"0\" is not a number of rows; give one from 1 to 10000`,
		"/ledger?identity=local&limit=x":                      `limit=\"x\"`,
		mine + "ledger?limit=-1":                              `limit=\"-1\"`,
		mine + "explain?space=nope":                           `unknown Space \"nope\"`,
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
}

// TestExplainDeniedDelegation: a call denied by the operator does not fit. Only the operator reads the command that allows it.
func TestExplainDeniedDelegation(t *testing.T) {
	e := newTwoSpaces(t)
	for path, want := range map[string]string{
		"/explain?identity=local&via=spa": "forbidden by the operator: spa may not spend its visitors' seconds at other Spaces; `spacehost space via spa --on` allows it again",
		"/explain?identity=local&via=spb": "forbidden by the operator: spb may not spend its visitors' seconds at other Spaces; `spacehost space via spb --on --identity local` allows it again",
		mine + "explain?via=spa":          "The operator has forbidden the Space spa to use its visitors' ZeroGPU quota at other Spaces.",
	} {
		var got views.Explanation
		get(t, e, path, &got)
		if len(got.Calls) != 2 || got.Calls[0].Fits || got.Calls[0].At != nil || got.Calls[0].Why != want || got.Calls[1].Why != want {
			t.Errorf("GET %s: %+v, want %q", path, got.Calls, want)
		}
	}
}

// TestExplainWithoutNode: only the operator reads which nodes there are. A Space that has not run yet has no functions.
func TestExplainWithoutNode(t *testing.T) {
	host := &fakeHost{spaces: []string{"spa", "new"}, functions: []views.Function{{Space: "spa", Name: "draw", Declared: time.Minute}}, caller: identity.Identity{Kind: identity.User, Name: "ada"}, waits: "gpu2 is drained"}
	e, _ := newAccounts(t, host, time.Now)
	const visitor = "the Space waits for a machine, so its calls wait"
	for path, want := range map[string]string{
		"/explain?identity=local&space=spa":            visitor + ": gpu2 is drained",
		"/explain?identity=local&space=new":            visitor + ": gpu2 is drained",
		"/explain?identity=local&space=new&seconds=60": visitor + ": gpu2 is drained",
		mine + "explain?space=spa":                     visitor,
	} {
		var got views.Explanation
		if get(t, e, path, &got); len(got.Calls) != 1 || got.Calls[0].Fits || got.Calls[0].At != nil || got.Calls[0].Why != want || got.Calls[0].Size != "large" {
			t.Errorf("GET %s: %+v, want %q", path, got.Calls, want)
		}
	}
}

// TestExplainOnAFullDisk: only the operator reads what to do about it.
func TestExplainOnAFullDisk(t *testing.T) {
	e, b := newAccounts(t, &fakeHost{caller: identity.Identity{Kind: identity.User, Name: "ada"}}, time.Now)
	b.free.Store(1 << 20)
	for path, advised := range map[string]bool{"/explain?identity=local&seconds=1": true, "/api/spacehost/explain?seconds=1": false} {
		var got views.Explanation
		get(t, e, path, &got)
		if len(got.Calls) != 1 || got.Calls[0].Fits || !strings.Contains(got.Calls[0].Why, "its disk has 1 MB free") || strings.Contains(got.Calls[0].Why, "make room") != advised {
			t.Errorf("GET %s: %+v", path, got.Calls)
		}
	}
}

// TestGrantNamesTheOperator: the ledger has the user at the other end of the socket.
func TestGrantNamesTheOperator(t *testing.T) {
	e, _ := newAccounts(t, &fakeHost{}, time.Now)
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/grant", strings.NewReader(`{"identity":"local","seconds":10,"reason":"demo day"}`)))
	var lines []views.Entry
	body := get(t, e, "/ledger?identity=local", &lines)
	if w.Code != http.StatusOK || len(lines) != 1 || lines[0].By != "uid 1000" || lines[0].Reason != "demo day" {
		t.Errorf("grant: %d %s, and a ledger of %s", w.Code, w.Body, body)
	}
}

// testLedger is a Ledger with its database, on a disk whose free space the test sets.
type testLedger struct {
	*quota.Ledger
	db   *sql.DB
	free *atomic.Uint64

	refusals *quota.Refusals
}

// newAccounts registers the accounts of a host at the control socket and at the console address.
func newAccounts(t *testing.T, host *fakeHost, now func() time.Time) (*echo.Echo, testLedger) {
	t.Helper()
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ledger := quota.New(db, quota.Config{Now: now})
	var free atomic.Uint64
	free.Store(1 << 40)
	refusals := &quota.Refusals{}
	broker := brokertest.WithoutGPU(t, lease.Config{DB: db, Ledger: ledger, Now: now, Free: func() (uint64, error) { return free.Load(), nil }})
	e := echo.New()
	accounts := views.NewAccounts(views.AccountsConfig{
		Ledger: ledger, Refusals: refusals, Broker: broker, People: people.NewStore(db), Payers: host, Spaces: host, Advisor: func() views.Advisor {
			return views.Advisor{Ledger: ledger, Free: quota.Tier{Name: "free", Quota: 300 * time.Second}}
		}, Now: now,
	})
	console.New(host, accounts).Register(e) // first: both have /healthz
	New(Config{Host: host, Payers: host, Accounts: accounts, Ledger: ledger, Broker: broker, Now: now}).Register(e)
	return e, testLedger{ledger, db, &free, refusals}
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

func post(t *testing.T, e *echo.Echo, path, body string, want int) string {
	t.Helper()
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
	if w.Code != want {
		t.Errorf("POST %s %s: %d %s, want %d", path, body, w.Code, w.Body, want)
	}
	return w.Body.String()
}

// TestRunsAndCreditsInTheViews: the account, the list of balances, the ledger and the verdicts agree, and a call fits again when a
// run returns, to the millisecond.
func TestRunsAndCreditsInTheViews(t *testing.T) {
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	var passed atomic.Int64
	now := func() time.Time { return noon.Add(time.Duration(passed.Load())) }
	host := &fakeHost{
		functions: []views.Function{{Space: "spa", Name: "draw", Declared: time.Minute, Size: "large"}},
		tier:      &quota.Tier{Name: "free", Quota: 300 * time.Second, Runs: 2},
	}
	e, ledger := newAccounts(t, host, now)
	for i := range 2 {
		ledger.run(t, fmt.Sprint(i), quota.HoldRequest{Identity: "local", Tier: *host.tier, Declared: time.Minute, Now: now()})
		passed.Add(int64(time.Hour))
	}
	var got views.Explanation
	body := get(t, e, "/explain?identity=local", &got)
	back := noon.Add(quota.Span)
	want := views.Runs{Used: 2, Limit: 2, ResetsAt: &back, ResetsIn: "22:00:00", Enforced: true}
	if got.Runs == nil || !reflect.DeepEqual(*got.Runs, want) || *got.Functions[0].Calls != 0 {
		t.Errorf("runs: %+v, %s", got.Runs, body)
	}
	if v := got.Calls[0]; v.Fits || v.At == nil || !v.At.Equal(back) || v.In != "22:00:00" || v.Why != "2 of 2 runs in 24 hours are used" {
		t.Errorf("verdict: %+v", v)
	}
	passed.Store(int64(quota.Span - time.Millisecond))
	get(t, e, "/explain?identity=local", &got)
	if v := got.Calls[0]; v.Fits || v.In != "0:00:01" {
		t.Errorf("a millisecond before: %+v", v)
	}
	passed.Store(int64(quota.Span))
	get(t, e, "/explain?identity=local", &got)
	if v := got.Calls[0]; !v.Fits || *got.Functions[0].Calls != 1 || got.Runs.Used != 1 {
		t.Errorf("at the return: %+v, %+v", v, got.Runs)
	}
	wantGrantAndCredit(t, e)
}

// TestCallsOneAfterAnother: the views count the calls that fit at the same time, and those that fit one after another by what the
// calls of the last 24 hours used. The advice is only about what the query names.
func TestCallsOneAfterAnother(t *testing.T) {
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	var passed atomic.Int64
	now := func() time.Time { return noon.Add(time.Duration(passed.Load())) }
	host := &fakeHost{
		functions: []views.Function{{Space: "spa", Name: "draw", Declared: time.Minute, Size: "large"}, {Space: "spa", Name: "new", Declared: time.Minute, Size: "large"}},
		tier:      &quota.Tier{Name: "free", Quota: 300 * time.Second},
	}
	e, ledger := newAccounts(t, host, now)
	for i, identity := range []string{"local", "local", "user:ada"} {
		ledger.run(t, fmt.Sprint(i), quota.HoldRequest{Identity: identity, Tier: *host.tier, Space: "spa", Task: "draw", Declared: time.Minute, Now: now()})
	}
	var got views.Account
	body := get(t, e, "/account?identity=local", &got)
	draw, unused := got.Functions[0], got.Functions[1]
	if *draw.Calls != 4 || draw.CallsInTurn == nil || *draw.CallsInTurn != 239 || *draw.UsedSeconds != 1 { // 298 s are left
		t.Errorf("draw: %+v", draw)
	}
	if *unused.Calls != 4 || unused.CallsInTurn != nil || unused.UsedSeconds != nil {
		t.Errorf("a function without calls: %+v", unused)
	}
	if len(got.Advice) != 1 || got.Advice[0].Calls != 3 || *got.Advice[0].Declare != 5 || got.Advice[0].Then.Together != 60 {
		t.Errorf("the advice counts the calls of all accounts: %s", body)
	}
	if get(t, e, "/account?identity=local&function=new", &got); len(got.Advice) != 0 {
		t.Errorf("the advice about another function: %+v", got.Advice)
	}
	passed.Store(int64(quota.Span + time.Millisecond))
	if get(t, e, "/account?identity=local", &got); len(got.Advice) != 0 || got.Functions[0].CallsInTurn != nil {
		t.Errorf("after 24 hours: %+v", got)
	}
}

// wantGrantAndCredit begins with one of two runs used, and no seconds of the window.
func wantGrantAndCredit(t *testing.T, e *echo.Echo) {
	t.Helper()
	post(t, e, "/grant", `{"identity":"local","runs":3}`, http.StatusOK)
	post(t, e, "/credit", `{"identity":"local","seconds":90,"reason":"paid"}`, http.StatusOK)
	var balances []Balance
	get(t, e, "/quota", &balances)
	if b := balances[0]; b.CreditSeconds != 90 || b.Runs == nil || b.Runs.Limit != 5 || b.Runs.Granted != 3 || b.Runs.Remaining != 4 {
		t.Errorf("balances: %+v", balances)
	}
	var got views.Explanation
	get(t, e, "/explain?identity=local", &got)
	if *got.Functions[0].Calls != 4 || got.CreditSeconds != 90 { // 390 s are six calls
		t.Errorf("with grants: %d calls left, %+v", *got.Functions[0].Calls, got.Account)
	}
	var lines []views.Entry
	get(t, e, "/ledger?identity=local", &lines)
	if lines[0].Kind != "credit" || lines[0].ReturnedSeconds != 90 || lines[0].Reason != "paid" || lines[1].Kind != "grant" || lines[1].Runs != 3 || lines[2].Runs != 1 {
		t.Errorf("ledger: %+v", lines)
	}
	post(t, e, "/credit", `{"identity":"local","seconds":0}`, http.StatusBadRequest)
	post(t, e, "/grant", `{"identity":"local","runs":-1}`, http.StatusBadRequest)
}

// run writes a whole call of a minute that uses one second.
func (l testLedger) run(t *testing.T, lease string, r quota.HoldRequest) {
	t.Helper()
	r.Lease, r.Factor = lease, 1
	tx, err := l.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := l.Hold(t.Context(), tx, r); err != nil {
		t.Fatal(err)
	}
	if err := l.Open(t.Context(), tx, lease, r.Now); err != nil {
		t.Fatal(err)
	}
	if err := l.Settle(t.Context(), tx, quota.Settlement{Lease: lease, Charged: time.Second, Reason: quota.ReasonReleased, Now: r.Now, Ran: r.Now}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}
