package console

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/gradioapi"
	"spacehost/internal/identity"
	"spacehost/internal/web"
)

var spacePage = template.Must(template.ParseFS(pages, "pages/space.html"))

// RegisterSpace mounts the routes below /__spacehost of a Space's own address. sameOrigin refuses requests from pages of other
// origins. Only the code comes from another page, the console's.
func (s *SignIn) RegisterSpace(g *echo.Group, sameOrigin echo.MiddlewareFunc, space SignInSpace) {
	p := spacePages{s, space, web.Cookies{Space: space.Name()}}
	g.GET("", p.show, sameOrigin)
	g.GET("/", p.show, sameOrigin)
	g.GET("/page.css", page("page.css", spacePolicy), sameOrigin)
	g.GET("/whoami", p.whoami, sameOrigin)
	g.GET("/login", p.login, sameOrigin)
	g.POST("/session", p.createSession)
	g.GET("/logout", p.show, sameOrigin)
	g.POST("/logout", p.logout, sameOrigin)
	p.registerBar(g, sameOrigin)
	p.registerHub(g, sameOrigin)
}

// spacePages is the sign-in at one Space.
type spacePages struct {
	*SignIn
	space   SignInSpace
	cookies web.Cookies
}

// pageData fills pages/space.html.
type pageData struct {
	Space, Who, Error      string
	SignedIn, Address, Hub bool
	Refresh                string // path to open at once, below SubPath
	SubPath                string // of the request
}

const spacePolicy = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (p spacePages) render(c echo.Context, status int, data pageData) error {
	var text strings.Builder
	data.Space, data.Hub, data.SubPath = p.space.Name(), p.config.Hub, web.SubPath(c.Request())
	if err := spacePage.Execute(&text, data); err != nil {
		return err
	}
	web.SetPageHeaders(c.Response().Header(), spacePolicy)
	return c.HTML(status, text.String())
}

func (p spacePages) show(c echo.Context) error {
	visitor, signedIn, err := p.visitor(c.Request())
	if err != nil {
		return err
	}
	return p.render(c, http.StatusOK, pageData{Who: displayName(visitor), SignedIn: signedIn, Address: visitor.Kind == identity.Address})
}

// visitor returns the identity of a request. Errors: *echo.HTTPError for a token that is unknown, has ended or may not be used here, or of the database.
func (p spacePages) visitor(r *http.Request) (identity.Identity, bool, error) {
	visitor, signedIn, err := p.space.Visitor(r)
	if err != nil {
		err = gradioapi.IdentityError(err)
	}
	return visitor, signedIn, err
}

// pageVisitor returns the person whom the page around the Space stands for. Errors: those of visitor.
func (p spacePages) pageVisitor(r *http.Request) (person identity.Identity, known bool, err error) {
	person, known, err = p.space.PageVisitor(r)
	if err != nil {
		err = gradioapi.IdentityError(err)
	}
	return person, known, err
}

func displayName(visitor identity.Identity) string {
	switch visitor.Kind {
	case identity.Local:
		return "the local visitor"
	case identity.User:
		return visitor.Name
	}
	return visitor.Key()
}

// WhoAmI shows the identity of a browser at a Space.
type WhoAmI struct {
	Identity string `json:"identity"`
	SignedIn bool   `json:"signedIn"`
	Mode     string `json:"mode"`
}

