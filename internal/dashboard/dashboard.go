// Package dashboard is the API behind the pages of the console: what a person may read about this host, and what an admin may
// change.
//
// # Terms
//
// An [Access] decides what a person may read: a visitor the own account, a member also the Spaces that the person may see, an admin
// everything. A topic is one view that a page shows; [Changes] delivers a topic again when it has changed.
//
// # Access
//
// Each request needs a bearer. The console sets no cookie, so no other page can send one. An endpoint that a role may not see
// answers 404. GET requests change nothing.
//
// # Types
//
// [API] mounts the routes. Admins get the endpoints of package control below /api/spacehost/admin, with the same types as the
// command line.
package dashboard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/control"
	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// Access is what a person may do at the console.
type Access string

// The roles, from the least to the most.
const (
	Visitor Access = "visitor"
	Member  Access = "member"
	Admin   Access = "admin"
)

// Host is the part of the host that the dashboard uses. Its methods are called concurrently, and do not
// block.
type Host interface {
	// AccessOf returns what a person may do, by the configuration as it is now.
	AccessOf(person identity.Identity) Access
	// SpacesOf returns the Spaces that a person may see; nil is an admin, who sees all.
	SpacesOf(person *identity.Identity) []views.Space
	// SpaceAPI returns how clients call a Space; false if there is none that the person may see. It may ask the Space, and then
	// ends with ctx. person is as for SpacesOf.
	SpaceAPI(ctx context.Context, person *identity.Identity, name string) (SpaceAPI, bool)
}

// Config is what an API needs. All fields are required.
type Config struct {
	Host Host
	// Authenticate returns the identity of a request's bearer. It may read the database. Errors: *echo.HTTPError without a valid
	// bearer, or of the database.
	Authenticate func(*http.Request) (people.Proof, error)
	// Recheck is Authenticate for the request of an open stream, which guesses no token.
	Recheck  func(*http.Request) (people.Proof, error)
	Accounts *views.Accounts
	Control  *control.API
	Changes  *Changes
	People   *people.Store
	Nodes    bool                 // nodes may join the host: admins see their page
	Now      func() time.Time     // wall clock
	Record   func(control.Action) // receives each change by a person, after its answer; called concurrently
}

// API answers the requests of the console's pages. It may be used concurrently.
type API struct {
	config  Config
	signIns signIns
}

// New returns the API of a host.
func New(config Config) *API { return &API{config: config} }

// Register mounts all routes at the console's address.
func (a *API) Register(e *echo.Echo) {
	a.registerOwn(e)
	e.Add(ShowOpenAPI.Method, ShowOpenAPI.Path, showOpenAPI)
	a.config.Control.RegisterAdmin(e.Group(adminPath, a.onlyAdmins))
}

// registerOwn mounts the routes that are not those of package control.
func (a *API) registerOwn(e control.Routes) {
	handle(a, e, Visitor, ShowMe, http.StatusOK, a.me)
	handle(a, e, Member, ListSpaces, http.StatusOK, a.spaces)
	handle(a, e, Member, ShowAPI, http.StatusOK, a.spaceAPI)
	handle(a, e, Member, ListOwnTokens, http.StatusOK, a.listOwnTokens)
	handle(a, e, Member, CreateOwnToken, http.StatusCreated, a.createOwnToken)
	handle(a, e, Member, RevokeOwnToken, http.StatusOK, a.revokeOwnToken)
	a.streamChanges(e)
}

// caller is the person of a request.
type caller struct {
	who   identity.Identity
	role  Access
	proof people.Proof
}

// viewer returns the identity that views are shown to; nil: all is shown.
func (c caller) viewer() *identity.Identity {
	if c.role == Admin {
		return nil
	}
	return &c.who
}

// allows reports whether the token of the request is valid at a Space.
func (c caller) allows(space string) bool { return c.proof.Allow(people.ScopeCall, space) == nil }

var order = map[Access]int{Visitor: 0, Member: 1, Admin: 2}

// authenticate returns the person of a request. look is Config.Authenticate or Config.Recheck. A token that is limited to Spaces does
// not act as an admin, because an admin's pages belong to no Space. Errors: those of look, and 404 below the least role.
func (a *API) authenticate(r *http.Request, least Access, look func(*http.Request) (people.Proof, error)) (caller, error) {
	proof, err := look(r)
	if err != nil {
		return caller{}, err
	}
	found := caller{proof.Who, a.config.Host.AccessOf(proof.Who), proof}
	if found.role == Admin && proof.IsLimited() {
		found.role = Member
	}
	if order[found.role] < order[least] {
		return caller{}, echo.ErrNotFound
	}
	return found, nil
}

