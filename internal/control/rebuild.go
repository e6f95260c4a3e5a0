package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/views"
	"spacehost/internal/web"
)

// RebuildSpace builds the environment of a Space again. The answer is a stream of Server-Sent Events, each a RebuildProgress. The
// last one has Done or Error. The end of the connection ends the build.
var RebuildSpace = Endpoint[RestartRequest, RebuildProgress]{http.MethodPost, "/rebuild"}

// RebuildProgress is one event of a rebuild: exactly one of its fields is set.
type RebuildProgress struct {
	Step  *BuildStep     `json:"step,omitempty"`
	Done  *RebuildAnswer `json:"done,omitempty"`
	Error string         `json:"error,omitempty"` // the Space continues as it was
}

// BuildStep is one step of a build.
type BuildStep struct {
	Index   int     `json:"index"` // from 1
	Total   int     `json:"total"`
	Text    string  `json:"text"`
	State   string  `json:"state"`             // started, finished or failed
	Seconds float64 `json:"seconds,omitempty"` // set unless it has only started
}

// RebuildAnswer is sent once the restart has begun. Running calls may continue for DrainSeconds at most.
type RebuildAnswer struct {
	Space        string   `json:"space"`
	Environment  string   `json:"environment"` // the folder of the new environment
	DrainSeconds float64  `json:"drainSeconds"`
	Sharing      []string `json:"sharing"` // Spaces that run from the former environment until their next start
}

func (a *API) rebuildSpace(c echo.Context) error {
	r, err := views.Read[RestartRequest](c)
	if err == nil {
		err = a.checkRunnable(r.Space)
	}
	if err != nil {
		return views.Refuse(c, err)
	}
	w := &eventWriter{response: c.Response()}
	w.begin()
	defer w.keepAlive()()
	ctx := c.Request().Context()
	done, err := a.config.Host.RebuildSpace(ctx, r.Space, a.config.Host.Operator(ctx), r.Now, func(step BuildStep) {
		w.send(RebuildProgress{Step: &step})
	})
	if err != nil {
		noteFailure(c, err)
		w.send(RebuildProgress{Error: err.Error()})
	} else {
		w.send(RebuildProgress{Done: &done})
	}
	return nil
}

// eventWriter writes a stream of Server-Sent Events. Errors of a closed connection are dropped: its context ends too.
type eventWriter struct {
	mu       sync.Mutex
	response *echo.Response
}

func (w *eventWriter) begin() { beginEvents(w.response) }

// beginEvents sends the header of a stream of Server-Sent Events.
func beginEvents(w *echo.Response) {
	w.Header().Set(echo.HeaderContentType, "text/event-stream")
	w.Header().Set(echo.HeaderCacheControl, "no-store")
	web.KeepFlowing(w.Header())
	w.WriteHeader(http.StatusOK)
	w.Flush()
}

func (w *eventWriter) send(event any) {
	line, err := json.Marshal(event)
	if err == nil {
		w.write(fmt.Sprintf("data: %s\n\n", line))
	}
}

func (w *eventWriter) write(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.response.Write([]byte(text)); err == nil {
		w.response.Flush()
	}
}

// keepAlive shows that the connection works during long steps. stop returns when nothing is written any more.
func (w *eventWriter) keepAlive() (stop func()) {
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		alive := time.NewTicker(keepAlive)
		defer alive.Stop()
		for {
			select {
			case <-ended:
				return
			case <-alive.C:
				w.write(": alive\n\n")
			}
		}
	}()
	return func() { close(ended); <-stopped }
}
