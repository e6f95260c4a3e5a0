package console

import (
	"embed"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/internal/web"
)

//go:embed pages/*
var pages embed.FS

// SignInHost is the part of the host that the sign-in uses. Its methods are called concurrently; Authenticate may read the
// database, the others do not block.
type SignInHost interface {
	// SignInSpace returns a Space by its name.
	SignInSpace(name string) (space SignInSpace, ok bool)
	// VisibleSpaces returns the Spaces that a person may see.
	VisibleSpaces(person identity.Identity) []SignInSpace
	// Authenticate returns the identity of a request to the console: *people.UnknownTokenError without a valid bearer.
	Authenticate(*http.Request) (people.Proof, error)
	// RedeemLink exchanges the one-time code of a printed link for a bearer of the console's page.
	RedeemLink(code string) (bearer string, ok bool)
	// ConsoleURL returns where the browser of a request finds the console. ok is false if it cannot reach the console.
	ConsoleURL(*http.Request) (url string, ok bool)
	// IsConsole reports whether an Origin header names the console.
	IsConsole(origin string) bool
}

// SignInSpace is a Space at which people sign in. Its methods are called concurrently; Visitor may read the database, the others
// do not block.
type SignInSpace interface {
	Name() string
	// URL returns where browsers reach the Space, and Origin the same without the path.
	URL() string
	Origin() string
	// Page returns the path of the page that visitors open first (base_path).
	Page() string
	// SubPath returns the path below which a reverse proxy serves the Space; "": at the root only.
	SubPath() string
	// Hidden reports whether the existence of the Space is secret: only people with access may learn of it.
	Hidden() bool
	// IsOrigin reports whether browsers reach the Space at this origin.
	IsOrigin(origin string) bool
	// IsVisibleTo reports whether a person may see the Space.
	IsVisibleTo(person identity.Identity) bool
	// Visitor returns the identity of a browser's request, and whether it comes from a sign-in.
	Visitor(*http.Request) (visitor identity.Identity, signedIn bool, err error)
	// HasBar reports whether pages of the Space get the host's bar.
	HasBar() bool
	// PageVisitor returns the person whom the page around the Space stands for, in identity mode hub. It may read the database.
	PageVisitor(*http.Request) (visitor identity.Identity, known bool, err error)
	// SignPage returns the X-IP-Token that this page gives to the Space's page for one call.
	SignPage(visitor identity.Identity) (string, error)
}

// SignInConfig is what SignIn needs. Logger may be nil, Now too; all else is required.
type SignInConfig struct {
	Host     SignInHost
	People   *people.Store
	Insecure bool             // allow a sign-in over plain http from another machine
	Hub      bool             // identity travels as on the Hub (--identity hub)
	Accounts *views.Accounts  // for the bar on a Space's pages
	Now      func() time.Time // nil: the wall clock
	Logger   *zap.Logger
}

// Limits of a sign-in: the lifetime of a code, and the unknown bearers and codes that one address may send within a time.
const (
	codeLife    = 30 * time.Second
	maxWrong    = 20
	wrongPeriod = 5 * time.Minute
)

// SignIn lets people sign in at a Space with a browser (see the package comment). The console itself sets no cookie: browsers
// send a cookie to every port of a host, and Spaces are hostile to the console. It may be used concurrently.
type SignIn struct {
	config SignInConfig
	codes  *people.Codes
	wrong  *web.Attempts
}

// NewSignIn returns the SignIn of a host.
func NewSignIn(config SignInConfig) *SignIn {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	return &SignIn{config, people.NewCodes(codeLife, config.Now), web.NewAttempts(maxWrong, wrongPeriod, config.Now)}
}

