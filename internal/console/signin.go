package console

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/web"
)

//go:embed pages/*
var pages embed.FS

var spacePage = template.Must(template.ParseFS(pages, "pages/space.html"))

// SignInConfig is what SignIn needs. Logger may be nil; all else is required.
type SignInConfig struct {
	People *people.Store
	// Find returns a Space by its name; Visible those that somebody may see.
	Find    func(name string) (SignInSpace, bool)
	Visible func(identity.Identity) []SignInSpace
	// Prove says who asks at the console: *people.UnknownTokenError if nobody.
	Prove func(*http.Request) (people.Proof, error)
	// Enter turns the one-time code of the link that the host has printed into a bearer for the console's page.
	Enter func(code string) (bearer string, ok bool)
	// Console is where the browser that sent this request finds the console; false: it cannot.
	Console   func(*http.Request) (url string, ok bool)
	IsConsole func(origin string) bool
	Insecure  bool // whether people may sign in where others can listen
	Hub       bool // the mode in which identity travels as on the Hub
	Now       func() time.Time
	Logger    *zap.Logger
}

// SignInSpace is a Space at which people sign in.
type SignInSpace struct {
	Name, URL string
	Hidden    bool // nobody but those who may see it is told of it
	IsOrigin  func(origin string) bool
	Sees      func(identity.Identity) bool
	// Who says who the browser of this request is taken for, and whether they have signed in.
	Who func(*http.Request) (who identity.Identity, signedIn bool, err error)
}

// How long a code lives that takes a sign-in from the console to its Space, and how many wrong ones a visitor may bring.
const (
	codeLife   = 30 * time.Second
	wrongEach  = 20
	wrongUntil = 5 * time.Minute
)

// SignIn lets people sign in at a Space with a browser: the Space sends them to the console, which knows them by a token
// and gives them a code for that Space alone; the Space takes the code and gives their browser a cookie of its own. The
// console itself sets no cookie: ports do not part cookies, and Spaces are hostile to it.
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
	return &SignIn{config, people.NewCodes(codeLife, config.Now), web.NewAttempts(wrongEach, wrongUntil, config.Now)}
}

