// Package deviceapi is the server of the device API of the `spaces` package, by which a Space requests GPUs: /startup-report,
// /schedule, /allow, /release and /queue-size.
//
// # Contract
//
// spaces/zero/api.py and client.py of versions 0.51.3 and 0.52.0.dev3 define the API. All arguments are query parameters.
//
// # Terms
//
// A [Door] is the secret path at which one start of one Space reaches the API. Never log a URL of this package: it contains
// the secret, the token or the allowToken. A grant gives a Space a Slot until its Lease ends.
//
// # Types
//
// The host creates one [API] and opens a Door for each start of a Space. It implements [Payers] and [Notifier]. Package
// lease decides about each request:
//
//	/schedule --> refused (401, 429, 503)
//	/schedule --> granted at once (JSON)
//	/schedule --> waits (SSE: ping ...) --> granted (succeeded) | timed out or Space stopped (failed)
//	granted   --> /allow (the worker process) --> /release
//
// # Failures
//
// A refusal has the status and headers that make the client show Hugging Face's own message. For every error without such
// a message the client reports that no GPU was available, and the cause is in the log.
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

// Payers is the part of the host that knows payers. Its methods are called concurrently.
type Payers interface {
	// Allowance returns the tier named by payer.Tier, with the person's own overrides. It may read the database.
	Allowance(ctx context.Context, payer identity.Identity) (quota.Tier, error)
	// CheckDelegation refuses a payer on whose behalf the Space payer.Via may not spend: *people.DelegationDeniedError. It does
	// not block.
	CheckDelegation(payer identity.Identity) error
	// Alive reports whether a token of this Event still pays at the Space. It does not block for long.
	Alive(space, event string) bool
}

// Notifier receives what the visitor or the operator should know about a request. Its methods must not block for long, and are
// called concurrently. A request has no Event if the Space made it without a visitor's token.
type Notifier interface {
	// LeaseRefused is called for each request that the quota refuses.
	LeaseRefused(r lease.Request, err quota.Refused)
	// RunsOver is called for each request that is admitted although its payer's runs are used up, because the limit is advisory.
	RunsOver(r lease.Request)
	// LeaseWaits is called with the first forecast of a waiting request, and with each changed one.
	LeaseWaits(r lease.Request, f lease.Forecast)
	// LeaseTimedOut is called for each request for which no GPU came free in time.
	LeaseTimedOut(r lease.Request)
	// WarnVisitor shows a warning to the visitor of an Event.
	WarnVisitor(space, event, text string)
}

// Config is what the device API needs. Logger may be nil; all else is required.
type Config struct {
	Broker   *lease.Broker
	Signer   *token.Signer
	Payers   Payers
	Notifier Notifier
	Logger   *zap.Logger
}

// API answers the `spaces` package of every Space of the host. Register it on its own loopback listener. It may be used
// concurrently.
type API struct {
	config Config
	times  timings

	mu    sync.Mutex
	doors map[string]Door // by secret
}

// Space is the Space behind a Door. Its methods do not block, and are called concurrently.
type Space interface {
	Name() string
	// Account returns the payer of a request without a visitor's token: the Space's own account.
	Account() identity.Identity
	// RecordRequest keeps the request for forecasts and returns the name of the requesting function, "" if it is
	// unknown.
	RecordRequest(r lease.Request) (function string)
	// StartupReported is called when a start of the Space reports GPU functions, which the spaces package does in launch().
	StartupReported(instance string)
}

// Door is the access of one start of one Space.
type Door struct {
	Space    Space
	Instance string
	Machine  string // where the start runs; "": the host's own machine
	// Inside means that the start has a network of its own: only RegisterFor answers at this Door.
	Inside bool
}

// New returns the API without Doors.
func New(config Config) *API {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	return &API{config: config, times: defaultTimings, doors: map[string]Door{}}
}

// Open adds a Door and returns its path, for SPACES_ZERO_DEVICE_API_URL. Close removes it.
func (a *API) Open(d Door) (path string) {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	path = doorPrefix + hex.EncodeToString(b[:])
	a.OpenAt(path, d)
	return path
}

// OpenAt is Open at the path that an earlier host has given to the start.
func (a *API) OpenAt(path string, d Door) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.doors[strings.TrimPrefix(path, doorPrefix)] = d
}

const doorPrefix = "/d/"

// Close removes the Door of one start.
func (a *API) Close(instance string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for secret, d := range a.doors {
		if d.Instance == instance {
			delete(a.doors, secret)
		}
	}
}

// door finds a Door in constant time per comparison, so that response times do not reveal a secret.
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

// Register mounts the routes for all starts without a network of their own.
func (a *API) Register(e *echo.Echo) {
	a.register(e, func(d Door) bool { return !d.Inside })
}

// RegisterFor mounts the routes for one start, at a listener in its own network. The secret path of another start is unknown
// there.
func (a *API) RegisterFor(e *echo.Echo, instance string) {
	a.register(e, func(d Door) bool { return d.Instance == instance })
}

func (a *API) register(e *echo.Echo, isKnown func(Door) bool) {
	e.Pre(noBrowsers)
	g := e.Group(doorPrefix + ":secret")
	for path, handle := range map[string]func(echo.Context, Door) error{
		"/startup-report": a.startupReport, "/schedule": a.schedule, "/allow": a.allow, "/release": a.release,
	} {
		g.POST(path, a.withDoor(isKnown, handle))
	}
	g.GET("/queue-size", a.withDoor(isKnown, a.queueSize))
}

// noBrowsers refuses the requests of web pages. Only the process of a Space may use this API.
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

