package console

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/quota"
)

// AccountsConfig is what Accounts need. All fields are required.
type AccountsConfig struct {
	Ledger   *quota.Ledger
	Refusals *quota.Refusals
	Broker   *lease.Broker
	People   *people.Store
	// TierOf returns the tier that an account has now.
	TierOf func(context.Context, identity.Identity) (quota.Tier, error)
	// Functions are those of the Spaces that viewer may see; of all, for the operator: nil.
	Functions func(viewer *identity.Identity) []Function
	// Spaces are the names of those that viewer may see; of all, for the operator: nil.
	Spaces func(viewer *identity.Identity) []string
	// CheckVia refuses a payer on whose behalf Payer.Via may not spend: *people.DelegationDeniedError.
	CheckVia func(payer identity.Identity) error
	// Reader says who asks at the console address, and so whose account is shown there.
	Reader func(*http.Request) (identity.Identity, error)
	// By says who asks over the socket, for the ledger.
	By  func(echo.Context) string
	Now func() time.Time // wall clock
}

// Accounts show where somebody stands, and why. At the console address everybody reads their own account with their
// own token; over the CLI's socket the operator reads any, grants and resets.
type Accounts struct{ config AccountsConfig }

// NewAccounts returns the Accounts of a host.
func NewAccounts(config AccountsConfig) *Accounts { return &Accounts{config} }

// RegisterOwn mounts what the console address answers: nothing but GETs.
func (a *Accounts) RegisterOwn(e *echo.Echo) {
	e.GET("/api/spacehost/quota", a.own(a.account))
	e.GET("/api/spacehost/ledger", a.own(a.ledger))
	e.GET("/api/spacehost/explain", a.own(a.explain))
}

// RegisterControl mounts what the CLI asks over its socket.
func (a *Accounts) RegisterControl(e *echo.Echo) {
	e.GET("/account", a.anybodys(a.account))
	e.GET("/ledger", a.anybodys(a.ledger))
	e.GET("/explain", a.anybodys(a.explain))
	e.POST("/grant", a.adjust(a.config.Ledger.Grant))
	e.POST("/reset", a.adjust(a.config.Ledger.Reset))
}

// Function is a @spaces.GPU function of a Space.
type Function struct {
	Space, Name, Size string
	Declared          time.Duration // 0: each call says its own, and none has yet
	From              string        // where Declared is from: FromDecorator or FromCall
}

// Where a function's duration is from.
const (
	FromDecorator = "decorator"
	FromCall      = "last call" // a duration that each call says for itself, or that `spaces` has multiplied
)

// Account is where somebody stands. Times that are left are exact to the millisecond.
type Account struct {
	Identity       string  `json:"identity"`
	Tier           string  `json:"tier"`
	Unlimited      bool    `json:"unlimited"`
	BaseSeconds    float64 `json:"baseSeconds"`    // in all, with what was granted
	GrantedSeconds float64 `json:"grantedSeconds"` // by the operator, until the reset
	ChargedSeconds float64 `json:"chargedSeconds"`
	HeldSeconds    float64 `json:"heldSeconds"` // by calls that wait or run
	LeftSeconds    float64 `json:"leftSeconds"`
	LeftMinutes    float64 `json:"leftMinutes"`
	LongestSeconds float64 `json:"longestSeconds"` // that one call may ask for
	Priority       int     `json:"priority"`
	Concurrency    int     `json:"concurrency"` // 0: any number

	Now       time.Time  `json:"now"`
	OpenedAt  *time.Time `json:"openedAt"` // null before the first use
	ResetsAt  *time.Time `json:"resetsAt"`
	ResetsIn  string     `json:"resetsIn,omitempty"` // as 23:59:59
	Functions []Fit      `json:"functions"`
	Open      []Open     `json:"open"`    // what HeldSeconds are held by
	Charges   []Charge   `json:"charges"` // the last, newest first
}

// Fit is how often a function can still be called.
type Fit struct {
	Space           string  `json:"space"`
	Function        string  `json:"function"`
	Size            string  `json:"size"`
	DeclaredSeconds float64 `json:"declaredSeconds"` // 0: each call says its own, and none has yet
	From            string  `json:"from,omitempty"`
	CostSeconds     float64 `json:"costSeconds"` // of quota, if it uses all that it declares
	Calls           *int    `json:"calls"`       // null: not known, or no limit
}

// Open is a call that waits or runs.
type Open struct {
	Lease       string     `json:"lease"`
	State       string     `json:"state"`
	Space       string     `json:"space"`
	Function    string     `json:"function,omitempty"`
	Via         string     `json:"via,omitempty"`
	HeldSeconds float64    `json:"heldSeconds"`
	Deadline    *time.Time `json:"deadline,omitempty"` // what is not used is back by then

	*lease.Forecast // while it waits
}

// Charge is a call that has ended.
type Charge struct {
	At              time.Time `json:"at"`
	Lease           string    `json:"lease"`
	Space           string    `json:"space"`
	Function        string    `json:"function,omitempty"`
	Via             string    `json:"via,omitempty"`
	Factor          int       `json:"factor"` // seconds of quota for a second: 2 for xlarge
	DeclaredSeconds float64   `json:"declaredSeconds"`
	UsedSeconds     float64   `json:"usedSeconds"`
	ChargedSeconds  float64   `json:"chargedSeconds"`
	Reason          string    `json:"reason"`
}