// RegisterConsole mounts the console's page. A GET changes nothing.
func (s *SignIn) RegisterConsole(e *echo.Echo) {
	for path, file := range map[string]string{"/": "console.html", "/login": "console.html", "/login.js": "console.js", "/login.css": "page.css"} {
		e.GET(path, page(file, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action http: https:; base-uri 'none'; frame-ancestors 'none'"))
	}
	e.GET("/login/me", s.me)
	e.POST("/login/link", s.link)
	e.POST("/login/code", s.code)
}

// page answers with a file. A code in the address, and which Space somebody came from, are nobody else's business; that
// it was the console that sent them, a Space must know.
func page(file, policy string) echo.HandlerFunc {
	return func(c echo.Context) error {
		text, err := pages.ReadFile("pages/" + file)
		if err != nil {
			return err
		}
		protect(c, policy)
		kind := map[string]string{"html": echo.MIMETextHTMLCharsetUTF8, "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
		return c.Blob(http.StatusOK, kind[file[strings.LastIndex(file, ".")+1:]], text)
	}
}

func protect(c echo.Context, policy string) {
	h := c.Response().Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "origin")
	h.Set("Cache-Control", "no-store")
}

// Me is who the bearer of the console's page is.
type Me struct {
	Identity string    `json:"identity"`
	Spaces   []MySpace `json:"spaces"`
}

// MySpace is a Space that they may see.
type MySpace struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

func (s *SignIn) me(c echo.Context) error {
	proof, err := s.prove(c)
	if err != nil {
		return err
	}
	me := Me{Identity: proof.Who.Key(), Spaces: []MySpace{}}
	for _, one := range s.config.Visible(proof.Who) {
		me.Spaces = append(me.Spaces, MySpace{one.Name, one.URL})
	}
	return c.JSON(http.StatusOK, me)
}

// prove counts who does not know a token.
func (s *SignIn) prove(c echo.Context) (people.Proof, error) {
	if err := s.check(c.Request()); err != nil {
		return people.Proof{}, err
	}
	proof, err := s.config.Prove(c.Request())
	var unknown *people.UnknownTokenError
	if errors.As(err, &unknown) {
		s.wrong.Wrong(c.Request().RemoteAddr)
		return people.Proof{}, echo.NewHTTPError(http.StatusUnauthorized, unknown.Error())
	}
	return proof, err
}

// check refuses whoever guesses, and what could be overheard.
func (s *SignIn) check(r *http.Request) error {
	if !s.isSafe(r) {
		return echo.NewHTTPError(http.StatusForbidden, overheard)
	}
	if !s.wrong.Allow(r.RemoteAddr) {
		return echo.NewHTTPError(http.StatusTooManyRequests, "Too many wrong tokens or codes have come from your address. Try again in five minutes.")
	}
	return nil
}

const overheard = "Signing in is refused over plain http from another machine: whoever listens on the way could take your token. " +
	"Ask for this host by https, or let whoever runs it start it with --insecure-login (insecure_login: true)."

// isSafe reports whether nobody can listen between the browser and us.
func (s *SignIn) isSafe(r *http.Request) bool {
	who, err := identity.FromAddr(r.RemoteAddr, identity.AddrTiers{})
	return s.config.Insecure || web.Scheme(r) == "https" || err == nil && who.Kind == identity.Local
}

func (s *SignIn) link(c echo.Context) error {
	asked, err := read[struct {
		Code string `json:"code"`
	}](c)
	if err != nil {
		return err
	}
	if err := s.check(c.Request()); err != nil {
		return err
	}
	bearer, ok := s.config.Enter(asked.Code)
	if !ok {
		s.wrong.Wrong(c.Request().RemoteAddr)
		return echo.NewHTTPError(http.StatusForbidden, "This link has been used already, or is older than twelve hours. `spacehost login` prints another.")
	}
	return c.JSON(http.StatusOK, map[string]string{"bearer": bearer})
}

// code gives somebody a way into a Space, at one of the origins at which it answers: to any other the code would be told
// to a stranger.
func (s *SignIn) code(c echo.Context) error {
	asked, err := read[struct {
		Space  string `json:"space"`
		Origin string `json:"origin"`
	}](c)
	if err != nil {
		return err
	}
	proof, err := s.prove(c)
	if err != nil {
		return err
	}
	space, known := s.config.Find(asked.Space)
	switch {
	case !known || !space.Sees(proof.Who):
		return echo.NewHTTPError(http.StatusNotFound, "There is no such Space for you here.")
	case !space.IsOrigin(asked.Origin):
		return echo.NewHTTPError(http.StatusBadRequest, "The Space does not answer at that address. Open it by a name that it goes by: --host, or hosts in the configuration.")
	}
	return c.JSON(http.StatusOK, map[string]string{
		"action": asked.Origin + "/__spacehost/session", "code": s.codes.Give(space.Name+" "+asked.Origin, proof),
	})
}

// RegisterSpace mounts what a Space's own address answers below /__spacehost. own refuses what pages of others send; the
// code alone comes from another page, the console's.
func (s *SignIn) RegisterSpace(g *echo.Group, own echo.MiddlewareFunc, space SignInSpace) {
	d := door{s, space, web.Cookies{Space: space.Name}}
	g.GET("", d.show, own)
	g.GET("/", d.show, own)
	g.GET("/page.css", page("page.css", spacePolicy), own)
	g.GET("/whoami", d.whoami, own)
	g.GET("/login", d.login, own)
	g.POST("/session", d.enter)
	g.GET("/logout", d.show, own)
	g.POST("/logout", d.leave, own)
}

// door is one Space's side of the sign-in.
type door struct {
	*SignIn
	space   SignInSpace
	cookies web.Cookies
}

// shown is what the Space's page says.
type shown struct {
	Space, Who, Error, To  string
	SignedIn, Address, Hub bool
	Refresh                string // go there at once
}

const spacePolicy = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (d door) render(c echo.Context, status int, s shown) error {
	var text strings.Builder
	s.Space, s.Hub = d.space.Name, d.config.Hub
	if err := spacePage.Execute(&text, s); err != nil {
		return err
	}
	protect(c, spacePolicy)
	return c.HTML(status, text.String())
}

func (d door) show(c echo.Context) error {
	who, signedIn, err := d.space.Who(c.Request())
	if err != nil {
		return err
	}
	return d.render(c, http.StatusOK, shown{Who: name(who), SignedIn: signedIn, Address: who.Kind == identity.Address})
}

func name(who identity.Identity) string {
	switch who.Kind {
	case identity.Local:
		return "the local visitor"
	case identity.User:
		return who.Name
	}
	return who.Key()
}

// WhoAmI is who a browser is taken for at a Space.
type WhoAmI struct {
	Identity string `json:"identity"`
	SignedIn bool   `json:"signedIn"`
	Mode     string `json:"mode"`
}

func (d door) whoami(c echo.Context) error {
	who, signedIn, err := d.space.Who(c.Request())
	if err != nil {
		return err
	}
	mode := "direct"
	if d.config.Hub {
		mode = "hub"
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, WhoAmI{who.Key(), signedIn, mode})
}

// login sends the browser to the console, which is told where it came from.
func (d door) login(c echo.Context) error {
	r := c.Request()
	if !d.isSafe(r) {
		return d.render(c, http.StatusForbidden, shown{Error: overheard})
	}
	origin := web.Scheme(r) + "://" + r.Host
	if !d.space.IsOrigin(origin) {
		return d.render(c, http.StatusBadRequest, shown{Error: "Nobody can sign in at this address, " + origin + ": it is not where this Space listens, nor a name of its that whoever runs it has allowed (--host, or hosts in the configuration)."})
	}
	console, ok := d.config.Console(r)
	if !ok {
		return d.render(c, http.StatusServiceUnavailable, shown{Error: "People sign in at the console, which your browser cannot reach. Whoever runs this host can say where browsers find it: --console-url, or console_url in the configuration."})
	}
	to := c.QueryParam("to")
	if !web.IsOwnPath(to) {
		to = "/"
	}
	query := template.URLQueryEscaper
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Redirect(http.StatusSeeOther, console+"/login?space="+query(d.space.Name)+"&origin="+query(origin)+"&to="+query(to))
}

// enter takes the code that the console's page brings, in a form: an address would be remembered and handed on.
func (d door) enter(c echo.Context) error {
	r := c.Request()
	r.Body = http.MaxBytesReader(c.Response(), r.Body, 8<<10)
	origins := r.Header.Values("Origin")
	if len(origins) != 1 || !d.config.IsConsole(origins[0]) { // another page would sign its visitor in as somebody else
		return d.refuse(c, http.StatusForbidden, "A sign-in comes from the console of this host alone.")
	}
	if err := d.check(r); err != nil {
		var refused *echo.HTTPError
		if errors.As(err, &refused) {
			return d.refuse(c, refused.Code, refused.Message.(string))
		}
		return err
	}
	proof, ok := d.codes.Take(d.space.Name+" "+web.Scheme(r)+"://"+r.Host, r.PostFormValue("code"))
	if !ok {
		d.wrong.Wrong(r.RemoteAddr)
		return d.refuse(c, http.StatusForbidden, "This sign-in is over: it is good for half a minute, once, at one Space. Begin again.")
	}
	text, err := d.config.People.SignIn(r.Context(), d.space.Name, proof)
	if err != nil {
		return err
	}
	d.cookies.SetSignIn(c.Response().Header(), r, text, int(proof.Life().Seconds()))
	d.config.Logger.Info("signed in", zap.String("space", d.space.Name), zap.String("identity", proof.Who.Key()))
	to := r.PostFormValue("to")
	if !web.IsOwnPath(to) {
		to = "/"
	}
	return d.render(c, http.StatusOK, shown{Refresh: to})
}

// refuse says nothing where nobody may know that there is a Space.
func (d door) refuse(c echo.Context, status int, why string) error {
	if d.space.Hidden {
		return echo.ErrNotFound
	}
	return d.render(c, status, shown{Error: why})
}

func (d door) leave(c echo.Context) error {
	r := c.Request()
	if text := d.cookies.SignIn(r); text != "" {
		if err := d.config.People.SignOut(context.WithoutCancel(r.Context()), d.space.Name, text); err != nil {
			return err
		}
	}
	d.cookies.SetSignIn(c.Response().Header(), r, "", 0)
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Redirect(http.StatusSeeOther, "/__spacehost/")
}

// Reload answers a visit that came by a link from elsewhere with a page that asks for the same again by itself: only then
// does the browser's sign-in count.
func Reload(c echo.Context) error {
	to := c.Request().URL.RequestURI()
	if !web.IsOwnPath(to) { // "//evil.example/" is a path here, and another site to a browser
		to = "/"
	}
	var text strings.Builder
	if err := spacePage.Execute(&text, shown{Refresh: to}); err != nil {
		return err
	}
	protect(c, spacePolicy)
	return c.HTML(http.StatusOK, text.String())
}
