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
	"github.com/labstack/echo/v4/middleware"

	"spacehost/gpu"
	"spacehost/internal/audit"
	"spacehost/internal/clock"
	"spacehost/internal/doctor"
	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/notify"
	"spacehost/internal/people"
	"spacehost/internal/spacelog"
	"spacehost/internal/views"
	"spacehost/quota"
)

// Host is the part of the host that the control API uses. Its methods are called concurrently. They do not block, except Reload,
// RebuildSpace, Prune, Doctor and StateSizes, and that Operator may read the user database of the machine.
type Host interface {
	// SpaceViews returns all Spaces.
	SpaceViews() []views.Space
	// SpaceNames returns the names of the Spaces that viewer may see; nil is the operator, who sees all.
	SpaceNames(viewer *identity.Identity) []string
	// RestartSpace begins a restart of a Space and returns at once. by names the operator for the ledger. With now, running calls
	// end at once. It returns the longest time for which running calls may continue.
	RestartSpace(name, by string, now bool) time.Duration
	// PauseSpace ends the process of a Space, after its running calls or with now at once, until ResumeSpace. It returns after the
	// commit, so that the pause survives a crash. reason is for visitors, by names the operator.
	PauseSpace(ctx context.Context, name, reason, by string, now bool) (PauseAnswer, error)
	// ResumeSpace begins the start of a paused Space.
	ResumeSpace(ctx context.Context, name, by string) error
	// MoveSpace is that of Mover.
	Mover
	// SpaceDetail returns one Space with its last stages, limit at most. It reads the database.
	SpaceDetail(ctx context.Context, name string, limit int) (SpaceDetail, error)
	// SpaceLog reads a part of a log from its files. Errors: those of spacelog.ReadPage.
	SpaceLog(name string, kind spacelog.Kind, q spacelog.Query) (spacelog.Page, error)
	// RebuildSpace builds the environment of a Space again and then begins a restart like that of RestartSpace. It waits for the
	// build, of which progress receives each step, and ends it with ctx. An error is a sentence for the operator; the Space then
	// continues as it was.
	RebuildSpace(ctx context.Context, name, by string, now bool, progress func(BuildStep)) (RebuildAnswer, error)
	// Prune removes what no Space refers to. It waits for a running reload and for the removal. Errors: *PruneRefusedError.
	Prune(ctx context.Context, r PruneRequest) (PruneAnswer, error)
	// Reload applies the configuration file again, or with dryRun finds the difference. It may read folders, wait for a running
	// reload, and write to the database. Errors: *ReloadRefusedError.
	Reload(ctx context.Context, dryRun bool) (ReloadAnswer, error)
	// RescanGPUs reads the GPUs of this machine again, and lends those that have joined. GPUs that have left get no new leases. On a host
	// with simulated GPUs, simulate replaces them by others; "" keeps them. Errors: *RescanRefusedError, or those of reading the
	// driver; then no GPU can be lent until a later call succeeds.
	RescanGPUs(ctx context.Context, simulate string) (RescanAnswer, error)
	// LeaseEnding tells the visitor of a Lease that an operator ends it. It is called before the end. reason may be empty.
	LeaseEnding(ending lease.Ended, reason string)
	// Info describes the process of the host.
	Info() HostInfo
	// ConfigValues returns the configuration in force, without secrets.
	ConfigValues() []ConfigValue
	// Doctor checks this machine as `spacehost doctor` does. Concurrent calls wait for each other. It ends with ctx.
	Doctor(ctx context.Context) ([]doctor.Finding, error)
	// StateSizes measures what the state folder contains. Concurrent calls wait for each other. It ends with ctx.
	StateSizes(ctx context.Context) ([]FolderSize, error)
	// CheckTier refuses a tier that this host does not have. Its error lists the tiers.
	CheckTier(name string) error
	// Tiers returns the tiers of this host.
	Tiers() []quota.Tier
	// Standing returns what the configuration says about a person.
	Standing(person string) Standing
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
	Notices     *notify.Sender
	Audit       *audit.Log
	Nodes       Nodes
	Pool        func() *gpu.Pool     // the present one: RescanGPUs replaces it
	Inventory   func() gpu.Inventory // that of Pool
	Clock       *clock.Clock
	Now         func() time.Time // wall clock
}

