package console

import (
	"html"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/views"
	"spacehost/internal/web"
)

// The routes below /__spacehost of a Space's address that its own pages load.
const (
	ownPath       = "/__spacehost/"
	barScript     = "bar.js"
	handshakeFile = "handshake.js"
)

// Bar is what the bar on a Space's pages shows. Scripts of the Space can read it.
type Bar struct {
	Name     string `json:"name"` // of the visitor, in words
	SignedIn bool   `json:"signedIn"`
	// Unattached is true in identity mode hub, if a call from this page does not carry the sign-in: it is not inside the page around the Space.
	Unattached bool   `json:"unattached"`
	Payer      string `json:"payer"`             // the account that pays for a call from this page
	Console    string `json:"console,omitempty"` // empty: the browser cannot reach it
	views.Brief
}

// Insertion returns the HTML that is appended to a document of a Space: its bar, and in identity mode hub the script that requests
// the visitor's token from the page around it. "" if the Space has neither.
//
// A frame gets no bar: it belongs to the page around it.
func (s *SignIn) Insertion(r *http.Request, space SignInSpace) (text string) {
	at := html.EscapeString((&url.URL{Path: web.SubPath(r) + ownPath}).EscapedPath())
	if s.config.Hub {
		text = `<script src="` + at + handshakeFile + `"></script>`
	}
	if dest := r.Header.Get("Sec-Fetch-Dest"); space.HasBar() && (dest == "" || dest == "document") {
		text += `<script type="module" src="` + at + barScript + `"></script>`
	}
	return text
}

// registerBar mounts what the bar loads.
func (p spacePages) registerBar(g *echo.Group, sameOrigin echo.MiddlewareFunc) {
	for _, file := range []string{barScript, "panel.js", "words.js"} {
		g.GET("/"+file, page(file, spacePolicy), sameOrigin)
	}
	g.GET("/bar", p.bar, sameOrigin)
}

// bar answers with the Bar of the browser. A Space without a bar has none, so open pages remove theirs after a reload. The page around
// a Space always has one.
func (p spacePages) bar(c echo.Context) error {
	around := p.config.Hub && c.QueryParam("around") != ""
	if !p.space.HasBar() && !around {
		return echo.ErrNotFound
	}
	bar, payer, err := p.barOf(c.Request(), around)
	if err != nil {
		return err
	}
	if bar.Brief, err = p.config.Accounts.Brief(c.Request().Context(), payer, p.space.Name()); err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(http.StatusOK, bar)
}

// barOf returns the visitor's part of the Bar, and the payer. around is true for the page around the Space.
func (p spacePages) barOf(r *http.Request, around bool) (bar Bar, payer identity.Identity, err error) {
	if payer, bar.SignedIn, err = p.visitor(r); err != nil {
		return bar, payer, err
	}
	visitor := payer
	if p.config.Hub {
		person, known, err := p.pageVisitor(r)
		if err != nil {
			return bar, payer, err
		}
		switch {
		case known && around:
			visitor, payer = person, person
		case known:
			visitor, bar.Unattached = person, true
			if payer, err = identity.Anonymous(r.RemoteAddr); err != nil {
				return bar, payer, err
			}
		}
	}
	bar.Name, bar.Payer = displayName(visitor), payer.Key()
	bar.Console, _ = p.config.Host.ConsoleURL(r)
	return bar, payer, nil
}