// RegisterConsole mounts the console's page for the sign-in at a Space. GET requests change nothing.
func (s *SignIn) RegisterConsole(e *echo.Echo) {
	for path, file := range map[string]string{"/login": "console.html", "/login.js": "console.js", "/login.css": "page.css"} {
		e.GET(path, page(file, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action http: https:; base-uri 'none'; frame-ancestors 'none'"))
	}
	e.GET("/login/me", s.me)
	e.POST("/login/link", s.link)
	e.POST("/login/code", s.code)
}

// page answers with an embedded file.
func page(file, policy string) echo.HandlerFunc {
	return func(c echo.Context) error {
		text, err := pages.ReadFile("pages/" + file)
		if err != nil {
			return err
		}
		web.SetPageHeaders(c.Response().Header(), policy)
		mime := map[string]string{"html": echo.MIMETextHTMLCharsetUTF8, "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
		return c.Blob(http.StatusOK, mime[file[strings.LastIndex(file, ".")+1:]], text)
	}
}

// Me shows the person of the console's page.
type Me struct {
	Identity string    `json:"identity"`
	Spaces   []MySpace `json:"spaces"`
}

// MySpace is a Space that this person may see.
type MySpace struct {
	Name string `json:"name"`
	URL  string `json:"url"`  // origin and path
	Page string `json:"page"` // path that is opened first, below URL

	Origin string `json:"origin"`
	Path   string `json:"path"` // the sub-path, or empty
}

func (s *SignIn) me(c echo.Context) error {
	proof, err := s.Authenticate(c.Request())
	if err != nil {
		return err
	}
	me := Me{Identity: proof.Who.Key(), Spaces: []MySpace{}}
	for _, space := range s.config.Host.VisibleSpaces(proof.Who) {
		if proof.Allow(people.ScopeCall, space.Name()) == nil {
			me.Spaces = append(me.Spaces, newMySpace(space))
		}
	}
	return c.JSON(http.StatusOK, me)
}

func newMySpace(space SignInSpace) MySpace {
	return MySpace{space.Name(), space.URL(), space.Page(), space.Origin(), pathOf(space)}
}

// pathOf returns the path of the Space's URL in browsers.
func pathOf(space SignInSpace) string { return strings.TrimPrefix(space.URL(), space.Origin()) }

// Authenticate returns the identity of a request's bearer. It refuses an insecure connection. Unknown bearers are counted by address,
// and only they are refused above the limit: an address is shared by valid clients, and a token cannot be guessed. A bearer that has
// ended, and a request without one, are no guesses. Errors: *echo.HTTPError, or of the host.
func (s *SignIn) Authenticate(r *http.Request) (people.Proof, error) {
	proof, unknown, err := s.lookUp(r)
	if _, sent := people.Bearer(r.Header); sent && unknown != nil && !unknown.Ended {
		if err := s.checkAttempts(r); err != nil {
			return people.Proof{}, err
		}
		s.wrong.Wrong(r.RemoteAddr)
	}
	return proof, err
}

// Recheck is Authenticate for a request that was authenticated before: it counts nothing.
func (s *SignIn) Recheck(r *http.Request) (people.Proof, error) {
	proof, _, err := s.lookUp(r)
	return proof, err
}

// lookUp returns the identity of a request's bearer. unknown is the cause of a 401.
func (s *SignIn) lookUp(r *http.Request) (proof people.Proof, unknown *people.UnknownTokenError, err error) {
	if !s.isSecure(r) {
		return proof, nil, echo.NewHTTPError(http.StatusForbidden, insecure)
	}
	proof, err = s.config.Host.Authenticate(r)
	if errors.As(err, &unknown) {
		return people.Proof{}, unknown, echo.NewHTTPError(http.StatusUnauthorized, unknown.Error())
	}
	return proof, nil, err
}

// check refuses an insecure connection, and an address that has sent too many unknown bearers or codes.
func (s *SignIn) check(r *http.Request) error {
	if !s.isSecure(r) {
		return echo.NewHTTPError(http.StatusForbidden, insecure)
	}
	return s.checkAttempts(r)
}

// checkAttempts refuses an address that has sent too many unknown bearers or codes.
func (s *SignIn) checkAttempts(r *http.Request) error {
	if !s.wrong.Allow(r.RemoteAddr) {
		return echo.NewHTTPError(http.StatusTooManyRequests, "Too many wrong tokens or codes have come from your address. Try again in five minutes.")
	}
	return nil
}

const insecure = "Sign-in over plain http from another machine is refused, because your token could be intercepted. " +
	"Open this host by https, or ask its operator to start it with --insecure-login (insecure_login: true)."

// isSecure reports whether the connection to the browser cannot be intercepted.
func (s *SignIn) isSecure(r *http.Request) bool {
	visitor, err := identity.FromAddr(r.RemoteAddr, identity.AddrTiers{})
	return s.config.Insecure || !web.IsPlain(r) || err == nil && visitor.Kind == identity.Local
}

func (s *SignIn) link(c echo.Context) error {
	body, err := views.Read[struct {
		Code string `json:"code"`
	}](c)
	if err != nil {
		return err
	}
	if err := s.check(c.Request()); err != nil {
		return err
	}
	bearer, ok := s.config.Host.RedeemLink(body.Code)
	if !ok {
		s.wrong.Wrong(c.Request().RemoteAddr)
		return echo.NewHTTPError(http.StatusForbidden, "This link was used already, or is older than twelve hours. Run `spacehost login` to print a new one.")
	}
	return c.JSON(http.StatusOK, map[string]string{"bearer": bearer})
}

// code issues a code for one Space at one of its own origins. At any other origin, a stranger would receive it.
func (s *SignIn) code(c echo.Context) error {
	body, err := views.Read[struct {
		Space  string `json:"space"`
		Origin string `json:"origin"`
		Path   string `json:"path"` // the sub-path of the Space, or empty
	}](c)
	if err != nil {
		return err
	}
	proof, err := s.Authenticate(c.Request())
	if err != nil {
		return err
	}
	space, known := s.config.Host.SignInSpace(body.Space)
	switch {
	case !known || !space.IsVisibleTo(proof.Who):
		return echo.NewHTTPError(http.StatusNotFound, "This host has no such Space, or it is not visible to you.")
	case !space.IsOrigin(body.Origin):
		return echo.NewHTTPError(http.StatusBadRequest, "The Space is not served at that address. Open it by one of its names, or allow this one with --host, or hosts in the configuration.")
	}
	if refused, ok := errors.AsType[*people.RightsError](proof.Allow(people.ScopeCall, space.Name())); ok {
		return echo.NewHTTPError(http.StatusForbidden, refused.Error())
	}
	if public := pathOf(space); body.Origin == space.Origin() && public != "" {
		body.Path = public
	} else if body.Path != space.SubPath() {
		body.Path = "" // another path may belong to another Space, which would receive the code
	}
	return c.JSON(http.StatusOK, map[string]string{
		"action": body.Origin + body.Path + "/__spacehost/session", "code": s.codes.Give(space.Name()+" "+body.Origin, proof),
	})
}
