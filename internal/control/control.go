// Package control is the control API of a running host: JSON over the Unix socket in its state folder. The subcommands of
// `spacehost` are its clients. Unlike package console it changes state.
//
// # Access
//
// The socket is open to the user of the host and to root. The host closes the connections of processes that may run code
// of a Space, and answers 401 to a request without the key in the state folder (control.key). Every client is an operator.
//
// # Types
//
// An [Endpoint] is a method and a path with the types of the request body and of the answer. Each is declared once, beside
// these types: [AddPerson], [ListGPUs], [GrantSeconds]. The host creates an [API] and registers it on the socket. A client
// builds a [Request] from the same Endpoint. GET requests change nothing.
//
// # Failures
//
// A mistake in a request is answered with {"detail": text} and a status of 400, 404 or 409. The text is written for the
// operator. Every other error goes to the server's error handler, which logs it and answers 500.
package control

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/gpu"
	"spacehost/internal/clock"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/quota"
)

// Host is the part of the host that the control API uses. Its methods are called concurrently. They do not block, except Reload,
// and that Operator may read the user database of the machine.
type Host interface {
	// SpaceViews returns all Spaces.
	SpaceViews() []views.Space
	// SpaceNames returns the names of the Spaces that viewer may see; nil is the operator, who sees all.
	SpaceNames(viewer *identity.Identity) []string
	// RestartSpace begins a restart of a Space and returns at once. by names the operator for the ledger. With now, running calls
	// end at once. It returns the longest time for which running calls may continue.
	RestartSpace(name, by string, now bool) time.Duration
	// Reload applies the configuration file again, or with dryRun finds the difference. It may read folders, wait for a running
	// reload, and write to the database. Errors: *ReloadRefusedError.
	Reload(ctx context.Context, dryRun bool) (ReloadAnswer, error)
	// CheckTier refuses a tier that this host does not have. Its error lists the tiers.
	CheckTier(name string) error
	// ClockMoved is called after each advance of the clock. Everything that waits for a time checks it again.
	ClockMoved()
	// LoginLink returns a one-time link to the console. ok is false under `spacehost serve`, which has no local visitor.
	LoginLink() (url string, ok bool)
	// Operator returns the name of the user at the other end of the connection with this context.
	Operator(ctx context.Context) string
}

// Payers is the part of the host that knows payers. CurrentAllowance may read the database, and is called concurrently.
type Payers interface {
	// CurrentAllowance returns the tier that an account has now, with the person's own overrides.
	CurrentAllowance(ctx context.Context, account identity.Identity) (quota.Tier, error)
}

// Config is what the API needs. All fields are required.
type Config struct {
	Host        Host
	Payers      Payers
	Accounts    *views.Accounts
	People      *people.Store
	Delegations *people.DelegationDenyList
	Ledger      *quota.Ledger
	Broker      *lease.Broker
	Pool        *gpu.Pool
	Inventory   gpu.Inventory
	Clock       *clock.Clock
	Now         func() time.Time // wall clock
}

// API answers the requests of the control socket. It may be used concurrently.
type API struct{ config Config }

// New returns the API of a host.
func New(config Config) *API { return &API{config} }

// Register mounts all routes. Only the control socket may have them, because every client is an operator.
func (a *API) Register(e *echo.Echo) {
	handle(e, ShowHealth, http.StatusOK, a.showHealth)
	e.Add(Reload.Method, Reload.Path, a.reload)
	handle(e, RestartSpace, http.StatusAccepted, a.restartSpace)
	handle(e, ListDenials, http.StatusOK, a.listDenials)
	handle(e, ChangeDelegation, http.StatusOK, a.changeDelegation)

	handle(e, ListGPUs, http.StatusOK, a.listGPUs)
	e.Add(DrainGPU.Method, DrainGPU.Path, a.drainGPU)
	e.Add(ReturnGPU.Method, ReturnGPU.Path, a.returnGPU)
	e.Add(FaultGPU.Method, FaultGPU.Path, a.faultGPU)
	handle(e, ListLeases, http.StatusOK, a.listLeases)
	e.Add(WatchLeases.Method, WatchLeases.Path, a.watchLeases)

	handle(e, ListBalances, http.StatusOK, a.listBalances)
	handle(e, ShowAccount, http.StatusOK, a.showAccount)
	handle(e, ShowLedger, http.StatusOK, a.showLedger)
	handle(e, ExplainAccount, http.StatusOK, a.explainAccount)
	handle(e, GrantSeconds, http.StatusOK, a.grantSeconds)
	handle(e, ResetAccount, http.StatusOK, a.resetAccount)
	handle(e, CreditAccount, http.StatusOK, a.creditAccount)

	handle(e, ListPeople, http.StatusOK, a.listPeople)
	handle(e, AddPerson, http.StatusCreated, a.addPerson)
	handle(e, SetTier, http.StatusOK, a.setTier)
	handle(e, ChangePerson, http.StatusOK, a.changePerson)
	handle(e, ListTokens, http.StatusOK, a.listTokens)
	handle(e, ListTokensOf, http.StatusOK, a.listTokens)
	handle(e, CreateToken, http.StatusCreated, a.createToken)
	handle(e, RevokeToken, http.StatusOK, a.revokeToken)
	handle(e, CreateLoginLink, http.StatusOK, a.createLoginLink)

	handle(e, ShowClock, http.StatusOK, a.showClock)
	e.Add(AdvanceClock.Method, AdvanceClock.Path, a.advanceClock)
}

// handle mounts an Endpoint. A body with an unknown field is refused, because it is usually a typo.
func handle[Body, Answer any](e *echo.Echo, at Endpoint[Body, Answer], status int, do func(echo.Context, Body) (Answer, error)) {
	e.Add(at.Method, at.Path, func(c echo.Context) error {
		var body Body
		if _, none := any(body).(NoBody); !none {
			var err error
			if body, err = views.Read[Body](c); err != nil {
				return views.Refuse(c, err)
			}
		}
		answer, err := do(c, body)
		return views.Answer(c, status, answer, err)
	})
}

// bind reads a body in which unknown fields are ignored. Errors: *echo.HTTPError that shows the expected JSON.
func bind[Body any](c echo.Context, expected string) (body Body, err error) {
	if err := c.Bind(&body); err != nil {
		return body, notUnderstood(expected)
	}
	return body, nil
}

func notUnderstood(expected string) error {
	return echo.NewHTTPError(http.StatusBadRequest, "the request is not understood; send "+expected)
}
