package control

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/quota"
)

// TestUsage: rows by each dimension add up to the total, also those beyond the limit. A wrong query is refused with a sentence.
func TestUsage(t *testing.T) {
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	e, l := newAccounts(t, &fakeHost{}, func() time.Time { return noon.Add(24 * time.Hour) })
	for i, row := range []struct {
		who, space, function, tier, state string
		after                             time.Duration
		used, declared                    int
	}{
		{"user:ada", "demo", "draw", "pro", "released", 0, 3001, 60000},
		{"user:ada", "demo", "draw", "pro", "expired", 59 * time.Minute, 5000, 5000},
		{"user:ben", "demo", "sing", "free", "released", 2 * time.Hour, 1500, 60000},
		{"ip:203.0.113.7", "other", "draw", "unauthenticated", "released", 3 * time.Hour, 7, 60000},
		{"user:old", "demo", "draw", "pro", "released", -time.Millisecond, 99000, 99000},
	} {
		at := noon.Add(row.after).UnixMilli()
		_, err := l.db.Exec(`INSERT INTO leases (id, space, identity, tier, function, size, declared_ms, held_ms, state, worker_pid, admitted_at, active_at, deadline_at, ended_at, charged_ms)
			VALUES (?, ?, ?, ?, ?, 'large', ?, ?, ?, 4711, ?, ?, ?, ?, ?)`, fmt.Sprint("lease-", i), row.space, row.who, row.tier, row.function, row.declared, row.declared, row.state,
			at-int64(row.used), at-int64(row.used), at+1e6, at, row.used)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.db.Exec(`INSERT INTO refusals VALUES (?1, 'user:ben', 'demo', 'sing', 'free', 3), (?1, 'user:cleo', 'demo', 'draw', 'free', 1)`, noon.Add(time.Hour).UnixMilli()); err != nil {
		t.Fatal(err)
	}
	var timeline lease.Timeline
	from, to := noon.Format(time.RFC3339), noon.Add(4*time.Hour).Format(time.RFC3339)
	get(t, e, ShowTimeline.Path+"?from="+from+"&to="+to, &timeline)
	if m := timeline.Missed; len(m.At) != 1 || m.At[0] != time.Hour.Milliseconds() || m.Calls[0] != 4 || m.Kind[0] != lease.MissedRefused {
		t.Errorf("refusals on the timeline: %+v", m)
	}
	ask := func(q UsageQuery) (u Usage) {
		t.Helper()
		q.From, q.To = noon, noon.Add(4*time.Hour)
		get(t, e, ShowUsage.Request(NoBody{}).With(q.Values()).Path, &u)
		return u
	}
	total := UsageSums{Calls: 4, Refusals: 4, Kills: 1, UsedSeconds: 9.508, DeclaredSeconds: 185, HeldSeconds: 185, ChargedSeconds: 9.508}
	for by, want := range map[quota.Dimension]string{
		quota.ByPerson:   "/user:ada 8.001, /user:ben 1.5, /ip:203.0.113.7 0.007, /user:cleo 0",
		quota.BySpace:    "/demo 9.501, /other 0.007",
		quota.ByFunction: "demo/draw 8.001, demo/sing 1.5, other/draw 0.007",
		quota.ByTier:     "/pro 8.001, /free 1.5, /unauthenticated 0.007",
		ByGroup:          "/staff 9.501, / 0.007",
	} {
		u := ask(UsageQuery{By: string(by), Part: time.Hour})
		var got []string
		for _, row := range u.Rows {
			got = append(got, fmt.Sprintf("%s/%s %g", row.Space, row.Key, row.UsedSeconds))
		}
		if text := strings.Join(got, ", "); text != want || u.Total != total || u.Others != nil || u.OtherRows != 0 {
			t.Errorf("by %s: %s\nwant %s\n%+v", by, text, want, u)
		}
	}
	u := ask(UsageQuery{By: "person", Part: time.Hour, Limit: 1})
	others := &UsageRow{UsageSums: UsageSums{Calls: 2, Refusals: 4, UsedSeconds: 1.507, DeclaredSeconds: 120, HeldSeconds: 120, ChargedSeconds: 1.507}, Buckets: []UsageSums{
		{}, {Refusals: 4}, {Calls: 1, UsedSeconds: 1.5, DeclaredSeconds: 60, HeldSeconds: 60, ChargedSeconds: 1.5}, {Calls: 1, UsedSeconds: .007, DeclaredSeconds: 60, HeldSeconds: 60, ChargedSeconds: .007},
	}}
	if u.Total != total || len(u.Rows) != 1 || u.OtherRows != 3 || !reflect.DeepEqual(u.Others, others) || u.BucketSeconds != 3600 ||
		u.Rows[0].Buckets[0] != (UsageSums{Calls: 2, Kills: 1, UsedSeconds: 8.001, DeclaredSeconds: 65, HeldSeconds: 65, ChargedSeconds: 8.001}) {
		t.Errorf("one row: %+v\nothers %+v\nwant %+v", u, u.Others, others)
	}
	var last Usage // seven days by person, in one part
	if get(t, e, "/usage", &last); last.By != "person" || last.To.Sub(last.From) != 7*24*time.Hour || last.Total.Calls != 5 || len(last.Rows[0].Buckets) != 1 {
		t.Errorf("without a query: %+v", last)
	}
	for query, want := range map[string]string{
		"from=yesterday": `from=\"yesterday\" is not a time`, "to=now": `to=\"now\" is not a time`, "by=colour": `unknown by=\"colour\"; give person, space, function, tier or group`,
		"from=2026-11-20T12:00:00Z&to=2026-11-20T12:00:00Z": "is not before", "limit=0": "is not a number of rows", "bucket=59": "give at least 60", "bucket=NaN": "give at least 60",
		"bucket=1e300": "is not a length", "bucket=60": "divides the time into 10080 parts", "bucket=3600&limit=10000": "a smaller limit", "by=identity;DROP": "unknown by",
		"from=0001-01-01T00:00:00Z": "more than 200 years", "from=0000-01-01T00:00:00Z&to=9999-12-31T23:59:59Z": "more than 200 years",
		"from=2026-11-20T12:00:00.0001Z&to=2026-11-20T12:00:00.0002Z": "is not before",
	} {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/usage?"+strings.ReplaceAll(query, ";", "%3B"), nil))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %q", query, w.Code, w.Body, want)
		}
	}
	var all Usage
	get(t, e, "/usage?from=1970-01-01T00:00:00.0009Z&to=2069-01-01T00:00:00.0001Z", &all)
	if all.Total.Calls != 5 {
		t.Errorf("all times: %+v", all.Total)
	}
}

