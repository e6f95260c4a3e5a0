package host

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/gradioapi"
	"spacehost/internal/config"
	"spacehost/internal/console"
	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/server"
)

// membersOnly hides a private Space: a client that is not a member receives 404, as at a name without a Space. An unknown or
// revoked token receives 404 too: a 401 would reveal that the Space exists. A Space that calls with a member's X-IP-Token is
// admitted.
//
//  1. A sign-in admits the browser in every identity mode: visibility does not depend on the payer.
//  2. A browser that follows a link of another site does not count as signed in. After a reload, its own request does.
//  3. The console's page posts a code, which only the handler can verify. The answer to an invalid code is 404 too.
func (s *spaceRun) membersOnly(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.settings().Visibility != config.Private {
			return next(c)
		}
		r := c.Request()
		if visitor, err := s.caller(r); err == nil && s.isMember(visitor) {
			return next(c)
		}
		if visitor, ok, err := s.host.payer.BrowserUser(r, s.space().Name); err == nil && ok && s.isMember(visitor) { // 1
			return next(c)
		}
		if server.IsVisit(r) && s.hasMemberCookie(r) { // 2
			return console.Reload(c)
		}
		if r.Method == http.MethodPost && r.URL.Path == "/__spacehost/session" { // 3
			return next(c)
		}
		return echo.ErrNotFound
	}
}

// hasMemberCookie reports whether a request has a member's sign-in cookie, even if a page of another site caused the request.
func (s *spaceRun) hasMemberCookie(r *http.Request) bool {
	user, ok, err := s.host.people.SignedIn(r.Context(), s.space().Name, s.cookies().SignIn(r))
	return err == nil && ok && s.isMember(user)
}

// isMember reports whether a visitor may open the Space while it is private. Without a list, every person of the host may, also
// one whom the operator adds with `spacehost user add`.
func (s *spaceRun) isMember(visitor identity.Identity) bool {
	members := s.settings().Members
	return visitor.Kind == identity.User && (members == nil || slices.Contains(members, visitor.Name))
}

// credential implements gradioapi.Config.Credential. It leaves out what has authorised nothing, such as an ended sign-in.
func (s *spaceRun) credential(r *http.Request) (c gradioapi.Credential) {
	if bearer, ok := people.Bearer(r.Header); ok {
		c.Bearer = strings.Clone(bearer) // not the whole head of the request
		if user, err := s.host.people.ByToken(r.Context(), bearer); err == nil {
			c.User = user.Name
		}
		return c
	}
	if cookie := s.cookies().SignIn(r); cookie != "" {
		if user, ok, err := s.host.people.SignedIn(r.Context(), s.space().Name, cookie); err == nil && ok {
			c.SignIn, c.User = strings.Clone(cookie), user.Name
		}
		return c
	}
	if s.settings().Visibility == config.Private { // a Space that calls for a member
		if visitor, err := s.caller(r); err == nil && visitor.Kind == identity.User {
			c.User = visitor.Name
		}
	}
	return c
}

// allows implements gradioapi.Config.Allowed. A database that cannot be read ends nothing.
func (s *spaceRun) allows(c gradioapi.Credential) bool {
	ctx := context.Background()
	if c.Bearer != "" {
		if _, err := s.host.people.ByToken(ctx, c.Bearer); errors.As(err, new(*people.UnknownTokenError)) {
			return false
		}
	}
	if c.SignIn != "" {
		if _, ok, err := s.host.people.SignedIn(ctx, s.space().Name, c.SignIn); err == nil && !ok {
			return false
		}
	}
	return s.settings().Visibility != config.Private || c.User != "" && s.isMember(identity.Identity{Kind: identity.User, Name: c.User})
}

// endRefused ends the streams that a revoked or expired token, an ended membership or a changed visibility had authorised, and the
// console's pages of ended tokens.
func (h *Host) endRefused() {
	for _, s := range h.all() {
		s.api.EndRefused()
	}
	if h.changes != nil {
		h.changes.Wake()
	}
}

// isVisible reports whether lists show the Space to viewer. A nil viewer sees all.
func (s *spaceRun) isVisible(viewer *identity.Identity) bool {
	return viewer == nil || s.settings().Visibility == config.Public || s.settings().Visibility == config.Private && s.isMember(*viewer)
}
