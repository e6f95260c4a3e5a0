package control

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/spacelog"
	"spacehost/internal/stages"
	"spacehost/internal/views"
)

// The Spaces of the host. ShowSpace and ReadLog have the query parameter `space`.
var (
	ShowHealth   = Endpoint[NoBody, views.Health]{http.MethodGet, "/healthz"}
	ShowSpace    = Endpoint[NoBody, SpaceDetail]{http.MethodGet, "/space"}
	ReadLog      = Endpoint[NoBody, spacelog.Page]{http.MethodGet, "/space/log"}
	RestartSpace = Endpoint[RestartRequest, RestartAnswer]{http.MethodPost, "/restart"}
	PauseSpace   = Endpoint[PauseRequest, PauseAnswer]{http.MethodPost, "/space/pause"}
	ResumeSpace  = Endpoint[ResumeRequest, ResumeAnswer]{http.MethodPost, "/space/resume"}
)

// SpaceDetail is what an operator sees of one Space.
type SpaceDetail struct {
	Space  views.Space     `json:"space"`
	Stages []stages.Change `json:"stages"` // newest first
	Usage  []UsageSample   `json:"usage"`  // of the last hour, the oldest first
	Limits SpaceLimits     `json:"limits"`
}

// UsageSample is what a Space used at a time.
type UsageSample struct {
	At        time.Time `json:"at"`
	Memory    int64     `json:"memory"`    // bytes
	Cores     float64   `json:"cores"`     // CPU time per time since the sample before
	Processes int       `json:"processes"` // and threads
	Disk      int64     `json:"disk"`      // bytes; -1: not measured yet
}

// SpaceLimits are the limits of a Space; 0: none.
type SpaceLimits struct {
	Memory    int64   `json:"memory"`
	Disk      int64   `json:"disk"`
	Processes int     `json:"processes"`
	CPU       float64 `json:"cpu"`
}

// RestartRequest names the Space. Now ends its running calls at once.
type RestartRequest struct {
	Space string `json:"space"`
	Now   bool   `json:"now,omitempty"`
}

// RestartAnswer is sent once the restart has begun. Running calls may continue for DrainSeconds at most.
type RestartAnswer struct {
	Space        string  `json:"space"`
	DrainSeconds float64 `json:"drainSeconds"`
}

// PauseRequest names the Space. Reason is for its visitors. Now ends its running calls at once.
type PauseRequest struct {
	Space  string `json:"space"`
	Reason string `json:"reason,omitempty"`
	Now    bool   `json:"now,omitempty"`
}

// PauseAnswer is sent once the pause is stored. Running calls may continue for DrainSeconds at most.
type PauseAnswer struct {
	Space        string       `json:"space"`
	Pause        stages.Pause `json:"pause"`
	DrainSeconds float64      `json:"drainSeconds"`
}

// ResumeRequest names the Space.
type ResumeRequest struct {
	Space string `json:"space"`
}

// ResumeAnswer is sent once the start of the Space has begun.
type ResumeAnswer struct {
	Space string `json:"space"`
}

func (a *API) showHealth(echo.Context, NoBody) (views.Health, error) {
	h := a.config.Host
	health := views.NewHealth(h.SpaceViews(), views.GPUHealth(a.config.Broker, a.config.Now()))
	if a.config.Nodes != nil {
		for _, p := range a.config.Nodes.Pools() {
			health.Add(p.Trouble)
		}
	}
	return health, nil
}

func (a *API) restartSpace(c echo.Context, r RestartRequest) (RestartAnswer, error) {
	if err := a.checkRunnable(r.Space); err != nil {
		return RestartAnswer{}, err
	}
	drain := a.config.Host.RestartSpace(r.Space, a.config.Host.Operator(c.Request().Context()), r.Now)
	return RestartAnswer{r.Space, drain.Seconds()}, nil
}

// checkRunnable refuses a Space that is unknown or paused. A restart must not end the pause of another operator by mistake.
func (a *API) checkRunnable(name string) error {
	if err := views.CheckSpace(name, a.config.Host.SpaceNames(nil)); err != nil {
		return err
	}
	if s := a.findSpace(name); s != nil && s.Paused != nil {
		return views.BadRequest("%s is paused by %s; resume it first: spacehost space resume %[1]s", name, s.Paused.By)
	}
	return nil
}