// subject is whose account a question is about.
type subject struct {
	identity.Identity
	viewer *identity.Identity // nil: the operator
}

type answerer func(c echo.Context, of subject) (any, error)

// own answers about the account of whoever asks.
func (a *Accounts) own(answer answerer) echo.HandlerFunc {
	return func(c echo.Context) error {
		who, err := a.config.Reader(c.Request())
		var unknown *people.UnknownTokenError
		if errors.As(err, &unknown) {
			return c.JSON(http.StatusUnauthorized, map[string]string{"detail": unknown.Error()})
		}
		if err != nil {
			return err
		}
		return respond(c, answer, subject{who, &who})
	}
}

// anybodys answers about the account that the question names.
func (a *Accounts) anybodys(answer answerer) echo.HandlerFunc {
	return func(c echo.Context) error {
		who, err := a.find(c.Request().Context(), c.QueryParam("identity"))
		if err != nil {
			return refuse(c, err)
		}
		return respond(c, answer, subject{Identity: who})
	}
}

func respond(c echo.Context, answer answerer, of subject) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	said, err := answer(c, of)
	if err != nil {
		return refuse(c, err)
	}
	return c.JSON(http.StatusOK, said)
}

// find is whom an operator means: local, ada, user:ada, 203.0.113.7, ip:203.0.113.7, space:demo. Errors: *requestError,
// *people.UnknownPersonError.
func (a *Accounts) find(ctx context.Context, text string) (identity.Identity, error) {
	for _, kind := range []string{"", "ip:", "user:"} {
		who, err := identity.ParseKey(kind + text)
		if err != nil {
			continue
		}
		if who.Kind == identity.User {
			_, err = a.config.People.Get(ctx, who.Name)
		}
		return who, err
	}
	return identity.Identity{}, &requestError{fmt.Errorf("%.70q is nobody's account: say local, a person's name, an address, or space:NAME", text)}
}

func (a *Accounts) account(c echo.Context, of subject) (any, error) {
	view, _, err := a.view(c, of)
	return view, err
}

func (a *Accounts) view(c echo.Context, of subject) (Account, quota.Tier, error) {
	ctx, now := c.Request().Context(), a.config.Now()
	tier, err := a.config.TierOf(ctx, of.Identity)
	if err != nil {
		return Account{}, tier, err
	}
	b, err := a.config.Ledger.Balance(ctx, of.Key(), tier, now)
	if err != nil {
		return Account{}, tier, err
	}
	entries, err := a.config.Ledger.Entries(ctx, of.Key(), 4*shownCharges)
	if err != nil {
		return Account{}, tier, err
	}
	view := Account{
		Identity: of.Key(), Tier: tier.Name, Unlimited: b.Unlimited, BaseSeconds: b.Base.Seconds(), GrantedSeconds: b.Granted.Seconds(),
		ChargedSeconds: b.Charged.Seconds(), HeldSeconds: b.Held.Seconds(), LeftSeconds: b.Left.Seconds(), LeftMinutes: b.Left.Minutes(),
		LongestSeconds: tier.LongestCall().Seconds(), Priority: tier.Priority, Concurrency: tier.Concurrency,
		Now: now.UTC(), Functions: each(a.functions(c, of), func(f Function) Fit { return fit(f, b, tier) }),
		Open: a.open(of.Key()), Charges: charges(entries),
	}
	if b.ResetsAt != nil {
		opened, at := b.Opened.UTC(), b.ResetsAt.UTC()
		view.OpenedAt, view.ResetsAt, view.ResetsIn = &opened, &at, Countdown(at.Sub(now))
	}
	return view, tier, nil
}

// Countdown is a time that is left, as 23:59:59: from a second to a window's length, wherever the clock has jumped.
func Countdown(left time.Duration) string {
	seconds := int(math.Ceil(min(max(left, time.Second), quota.Span).Seconds()))
	return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
}

// functions are those that the question asks for by space and function; each may be left out.
func (a *Accounts) functions(c echo.Context, of subject) (found []Function) {
	space, name := c.QueryParam("space"), c.QueryParam("function")
	for _, f := range a.config.Functions(of.viewer) {
		if (space == "" || f.Space == space) && (name == "" || f.Name == name) {
			found = append(found, f)
		}
	}
	return found
}

func fit(f Function, b quota.Balance, tier quota.Tier) Fit {
	cost := f.Declared * time.Duration(quota.Factor(f.Size))
	view := Fit{
		Space: f.Space, Function: f.Name, Size: f.Size, DeclaredSeconds: f.Declared.Seconds(), From: f.From, CostSeconds: cost.Seconds(),
	}
	if cost > 0 && !b.Unlimited {
		calls := int(b.Left / cost)
		if cost > tier.LongestCall() {
			calls = 0
		}
		view.Calls = &calls
	}
	return view
}

