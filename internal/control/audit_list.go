package control

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/audit"
	"spacehost/internal/views"
)

// ListAudit lists what operators have changed, newest first. Its query is that of AuditQuery.
var ListAudit = Endpoint[NoBody, []audit.Record]{http.MethodGet, "/audit"}

// AuditState tells the console's pages that the audit log has a new entry.
type AuditState struct {
	Latest int64 `json:"latest"` // ID of the newest entry; 0: none
}

// AuditState returns the state of the audit log. It reads the database.
func (a *API) AuditState(ctx context.Context) (AuditState, error) {
	latest, err := a.config.Audit.Latest(ctx)
	return AuditState{latest}, err
}

// signIn is the Route of a SignInAction.
const signIn = "console.sign-in"

// SignInAction is the Action of an admin who opens the console with a credential (people.Proof.Credential) from an address.
func SignInAction(actor, credential, address string) Action {
	return Action{Actor: actor, Route: signIn, Fields: map[string]any{"id": credential, "address": address}, Status: http.StatusOK, Origin: audit.Console}
}

// defaultAudit is the number of entries in one answer without a limit in the query.
const defaultAudit = 200

// AuditQuery narrows the list of the audit log. The zero time shows all.
func AuditQuery(since time.Time, limit int) url.Values {
	values := url.Values{"limit": {strconv.Itoa(limit)}}
	if !since.IsZero() {
		values.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	return values
}

func (a *API) listAudit(c echo.Context, _ NoBody) ([]audit.Record, error) {
	limit, err := views.Limit(c.QueryParam("limit"), defaultAudit)
	if err != nil {
		return nil, err
	}
	since := time.Time{}
	if text := c.QueryParam("since"); text != "" {
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return nil, views.BadRequest("since=%.40q is not a time; give one in RFC 3339, such as 2026-11-30T14:00:00Z", text)
		}
	}
	all, err := a.config.Audit.List(c.Request().Context(), since, limit)
	return append([]audit.Record{}, all...), err
}

// actions are the names of routes with a path that does not name the change.
var actions = map[string]string{
	"POST /people":              "person.add",
	"PATCH /people/:name":       "person.change",
	"DELETE /people/:name":      "person.remove",
	"POST /people/:name/tier":   "person.tier",
	"POST /people/:name/tokens": "token.create",
	"POST /tokens":              "token.create",
	"DELETE /tokens/:id":        "token.revoke",
	"POST /nodes/token":         "node.token",
	"POST /nodes/:name/drain":   "node.drain",
	"POST /nodes/:name/return":  "node.return",
	"POST /nodes/:name/revoke":  "node.revoke",
	"DELETE /nodes/:name":       "node.forget",
	"POST /restart":             "space.restart",
	"POST /rebuild":             "space.rebuild",
	"POST /via":                 "space.via",
}

// routePrefixes are the paths below which the console mounts routes, the longest first.
var routePrefixes = []string{"/api/spacehost/admin", "/api/spacehost"}

// actionName returns a short name of what a route changes, such as person.tier, or gpu.drain for "POST /gpu/drain". Names are the
// same for the command line and the console.
func actionName(route string) string {
	method, path, isRoute := strings.Cut(route, " ")
	if !isRoute {
		return route
	}
	for _, prefix := range routePrefixes {
		if rest, below := strings.CutPrefix(path, prefix+"/"); below {
			path = "/" + rest
			break
		}
	}
	if name, known := actions[method+" "+path]; known {
		return name
	}
	var words []string
	for _, word := range strings.Split(path, "/") {
		if word != "" && !strings.HasPrefix(word, ":") {
			words = append(words, word)
		}
	}
	if method == http.MethodDelete {
		words = append(words, "delete")
	}
	return strings.Join(words, ".")
}

// objectNames are the parameters and fields that name what a request changes, the first that is present.
var objectNames = []string{"name", "id", "space", "identity", "uuid", "lease"}

// Record returns the record of the audit log for an Action at a time.
func (a Action) Record(at time.Time) audit.Record {
	e := audit.Record{At: at, Actor: a.Actor, Origin: a.Origin, Action: actionName(a.Route), Fields: map[string]any{}, Status: a.Status, Detail: a.Refusal, Token: a.Token}
	for name, value := range a.Fields {
		e.Fields[name] = value
	}
	for _, name := range objectNames {
		if param, ok := a.Params[name]; ok {
			e.Object = param
			return e
		}
	}
	for _, name := range objectNames {
		if text, _ := e.Fields[name].(string); text != "" {
			delete(e.Fields, name)
			e.Object = text
			return e
		}
	}
	return e
}

// IsOperator reports whether an operator or an admin has made the request, and not a person for the own account.
func (a Action) IsOperator() bool {
	_, path, _ := strings.Cut(a.Route, " ")
	return a.Origin != audit.Console || !strings.HasPrefix(path, routePrefixes[1]+"/") || strings.HasPrefix(path, routePrefixes[0]+"/")
}
