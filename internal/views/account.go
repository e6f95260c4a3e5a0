package views

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/quota"
)

// Payers is the part of the host that knows payers. Its methods may read the database, and are called concurrently.
type Payers interface {
	// CurrentAllowance returns the tier that an account has now, with the person's own overrides.
	CurrentAllowance(ctx context.Context, account identity.Identity) (quota.Tier, error)
	// CheckDelegation refuses a payer on whose behalf the Space payer.Via may not spend: *people.DelegationDeniedError.
	CheckDelegation(payer identity.Identity) error
}

// Spaces is the part of the host that knows its Spaces. Its methods do not block, and are called concurrently. A nil
// viewer is the operator, who sees all Spaces.
type Spaces interface {
	// SpaceNames returns the names of the Spaces that viewer may see.
	SpaceNames(viewer *identity.Identity) []string
	// Functions returns the GPU functions of these Spaces.
	Functions(viewer *identity.Identity) []Function
	// WaitsForNode returns why no machine may run a Space now, for the operator; "" if it does not wait for one.
	WaitsForNode(space string) (why string)
}

// AccountsConfig is what Accounts needs. All fields are required.
type AccountsConfig struct {
	Ledger   *quota.Ledger
	Refusals *quota.Refusals
	Broker   *lease.Broker
	People   *people.Store
	Payers   Payers
	Spaces   Spaces
	Advisor  func() Advisor   // its tier may change
	Now      func() time.Time // wall clock
}

// Accounts reads the views of one account. It changes nothing, and may be used concurrently.
type Accounts struct{ config AccountsConfig }

// NewAccounts returns the Accounts of a host.
func NewAccounts(config AccountsConfig) *Accounts { return &Accounts{config} }

// Subject is the account that a request is about.
type Subject struct {
	identity.Identity
	Viewer *identity.Identity // nil: the operator
	Limit  people.SpaceLimit  // the Spaces to which the token of the request is limited
}

// shows reports whether the request may read what belongs to a Space; "": to the account as a whole, such as a grant.
func (of Subject) shows(space string) bool { return space == "" || of.Limit.Allows(space) }

// Query narrows a request about an account. Each field is a query parameter; "" is one that was not given.
type Query struct {
	Space, Function    string
	Seconds, Size, Via string // of an Explanation: a call that declares this duration and size, made on the payer's behalf by Via
	Limit              string // of a ledger: rows

	Kind, From, To string // of a ledger: the kind of its lines, and times (RFC 3339; To is excluded). From and To also of Advice
	Before         string // of a ledger: only lines with a smaller ID, for the page after those that were read
}

// fields are the query parameters by name.
func (q *Query) fields() map[string]*string {
	return map[string]*string{
		"space": &q.Space, "function": &q.Function, "seconds": &q.Seconds, "size": &q.Size, "via": &q.Via, "limit": &q.Limit,
		"kind": &q.Kind, "from": &q.From, "to": &q.To, "before": &q.Before,
	}
}

// ParseQuery reads the Query of a request.
func ParseQuery(values url.Values) (q Query) {
	for name, field := range q.fields() {
		*field = values.Get(name)
	}
	return q
}

// Values returns the query parameters that ParseQuery reads.
func (q Query) Values() url.Values {
	values := url.Values{}
	for name, field := range q.fields() {
		if *field != "" {
			values.Set(name, *field)
		}
	}
	return values
}

// Function is a @spaces.GPU function of a Space.
type Function struct {
	Space, Name, Size string
	Declared          time.Duration // 0: each call declares its own duration, and no call was made yet
	From              string        // source of Declared: FromDecorator or FromCall
	Unresponsive      bool          // the Space does not answer, so its calls wait
}

// Sources of a function's duration.
const (
	FromDecorator = "decorator"
	FromCall      = "last call" // a duration that each call declares, or that `spaces` has multiplied
)

