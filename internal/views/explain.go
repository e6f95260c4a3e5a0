package console

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/quota"
)

// Explanation says why somebody was refused, what is in the way, and when it will not be.
type Explanation struct {
	Account
	Refusals []Refusal `json:"refusals"` // of this start of the host, newest first
	Calls    []Verdict `json:"calls"`
	Waiting  int       `json:"waiting"` // calls of everybody that wait for a GPU
}

// Refusal is a call that the quota did not allow.
type Refusal struct {
	At               time.Time  `json:"at"`
	Identity         string     `json:"identity"` // whose quota it was
	Space            string     `json:"space"`    // where
	Function         string     `json:"function,omitempty"`
	Via              string     `json:"via,omitempty"`
	RequestedSeconds float64    `json:"requestedSeconds"`
	LeftSeconds      float64    `json:"leftSeconds"`
	Again            *time.Time `json:"again"` // when it would have been allowed; null: never by this tier
	Text             string     `json:"text"`
}

// Verdict is what a call would be told now.
type Verdict struct {
	Space       string     `json:"space,omitempty"`
	Function    string     `json:"function,omitempty"`
	Size        string     `json:"size"`
	CostSeconds float64    `json:"costSeconds"`
	Fits        bool       `json:"fits"`
	At          *time.Time `json:"at"`           // when it fits; null: never by this tier, or until somebody allows it
	In          string     `json:"in,omitempty"` // until then, as 0:03:12
	Why         string     `json:"why,omitempty"`
}

// maxVerdicts bounds the work of one question: each asks the database.
const maxVerdicts = 100

// explain answers about the functions that the question names, or about a call of so many seconds.
func (a *Accounts) explain(c echo.Context, of subject) (any, error) {
	if err := a.checkQuestion(c, of); err != nil {
		return nil, err
	}
	view, tier, err := a.view(c, of)
	if err != nil {
		return nil, err
	}
	e := Explanation{
		Account: view, Refusals: each(a.config.Refusals.Of(of.Key()), refusalView), Calls: []Verdict{}, Waiting: a.config.Broker.Waiting(),
	}
	functions := a.functions(c, of)
	if text := c.QueryParam("seconds"); text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds > 0) || seconds > quota.MostGrant.Seconds() {
			return nil, &requestError{fmt.Errorf("seconds=%.40q: say how long the call would be, as 60", text)}
		}
		functions = []Function{{Space: c.QueryParam("space"), Declared: time.Duration(seconds * float64(time.Second)), Size: c.QueryParam("size")}}
	}
	for _, f := range functions[:min(len(functions), maxVerdicts)] {
		verdict, err := a.verdict(c, of, tier, f)
		if err != nil {
			return nil, err
		}
		e.Calls = append(e.Calls, verdict)
	}
	return e, nil
}

// checkQuestion refuses a question about what there is not: to say nothing of it would read as "fits". What a visitor may
// not see is told by nobody, so which Space spends on their behalf is not looked at for them.
func (a *Accounts) checkQuestion(c echo.Context, of subject) error {
	space, name, via, size := c.QueryParam("space"), c.QueryParam("function"), c.QueryParam("via"), c.QueryParam("size")
	spaces := a.config.Spaces(of.viewer)
	if space != "" {
		if err := known(space, spaces); err != nil {
			return err
		}
	}
	if via != "" && of.viewer == nil {
		if err := known(via, spaces); err != nil {
			return err
		}
	}
	switch {
	case size != "" && quota.Factor(size) == 0:
		return &requestError{fmt.Errorf("size=%.40q: there are large and xlarge", size)}
	case size != "" && c.QueryParam("seconds") == "":
		return &requestError{fmt.Errorf("size=%s is of a call that no function makes yet: say with seconds how long it would be", size)}
	case name != "" && len(a.functions(c, of)) == 0:
		return a.unknownFunction(of, space, name)
	}
	return nil
}

