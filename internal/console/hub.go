package console

import (
	"html/template"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/internal/web"
)

var hubPage = template.Must(template.ParseFS(pages, "pages/hub.html"))

const hubPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; frame-ancestors 'none'"

// registerHub mounts the page around the Space, which stands for the page of the Hub at which visitors open it, and the token that it gives to the Space's page. In identity mode direct they
// are 404.
func (p spacePages) registerHub(g *echo.Group, sameOrigin echo.MiddlewareFunc) {
	if !p.config.Hub {
		return
	}
	g.GET("/hub", p.hub, sameOrigin)
	g.GET("/hub.js", page("hub.js", hubPolicy), sameOrigin)
	g.GET("/hub.css", page("hub.css", hubPolicy), sameOrigin)
	g.GET("/"+handshakeFile, page(handshakeFile, spacePolicy), sameOrigin)
	g.POST("/token", p.token, sameOrigin)
}

func (p spacePages) hub(c echo.Context) error {
	to := c.QueryParam("to")
	if !web.IsOwnPath(to) || strings.HasPrefix(to, ownPath) {
		to = p.space.Page()
	}
	var text strings.Builder
	err := hubPage.Execute(&text, struct{ Space, SubPath, To string }{p.space.Name(), web.SubPath(c.Request()), to})
	if err != nil {
		return err
	}
	web.SetPageHeaders(c.Response().Header(), hubPolicy)
	return c.HTML(http.StatusOK, text.String())
}

// HubToken is the answer to the page around a Space.
type HubToken struct {
	Token string `json:"token"` // an X-IP-Token; empty: the visitor is not signed in and pays by address
}

// token signs a token for the visitor of the page around the Space. It changes nothing, and is a POST so that no cache and no link
// can request it.
func (p spacePages) token(c echo.Context) error {
	visitor, known, err := p.pageVisitor(c.Request())
	if err != nil {
		return err
	}
	var answer HubToken
	if known {
		if answer.Token, err = p.space.SignPage(visitor); err != nil {
			return err
		}
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return c.JSON(http.StatusOK, answer)
}