// Account shows what a payer has used and has left. Remaining times are exact to the millisecond.
type Account struct {
	Identity       string  `json:"identity"`
	Tier           string  `json:"tier"`
	Unlimited      bool    `json:"unlimited"`
	BaseSeconds    float64 `json:"baseSeconds"`    // total of the window, grants included
	GrantedSeconds float64 `json:"grantedSeconds"` // granted by the operator, until the reset
	ChargedSeconds float64 `json:"chargedSeconds"`
	HeldSeconds    float64 `json:"heldSeconds"` // reserved by waiting and running calls
	LeftSeconds    float64 `json:"leftSeconds"`
	LeftMinutes    float64 `json:"leftMinutes"`
	LongestSeconds float64 `json:"longestSeconds"` // maximum of one call
	Priority       int     `json:"priority"`
	Concurrency    int     `json:"concurrency"` // 0: no limit

	CreditSeconds        float64 `json:"creditSeconds"`        // prepaid by the operator's credits, used after the quota
	CreditHeldSeconds    float64 `json:"creditHeldSeconds"`    // the part that waiting and running calls reserve
	CreditChargedSeconds float64 `json:"creditChargedSeconds"` // in this window
	Runs                 *Runs   `json:"runs,omitempty"`       // absent without a limit

	Now       time.Time  `json:"now"`
	OpenedAt  *time.Time `json:"openedAt"` // null before the first use
	ResetsAt  *time.Time `json:"resetsAt"`
	ResetsIn  string     `json:"resetsIn,omitempty"` // such as 23:59:59
	Functions []Fit      `json:"functions"`
	Open      []Open     `json:"open"`    // the calls that reserve HeldSeconds
	Charges   []Charge   `json:"charges"` // the latest, newest first
	Advice    []Advice   `json:"advice"`  // about functions with calls in the last 24 hours: of all accounts for the operator, otherwise of this one
	// Maintenance is not empty while operators have drained every GPU.
	Maintenance string `json:"maintenance,omitempty"`
}

// NextReturn is the time until seconds or a run return; without such a time, or after it, it is far away.
func (a Account) NextReturn() time.Duration {
	next := time.Duration(math.MaxInt64)
	ends := []*time.Time{a.ResetsAt}
	if a.Runs != nil {
		ends = append(ends, a.Runs.ResetsAt)
	}
	for _, end := range ends {
		if end != nil && end.After(a.Now) {
			next = min(next, end.Sub(a.Now))
		}
	}
	return next
}

// WithoutMoment returns the account without what only the passing of time changes.
func (a Account) WithoutMoment() Account {
	a.Now, a.ResetsIn = time.Time{}, ""
	if a.Runs != nil {
		runs := *a.Runs
		runs.ResetsIn = ""
		a.Runs = &runs
	}
	return a
}

// Runs shows the GPU calls that count against the limit of an account. Each returns exactly 24 hours after it was counted.
type Runs struct {
	Used      int        `json:"used"`
	Reserved  int        `json:"reserved"` // by calls that wait for a GPU
	Limit     int        `json:"limit"`
	Granted   int        `json:"granted"` // the part of Limit that was granted by the operator
	Remaining int        `json:"remaining"`
	ResetsAt  *time.Time `json:"resetsAt"` // when the oldest run returns; null without one
	ResetsIn  string     `json:"resetsIn,omitempty"`
	Enforced  bool       `json:"enforced"` // false under `run` without --tier: no call is refused
}

// NewRuns returns the view of r, or nil without a limit.
func NewRuns(r *quota.Runs, now time.Time) *Runs {
	if r == nil {
		return nil
	}
	view := &Runs{
		Used: r.Used, Reserved: r.Reserved, Limit: r.Limit, Granted: r.Granted, Remaining: r.Left(), ResetsAt: r.ResetsAt, Enforced: !r.Advisory,
	}
	if r.ResetsAt != nil {
		view.ResetsIn = Countdown(r.ResetsAt.Sub(now))
	}
	return view
}

// Fit shows how many calls of a function still fit into the quota.
type Fit struct {
	Space           string  `json:"space"`
	Function        string  `json:"function"`
	Size            string  `json:"size"`
	DeclaredSeconds float64 `json:"declaredSeconds"` // 0: each call declares its own duration, and no call was made yet
	From            string  `json:"from,omitempty"`
	CostSeconds     float64 `json:"costSeconds"` // quota seconds of a call that uses its whole declared duration
	Calls           *int    `json:"calls"`       // that fit at the same time; null: unknown, or no limit
	// CallsInTurn is how many calls fit one after another, if each uses UsedSeconds. Null: unknown, or no limit. From quota.MostInTurn
	// on, more may fit.
	CallsInTurn *int     `json:"callsInTurn"`
	UsedSeconds *float64 `json:"usedSeconds"` // the average of the last 24 hours, as in Advice; null without calls
}

// Open is a waiting or running call.
type Open struct {
	Lease       string     `json:"lease"`
	State       string     `json:"state"`
	Space       string     `json:"space"`
	Function    string     `json:"function,omitempty"`
	Via         string     `json:"via,omitempty"`
	HeldSeconds float64    `json:"heldSeconds"`
	Deadline    *time.Time `json:"deadline,omitempty"` // unused seconds are returned by then

	*lease.Forecast // while it waits
}

