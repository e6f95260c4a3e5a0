package control

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/audit"
	"spacehost/internal/people"
	"spacehost/migrations"
)

// TestEveryActionIsRecorded sends one request to each route that changes something, and checks that it is recorded with its actor,
// and that no GET is.
func TestEveryActionIsRecorded(t *testing.T) {
	var recorded []Action
	e := echo.New()
	e.Use(Audit(func(context.Context) string { return "ada" }, func(a Action) { recorded = append(recorded, a) }))
	New(Config{}).Register(e)
	for _, route := range e.Routes() {
		e.Add(route.Method, route.Path, func(c echo.Context) error { return c.NoContent(http.StatusNoContent) })
	}
	changes := 0
	for _, route := range e.Routes() {
		recorded = nil
		path := strings.NewReplacer(":name", "ben", ":id", "t1").Replace(route.Path)
		e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(route.Method, path, strings.NewReader(`{"reason":"x"}`)))
		if route.Method == http.MethodGet {
			if len(recorded) != 0 {
				t.Errorf("%s %s: recorded %+v", route.Method, route.Path, recorded)
			}
			continue
		}
		changes++
		if len(recorded) != 1 || recorded[0].Actor != "ada" || recorded[0].Route != route.Method+" "+route.Path || recorded[0].Status != http.StatusNoContent {
			t.Errorf("%s %s: recorded %+v", route.Method, route.Path, recorded)
		}
	}
	if changes < 15 {
		t.Errorf("%d routes that change something, want at least the 15 of version 1", changes)
	}
}

