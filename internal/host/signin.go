package host

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/internal/config"
	"spacehost/internal/console"
	"spacehost/internal/identity"
	"spacehost/internal/views"
)

// openSignIn creates the sign-in of browsers: at the console, and from there at each Space.
func (h *Host) openSignIn(accounts *views.Accounts) {
	h.signIn = console.NewSignIn(console.SignInConfig{
		Host: h, People: h.people, Accounts: accounts, Insecure: h.settings().InsecureLogin, Hub: h.settings().IsHub(), Logger: h.log.Named("console"),
	})
}

// newLoginLink returns a one-time link that signs the local visitor in at the console.
func (h *Host) newLoginLink() string {
	return h.consoleAddress().String() + "/#code=" + h.payer.NewLinkCode()
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
func (s signInSpace) Origin() string              { return s.run.address().Origin() }
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

func (s signInSpace) HasBar() bool { return s.run.settings().Bar }

// PageVisitor returns the person whom the page around the Space stands for.
func (s signInSpace) PageVisitor(r *http.Request) (identity.Identity, bool, error) {
	return s.run.host.payer.PageVisitor(r, s.run.space().Name)
}

// SignPage returns the token that this page gives to the Space's page.
func (s signInSpace) SignPage(visitor identity.Identity) (string, error) {
	return s.run.host.payer.SignPage(s.run.space().Name, visitor)
}

// insertion implements gradioapi.Config.Insert.
func (s *spaceRun) insertion(r *http.Request) string {
	return s.host.signIn.Insertion(r, signInSpace{s})
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
