package control

import (
	"net/http"

	"github.com/labstack/echo/v4"
)

// CreateLoginLink makes a one-time link that signs the local visitor in at the console.
var CreateLoginLink = Endpoint[NoBody, LoginLink]{http.MethodPost, "/login-link"}

// LoginLink is good once, for twelve hours.
type LoginLink struct {
	URL string `json:"url"`
}

func (a *API) createLoginLink(echo.Context, NoBody) (LoginLink, error) {
	url, ok := a.config.Host.LoginLink()
	if !ok {
		return LoginLink{}, echo.NewHTTPError(http.StatusConflict, "`spacehost serve` has no local visitor; sign in at the console with a token (spacehost token create NAME)")
	}
	return LoginLink{url}, nil
}