// Charge is a call that has ended.
type Charge struct {
	At              time.Time `json:"at"`
	Lease           string    `json:"lease"`
	Space           string    `json:"space"`
	Function        string    `json:"function,omitempty"`
	Via             string    `json:"via,omitempty"`
	Factor          int       `json:"factor"` // quota seconds per second: 2 for xlarge
	DeclaredSeconds float64   `json:"declaredSeconds"`
	UsedSeconds     float64   `json:"usedSeconds"`
	ChargedSeconds  float64   `json:"chargedSeconds"`
	Reason          string    `json:"reason"`
}

// Find parses the name of an account as an operator writes it: local, ada, user:ada, 203.0.113.7, ip:203.0.113.7,
// space:demo. Errors: *RequestError, *people.UnknownPersonError.
func (a *Accounts) Find(ctx context.Context, text string) (identity.Identity, error) {
	for _, prefix := range []string{"", "ip:", "user:"} {
		found, err := identity.ParseKey(prefix + text)
		if err != nil {
			continue
		}
		if found.Kind == identity.User {
			_, err = a.config.People.Get(ctx, found.Name)
		}
		return found, err
	}
	return identity.Identity{}, BadRequest("%.70q is not an account; give local, a person's name, an address, or space:NAME", text)
}

// Account returns the account of a subject. Errors: *people.UnknownPersonError, or of the database.
func (a *Accounts) Account(ctx context.Context, of Subject, q Query) (Account, error) {
	view, _, err := a.withTier(ctx, of, q)
	return view, err
}

func (a *Accounts) withTier(ctx context.Context, of Subject, q Query) (Account, quota.Tier, error) {
	now := a.config.Now()
	tier, err := a.config.Payers.CurrentAllowance(ctx, of.Identity)
	if err != nil {
		return Account{}, tier, err
	}
	b, err := a.config.Ledger.Balance(ctx, of.Key(), tier, now)
	if err != nil {
		return Account{}, tier, err
	}
	settled, err := a.config.Ledger.Matching(ctx, of.Key(), quota.EntryFilter{Kind: quota.KindSettle, Spaces: of.Limit}, shownCharges)
	if err != nil {
		return Account{}, tier, err
	}
	advice, err := a.advice(ctx, of, now)
	if err != nil {
		return Account{}, tier, err
	}
	view := Account{
		Identity: of.Key(), Tier: tier.Name, Unlimited: b.Unlimited, BaseSeconds: b.Base.Seconds(), GrantedSeconds: b.Granted.Seconds(),
		ChargedSeconds: b.Charged.Seconds(), HeldSeconds: b.Held.Seconds(), LeftSeconds: b.Left.Seconds(), LeftMinutes: b.Left.Minutes(),
		CreditSeconds: b.Credits.Seconds(), CreditHeldSeconds: b.CreditHeld.Seconds(), CreditChargedSeconds: b.CreditCharged.Seconds(),
		Runs: NewRuns(b.Runs, now), LongestSeconds: tier.LongestCall().Seconds(), Priority: tier.Priority, Concurrency: tier.Concurrency,
		Now: now.UTC(), Functions: Each(a.functions(of, q), func(f Function) Fit { return fit(f, b, tier, advice) }),
		Open: a.open(of), Charges: Each(settled, chargeView), Advice: selected(advice, of, q),
		Maintenance: Maintenance(a.config.Broker.Maintenance(0), now),
	}
	if b.ResetsAt != nil {
		opened, at := b.Opened.UTC(), b.ResetsAt.UTC()
		view.OpenedAt, view.ResetsAt, view.ResetsIn = &opened, &at, Countdown(at.Sub(now))
	}
	return view, tier, nil
}

// Countdown formats a remaining time as 23:59:59. It stays between a second and the length of a window, also after the clock
// was set.
func Countdown(left time.Duration) string {
	seconds := int(math.Ceil(min(max(left, time.Second), quota.Span).Seconds()))
	return fmt.Sprintf("%d:%02d:%02d", seconds/3600, seconds/60%60, seconds%60)
}

// functions returns the functions that match the query's Space and Function.
func (a *Accounts) functions(of Subject, q Query) (found []Function) {
	for _, f := range a.config.Spaces.Functions(of.Viewer) {
		if of.shows(f.Space) && (q.Space == "" || f.Space == q.Space) && (q.Function == "" || f.Name == q.Function) {
			found = append(found, f)
		}
	}
	return found
}

