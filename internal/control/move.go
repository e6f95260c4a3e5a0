package control

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/placement"
	"spacehost/internal/views"
)

// MoveSpace lets a Space run on another node.
var MoveSpace = Endpoint[MoveRequest, MoveAnswer]{http.MethodPost, "/space/move"}

// MoveRequest names the Space and the node; host is the host's own machine. Now ends its running calls at once.
type MoveRequest struct {
	Space string `json:"space"`
	Node  string `json:"node"`
	Now   bool   `json:"now,omitempty"`
}

// MoveAnswer is sent once the move has begun. Running calls may continue for DrainSeconds at most.
type MoveAnswer struct {
	Space        string  `json:"space"`
	Node         string  `json:"node"`
	DrainSeconds float64 `json:"drainSeconds"`
}

// Mover is the part of the host that moves Spaces.
type Mover interface {
	// MoveSpace begins the move of a Space and returns at once. by names the operator. With now, running calls end at once. It returns
	// the longest time for which running calls may continue. Errors: *placement.MoveError,
	// *NoFrontError.
	MoveSpace(name, to, by string, now bool) (drain time.Duration, err error)
}

func (a *API) moveSpace(c echo.Context, r MoveRequest) (MoveAnswer, error) {
	if err := a.checkRunnable(r.Space); err != nil {
		return MoveAnswer{}, err
	}
	drain, err := a.config.Host.MoveSpace(r.Space, r.Node, a.config.Host.Operator(c.Request().Context()), r.Now)
	if refused := (*placement.MoveError)(nil); errors.As(err, &refused) {
		return MoveAnswer{}, &views.RequestError{Err: refused}
	}
	return MoveAnswer{r.Space, r.Node, drain.Seconds()}, nodeRefusal(err)
}
