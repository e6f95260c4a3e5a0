package host

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/internal/config"
	"spacehost/internal/console"
	"spacehost/internal/identity"
	"spacehost/internal/web"
	"spacehost/server"
)

// openSignIn lets people sign in with a browser: at the console, and from there at each Space.
func (h *Host) openSignIn() {
	h.signIn = console.NewSignIn(console.SignInConfig{
		People: h.people, Prove: h.payer.Authenticate, Enter: h.payer.RedeemLink, Console: h.consoleFor, IsConsole: h.isConsole,
		Find: func(name string) (console.SignInSpace, bool) {
			s := h.find(name)
			if s == nil {
				return console.SignInSpace{}, false
			}
			return s.signInSpace(), true
		},
		Visible:  h.visibleTo,
		Insecure: h.settings.InsecureLogin, Hub: h.settings.IsHub(), Logger: h.log.Named("console"),
	})
}

// newLink is where the local visitor finds the console and is known there, once.
func (h *Host) newLink() string {
	return h.consoleURL() + "/#code=" + h.payer.NewLinkCode()
}

// consoleURL is where browsers find the console, as far as this machine knows.
func (h *Host) consoleURL() string {
	return cmp.Or(h.settings.ConsoleURL, "http://"+visitable(h.console))
}

// consoleFor is where the browser of a request to a Space finds it.
//
//  1. Where the operator says.
//  2. A browser on this machine reaches whatever listens here.
//  3. Others reach a console that listens on every interface, by the name by which they have reached the Space; through a
//     proxy it may be anywhere.
func (h *Host) consoleFor(r *http.Request) (string, bool) {
	if h.settings.ConsoleURL != "" { // 1
		return h.settings.ConsoleURL, true
	}
	if who, err := identity.FromAddr(r.RemoteAddr, identity.AddrTiers{}); err == nil && who.Kind == identity.Local { // 2
		return h.consoleURL(), true
	}
	conn := server.ConnOf(r.Context())
	if !h.console.Addr.IP.IsUnspecified() || conn == nil || web.Scheme(r) != "http" { // 3
		return "", false
	}
	return "http://" + net.JoinHostPort((&url.URL{Host: r.Host}).Hostname(), strconv.Itoa(h.console.Addr.Port)), true
}

func (h *Host) isConsole(origin string) bool {
	return h.settings.ConsoleURL != "" && origin == h.settings.ConsoleURL || server.Names(h.settings.Hosts).IsOrigin(origin, h.console.Addr.Port)
}

// consoleNames are those by which browsers ask for the console.
func (h *Host) consoleNames() server.Names {
	names := server.Names(h.settings.Hosts)
	if u, err := url.Parse(h.settings.ConsoleURL); err == nil && u.Host != "" {
		names = append(names[:len(names):len(names)], strings.ToLower(u.Hostname()))
	}
	return names
}

// visibleTo are the Spaces that somebody may see and know of.
func (h *Host) visibleTo(who identity.Identity) (visible []console.SignInSpace) {
	for _, s := range h.spaces {
		if s.settings.Visibility == config.Public || s.settings.Visibility == config.Private && s.isMember(who) {
			visible = append(visible, s.signInSpace())
		}
	}
	return visible
}

// signInSpace is the Space as the sign-in has to know it.
func (s *spaceRun) signInSpace() console.SignInSpace {
	return console.SignInSpace{
		Name: s.space.Name, URL: s.url(), Hidden: s.settings.Visibility == config.Private, IsOrigin: s.isOrigin,
		Sees: func(who identity.Identity) bool { return s.settings.Visibility != config.Private || s.isMember(who) },
		Who: func(r *http.Request) (identity.Identity, bool, error) {
			if _, signedIn, err := s.host.payer.BrowserUser(r, s.space.Name); err != nil || !signedIn {
				who, err := s.caller(r)
				return who, false, err
			}
			who, err := s.host.payer.SignedInUser(r, s.space.Name)
			return who, err == nil, err
		},
	}
}

// isOrigin reports whether browsers reach the Space there. At a shared address it has one name.
func (s *spaceRun) isOrigin(origin string) bool {
	if s.settings.Addr.Value != "" {
		return server.Names(s.host.settings.HostNames(s.settings)).IsOrigin(origin, s.site.Addr.Port)
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Hostname(), s.settings.Host) && server.Names{s.settings.Host}.IsOrigin(origin, s.site.Addr.Port)
}

// knowVisitors gives a browser that opens a page of the Space a cookie by which it is known again.
func (s *spaceRun) knowVisitors(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") && s.cookies().Visitor(r) == "" {
			s.cookies().SetVisitor(c.Response().Header(), r)
		}
		return next(c)
	}
}

// giveLink answers it. In `serve` there is no local visitor.
func (h *Host) giveLink(c echo.Context) error {
	if h.settings.IsServe() {
		return echo.NewHTTPError(http.StatusConflict, "Nobody is a local visitor of `spacehost serve`: people sign in at the console with a token of theirs (spacehost token create NAME).")
	}
	return c.JSON(http.StatusOK, map[string]string{"url": h.newLink()})
}