// TestAuditOfAnswers checks what is recorded of a request, and that its handler still reads all of it.
func TestAuditOfAnswers(t *testing.T) {
	db, err := migrations.Open(t.Context(), filepath.Join(t.TempDir(), "spacehost.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	store := people.NewStore(db)
	defer store.Close()
	var got []Action
	e := echo.New()
	e.Use(Audit((&fakeHost{}).Operator, func(a Action) { got = append(got, a) }))
	New(Config{Host: &fakeHost{}, People: store, Now: time.Now}).Register(e)
	for _, row := range []struct{ method, path, body string }{
		{"POST", "/people", `{"name":"ada","tier":"pro"}`},
		{"POST", "/people/ada/tokens", `{"label":"laptop"}`},
		{"POST", "/people/zoe/tier", `{"tier":"pro"}`},
		{"POST", "/people", `{"name":"` + strings.Repeat("x", maxRecorded) + `"}`},
		{"POST", "/people", `{"name":"zoe","tier":"pro"}{}`},
		{"POST", "/people", `{"name":"zoe","tier":"pro","Name":"eve"}`},
		{"POST", "/people", `{"name":"zoe","tier":"pro","name":"eve"}`},
		{"POST", "/reload", `{"dryRun":true}`},
		{"POST", "/prune", `{"dryRun":true,"keepSeconds":5}`},
		{"POST", "/people/ada/tier", `{"tier":"free","dryRun":true}`},
		{"POST", "/clock/advance", `{"by":"soon","accessToken":"sph_secret"}`},
		{"POST", "/people/ada/tokens", `{"label":"SPH_secret","spaces":["x","sph_secret"]}`},
		{"DELETE", "/tokens/sph_secret", ``},
	} {
		e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(row.method, row.path, strings.NewReader(row.body)))
	}
	want := []Action{
		{"uid 1000", "POST /people", map[string]string{}, map[string]any{"name": "ada", "tier": "pro"}, 201, audit.CLI, "", false, ""},
		{"uid 1000", "POST /people/:name/tokens", map[string]string{"name": "ada"}, map[string]any{"label": "laptop"}, 201, audit.CLI, "", false, ""},
		{"uid 1000", "POST /people/:name/tier", map[string]string{"name": "zoe"}, map[string]any{"tier": "pro"}, 404, audit.CLI,
			"unknown user \"zoe\"; `spacehost user list` lists the users, `spacehost user add NAME` adds one", false, ""},
		{"uid 1000", "POST /people", map[string]string{}, map[string]any{"name": `"` + strings.Repeat("x", maxRecorded-1) + "...", "tier": ""}, 400, audit.CLI, `no tier "", there are: free, pro`, false, ""},
		{"uid 1000", "POST /people", map[string]string{}, nil, 400, audit.CLI, "the request body is not the expected JSON: text follows the JSON object; send one object", false, ""},
		{"uid 1000", "POST /people", map[string]string{}, nil, 400, audit.CLI, `the request body is not the expected JSON: unknown field "Name"; names are case-sensitive`, false, ""},
		{"uid 1000", "POST /people", map[string]string{}, nil, 400, audit.CLI, `the request body is not the expected JSON: field "name" is repeated; send it once`, false, ""},
		{"uid 1000", "POST /reload", map[string]string{}, map[string]any{"dryRun": true}, 200, audit.CLI, "", true, ""},
		{"uid 1000", "POST /prune", map[string]string{}, map[string]any{"dryRun": true, "keepSeconds": 5.0, "data": false}, 200, audit.CLI, "", true, ""},
		{"uid 1000", "POST /people/:name/tier", map[string]string{"name": "ada"}, nil, 400, audit.CLI, `the request body is not the expected JSON: json: unknown field "dryRun"`, false, ""},
		{"uid 1000", "POST /clock/advance", map[string]string{}, nil, 400, audit.CLI, `the request is not understood; send {"by": "24h"}`, false, ""},
		{"uid 1000", "POST /people/:name/tokens", map[string]string{"name": "ada"}, map[string]any{"label": "sph_...", "spaces": "sph_..."}, 400, audit.CLI,
			"unknown Space \"x\"; Spaces for which a token can be created: ", false, ""},
		{"uid 1000", "DELETE /tokens/:id", map[string]string{"id": "sph_..."}, nil, 404, audit.CLI, "no token has the ID \"sph_...\"; `spacehost token list` shows the IDs", false, ""},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if all, err := store.List(t.Context()); err != nil || len(all) != 1 || all[0].CreatedBy != "uid 1000" {
		t.Errorf("people %+v, %v: want ada, created by the operator of the socket", all, err)
	}
}

// TestRecordOfAction checks the names of changes and of their objects in the audit log.
func TestRecordOfAction(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		action       Action
		name, object string
		fields       map[string]any
		operator     bool
	}{
		{Action{Route: "POST /people", Fields: map[string]any{"name": "ada", "tier": "pro"}}, "person.add", "ada", map[string]any{"tier": "pro"}, true},
		{Action{Route: "POST /api/spacehost/admin/people/:name/tier", Origin: audit.Console, Params: map[string]string{"name": "ada"}, Fields: map[string]any{"tier": "pro"}},
			"person.tier", "ada", map[string]any{"tier": "pro"}, true},
		{Action{Route: "POST /api/spacehost/admin/gpu/drain", Origin: audit.Console, Fields: map[string]any{"uuid": "GPU-1", "reason": "fan"}}, "gpu.drain", "GPU-1", map[string]any{"reason": "fan"}, true},
		{Action{Route: "POST /api/spacehost/tokens", Origin: audit.Console, Fields: map[string]any{"scope": "call"}}, "token.create", "", map[string]any{"scope": "call"}, false},
		{Action{Route: "DELETE /api/spacehost/tokens/:id", Origin: audit.Console, Params: map[string]string{"id": "abc"}}, "token.revoke", "abc", map[string]any{}, false},
		{Action{Route: "POST /grant", Fields: map[string]any{"name": "", "identity": "user:ada", "seconds": 5.0}}, "grant", "user:ada", map[string]any{"name": "", "seconds": 5.0}, true},
		{Action{Route: "POST /reload", Fields: map[string]any{"dryRun": true}}, "reload", "", map[string]any{"dryRun": true}, true},
		{Action{Route: "DELETE /things/:id", Params: map[string]string{"id": "1"}}, "things.delete", "1", map[string]any{}, true},
		{SignInAction("user:ada", "abc", "127.0.0.1"), "console.sign-in", "abc", map[string]any{"address": "127.0.0.1"}, true},
		{SignInAction("local", "local", "127.0.0.1"), "console.sign-in", "local", map[string]any{"address": "127.0.0.1"}, true},
	} {
		e := row.action.Record(at)
		if e.Action != row.name || e.Object != row.object || !reflect.DeepEqual(e.Fields, row.fields) || !e.At.Equal(at) {
			t.Errorf("%s: got %+v", row.action.Route, e)
		}
		if row.action.IsOperator() != row.operator {
			t.Errorf("%s: operator %v", row.action.Route, row.action.IsOperator())
		}
	}
}
