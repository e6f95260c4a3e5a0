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
// An unknown bearer or code is counted by address. After 20 within five minutes, further unknown bearers and all codes of that address
// are refused with 429. A valid bearer is accepted, and one that has ended gets 401 and is not counted.
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
	// GPUHealth returns whether a GPU can be lent. It does not block.
	GPUHealth() views.GPUs
	// AccountReader returns the caller at the console address who reads the own account, and the Spaces to which the bearer is
	// limited: *people.UnknownTokenError for an unknown bearer, *people.RightsError for one with too few rights. It may read the
	// database.
	AccountReader(*http.Request) (identity.Identity, people.SpaceLimit, error)
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
	e.GET("/api/spacehost/advice", own(s, s.accounts.Advice))
	e.GET("/api/spacehost/ledger.csv", s.asCaller(s.ledgerCSV))
}

func (s *Console) health(c echo.Context) error {
	return c.JSON(http.StatusOK, views.NewHealth(s.host.PublicSpaceViews(), s.host.GPUHealth()))
}

// own answers with a view of the caller's account.
func own[View any](s *Console, view func(context.Context, views.Subject, views.Query) (View, error)) echo.HandlerFunc {
	return s.asCaller(func(c echo.Context, of views.Subject, q views.Query) error {
		v, err := view(c.Request().Context(), of, q)
		return views.Answer(c, http.StatusOK, v, err)
	})
}

// asCaller returns a handler for the caller's account. An unknown bearer is answered with 401.
func (s *Console) asCaller(do func(echo.Context, views.Subject, views.Query) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		caller, limit, err := s.host.AccountReader(c.Request())
		var unknown *people.UnknownTokenError
		if errors.As(err, &unknown) {
			return c.JSON(http.StatusUnauthorized, map[string]string{"detail": unknown.Error()})
		}
		if err != nil {
			return views.Refuse(c, err)
		}
		c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
		return do(c, views.Subject{Identity: caller, Viewer: &caller, Limit: limit}, views.ParseQuery(c.QueryParams()))
	}
}

// ledgerCSV answers with all lines of the caller's ledger that match the query. A failure after the first line ends the
// connection, so that a client does not take a part for the whole.
func (s *Console) ledgerCSV(c echo.Context, of views.Subject, q views.Query) error {
	write, err := s.accounts.LedgerCSV(c.Request().Context(), of, q)
	if err != nil {
		return views.Refuse(c, err)
	}
	w := c.Response()
	w.Header().Set(echo.HeaderContentType, "text/csv; charset=utf-8")
	w.Header().Set(echo.HeaderContentDisposition, `attachment; filename="ledger.csv"`)
	w.WriteHeader(http.StatusOK)
	if write(w) != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}