func (a *Accounts) open(key string) []Open {
	found := []Open{}
	for _, l := range a.config.Broker.List() {
		if l.Identity == key {
			found = append(found, Open{
				Lease: l.Lease, State: string(l.State), Space: l.Space, Function: l.Function, Via: l.Via, Forecast: l.Forecast, Deadline: l.Deadline,
				HeldSeconds: l.DeclaredSeconds * float64(quota.Factor(l.Size)),
			})
		}
	}
	return found
}

// shownCharges is how many the account itself shows; the ledger has all.
const shownCharges = 10

func charges(entries []quota.Entry) []Charge {
	shown := []Charge{}
	for _, e := range entries {
		if e.Kind == quota.KindSettle && len(shown) < shownCharges {
			shown = append(shown, Charge{
				At: e.At.UTC(), Lease: short(e.Lease), Space: e.Space, Function: e.Task, Via: e.Via, Factor: e.Factor,
				DeclaredSeconds: e.Declared().Seconds(), UsedSeconds: e.Used().Seconds(), ChargedSeconds: e.Charged.Seconds(), Reason: e.Reason,
			})
		}
	}
	return shown
}

// Entry is one line of the ledger in seconds.
type Entry struct {
	ID              int64     `json:"id"`
	At              time.Time `json:"at"`
	Identity        string    `json:"identity"`
	Lease           string    `json:"lease,omitempty"`
	Kind            string    `json:"kind"`
	Space           string    `json:"space,omitempty"`
	Function        string    `json:"function,omitempty"`
	Via             string    `json:"via,omitempty"` // the Space that spent it through Space
	Factor          int       `json:"factor"`        // seconds of quota for a second of the lease
	DeclaredSeconds float64   `json:"declaredSeconds"`
	UsedSeconds     float64   `json:"usedSeconds"`
	HeldSeconds     float64   `json:"heldSeconds"`
	ChargedSeconds  float64   `json:"chargedSeconds"`
	ReturnedSeconds float64   `json:"returnedSeconds"`
	Reason          string    `json:"reason,omitempty"`
	By              string    `json:"by,omitempty"`
}

func (a *Accounts) ledger(c echo.Context, of subject) (any, error) {
	limit, err := limitOf(c, 50)
	if err != nil {
		return nil, err
	}
	entries, err := a.config.Ledger.Entries(c.Request().Context(), of.Key(), limit)
	return each(entries, entryView), err
}

func entryView(e quota.Entry) Entry {
	return Entry{
		ID: e.ID, At: e.At.UTC(), Identity: e.Identity, Lease: short(e.Lease), Kind: string(e.Kind), Space: e.Space, Function: e.Task, Via: e.Via,
		Factor: e.Factor, DeclaredSeconds: e.Declared().Seconds(), UsedSeconds: e.Used().Seconds(),
		HeldSeconds: e.Held.Seconds(), ChargedSeconds: e.Charged.Seconds(), ReturnedSeconds: e.Returned.Seconds(), Reason: e.Reason, By: e.By,
	}
}

// NewAdjustment asks for a grant or a reset; a reset has no seconds.
type NewAdjustment struct {
	Identity string  `json:"identity"`
	Seconds  float64 `json:"seconds,omitempty"`
	Reason   string  `json:"reason,omitempty"`
}

// maxReason bounds what an operator says in the ledger, or of a Device.
const maxReason = 200

// adjust makes a line of the ledger, and answers with the account as it is now.
func (a *Accounts) adjust(do func(context.Context, quota.Adjustment) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		asked, err := read[NewAdjustment](c)
		if err == nil {
			err = asked.check()
		}
		if err != nil {
			return refuse(c, err)
		}
		ctx := c.Request().Context()
		who, err := a.find(ctx, asked.Identity)
		if err != nil {
			return refuse(c, err)
		}
		tier, err := a.config.TierOf(ctx, who)
		if err != nil {
			return refuse(c, err)
		}
		if tier.Unlimited {
			return refuse(c, &requestError{fmt.Errorf("%s has no limit, as %q: there is nothing to grant or to give back", who, tier.Name)})
		}
		err = do(ctx, quota.Adjustment{
			Identity: who.Key(), Amount: time.Duration(asked.Seconds * float64(time.Second)), Reason: asked.Reason, By: a.config.By(c),
		})
		var nonsense *quota.AdjustmentError
		if errors.As(err, &nonsense) {
			err = &requestError{err}
		}
		if err != nil {
			return refuse(c, err)
		}
		return respond(c, a.account, subject{Identity: who})
	}
}

func (n NewAdjustment) check() error {
	if math.IsNaN(n.Seconds) || math.Abs(n.Seconds) > quota.MostGrant.Seconds() {
		return &requestError{fmt.Errorf("%g s cannot be granted: give from 1s to %v", n.Seconds, quota.MostGrant)}
	}
	return checkReason(n.Reason)
}

// checkReason refuses what would break a line of a table.
func checkReason(text string) error {
	if len(text) > maxReason || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return &requestError{fmt.Errorf("the reason must be at most %d bytes of text that can be printed", maxReason)}
	}
	return nil
}