// API answers the requests of the control socket. It may be used concurrently.
type API struct{ config Config }

// New returns the API of a host.
func New(config Config) *API { return &API{config} }

// Routes is an *echo.Echo or an *echo.Group.
type Routes interface {
	Add(method, path string, handler echo.HandlerFunc, middleware ...echo.MiddlewareFunc) *echo.Route
}

// proofKey is the key of a people.Proof in a context.
type proofKey struct{}

// WithProof returns a context for a request that a person makes, instead of the user at the other end of the control socket.
func WithProof(ctx context.Context, proof people.Proof) context.Context {
	return context.WithValue(ctx, proofKey{}, proof)
}

// proofOf returns the Proof of WithProof; false for a request at the control socket, which has all rights.
func proofOf(ctx context.Context) (people.Proof, bool) {
	proof, ok := ctx.Value(proofKey{}).(people.Proof)
	return proof, ok
}

// Actor returns the identity of the person from WithProof, "" without one. The ledger and the log name it.
func Actor(ctx context.Context) string {
	if proof, ok := proofOf(ctx); ok {
		return proof.Who.Key()
	}
	return ""
}

// Register mounts all routes. Only the control socket may have them, because every client is an operator.
func (a *API) Register(e Routes) {
	a.RegisterAdmin(e)
	Stream(e, WatchLeases, a.watchLeases) // the console has a stream that ends with the bearer
	mount(e, FaultGPU, http.StatusOK, a.faultGPU)
	handle(e, CreateLoginLink, http.StatusOK, a.createLoginLink)
	mount(e, AdvanceClock, http.StatusOK, a.advanceClock)
}

// RegisterAdmin mounts the routes of a person with admin rights (package dashboard). Simulated faults and time, and links that sign
// in the user of `run`, belong to the machine's own user.
func (a *API) RegisterAdmin(e Routes) {
	handle(e, ShowHealth, http.StatusOK, a.showHealth)
	handle(e, ShowHost, http.StatusOK, a.showHost)
	handle(e, ShowSettings, http.StatusOK, a.showSettings)
	handle(e, PreviewReload, http.StatusOK, a.previewReload)
	handle(e, Reload, http.StatusOK, a.reload)
	handle(e, RunDoctor, http.StatusOK, a.runDoctor)
	handle(e, MeasureState, http.StatusOK, a.measureState)
	handle(e, ShowSpace, http.StatusOK, a.showSpace)
	handle(e, ReadLog, http.StatusOK, a.readLog)
	handle(e, RestartSpace, http.StatusAccepted, a.restartSpace)
	handle(e, PauseSpace, http.StatusAccepted, a.pauseSpace)
	handle(e, ResumeSpace, http.StatusAccepted, a.resumeSpace)
	handle(e, MoveSpace, http.StatusAccepted, a.moveSpace)
	Stream(e, RebuildSpace, a.rebuildSpace)
	handle(e, Prune, http.StatusOK, a.prune)
	handle(e, ListDenials, http.StatusOK, a.listDenials)
	handle(e, ChangeDelegation, http.StatusOK, a.changeDelegation)

	handle(e, ListGPUs, http.StatusOK, a.listGPUs)
	mount(e, DrainGPU, http.StatusOK, a.drainGPU)
	mount(e, ReturnGPU, http.StatusOK, a.returnGPU)
	mount(e, RescanGPUs, http.StatusOK, a.rescanGPUs)
	a.registerNodes(e)
	handle(e, ListLeases, http.StatusOK, a.listLeases)
	handle(e, EndLease, http.StatusOK, a.endLease)
	mount(e, ShowTimeline, http.StatusOK, a.showTimeline, middleware.GzipWithConfig(middleware.GzipConfig{MinLength: 1 << 10}))
	handle(e, ShowUsage, http.StatusOK, a.showUsage)

	handle(e, ListBalances, http.StatusOK, a.listBalances)
	handle(e, ShowAccount, http.StatusOK, a.showAccount)
	handle(e, ShowLedger, http.StatusOK, a.showLedger)
	handle(e, ExplainAccount, http.StatusOK, a.explainAccount)
	handle(e, GrantSeconds, http.StatusOK, a.grantSeconds)
	handle(e, ResetAccount, http.StatusOK, a.resetAccount)
	handle(e, CreditAccount, http.StatusOK, a.creditAccount)

	handle(e, ListTiers, http.StatusOK, a.listTiers)
	handle(e, ListPeople, http.StatusOK, a.listPeople)
	handle(e, AddPerson, http.StatusCreated, a.addPerson)
	handle(e, SetTier, http.StatusOK, a.setTier)
	handle(e, ChangePerson, http.StatusOK, a.changePerson)
	handle(e, RemovePerson, http.StatusOK, a.removePerson)
	handle(e, ListTokens, http.StatusOK, a.listTokens)
	handle(e, ListTokensOf, http.StatusOK, a.listTokens)
	handle(e, CreateToken, http.StatusCreated, a.createToken)
	handle(e, RevokeToken, http.StatusOK, a.revokeToken)

	handle(e, ListAudit, http.StatusOK, a.listAudit)

	handle(e, ListWebhooks, http.StatusOK, a.listWebhooks)
	handle(e, TestWebhooks, http.StatusOK, a.testWebhooks)

	handle(e, ShowClock, http.StatusOK, a.showClock)
}