// isUnknown reports whether authenticate has failed because the bearer is not valid any more.
func isUnknown(err error) bool {
	refused := (*echo.HTTPError)(nil)
	return errors.As(err, &refused) && refused.Code == http.StatusUnauthorized
}

// as returns a handler for people with at least a role. The token of a request that changes something needs people.ScopeAll, any
// other people.ScopeRead. A change is recorded with the person's name, also one that is refused. The body is read before the person is
// looked up: a token that is revoked while a client sends its request slowly changes nothing.
func (a *API) as(least Access, do func(echo.Context, caller) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if err := readBody(c); err != nil {
			return err
		}
		found, err := a.authenticate(r, least, a.config.Authenticate)
		if err != nil {
			return err
		}
		c.SetRequest(r.WithContext(control.WithProof(r.Context(), found.proof)))
		c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
		c.Response().Header().Set(echo.HeaderXContentTypeOptions, "nosniff")
		return control.Audit(control.Actor, a.config.Record)(func(c echo.Context) error {
			if err := found.proof.Allow(scopeOf(r.Method), ""); err != nil {
				return views.Refuse(c, err)
			}
			return do(c, found)
		})(c)
	}
}

// readBody reads the body of a request that changes something. Errors: *echo.HTTPError.
func readBody(c echo.Context) error {
	r := c.Request()
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	text, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, views.MaxBody))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return echo.NewHTTPError(http.StatusRequestEntityTooLarge, fmt.Sprintf("the request body is longer than %d bytes; send a shorter one", views.MaxBody))
	case err != nil:
		return echo.NewHTTPError(http.StatusBadRequest, "the request body ended early; send it again")
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	return nil
}

// scopeOf returns the scope that a request to the console needs.
func scopeOf(method string) people.Scope {
	if method == http.MethodGet || method == http.MethodHead {
		return people.ScopeRead
	}
	return people.ScopeAll
}

// handle mounts an Endpoint for people with at least a role.
func handle[Body, Answer any](a *API, e control.Routes, least Access, at control.Endpoint[Body, Answer], status int, do func(echo.Context, caller, Body) (Answer, error)) {
	const key = "caller"
	control.Handle(e, at, status, func(c echo.Context, body Body) (Answer, error) {
		return do(c, c.Get(key).(caller), body)
	}, func(next echo.HandlerFunc) echo.HandlerFunc {
		return a.as(least, func(c echo.Context, person caller) error {
			c.Set(key, person)
			return next(c)
		})
	})
	note(e, least)
}

// note records the least role of the route that was mounted last.
func note(e control.Routes, least Access) {
	if r, ok := e.(*control.Recorder); ok {
		r.Last().Access = string(least)
	}
}

// onlyAdmins lets admins use the endpoints of package control.
func (a *API) onlyAdmins(next echo.HandlerFunc) echo.HandlerFunc {
	return a.as(Admin, func(c echo.Context, _ caller) error { return next(c) })
}

// Me shows the person of a request.
type Me struct {
	Identity string `json:"identity"`
	Name     string `json:"name"`
	Access   Access `json:"role"`
	// Scope is what the token of the request may be used for: read, or all.
	Scope people.Scope `json:"scope"`
	// Nodes reports whether nodes may join the host. Only admins see it.
	Nodes bool `json:"nodes,omitempty"`
}

func (a *API) newMe(c caller) Me {
	name := c.who.Name
	if c.who.Kind == identity.Local {
		name = "the local visitor"
	}
	return Me{c.who.Key(), name, c.role, c.proof.Scope(), a.config.Nodes && c.role == Admin}
}

func (a *API) me(_ echo.Context, person caller, _ control.NoBody) (Me, error) {
	return a.newMe(person), nil
}

func (a *API) spaces(_ echo.Context, person caller, _ control.NoBody) ([]views.Space, error) {
	return a.spacesOf(person), nil
}

// spacesOf returns the Spaces that a person may see and at which the token of the request is valid.
func (a *API) spacesOf(person caller) []views.Space {
	valid := []views.Space{}
	for _, space := range a.config.Host.SpacesOf(person.viewer()) {
		if person.allows(space.Name) {
			valid = append(valid, space)
		}
	}
	return valid
}