// withDoor finds the Door of a request; 404 without one. The failpoints let a test kill the host before or after an answer.
func (a *API) withDoor(isKnown func(Door) bool, handle func(echo.Context, Door) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		d, ok := a.door(c.Param("secret"))
		if !ok || !isKnown(d) {
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
	a.config.Logger.Info("GPU functions reported", zap.String("space", d.Space.Name()))
	d.Space.StartupReported(d.Instance)
	return c.NoContent(http.StatusOK)
}

func (a *API) queueSize(c echo.Context, _ Door) error {
	return c.JSON(http.StatusOK, a.config.Broker.Waiting())
}

// schedule answers at once if a Slot is free, and else with a stream of Server-Sent Events.
func (a *API) schedule(c echo.Context, d Door) error {
	request, err := a.request(c, d)
	if err != nil {
		return a.refuse(c, request, err)
	}
	ticket, err := a.config.Broker.Schedule(c.Request().Context(), request)
	if err != nil {
		return a.refuse(c, request, err)
	}
	if request.Event != "" && !a.config.Payers.Alive(d.Space.Name(), request.Event) {
		ticket.Leave() // the Event ended while the Lease was created, and its end did not cancel this Lease
		return a.refuse(c, request, &endedError{request.Event})
	}
	if ticket.OverRuns() {
		a.config.Notifier.RunsOver(request)
	}
	setAuthenticated(c, request)
	c.Response().Header().Set(headerApproveResult, resultApproved)
	return a.answer(c, ticket, request)
}

// Declared durations as the client sends them (spaces/zero/client.py, get_duration_seconds: timedelta.seconds).
const (
	defaultSeconds = 60
	// negativeSeconds is timedelta(seconds=-1).seconds. On a GPU with a duration_factor above 1 (spaces/zero/configs.json: 1.5),
	// -1 arrives as an even larger number. No real function declares a day.
	negativeSeconds = 86399
)

// request parses the query. A duration is never reduced to a limit; 0 becomes 1; 86399 and more is refused, because it was
// probably -1 (docs/design/0004-hold-charge-window.md). Errors: see statusOf.
func (a *API) request(c echo.Context, d Door) (lease.Request, error) {
	r := lease.Request{Space: d.Space.Name(), Machine: d.Machine, Instance: d.Instance, Task: c.QueryParam("taskId"), Size: c.QueryParam("gpuSize")}
	if err := a.findPayer(c.Request().Context(), &r, d, c.QueryParam("token")); err != nil {
		return r, err
	}
	if r.Size != "" && r.Size != "large" && r.Size != "xlarge" {
		return r, &argumentError{"gpuSize"}
	}
	if len(r.Task) > 64 {
		return r, &argumentError{"taskId"}
	}
	seconds := defaultSeconds
	if text := c.QueryParam("durationSeconds"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return r, &argumentError{"durationSeconds"}
		}
		seconds = max(1, n)
	}
	r.Declared = time.Duration(min(seconds, negativeSeconds)) * time.Second
	r.Function = d.Space.RecordRequest(r)
	if seconds >= negativeSeconds {
		return r, &quota.IllegalDurationError{Requested: r.Declared}
	}
	return r, nil
}

// findPayer sets the payer and the tier. The subject of the token pays as long as its Event is open, at any age of the token.
// Without a token the Space's own account pays.
func (a *API) findPayer(ctx context.Context, r *lease.Request, d Door, token string) (err error) {
	if token == "" {
		r.Payer = d.Space.Account()
		r.Tier, err = a.config.Payers.Allowance(ctx, r.Payer)
		if !r.Tier.Unlimited { // unlimited: the Space is starting, and all of its visitors wait for it
			r.Tier.Priority = 0 // as an anonymous visitor
		}
		return err
	}
	claims, err := a.config.Signer.VerifyFor(token, d.Space.Name())
	if err != nil {
		return err
	}
	if !a.config.Payers.Alive(d.Space.Name(), claims.ID) {
		return &endedError{claims.ID}
	}
	r.Event = claims.ID
	if r.Payer, err = claims.Identity(); err != nil {
		return err
	}
	if r.Payer.Via != "" { // again, because the operator may have denied it after the Event was submitted
		if err := a.config.Payers.CheckDelegation(r.Payer); err != nil {
			return err
		}
	}
	r.Tier, err = a.config.Payers.Allowance(ctx, r.Payer)
	return err
}

func (a *API) allow(c echo.Context, d Door) error {
	pid, err := strconv.Atoi(c.QueryParam("pid"))
	if err != nil {
		return c.NoContent(http.StatusBadRequest)
	}
	err = a.config.Broker.Allow(c.Request().Context(), d.Space.Name(), c.QueryParam("allowToken"), pid)
	return a.answerStatus(c, d, err)
}

// release never answers 5xx, and always before the client's timeout. The client raises on both, and the visitor would lose a
// finished result.
func (a *API) release(c echo.Context, d Door) error {
	failed, _ := strconv.ParseBool(c.QueryParam("fail"))
	ctx, cancel := context.WithTimeout(c.Request().Context(), a.times.settle)
	defer cancel()
	err := a.config.Broker.Release(ctx, d.Space.Name(), c.QueryParam("allowToken"), failed)
	if err != nil && !errors.Is(err, lease.ErrUnknown) {
		err = nil // the lease has ended anyway; its settlement continues
	}
	return a.answerStatus(c, d, err)
}

// answerStatus answers with a status alone.
func (a *API) answerStatus(c echo.Context, d Door, err error) error {
	if err == nil {
		return c.NoContent(http.StatusOK)
	}
	level := zap.WarnLevel
	if errors.Is(err, lease.ErrUnknown) { // normal after a kill: the client releases a lease that has ended
		level = zap.InfoLevel
	}
	a.config.Logger.Log(level, "device api request refused", zap.String("space", d.Space.Name()), zap.String("call", c.Path()), zap.Error(err))
	return c.NoContent(statusOf(err))
}
