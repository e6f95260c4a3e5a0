package dashboard

import (
	"net/http"
	"slices"

	"github.com/labstack/echo/v4"

	"spacehost/internal/control"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// The endpoints of a person's own tokens. A token creates none with more rights than it has.
var (
	ListOwnTokens  = control.Endpoint[control.NoBody, []control.Token]{Method: http.MethodGet, Path: "/api/spacehost/tokens"}
	CreateOwnToken = control.Endpoint[control.CreateTokenRequest, control.CreatedToken]{Method: http.MethodPost, Path: "/api/spacehost/tokens"}
	RevokeOwnToken = control.Endpoint[control.NoBody, control.Token]{Method: http.MethodDelete, Path: "/api/spacehost/tokens/:id"}
)

// seesToken reports whether the token of the request may read about another one: a token that is limited to Spaces only about those
// of its Spaces.
func (c caller) seesToken(other people.Token) bool {
	isForeign := func(space string) bool { return !c.allows(space) }
	return !c.proof.IsLimited() || len(other.Rights.Spaces) > 0 && !slices.ContainsFunc(other.Rights.Spaces, isForeign)
}

func (a *API) listOwnTokens(c echo.Context, person caller, _ control.NoBody) ([]control.Token, error) {
	all, current, err := a.config.People.OwnTokens(c.Request().Context(), person.proof)
	shown := views.Each(slices.DeleteFunc(all, func(t people.Token) bool { return !person.seesToken(t) }), control.NewToken)
	for i := range shown {
		shown[i].Current = shown[i].ID == current
	}
	return shown, err
}

func (a *API) createOwnToken(c echo.Context, person caller, r control.CreateTokenRequest) (control.CreatedToken, error) {
	var names []string
	for _, space := range a.spacesOf(person) {
		names = append(names, space.Name)
	}
	rights, err := r.Rights(a.config.Now(), names)
	if err != nil {
		return control.CreatedToken{}, err
	}
	text, token, err := a.config.People.CreateOwnToken(c.Request().Context(), person.proof, r.Label, rights)
	return control.CreatedToken{Text: text, Token: control.NewToken(token)}, err
}

func (a *API) revokeOwnToken(c echo.Context, person caller, _ control.NoBody) (control.Token, error) {
	token, changed, err := a.config.People.RevokeOwn(c.Request().Context(), person.proof, c.Param("id"))
	if err == nil && !changed {
		control.NoteUnchanged(c)
	}
	return control.NewToken(token), err
}
