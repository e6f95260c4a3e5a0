package host

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"spacehost/internal/config"
	"spacehost/internal/console"
	"spacehost/internal/identity"
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
		r := c.Request()
		if visitor, err := s.caller(r); err == nil && s.isMember(visitor) {
			return next(c)
		}
		if visitor, ok, err := s.host.payer.BrowserUser(r, s.space.Name); err == nil && ok && s.isMember(visitor) { // 1
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
	user, ok, err := s.host.people.SignedIn(r.Context(), s.space.Name, s.cookies().SignIn(r))
	return err == nil && ok && s.isMember(user)
}

func (s *spaceRun) isMember(visitor identity.Identity) bool {
	return visitor.Kind == identity.User && slices.Contains(s.settings.Members, visitor.Name)
}

// isVisible reports whether lists show the Space to viewer. A nil viewer sees all.
func (s *spaceRun) isVisible(viewer *identity.Identity) bool {
	return viewer == nil || s.settings.Visibility == config.Public || s.settings.Visibility == config.Private && s.isMember(*viewer)
}