func (p spacePages) whoami(c echo.Context) error {
	visitor, signedIn, err := p.visitor(c.Request())
	if err != nil {
		return err
	}
	mode := "direct"
	if p.config.Hub {
		mode = "hub"
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.JSON(http.StatusOK, WhoAmI{visitor.Key(), signedIn, mode})
}

// login redirects the browser to the console, with the origin to return to.
func (p spacePages) login(c echo.Context) error {
	r := c.Request()
	if !p.isSecure(r) {
		return p.render(c, http.StatusForbidden, pageData{Error: insecure})
	}
	origin := web.Scheme(r) + "://" + r.Host
	if !p.space.IsOrigin(origin) {
		return p.render(c, http.StatusBadRequest, pageData{Error: "Sign-in is refused at " + origin + ": it is neither the address of this Space nor one of its allowed names. " +
			"The operator of this host can set the address of the Space in browsers, as url: " + origin + web.SubPath(r) + " in the configuration, or allow the name with --host or hosts."})
	}
	if path := web.SubPath(r); path != "" && path != p.space.SubPath() { // of the header X-Forwarded-Prefix; the console sends codes to configured paths only
		return p.render(c, http.StatusBadRequest, pageData{Error: "Sign-in is refused below " + path + ": it is not the path of this Space. " +
			"The operator of this host can add the Space's address in browsers to the configuration, as url: " + origin + path})
	}
	console, ok := p.config.Host.ConsoleURL(r)
	if !ok {
		return p.render(c, http.StatusServiceUnavailable, pageData{Error: "Sign-in needs the console, which your browser cannot reach. " +
			"The operator of this host can set the address of the console for browsers: --console-url, or console_url in the configuration."})
	}
	to := c.QueryParam("to")
	if !web.IsOwnPath(to) {
		to = "/"
	}
	query := template.URLQueryEscaper
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Redirect(http.StatusSeeOther, console+"/login?space="+query(p.space.Name())+"&origin="+query(origin)+"&path="+query(web.SubPath(r))+"&to="+query(to))
}

// createSession exchanges a code for a sign-in cookie. The console's page sends the code in a form: browsers keep URLs in their
// history and pass them on as Referer.
func (p spacePages) createSession(c echo.Context) error {
	r := c.Request()
	r.Body = http.MaxBytesReader(c.Response(), r.Body, 8<<10)
	origins := r.Header.Values("Origin")
	if len(origins) != 1 || !p.config.Host.IsConsole(origins[0]) { // login CSRF: another page would sign its visitor in as another person
		return p.refuse(c, http.StatusForbidden, "A sign-in is accepted only from the console of this host.")
	}
	if err := p.check(r); err != nil {
		var refused *echo.HTTPError
		if errors.As(err, &refused) {
			return p.refuse(c, refused.Code, refused.Message.(string))
		}
		return err
	}
	proof, ok := p.codes.Take(p.space.Name()+" "+web.Scheme(r)+"://"+r.Host, r.PostFormValue("code"))
	if !ok {
		p.wrong.Wrong(r.RemoteAddr)
		return p.refuse(c, http.StatusForbidden, "This sign-in has expired: it is valid once, at one Space, for half a minute. Start again.")
	}
	text, err := p.config.People.SignIn(r.Context(), p.space.Name(), proof)
	if err != nil {
		err = gradioapi.IdentityError(err) // the token may have ended since the code was given
		if refused, ok := errors.AsType[*echo.HTTPError](err); ok {
			return p.refuse(c, refused.Code, refused.Message.(string))
		}
		return err
	}
	p.cookies.SetSignIn(c.Response().Header(), r, text, int(proof.Life().Seconds()))
	p.config.Logger.Info("signed in", zap.String("space", p.space.Name()), zap.String("identity", proof.Who.Key()))
	to := r.PostFormValue("to")
	if !web.IsOwnPath(to) {
		to = "/"
	}
	return p.render(c, http.StatusOK, pageData{Refresh: to})
}

// refuse shows an error page. A hidden Space answers 404 instead, which does not reveal it.
func (p spacePages) refuse(c echo.Context, status int, why string) error {
	if p.space.Hidden() {
		return echo.ErrNotFound
	}
	return p.render(c, status, pageData{Error: why})
}

func (p spacePages) logout(c echo.Context) error {
	r := c.Request()
	if text := p.cookies.SignIn(r); text != "" {
		if err := p.config.People.SignOut(context.WithoutCancel(r.Context()), p.space.Name(), text); err != nil {
			return err
		}
	}
	p.cookies.SetSignIn(c.Response().Header(), r, "", 0)
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.Redirect(http.StatusSeeOther, web.SubPath(r)+"/__spacehost/")
}

// Reload answers a visit that followed a link from another site with a page that opens the same URL again. The browser sends
// the sign-in cookie only with the second request.
func Reload(c echo.Context) error {
	to := c.Request().URL.RequestURI()
	if !web.IsOwnPath(to) { // "//evil.example/" is a path here, and another site to a browser
		to = "/"
	}
	var text strings.Builder
	if err := spacePage.Execute(&text, pageData{Refresh: to, SubPath: web.SubPath(c.Request())}); err != nil {
		return err
	}
	web.SetPageHeaders(c.Response().Header(), spacePolicy)
	return c.HTML(http.StatusOK, text.String())
}