// advice returns the Advice that a viewer may see: the operator from the calls of all accounts, everyone else from their own.
func (a *Accounts) advice(ctx context.Context, of Subject, now time.Time) ([]Advice, error) {
	identity := of.Key()
	if of.Viewer == nil {
		identity = ""
	}
	return a.config.Advisor().Advices(ctx, quota.UsageQuery{Identity: identity, From: now.Add(-quota.Span)})
}

// Advice returns the Advice from the calls of one account in the times of the query, by default of the last 24 hours, about the
// functions that match it. Errors: *RequestError, or of the database.
func (a *Accounts) Advice(ctx context.Context, of Subject, q Query) ([]Advice, error) {
	from, to, err := q.times()
	if err != nil {
		return nil, err
	}
	if from.IsZero() {
		from = a.config.Now().Add(-quota.Span)
	}
	all, err := a.config.Advisor().Advices(ctx, quota.UsageQuery{Identity: of.Key(), From: from, To: to, Shares: true})
	return selected(all, of, q), err
}

// selected returns the Advice about what the query names and the request may read.
func selected(all []Advice, of Subject, q Query) []Advice {
	return slices.DeleteFunc(slices.Clone(all), func(v Advice) bool {
		return !of.shows(v.Space) || q.Space != "" && v.Space != q.Space || q.Function != "" && v.Function != q.Function
	})
}

func fit(f Function, b quota.Balance, tier quota.Tier, advice []Advice) Fit {
	cost := f.Declared * time.Duration(quota.Factor(f.Size))
	view := Fit{
		Space: f.Space, Function: f.Name, Size: f.Size, DeclaredSeconds: f.Declared.Seconds(), From: f.From, CostSeconds: cost.Seconds(),
	}
	used, known := usedBy(f, advice)
	if known {
		view.UsedSeconds = new(used.Seconds())
	}
	together, inTurn, limited := callsLeft(cost, used*time.Duration(quota.Factor(f.Size)), b, tier)
	if limited {
		view.Calls = &together
	}
	if limited && known {
		view.CallsInTurn = &inTurn
	}
	return view
}

// usedBy returns the average use of a function's calls.
func usedBy(f Function, advice []Advice) (used time.Duration, known bool) {
	at := slices.IndexFunc(advice, func(v Advice) bool {
		return v.Space == f.Space && v.Function == f.Name && v.Size == cmp.Or(f.Size, "large")
	})
	if at < 0 {
		return 0, false
	}
	return time.Duration(advice[at].MeanSeconds * float64(time.Second)), true
}

// callsLeft returns the number of calls that still fit into the quota, the credits and the runs, at the same time and one after
// another. known is false if it is unknown or without a limit.
func callsLeft(cost, used time.Duration, b quota.Balance, tier quota.Tier) (together, inTurn int, known bool) {
	together, inTurn = math.MaxInt, math.MaxInt
	if cost > 0 && !b.Unlimited {
		together, inTurn = quota.Fits(b.Left+b.Credits, cost, used)
		known = true
		if cost > tier.LongestCall() {
			together, inTurn = 0, 0
		}
	}
	if b.Runs != nil && !b.Runs.Advisory && (cost > 0 || b.Runs.Left() == 0) {
		together, inTurn, known = min(together, b.Runs.Left()), min(inTurn, b.Runs.Left()), true
	}
	return together, inTurn, known
}

func (a *Accounts) open(of Subject) []Open {
	found := []Open{}
	for _, l := range a.config.Broker.List() {
		if l.Identity == of.Key() && of.shows(l.Space) {
			found = append(found, Open{
				Lease: l.Lease, State: string(l.State), Space: l.Space, Function: l.Function, Via: l.Via, Forecast: l.Forecast, Deadline: l.Deadline,
				HeldSeconds: l.DeclaredSeconds * float64(quota.Factor(l.Size)),
			})
		}
	}
	return found
}

// shownCharges bounds the charges in an Account. The ledger lists all.
const shownCharges = 10

func chargeView(e quota.Entry) Charge {
	return Charge{
		At: e.At.UTC(), Lease: Short(e.Lease), Space: e.Space, Function: e.Task, Via: e.Via, Factor: e.Factor,
		DeclaredSeconds: e.Declared().Seconds(), UsedSeconds: e.Used().Seconds(), ChargedSeconds: e.Charged.Seconds(), Reason: e.Reason,
	}
}