func (a *API) findSpace(name string) *views.Space {
	all := a.config.Host.SpaceViews()
	if i := slices.IndexFunc(all, func(s views.Space) bool { return s.Name == name }); i >= 0 {
		return &all[i]
	}
	return nil
}

func (a *API) pauseSpace(c echo.Context, r PauseRequest) (PauseAnswer, error) {
	if err := views.CheckSpace(r.Space, a.config.Host.SpaceNames(nil)); err != nil {
		return PauseAnswer{}, err
	}
	ctx := context.WithoutCancel(c.Request().Context()) // a pause is not left half done
	return a.config.Host.PauseSpace(ctx, r.Space, strings.TrimSpace(r.Reason), a.config.Host.Operator(ctx), r.Now)
}

func (a *API) resumeSpace(c echo.Context, r ResumeRequest) (ResumeAnswer, error) {
	if err := views.CheckSpace(r.Space, a.config.Host.SpaceNames(nil)); err != nil {
		return ResumeAnswer{}, err
	}
	if s := a.findSpace(r.Space); s != nil && s.Paused == nil {
		return ResumeAnswer{}, views.BadRequest("%s is not paused; its stage is %s", r.Space, s.Stage)
	}
	ctx := context.WithoutCancel(c.Request().Context())
	return ResumeAnswer(r), a.config.Host.ResumeSpace(ctx, r.Space, a.config.Host.Operator(ctx))
}

// shownChanges is the number of stages that ShowSpace answers with without `limit`.
const shownChanges = 100

func (a *API) showSpace(c echo.Context, _ NoBody) (SpaceDetail, error) {
	name := c.QueryParam("space")
	if err := views.CheckSpace(name, a.config.Host.SpaceNames(nil)); err != nil {
		return SpaceDetail{}, err
	}
	limit, err := views.Limit(c.QueryParam("limit"), shownChanges)
	if err != nil {
		return SpaceDetail{}, err
	}
	detail, err := a.config.Host.SpaceDetail(c.Request().Context(), name, limit)
	detail.Stages, detail.Usage = append([]stages.Change{}, detail.Stages...), append([]UsageSample{}, detail.Usage...) // [] in JSON, never null
	return detail, err
}

// shownLines is the number of lines that ReadLog answers with without `limit`.
const shownLines = 500

// readLog answers with the last lines of a log, or with those before or after a position. Query: space, kind (run or build), before,
// after, limit, stream (repeated), level and text.
func (a *API) readLog(c echo.Context, _ NoBody) (spacelog.Page, error) {
	name, kind := c.QueryParam("space"), spacelog.Kind(c.QueryParam("kind"))
	if err := views.CheckSpace(name, a.config.Host.SpaceNames(nil)); err != nil {
		return spacelog.Page{}, err
	}
	if kind == "" {
		kind = spacelog.Run
	}
	if kind != spacelog.Run && kind != spacelog.Build {
		return spacelog.Page{}, views.BadRequest("kind=%.40q is no log of a Space; use run or build", kind)
	}
	q := spacelog.Query{Before: c.QueryParam("before"), After: c.QueryParam("after"), Stream: c.QueryParams()["stream"], Level: c.QueryParam("level"), Text: c.QueryParam("text")}
	var err error
	if q.Limit, err = views.Limit(c.QueryParam("limit"), shownLines); err != nil {
		return spacelog.Page{}, err
	}
	switch {
	case q.Before != "" && q.After != "":
		return spacelog.Page{}, views.BadRequest("before and after exclude each other; give one")
	case q.Level != "" && q.Level != spacelog.LevelError && q.Level != spacelog.LevelWarning:
		return spacelog.Page{}, views.BadRequest("level=%.40q is not a level; use error or warning", q.Level)
	}
	page, err := a.config.Host.SpaceLog(name, kind, q)
	wrong, missing := (*spacelog.PlaceError)(nil), (*spacelog.NotFoundError)(nil)
	switch {
	case errors.As(err, &wrong):
		return page, &views.RequestError{Err: wrong}
	case errors.As(err, &missing): // nothing was printed yet
		return spacelog.Page{Lines: []spacelog.PageLine{}, After: "0-0"}, nil
	}
	return page, err
}
