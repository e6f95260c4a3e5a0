package console

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/people"
)

// Stops lets an operator forbid a Space to spend its visitors' seconds through others. It is for the CLI's socket
// alone, which no Space can reach.
type Stops struct {
	stops  *people.DelegationDenyList
	spaces func() []string
}

// NewStops returns the Stops of a host; spaces are the names of those that run there.
func NewStops(stops *people.DelegationDenyList, spaces func() []string) *Stops {
	return &Stops{stops, spaces}
}

// Register mounts them. A GET changes nothing.
func (s *Stops) Register(e *echo.Echo) {
	e.GET("/via", s.list)
	e.POST("/via", s.change)
}

// Stop is what one Space must not spend through others.
type Stop struct {
	Space    string    `json:"space"`
	Identity string    `json:"identity"` // whose seconds; "": everybody's
	At       time.Time `json:"at"`
	By       string    `json:"by"`
}

// StopOrder forbids, or with Allow ends what was forbidden.
type StopOrder struct {
	Space    string `json:"space"`
	Identity string `json:"identity"`
	Allow    bool   `json:"allow"`
}

func (s *Stops) list(c echo.Context) error {
	return c.JSON(http.StatusOK, each(s.of(c.QueryParam("space")), stopView))
}

// change answers with what is forbidden to that Space from now on.
func (s *Stops) change(c echo.Context) error {
	order, err := read[StopOrder](c)
	if err == nil {
		err = s.check(order)
	}
	if err != nil {
		return refuse(c, err)
	}
	ctx := c.Request().Context()
	if order.Allow {
		err = s.stops.Allow(ctx, order.Space, order.Identity)
	} else {
		err = s.stops.Forbid(ctx, order.Space, order.Identity, "operator")
	}
	return answer(c, http.StatusOK, each(s.of(order.Space), stopView), err)
}

// check finds what would forbid nothing: a name that was mistyped.
func (s *Stops) check(o StopOrder) error {
	if o.Identity != "" {
		if _, err := identity.ParseKey(o.Identity); err != nil {
			return &requestError{fmt.Errorf("%w: say local, user:ada, ip:203.0.113.7 ... as `spacehost quota` lists them", err)}
		}
	}
	if len(s.of(o.Space)) > 0 {
		return nil
	}
	return known(o.Space, s.spaces())
}

// of are those of one Space, or all with "".
func (s *Stops) of(space string) []people.Denial {
	return slices.DeleteFunc(s.stops.List(), func(stop people.Denial) bool { return stop.Space != cmp.Or(space, stop.Space) })
}

func stopView(s people.Denial) Stop {
	return Stop{Space: s.Space, Identity: s.Identity, At: s.At, By: s.By}
}
