package console

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/lease"
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
	At          *time.Time `json:"at"`           // when it fits; null: never by this tier
	In          string     `json:"in,omitempty"` // until then, as 0:03:12
	Why         string     `json:"why,omitempty"`
}

// maxVerdicts bounds the work of one question: each asks the database.
const maxVerdicts = 100

// explain answers about the functions that the question names, or about a call of so many seconds.
func (a *Accounts) explain(c echo.Context, of subject) (any, error) {
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
	if size := c.QueryParam("size"); size != "" && quota.Factor(size) == 0 {
		return nil, &requestError{fmt.Errorf("size=%.40q: there are large and xlarge", size)}
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
	if f.Declared == 0 {
		v.Why = "each call says its own duration, and none has yet"
		return v, nil
	}
	payer := of.Identity
	payer.Via = c.QueryParam("via")
	err := a.config.Broker.Ask(c.Request().Context(), lease.Request{Space: f.Space, Payer: payer, Tier: tier, Declared: f.Declared, Size: f.Size})
	now := a.config.Now()
	t, refused := termsOf(err)
	switch {
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
