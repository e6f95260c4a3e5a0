// Package console is the console address of a host: what a browser or a program may read there without the control socket.
//
// # Terms
//
// The console is one page, at which people sign in. A bearer is a token, or the secret that a one-time link to the console
// is exchanged for. A sign-in is a Space's own cookie for one browser.
//
// # Types
//
// [Console] serves GET /healthz and the account of the caller: balance, ledger and explanation. It changes nothing; package
// control does. [SignIn] serves the console page, and the pages below /__spacehost of each Space. The host creates both and
// implements [Host] and [SignInHost].
//
// # Sign-in
//
//	Space /__spacehost/login --> console /login --> POST /login/code --> POST Space /__spacehost/session --> cookie
//
// The console knows the person by a bearer in the sessionStorage of its page. It issues a code for one Space at one
// origin. The Space takes the code once, within 30 seconds, and sets its cookie.
//
// # Failures
//
// An unknown bearer or code is counted by address. After 20 within five minutes, that address is refused with 429.
package console

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// Host is the part of the host that the console uses. Its methods are called concurrently.
type Host interface {
	// PublicSpaceViews returns the Spaces that are visible to everyone. It does not block.
	PublicSpaceViews() []views.Space
	// ConsoleIdentity returns the caller at the console address: *people.UnknownTokenError for an unknown bearer. It may read
	// the database.
	ConsoleIdentity(*http.Request) (identity.Identity, error)
}

// Console answers with public state, and with the caller's own account. It changes nothing.
type Console struct {
	host     Host
	accounts *views.Accounts
}

// New returns the Console of a host.
func New(host Host, accounts *views.Accounts) *Console { return &Console{host, accounts} }

// Register mounts the routes of the console address, all of them GET.
func (s *Console) Register(e *echo.Echo) {
	e.GET("/healthz", s.health)
	e.GET("/api/spacehost/quota", own(s, s.accounts.Account))
	e.GET("/api/spacehost/ledger", own(s, s.accounts.Ledger))
	e.GET("/api/spacehost/explain", own(s, s.accounts.Explain))
}

func (s *Console) health(c echo.Context) error {
	return c.JSON(http.StatusOK, views.NewHealth(s.host.PublicSpaceViews()))
}

// own answers with a view of the caller's account.
func own[View any](s *Console, view func(context.Context, views.Subject, views.Query) (View, error)) echo.HandlerFunc {
	return func(c echo.Context) error {
		caller, err := s.host.ConsoleIdentity(c.Request())
		var unknown *people.UnknownTokenError
		if errors.As(err, &unknown) {
			return c.JSON(http.StatusUnauthorized, map[string]string{"detail": unknown.Error()})
		}
		if err != nil {
			return err
		}
		c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
		v, err := view(c.Request().Context(), views.Subject{Identity: caller, Viewer: &caller}, views.ParseQuery(c.QueryParams()))
		return views.Answer(c, http.StatusOK, v, err)
	}
}