func (a *Accounts) unknownFunction(of subject, space, name string) error {
	var names []string
	for _, f := range a.config.Functions(of.viewer) {
		if space == "" || f.Space == space {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		return &requestError{fmt.Errorf("there is no GPU function %.70q, and none at all: a Space's are known once it has started", name)}
	}
	slices.Sort(names)
	return &requestError{fmt.Errorf("there is no GPU function %.70q; there are: %s", name, strings.Join(slices.Compact(names), ", "))}
}

// terms are those of a refusal.
type terms struct {
	requested, left, wait time.Duration
	never                 bool // by this tier
	why, via              string
}

// termsOf reads quota's refusals.
func termsOf(err error) (terms, bool) {
	var exceeded *quota.ExceededError
	var illegal *quota.IllegalDurationError
	switch {
	case errors.As(err, &illegal):
		return terms{requested: illegal.Requested, left: illegal.Longest, never: true, why: illegal.Reason()}, true
	case errors.As(err, &exceeded):
		return terms{requested: exceeded.Requested, left: exceeded.Left, wait: exceeded.Again(), why: exceeded.Reason(), via: exceeded.Via}, true
	}
	return terms{}, false
}

// at is when it fits, asked at now.
func (t terms) at(now time.Time) *time.Time {
	if t.never {
		return nil
	}
	at := now.Add(t.wait).UTC()
	return &at
}

func refusalView(r quota.Refusal) Refusal {
	t, _ := termsOf(r.Err)
	return Refusal{
		At: r.At.UTC(), Identity: r.Identity, Space: r.Space, Function: r.Task, Via: t.via, RequestedSeconds: t.requested.Seconds(),
		LeftSeconds: t.left.Seconds(), Again: t.at(r.At), Text: t.why,
	}
}

// verdict asks what a call would be told, and holds nothing.
func (a *Accounts) verdict(c echo.Context, of subject, tier quota.Tier, f Function) (Verdict, error) {
	f.Size = cmp.Or(f.Size, "large")
	v := Verdict{Space: f.Space, Function: f.Name, Size: f.Size, CostSeconds: f.Declared.Seconds() * float64(quota.Factor(f.Size))}
	payer := of.Identity
	payer.Via = c.QueryParam("via")
	if why, stopped := a.stopped(payer, of.viewer == nil); stopped {
		v.Why = why
		return v, nil
	}
	if f.Declared == 0 {
		v.Why = "each call says its own duration, and none has yet"
		return v, nil
	}
	err := a.config.Broker.Ask(c.Request().Context(), lease.Request{Space: f.Space, Payer: payer, Tier: tier, Declared: f.Declared, Size: f.Size})
	now := a.config.Now()
	t, refused := termsOf(err)
	trouble, unwritten := errors.AsType[*lease.StorageError](err)
	switch {
	case unwritten:
		v.Why = "nobody gets a GPU now, since the database cannot be written: " + trouble.Cause
		if of.viewer == nil {
			v.Why += "; " + trouble.Do
		}
	case err == nil:
		now = now.UTC()
		v.Fits, v.At = true, &now
	case refused:
		v.Why, v.At = t.why, t.at(now)
		if v.At != nil {
			v.In = Countdown(t.wait)
		}
	default:
		return v, err
	}
	return v, nil
}

// stopped says why the operator does not let a Space spend on payer's behalf, and to the operator how to allow it.
func (a *Accounts) stopped(payer identity.Identity, operator bool) (why string, yes bool) {
	var stop *people.DelegationDeniedError
	if payer.Via == "" || !errors.As(a.config.CheckVia(payer), &stop) {
		return "", false
	}
	if !operator {
		return stop.Error(), true
	}
	command := "spacehost space via " + stop.Space + " --on"
	if stop.Identity != "" {
		command += " --identity " + stop.Identity
	}
	return fmt.Sprintf("forbidden by the operator: %s may not spend its visitors' seconds at other Spaces; `%s` allows it again", stop.Space, command), true
}