// Handle mounts an Endpoint at e. A body with an unknown field is refused, because it is usually a typo. status is that of a
// successful answer. A mistake in a request is answered as views.Refuse does. middleware runs before the body is read.
func Handle[Body, Answer any](e Routes, at Endpoint[Body, Answer], status int, do func(echo.Context, Body) (Answer, error), middleware ...echo.MiddlewareFunc) {
	mount(e, at, status, func(c echo.Context) error {
		var body Body
		if _, none := any(body).(NoBody); !none {
			var err error
			if body, err = views.Read[Body](c); err != nil {
				return views.Refuse(c, err)
			}
		}
		answer, err := do(c, body)
		return views.Answer(c, status, answer, err)
	}, middleware...)
}

func handle[Body, Answer any](e Routes, at Endpoint[Body, Answer], status int, do func(echo.Context, Body) (Answer, error)) {
	Handle(e, at, status, do)
}

// mount mounts an Endpoint whose handler reads the body and sends the answer itself.
func mount[Body, Answer any](e Routes, at Endpoint[Body, Answer], status int, do echo.HandlerFunc, middleware ...echo.MiddlewareFunc) {
	e.Add(at.Method, at.Path, do, middleware...)
	if r, ok := e.(*Recorder); ok {
		r.Last().Body, r.Last().Answer, r.Last().Status = typeOf[Body](), typeOf[Answer](), status
	}
}

// Stream mounts an Endpoint that answers with Server-Sent Events. Without events, each event is unnamed and an Answer.
func Stream[Body, Answer any](e Routes, at Endpoint[Body, Answer], do echo.HandlerFunc, events ...Event) {
	mount(e, at, http.StatusOK, do)
	if r, ok := e.(*Recorder); ok {
		if len(events) == 0 {
			events = []Event{{Type: typeOf[Answer]()}}
		}
		r.Last().Answer, r.Last().Events = nil, events
	}
}

// bind is views.Read with another error: an *echo.HTTPError that shows the expected JSON.
func bind[Body any](c echo.Context, expected string) (body Body, err error) {
	if body, err = views.Read[Body](c); err != nil {
		return body, notUnderstood(expected)
	}
	return body, nil
}

func notUnderstood(expected string) error {
	return echo.NewHTTPError(http.StatusBadRequest, "the request is not understood; send "+expected)
}
