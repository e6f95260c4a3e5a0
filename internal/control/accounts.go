package control

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/views"
	"spacehost/quota"
)

// The accounts of payers. AccountQuery is the query of the three that show one account.
var (
	ListBalances   = Endpoint[NoBody, []Balance]{http.MethodGet, "/quota"}
	ShowAccount    = Endpoint[NoBody, views.Account]{http.MethodGet, "/account"}
	ShowLedger     = Endpoint[NoBody, []views.Entry]{http.MethodGet, "/ledger"}
	ExplainAccount = Endpoint[NoBody, views.Explanation]{http.MethodGet, "/explain"}
	GrantSeconds   = Endpoint[AdjustmentRequest, views.Account]{http.MethodPost, "/grant"}
	ResetAccount   = Endpoint[AdjustmentRequest, views.Account]{http.MethodPost, "/reset"}
	CreditAccount  = Endpoint[AdjustmentRequest, views.Account]{http.MethodPost, "/credit"}
)

// AccountQuery names an account as an operator writes it (see views.Accounts.Find), and narrows what is shown of it.
func AccountQuery(account string, q views.Query) url.Values {
	values := q.Values()
	values.Set("identity", account)
	return values
}

// Balance is one account in a list of all.
type Balance struct {
	Identity       string     `json:"identity"`
	Tier           string     `json:"tier"`
	Unlimited      bool       `json:"unlimited"`
	BaseSeconds    float64    `json:"baseSeconds"`
	ChargedSeconds float64    `json:"chargedSeconds"`
	HeldSeconds    float64    `json:"heldSeconds"`
	LeftSeconds    float64    `json:"leftSeconds"`
	ResetsAt       *time.Time `json:"resetsAt"`

	CreditSeconds     float64     `json:"creditSeconds"`
	CreditHeldSeconds float64     `json:"creditHeldSeconds"`
	Runs              *views.Runs `json:"runs,omitempty"` // absent without a limit
}

// AdjustmentRequest asks for a grant, a reset or a credit. A reset has no Seconds, and only a grant has Runs.
type AdjustmentRequest struct {
	Identity string  `json:"identity"`
	Seconds  float64 `json:"seconds,omitempty"`
	Runs     int     `json:"runs,omitempty"`
	Reason   string  `json:"reason,omitempty"`
}

func (a *API) listBalances(c echo.Context, _ NoBody) ([]Balance, error) {
	ctx := c.Request().Context()
	list, err := a.config.Ledger.List(ctx, a.config.Now())
	if err != nil {
		return nil, err
	}
	all := []Balance{}
	for _, b := range list {
		view, err := a.balanceView(ctx, b)
		if err != nil {
			return nil, err
		}
		all = append(all, view)
	}
	return all, nil
}

func (a *API) balanceView(ctx context.Context, b quota.Balance) (Balance, error) {
	payer, err := identity.ParseKey(b.Identity)
	if err != nil {
		return Balance{}, err
	}
	tier, err := a.config.Payers.CurrentAllowance(ctx, payer)
	if err != nil {
		return Balance{}, err
	}
	b = b.For(tier)
	view := Balance{
		Identity: b.Identity, Tier: tier.Name, Unlimited: b.Unlimited, BaseSeconds: b.Base.Seconds(),
		ChargedSeconds: b.Charged.Seconds(), HeldSeconds: b.Held.Seconds(), LeftSeconds: b.Left.Seconds(),
		CreditSeconds: b.Credits.Seconds(), CreditHeldSeconds: b.CreditHeld.Seconds(),
	}
	runs, err := a.config.Ledger.Runs(ctx, b.Identity, tier, a.config.Now())
	if err != nil {
		return Balance{}, err
	}
	view.Runs = views.NewRuns(runs, a.config.Now())
	if b.ResetsAt != nil {
		at := b.ResetsAt.UTC()
		view.ResetsAt = &at
	}
	return view, nil
}

// subject finds the account that the query names.
func (a *API) subject(c echo.Context) (views.Subject, error) {
	found, err := a.config.Accounts.Find(c.Request().Context(), c.QueryParam("identity"))
	if err == nil {
		c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	}
	return views.Subject{Identity: found}, err
}

func (a *API) showAccount(c echo.Context, _ NoBody) (views.Account, error) {
	of, err := a.subject(c)
	if err != nil {
		return views.Account{}, err
	}
	return a.config.Accounts.Account(c.Request().Context(), of, views.ParseQuery(c.QueryParams()))
}

func (a *API) showLedger(c echo.Context, _ NoBody) ([]views.Entry, error) {
	of, err := a.subject(c)
	if err != nil {
		return nil, err
	}
	return a.config.Accounts.Ledger(c.Request().Context(), of, views.ParseQuery(c.QueryParams()))
}

func (a *API) explainAccount(c echo.Context, _ NoBody) (views.Explanation, error) {
	of, err := a.subject(c)
	if err != nil {
		return views.Explanation{}, err
	}
	return a.config.Accounts.Explain(c.Request().Context(), of, views.ParseQuery(c.QueryParams()))
}

func (a *API) grantSeconds(c echo.Context, r AdjustmentRequest) (views.Account, error) {
	return a.adjust(c, r, a.config.Ledger.Grant)
}

func (a *API) creditAccount(c echo.Context, r AdjustmentRequest) (views.Account, error) {
	return a.adjust(c, r, a.config.Ledger.Credit)
}

func (a *API) resetAccount(c echo.Context, r AdjustmentRequest) (views.Account, error) {
	return a.adjust(c, r, a.config.Ledger.Reset)
}

// adjust writes a line of the ledger and returns the account after it.
func (a *API) adjust(c echo.Context, r AdjustmentRequest, write func(context.Context, quota.Adjustment) error) (views.Account, error) {
	if err := r.check(); err != nil {
		return views.Account{}, err
	}
	ctx := c.Request().Context()
	account, err := a.config.Accounts.Find(ctx, r.Identity)
	if err != nil {
		return views.Account{}, err
	}
	tier, err := a.config.Payers.CurrentAllowance(ctx, account)
	if err != nil {
		return views.Account{}, err
	}
	if tier.Unlimited && tier.Runs == 0 {
		return views.Account{}, views.BadRequest("%s has no limit at tier %q: there is nothing to grant or to reset", account, tier.Name)
	}
	err = write(ctx, quota.Adjustment{
		Identity: account.Key(), Amount: time.Duration(r.Seconds * float64(time.Second)), Runs: r.Runs, Reason: r.Reason, By: a.config.Host.Operator(ctx),
	})
	var invalid *quota.AdjustmentError
	if errors.As(err, &invalid) {
		err = &views.RequestError{Err: err}
	}
	if err != nil {
		return views.Account{}, err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return a.config.Accounts.Account(ctx, views.Subject{Identity: account}, views.ParseQuery(c.QueryParams()))
}

func (r AdjustmentRequest) check() error {
	if math.IsNaN(r.Seconds) || math.Abs(r.Seconds) > quota.MostGrant.Seconds() {
		return views.BadRequest("cannot grant %g s; give from 1s to %v", r.Seconds, quota.MostGrant)
	}
	return checkReason(r.Reason)
}
