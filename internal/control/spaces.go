package console

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"
)

// Restarts lets an operator start a Space anew. It is for the CLI's socket alone, which no Space can reach.
type Restarts struct {
	spaces  func() []string
	restart func(space string)
}

// NewRestarts returns the Restarts of a host: spaces are the names of its Spaces, restart begins one anew and does not wait.
func NewRestarts(spaces func() []string, restart func(space string)) *Restarts {
	return &Restarts{spaces, restart}
}

// Register mounts it.
func (s *Restarts) Register(e *echo.Echo) { e.POST("/restart", s.order) }

// RestartOrder names the Space.
type RestartOrder struct {
	Space string `json:"space"`
}

func (s *Restarts) order(c echo.Context) error {
	order, err := read[RestartOrder](c)
	if err != nil {
		return refuse(c, err)
	}
	if err := known(order.Space, s.spaces()); err != nil {
		return refuse(c, err)
	}
	s.restart(order.Space)
	return c.JSON(http.StatusAccepted, order)
}

// known finds a name that was mistyped.
func known(space string, spaces []string) error {
	if slices.Contains(spaces, space) {
		return nil
	}
	return &requestError{fmt.Errorf("no Space here is called %.70q; there are: %s", space, strings.Join(spaces, ", "))}
}