// TestLedgerAsCSV: all lines that match are sent, whatever the number of a page, and no cell is a formula.
func TestLedgerAsCSV(t *testing.T) {
	noon := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	e, l := newAccounts(t, &fakeHost{caller: identity.Identity{Kind: identity.User, Name: "ada"}}, func() time.Time { return noon })
	const lines = `INSERT INTO windows (id, identity) VALUES (1, 'user:ada'), (2, 'user:ben');
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
		INSERT INTO ledger (at, identity, window_id, lease_id, kind, space, task, held_ms, charged_ms, returned_ms, reason)
		SELECT 1795176000000 + i, iif(i % 2 = 0, 'user:ada', 'user:ben'), 1 + i % 2, 'lease-' || i, 'settle', 'demo', '=1+1', 60000, 1500, 58500, 'released, "so"' FROM n`
	if _, err := l.db.Exec(lines); err != nil {
		t.Fatal(err)
	}
	send := func(query url.Values) (int, string) {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, mine+"ledger.csv?"+query.Encode(), nil))
		return w.Code, w.Body.String()
	}
	code, text := send(url.Values{"limit": {"1"}})
	if n := strings.Count(text, "\n"); code != http.StatusOK || n != 1+1250 || strings.Count(text, "lease-") != 1250 || strings.Contains(text, "lease-3,") {
		t.Errorf("all lines: %d, %d lines: %.400s", code, n, text)
	}
	if want := "2500,2026-11-20T12:00:02.500Z,settle,lease-25,demo,'=1+1,,60,1.5,60,1.5,58.5,0,0,\"released, \"\"so\"\"\",\n"; !strings.Contains(text, want) {
		t.Errorf("the first line: %.400s\nwant %s", text, want)
	}
	if _, text = send(url.Values{"from": {"2026-11-20T12:00:01Z"}, "to": {"2026-11-20T12:00:02Z"}}); strings.Count(text, "\n") != 1+500 {
		t.Errorf("a second: %d lines", strings.Count(text, "\n"))
	}
	for query, want := range map[string]string{"kind=fine": `unknown kind=\"fine\"; give hold, settle`, "before=x": `before=\"x\" is not the ID of a line`, "from=x": `from=\"x\" is not a time`} {
		values, _ := url.ParseQuery(query) // valid
		if code, text := send(values); code != http.StatusBadRequest || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", query, code, text)
		}
	}
}
