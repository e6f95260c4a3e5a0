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

// openSignIn creates the sign-in of browsers: at the console, and from there at each Space.
func (h *Host) openSignIn() {
	h.signIn = console.NewSignIn(console.SignInConfig{
		Host: h, People: h.people, Insecure: h.settings().InsecureLogin, Hub: h.settings().IsHub(), Logger: h.log.Named("console"),
	})
}

// newLoginLink returns a one-time link that signs the local visitor in at the console.
func (h *Host) newLoginLink() string {
	return h.consoleURL() + "/#code=" + h.payer.NewLinkCode()
}

// consoleURL returns the console's URL: the configured one, else the one for browsers on this machine.
func (h *Host) consoleURL() string {
	return cmp.Or(h.settings().ConsoleURL, "http://"+dialAddr(h.console))
}

// ConsoleURL implements console.SignInHost: it returns the console's URL for the browser of a request to a Space; false if
// the URL is unknown.
//
//  1. The operator's setting console-url has precedence.
//  2. A browser on this machine reaches every listener of the host.
//  3. Another browser reaches a console that listens on every interface, by the name with which it reached the Space. Behind
//     a proxy the console's address is unknown.
func (h *Host) ConsoleURL(r *http.Request) (string, bool) {
	if h.settings().ConsoleURL != "" { // 1
		return h.settings().ConsoleURL, true
	}
	if caller, err := identity.FromAddr(r.RemoteAddr, identity.AddrTiers{}); err == nil && caller.Kind == identity.Local { // 2
		return h.consoleURL(), true
	}
	conn := server.ConnOf(r.Context())
	if !h.console.Addr.IP.IsUnspecified() || conn == nil || web.Scheme(r) != "http" { // 3
		return "", false
	}
	return "http://" + net.JoinHostPort((&url.URL{Host: r.Host}).Hostname(), strconv.Itoa(h.console.Addr.Port)), true
}

// IsConsole reports whether an Origin names the console.
func (h *Host) IsConsole(origin string) bool {
	return h.settings().ConsoleURL != "" && origin == h.settings().ConsoleURL || server.Names(h.settings().Hosts).IsOrigin(origin, h.console.Addr.Port)
}

// consoleHostNames returns the host names that the console's gate accepts.
func (h *Host) consoleHostNames() server.Names {
	names := server.Names(h.settings().Hosts)
	if u, err := url.Parse(h.settings().ConsoleURL); err == nil && u.Host != "" {
		names = append(names[:len(names):len(names)], strings.ToLower(u.Hostname()))
	}
	return names
}

// SignInSpace implements console.SignInHost.
func (h *Host) SignInSpace(name string) (console.SignInSpace, bool) {
	s := h.find(name)
	return signInSpace{s}, s != nil
}

// VisibleSpaces implements console.SignInHost.
func (h *Host) VisibleSpaces(person identity.Identity) (visible []console.SignInSpace) {
	for _, s := range h.all() {
		if s.isVisible(&person) {
			visible = append(visible, signInSpace{s})
		}
	}
	return visible
}

// signInSpace implements console.SignInSpace for one Space.
type signInSpace struct{ run *spaceRun }

var _ console.SignInSpace = signInSpace{}

func (s signInSpace) Name() string                { return s.run.space().Name }
func (s signInSpace) URL() string                 { return s.run.url() }
func (s signInSpace) Page() string                { return s.run.page() }
func (s signInSpace) SubPath() string             { return s.run.settings().SubPath }
func (s signInSpace) Hidden() bool                { return s.run.settings().Visibility == config.Private }
func (s signInSpace) IsOrigin(origin string) bool { return s.run.isOrigin(origin) }
func (s signInSpace) IsVisibleTo(person identity.Identity) bool {
	return s.run.settings().Visibility != config.Private || s.run.isMember(person)
}

// Visitor returns the identity of a browser's request, and whether it comes from a sign-in.
func (s signInSpace) Visitor(r *http.Request) (identity.Identity, bool, error) {
	rule := s.run.host.payer
	if _, signedIn, err := rule.BrowserUser(r, s.run.space().Name); err != nil || !signedIn {
		visitor, err := s.run.caller(r)
		return visitor, false, err
	}
	visitor, err := rule.SignedInUser(r, s.run.space().Name)
	return visitor, err == nil, err
}

// isOrigin reports whether browsers reach the Space at an Origin. At a shared address the Space has one name.
func (s *spaceRun) isOrigin(origin string) bool {
	if s.settings().Addr.Value != "" {
		return server.Names(s.host.settings().HostNames(*s.settings())).IsOrigin(origin, s.site().Addr.Port)
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Hostname(), s.settings().Host) && server.Names{s.settings().Host}.IsOrigin(origin, s.site().Addr.Port)
}

// setVisitorCookie gives a browser that opens a page of the Space a cookie that identifies its later requests.
func (s *spaceRun) setVisitorCookie(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html") && s.cookies().Visitor(r) == "" {
			s.cookies().SetVisitor(c.Response().Header(), r)
		}
		return next(c)
	}
}

// LoginLink implements control.Host; false under `serve`, which has no local visitor.
func (h *Host) LoginLink() (url string, ok bool) {
	if h.settings().IsServe() {
		return "", false
	}
	return h.newLoginLink(), true
}
