// Package deviceapi speaks to the `spaces` package: /startup-report /schedule /allow /release /queue-size.
//
// The contract is what spaces/zero/api.py and client.py do (read in 0.51.3). All arguments are query
// parameters, and the path holds a secret that only one start of one Space knows: never log a URL of here.
package deviceapi

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
	"go.uber.org/zap"

	"spacehost/internal/failpoint"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/token"
	"spacehost/quota"
)

// Events knows which Events a token may still pay for; a Space's Queue implements it. It does not block long.
type Events interface {
	Alive(space, event string) bool
}

// Config is what the device API needs. Logger may be nil.
type Config struct {
	Broker *lease.Broker
	Signer *token.Signer
	// TierOf returns what a payer has by the tier that their token names.
	TierOf func(context.Context, identity.Identity) (quota.Tier, error)
	Events Events
	// CheckVia refuses a payer on whose behalf Payer.Via may not spend; nil: all may.
	CheckVia func(payer identity.Identity) error
	// Refused is told of each request that quota refuses; nil: nobody is.
	Refused func(lease.Request, error)
	// Tell warns the visitor of an Event. It does not block long; nil: nobody is told.
	Tell func(space, event, text string)
	// Waits is told what one who waits may expect, at first and when it changes. It must not block long; nil: nobody is.
	Waits  func(lease.Request, lease.Forecast)
	Logger *zap.Logger
}

// API answers the `spaces` package of every Space of this host. Register it on a loopback listener of its own.
type API struct {
	config Config
	times  times

	mu    sync.Mutex
	doors map[string]Door // by secret
}

// Door is where one start of one Space comes in.
type Door struct {
	Space    string
	Instance string
	// Account says who pays for work that no visitor asked for.
	Account func() identity.Identity
	// Function returns the name of the function that asks, "" if it is not known; nil: none is.
	Function func(lease.Request) string
}

// New returns the API without doors.
func New(config Config) *API {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	return &API{config: config, times: usualTimes, doors: map[string]Door{}}
}

// Open makes a door and returns its path, for SPACES_ZERO_DEVICE_API_URL. Close shuts it.
func (a *API) Open(d Door) (path string) {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	secret := hex.EncodeToString(b[:])
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doors[secret] = d
	return "/d/" + secret
}

// Close shuts the door of one start.
func (a *API) Close(instance string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for secret, d := range a.doors {
		if d.Instance == instance {
			delete(a.doors, secret)
		}
	}
}

func (a *API) door(secret string) (found Door, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for known, d := range a.doors {
		if subtle.ConstantTimeCompare([]byte(known), []byte(secret)) == 1 {
			found, ok = d, true
		}
	}
	return found, ok
}

// Register mounts the routes.
func (a *API) Register(e *echo.Echo) {
	e.Pre(noBrowsers)
	g := e.Group("/d/:secret")
	g.POST("/startup-report", a.through(a.startupReport))
	g.POST("/schedule", a.through(a.schedule))
	g.POST("/allow", a.through(a.allow))
	g.POST("/release", a.through(a.release))
	g.GET("/queue-size", a.through(a.queueSize))
}

// noBrowsers refuses what a page could send: these answers are for a Space's process alone.
func noBrowsers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		for name := range c.Request().Header {
			if name == "Origin" || strings.HasPrefix(name, "Sec-Fetch-") {
				return c.NoContent(http.StatusForbidden)
			}
		}
		return next(c)
	}
}

func (a *API) through(handle func(echo.Context, Door) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		d, ok := a.door(c.Param("secret"))
		if !ok {
			return c.NoContent(http.StatusNotFound)
		}
		c.Response().Before(func() { failpoint.Here("before an answer") })
		err := handle(c, d)
		if failpoint.Hook != nil {
			c.Response().Flush()
			failpoint.Here("after an answer")
		}
		return err
	}
}

func (a *API) startupReport(c echo.Context, d Door) error {
	a.config.Logger.Info("space reports its GPU functions", zap.String("space", d.Space))
	return c.NoContent(http.StatusOK)
}

func (a *API) queueSize(c echo.Context, _ Door) error {
	return c.JSON(http.StatusOK, a.config.Broker.Waiting())
}

// schedule answers at once if a Slot is free, else over SSE.
func (a *API) schedule(c echo.Context, d Door) error {
	request, err := a.request(c, d)
	if err != nil {
		return a.refuse(c, request, err)
	}
	ticket, err := a.config.Broker.Schedule(c.Request().Context(), request)
	if err != nil {
		return a.refuse(c, request, err)
	}
	if request.Event != "" && !a.config.Events.Alive(d.Space, request.Event) {
		ticket.Leave() // whoever ended the Event meanwhile did not know of this Lease yet
		return a.refuse(c, request, &endedError{request.Event})
	}
	setAuthenticated(c, request)
	c.Response().Header().Set(headerApproveResult, resultApproved)
	return a.answer(c, ticket, request)
}

