package dashboard

import (
	"cmp"
	"net/http"
	"reflect"
	"sync"

	"github.com/labstack/echo/v4"

	"spacehost/internal/control"
	"spacehost/internal/openapi"
	"spacehost/internal/views"
)

// adminPath is the path of the endpoints of package control.
const adminPath = "/api/spacehost/admin"

// The endpoints of a person. Package console answers those of the own account. ExportLedger answers with text/csv.
var (
	ShowMe       = control.Endpoint[control.NoBody, Me]{Method: http.MethodGet, Path: "/api/spacehost/me"}
	ListSpaces   = control.Endpoint[control.NoBody, []views.Space]{Method: http.MethodGet, Path: "/api/spacehost/spaces"}
	ShowAPI      = control.Endpoint[control.NoBody, SpaceAPI]{Method: http.MethodGet, Path: "/api/spacehost/spaces/:name/api"}
	WatchChanges = control.Endpoint[control.NoBody, control.NoBody]{Method: http.MethodGet, Path: "/api/spacehost/changes"}

	ShowQuota  = control.Endpoint[control.NoBody, views.Account]{Method: http.MethodGet, Path: "/api/spacehost/quota"}
	ShowLedger = control.Endpoint[control.NoBody, []views.Entry]{Method: http.MethodGet, Path: "/api/spacehost/ledger"}
	ShowAdvice = control.Endpoint[control.NoBody, []views.Advice]{Method: http.MethodGet, Path: "/api/spacehost/advice"}
	ExplainOwn = control.Endpoint[control.NoBody, views.Explanation]{Method: http.MethodGet, Path: "/api/spacehost/explain"}

	ExportLedger = control.Endpoint[control.NoBody, control.CSV]{Method: http.MethodGet, Path: "/api/spacehost/ledger.csv"}
)

// OpenAPI is the OpenAPI document. ShowOpenAPI is public: the document describes every host alike.
type OpenAPI map[string]any

// ShowOpenAPI answers with the description of all endpoints.
var ShowOpenAPI = control.Endpoint[control.NoBody, OpenAPI]{Method: http.MethodGet, Path: "/api/spacehost/openapi.json"}

// docs are the summaries and query parameters of the routes above, by method and path. Those of an admin are in package control.
var docs = map[string]control.Doc{
	"GET /api/spacehost/me":               {Summary: "The person of the token and the role at the console."},
	"GET /api/spacehost/spaces":           {Summary: "The Spaces that the person may see."},
	"GET /api/spacehost/changes":          {Summary: "A stream of the values that pages show. Each event replaces the value before. A client that connects again sends the last id as Last-Event-ID and receives what has changed since.", Errors: []int{http.StatusTooManyRequests}},
	"GET /api/spacehost/quota":            {Summary: "What the own account has used and has left.", Query: control.AccountParameters},
	"GET /api/spacehost/ledger":           {Summary: "The lines of the own ledger, newest first.", Query: control.LedgerParameters},
	"GET /api/spacehost/explain":          {Summary: "Why an own call would be refused or has to wait, and the latest refusals.", Query: control.ExplainParameters},
	"GET /api/spacehost/openapi.json":     {Summary: "This document."},
	"GET /api/spacehost/advice":           {Summary: "Declared and used seconds of the own calls by function, with a better declaration where there is one.", Query: control.AdviceParameters},
	"GET /api/spacehost/ledger.csv":       {Summary: "All lines of the own ledger that match, as CSV, newest first.", Query: control.LedgerFilters},
	"GET /api/spacehost/spaces/:name/api": {Summary: "The functions of a Space that clients call by name, with their parameters and examples."},
	"GET /api/spacehost/tokens":           {Summary: "The own tokens, without their text."},
	"POST /api/spacehost/tokens":          {Summary: "Creates a token for the own account, with at most the rights of the token of the request. Only this answer contains its text.", Errors: []int{403, 409}},
	"DELETE /api/spacehost/tokens/:id":    {Summary: "Revokes an own token.", Errors: []int{409}},
}

// events are the kinds of events of WatchChanges. Each topic is one.
var events = []control.Event{
	{Name: "clock", Type: reflect.TypeFor[Clock]()},
	{Name: "me", Type: reflect.TypeFor[Me]()},
	{Name: string(Account), Type: reflect.TypeFor[OwnView]()},
	{Name: string(Spaces), Type: reflect.TypeFor[[]views.Space]()},
	{Name: string(Leases), Type: reflect.TypeFor[control.Leases]()},
	{Name: string(GPUs), Type: reflect.TypeFor[[]control.GPU]()},
	{Name: string(People), Type: reflect.TypeFor[[]control.Person]()},
	{Name: "stale", Type: reflect.TypeFor[map[Topic]Stale]()},
	{Name: string(Audit), Type: reflect.TypeFor[control.AuditState]()},
	{Name: "ended", Type: reflect.TypeFor[struct{}]()},
}

func (a *API) streamChanges(e control.Routes) {
	control.Stream(e, WatchChanges, a.as(Visitor, a.changes), events...)
	note(e, Visitor)
}

// Operations returns the description of every route below /api/spacehost.
func Operations() []control.Operation {
	own := &control.Recorder{Docs: docs}
	(&API{}).registerOwn(own)
	control.Describe(own, ShowQuota, http.StatusOK)
	control.Describe(own, ShowLedger, http.StatusOK)
	control.Describe(own, ExportLedger, http.StatusOK)
	control.Describe(own, ShowAdvice, http.StatusOK)
	control.Describe(own, ExplainOwn, http.StatusOK)
	for i := range own.Operations {
		own.Operations[i].Access = cmp.Or(own.Operations[i].Access, string(Visitor))
	}
	control.Describe(own, ShowOpenAPI, http.StatusOK)
	all := own.Operations
	for _, o := range control.AdminOperations() {
		o.Path, o.Access = adminPath+o.Path, string(Admin)
		all = append(all, o)
	}
	return all
}

// Document returns the OpenAPI document, indented. It is the same for each host of this version.
var Document = sync.OnceValues(func() ([]byte, error) { return openapi.Document(Operations()) })

func showOpenAPI(c echo.Context) error {
	text, err := Document()
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, text)
}
