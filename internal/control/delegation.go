package control

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// The denials of delegation: a denied Space may not spend its visitors' seconds at other Spaces. Both answer with the denials of
// one Space; ListDenials takes it as the query `space`, and lists all without it.
var (
	ListDenials      = Endpoint[NoBody, []Denial]{http.MethodGet, "/via"}
	ChangeDelegation = Endpoint[DelegationRequest, []Denial]{http.MethodPost, "/via"}
)

// Denial forbids one Space to spend its visitors' seconds at other Spaces.
type Denial struct {
	Space    string    `json:"space"`
	Identity string    `json:"identity"` // the payer; "": all payers
	At       time.Time `json:"at"`
	By       string    `json:"by"`
}

// DelegationRequest adds a Denial or, with Allow, removes it.
type DelegationRequest struct {
	Space    string `json:"space"`
	Identity string `json:"identity"`
	Allow    bool   `json:"allow"`
}

func (a *API) listDenials(c echo.Context, _ NoBody) ([]Denial, error) {
	return views.Each(a.denials(c.QueryParam("space")), denialView), nil
}

func (a *API) changeDelegation(c echo.Context, r DelegationRequest) ([]Denial, error) {
	if err := a.checkDelegation(r); err != nil {
		return nil, err
	}
	ctx := c.Request().Context()
	var err error
	if r.Allow {
		err = a.config.Delegations.Allow(ctx, r.Space, r.Identity)
	} else {
		err = a.config.Delegations.Forbid(ctx, r.Space, r.Identity, a.config.Host.Operator(ctx))
	}
	return views.Each(a.denials(r.Space), denialView), err
}

// checkDelegation refuses a mistyped name, which would forbid nothing.
func (a *API) checkDelegation(r DelegationRequest) error {
	if r.Identity != "" {
		if _, err := identity.ParseKey(r.Identity); err != nil {
			return &views.RequestError{Err: fmt.Errorf("%w; give local, user:ada, ip:203.0.113.7 ... as `spacehost quota` lists them", err)}
		}
	}
	if len(a.denials(r.Space)) > 0 { // also of a Space that this start of the host does not have
		return nil
	}
	return views.CheckSpace(r.Space, a.config.Host.SpaceNames(nil))
}

// denials returns those of one Space, or all for "".
func (a *API) denials(space string) []people.Denial {
	return slices.DeleteFunc(a.config.Delegations.List(), func(d people.Denial) bool { return d.Space != cmp.Or(space, d.Space) })
}

func denialView(d people.Denial) Denial {
	return Denial{Space: d.Space, Identity: d.Identity, At: d.At, By: d.By}
}