// Declared durations, as they arrive (spaces/zero/client.py, get_duration_seconds: timedelta.seconds).
const (
	usualSeconds = 60
	// negativeSeconds is what timedelta(seconds=-1).seconds makes of -1. On a GPU with a duration_factor above 1
	// (spaces/zero/configs.json: 1.5) -1 arrives as more, and no function honestly takes a day.
	negativeSeconds = 86399
)

// request reads the query. It clamps nothing: 0 counts as 1 second, and 86399 or more was probably -1 and is refused
// (docs/design/0004-hold-charge-window.md).
func (a *API) request(c echo.Context, d Door) (lease.Request, error) {
	r := lease.Request{Space: d.Space, Instance: d.Instance, Task: c.QueryParam("taskId"), Size: c.QueryParam("gpuSize")}
	if err := a.pay(c.Request().Context(), &r, d, c.QueryParam("token")); err != nil {
		return r, err
	}
	if r.Size != "" && r.Size != "large" && r.Size != "xlarge" {
		return r, &argumentError{"gpuSize"}
	}
	if len(r.Task) > 64 {
		return r, &argumentError{"taskId"}
	}
	seconds := usualSeconds
	if text := c.QueryParam("durationSeconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return r, &argumentError{"durationSeconds"}
		}
		seconds = max(1, n)
	}
	r.Declared = time.Duration(min(seconds, negativeSeconds)) * time.Second
	if d.Function != nil {
		r.Function = d.Function(r)
	}
	if seconds >= negativeSeconds {
		return r, &quota.IllegalDurationError{Requested: r.Declared}
	}
	return r, nil
}

// pay finds out who pays: the token's subject while its Event lives, whatever the clock says; without a
// token the Space's own account.
func (a *API) pay(ctx context.Context, r *lease.Request, d Door, token string) (err error) {
	if token == "" {
		r.Payer = d.Account()
		r.Tier, err = a.config.TierOf(ctx, r.Payer)
		if !r.Tier.Unlimited { // else it is starting, and all of its visitors wait
			r.Tier.Priority = 0 // as whoever does not say who they are
		}
		return err
	}
	claims, err := a.config.Signer.VerifyFor(token, d.Space)
	if err != nil {
		return err
	}
	if !a.config.Events.Alive(d.Space, claims.ID) {
		return &endedError{claims.ID}
	}
	r.Event = claims.ID
	if r.Payer, err = claims.Identity(); err != nil {
		return err
	}
	if err := a.checkVia(r.Payer); err != nil {
		return err
	}
	r.Tier, err = a.config.TierOf(ctx, r.Payer)
	return err
}

// checkVia asks again here: what was forbidden since the Event came must not spend.
func (a *API) checkVia(payer identity.Identity) error {
	if a.config.CheckVia == nil || payer.Via == "" {
		return nil
	}
	return a.config.CheckVia(payer)
}

func (a *API) allow(c echo.Context, d Door) error {
	pid, err := strconv.Atoi(c.QueryParam("pid"))
	if err != nil {
		return c.NoContent(http.StatusBadRequest)
	}
	err = a.config.Broker.Allow(c.Request().Context(), d.Space, c.QueryParam("allowToken"), pid)
	return a.plain(c, d, err)
}

// release never answers 5xx, nor later than the client waits: it raises on both, and the visitor loses a
// finished result.
func (a *API) release(c echo.Context, d Door) error {
	failed, _ := strconv.ParseBool(c.QueryParam("fail"))
	ctx, cancel := context.WithTimeout(c.Request().Context(), a.times.settle)
	defer cancel()
	err := a.config.Broker.Release(ctx, d.Space, c.QueryParam("allowToken"), failed)
	if err != nil && !errors.Is(err, lease.ErrUnknown) {
		err = nil // the lease is over all the same; its settlement goes on
	}
	return a.plain(c, d, err)
}

func (a *API) plain(c echo.Context, d Door, err error) error {
	if err == nil {
		return c.NoContent(http.StatusOK)
	}
	level := zap.WarnLevel
	if errors.Is(err, lease.ErrUnknown) { // usual after a kill: the client releases what has ended
		level = zap.InfoLevel
	}
	a.config.Logger.Log(level, "device api refused", zap.String("space", d.Space), zap.String("call", c.Path()), zap.Error(err))
	return c.NoContent(statusOf(err))
}
