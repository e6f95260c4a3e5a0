package views

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"spacehost/internal/identity"
	"spacehost/internal/lease"
	"spacehost/internal/people"
	"spacehost/quota"
)

// Explanation shows why calls of an account were refused, what reserves its quota, and when a call would be accepted.
type Explanation struct {
	Account
	Refusals []Refusal `json:"refusals"` // since the start of the host, newest first
	Calls    []Verdict `json:"calls"`
	Waiting  int       `json:"waiting"` // calls of all accounts that wait for a GPU
}

// Refusal is a call that the quota refused.
type Refusal struct {
	At               time.Time  `json:"at"`
	Identity         string     `json:"identity"` // the payer
	Space            string     `json:"space"`    // where the call was made
	Function         string     `json:"function,omitempty"`
	Via              string     `json:"via,omitempty"`
	RequestedSeconds float64    `json:"requestedSeconds"`
	LeftSeconds      float64    `json:"leftSeconds"`
	Again            *time.Time `json:"again"` // when it would have been accepted; null: never at this tier
	Text             string     `json:"text"`
}

// Refusals returns the last refusals of a subject since the start of the host, newest first.
func (a *Accounts) Refusals(of Subject) []Refusal {
	all := slices.DeleteFunc(a.config.Refusals.Of(of.Key()), func(r quota.Refusal) bool { return !of.shows(r.Space) })
	return Each(all, refusalView)
}

// Verdict predicts the outcome of a call made now.
type Verdict struct {
	Space       string     `json:"space,omitempty"`
	Function    string     `json:"function,omitempty"`
	Size        string     `json:"size"`
	CostSeconds float64    `json:"costSeconds"`
	Fits        bool       `json:"fits"`
	At          *time.Time `json:"at"`            // when the call fits; null: never at this tier, only after the operator allows it, or unknown
	In          string     `json:"in,omitempty"`  // time until then, such as 0:03:12
	Why         string     `json:"why,omitempty"` // of a call that fits: why it waits for a GPU
}

// maxVerdicts bounds the work of one request: each Verdict reads the database.
const maxVerdicts = 100

// Explain predicts the functions that match the query or, with Seconds, one call of that duration. Errors: *RequestError,
// *people.UnknownPersonError, or of the database.
func (a *Accounts) Explain(ctx context.Context, of Subject, q Query) (Explanation, error) {
	if err := a.checkQuery(of, q); err != nil {
		return Explanation{}, err
	}
	view, tier, err := a.withTier(ctx, of, q)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{
		Account: view, Refusals: a.Refusals(of), Calls: []Verdict{}, Waiting: a.config.Broker.Waiting(),
	}
	functions := a.functions(of, q)
	if q.Seconds != "" {
		seconds, err := strconv.ParseFloat(q.Seconds, 64)
		if err != nil || !(seconds > 0) || seconds > quota.MostGrant.Seconds() {
			return Explanation{}, BadRequest("seconds=%.40q is not a duration; give the seconds that the call would declare, such as 60", q.Seconds)
		}
		functions = []Function{{Space: q.Space, Declared: time.Duration(seconds * float64(time.Second)), Size: q.Size}}
	}
	for _, f := range functions[:min(len(functions), maxVerdicts)] {
		verdict, err := a.verdict(ctx, of, q.Via, tier, f)
		if err != nil {
			return Explanation{}, err
		}
		e.Calls = append(e.Calls, verdict)
	}
	if why := a.waitText(of, q.Space); why != "" && len(e.Calls) == 0 { // its functions are known once it has run
		e.Calls = append(e.Calls, Verdict{Space: q.Space, Size: cmp.Or(q.Size, "large"), Why: why})
	}
	return e, nil
}

// waitText returns why calls of a Space wait for a machine; "" if they do not. Only the operator reads which nodes there are.
func (a *Accounts) waitText(of Subject, space string) string {
	why := a.config.Spaces.WaitsForNode(space)
	switch {
	case why == "":
		return ""
	case of.Viewer != nil:
		return "the Space waits for a machine, so its calls wait"
	}
	return "the Space waits for a machine, so its calls wait: " + why
}

// checkQuery refuses unknown Spaces, functions and sizes: an empty answer about them would read as "fits". The Space in Via is
// checked for the operator only. A visitor must not learn which Spaces exist.
func (a *Accounts) checkQuery(of Subject, q Query) error {
	spaces := slices.DeleteFunc(slices.Clone(a.config.Spaces.SpaceNames(of.Viewer)), func(name string) bool { return !of.shows(name) })
	if q.Space != "" {
		if err := CheckSpace(q.Space, spaces); err != nil {
			return err
		}
	}
	if q.Via != "" && of.Viewer == nil {
		if err := CheckSpace(q.Via, spaces); err != nil {
			return err
		}
	}
	switch {
	case q.Size != "" && quota.Factor(q.Size) == 0:
		return BadRequest("unknown size %.40q; give large or xlarge", q.Size)
	case q.Size != "" && q.Seconds == "":
		return BadRequest("size=%s requires seconds; add the duration that the call would declare", q.Size)
	case q.Function != "" && len(a.functions(of, q)) == 0:
		return a.unknownFunction(of, q)
	}
	return nil
}

// CheckSpace refuses a name that is not among spaces, usually a typo. Errors: *RequestError.
func CheckSpace(name string, spaces []string) error {
	if slices.Contains(spaces, name) {
		return nil
	}
	return BadRequest("unknown Space %.70q; Spaces of this host: %s", name, strings.Join(spaces, ", "))
}

func (a *Accounts) unknownFunction(of Subject, q Query) error {
	var names []string
	for _, f := range a.functions(of, Query{Space: q.Space}) {
		names = append(names, f.Name)
	}
	if len(names) == 0 {
		return BadRequest("unknown GPU function %.70q: no function is known yet; wait until the Space has started", q.Function)
	}
	slices.Sort(names)
	return BadRequest("unknown GPU function %.70q; known functions: %s", q.Function, strings.Join(slices.Compact(names), ", "))
}

// terms are the figures of a refusal.
type terms struct {
	requested, left, wait time.Duration
	back                  time.Time // the exact time after wait, if it is known
	never                 bool      // no wait would help: the tier does not allow it
	why, via              string
}

// termsOf reads the figures of an error of package quota. ok is false for every other error.
func termsOf(err error) (t terms, ok bool) {
	refused, ok := quota.AsRefused(err)
	if !ok {
		return terms{}, false
	}
	switch e := refused.(type) {
	case *quota.IllegalDurationError:
		t = terms{requested: e.Requested, left: e.Longest, never: true}
	case *quota.ExceededError:
		t = terms{requested: e.Requested, left: e.Left, wait: e.Again(), via: e.Via}
	case *quota.RunsExceededError:
		t = terms{requested: e.Requested, left: e.Left, wait: e.Again(), back: e.At}
	case *quota.CreditsPendingError:
		t = terms{requested: e.Requested, left: e.Left, wait: e.Again()}
	}
	t.why = refused.Reason()
	if illegal, ok := refused.(*quota.IllegalDurationError); ok {
		t.why += atStart(illegal)
	}
	return t, true
}

// at returns when the call fits, nil for never.
func (t terms) at(now time.Time) *time.Time {
	if t.never {
		return nil
	}
	at := now.Add(t.wait)
	if !t.back.IsZero() {
		at = t.back
	}
	at = at.UTC()
	return &at
}

func refusalView(r quota.Refusal) Refusal {
	t, _ := termsOf(r.Err)
	return Refusal{
		At: r.At.UTC(), Identity: r.Identity, Space: r.Space, Function: r.Task, Via: t.via, RequestedSeconds: t.requested.Seconds(),
		LeftSeconds: t.left.Seconds(), Again: t.at(r.At), Text: t.why,
	}
}

// verdict predicts a call without reserving quota.
func (a *Accounts) verdict(ctx context.Context, of Subject, via string, tier quota.Tier, f Function) (Verdict, error) {
	f.Size = cmp.Or(f.Size, "large")
	v := Verdict{Space: f.Space, Function: f.Name, Size: f.Size, CostSeconds: f.Declared.Seconds() * float64(quota.Factor(f.Size))}
	payer := of.Identity
	payer.Via = via
	if why, denied := a.denied(payer, of.Viewer == nil); denied {
		v.Why = why
		return v, nil
	}
	if f.Unresponsive {
		v.Why = "the Space does not answer (UNRESPONSIVE), so its calls wait"
		return v, nil
	}
	if v.Why = a.waitText(of, f.Space); v.Why != "" {
		return v, nil
	}
	if f.Declared == 0 {
		v.Why = "each call declares its own duration, and no call was made yet"
		return v, nil
	}
	err := a.config.Broker.Ask(ctx, lease.Request{Space: f.Space, Payer: payer, Tier: tier, Declared: f.Declared, Size: f.Size})
	now := a.config.Now()
	t, refused := termsOf(err)
	storage, unwritable := errors.AsType[*lease.StorageError](err)
	switch {
	case unwritable:
		v.Why = "no GPU is granted now, because the database cannot be written: " + storage.Cause
		if of.Viewer == nil {
			v.Why += "; " + storage.Do
		}
	case err == nil:
		at := now.UTC()
		v.Fits, v.At = true, &at
		v.Why = Maintenance(a.config.Broker.Maintenance(f.Declared), now)
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

// denied returns why the Space payer.Via may not spend on behalf of the payer. The text for the operator names the command that
// allows it again.
func (a *Accounts) denied(payer identity.Identity, operator bool) (why string, denied bool) {
	var denial *people.DelegationDeniedError
	if payer.Via == "" || !errors.As(a.config.Payers.CheckDelegation(payer), &denial) {
		return "", false
	}
	if !operator {
		return denial.Error(), true
	}
	command := "spacehost space via " + denial.Space + " --on"
	if denial.Identity != "" {
		command += " --identity " + denial.Identity
	}
	return fmt.Sprintf("forbidden by the operator: %s may not spend its visitors' seconds at other Spaces; `%s` allows it again", denial.Space, command), true
}

// atStart names the exception for calls that the Space makes before it answers visitors: the Space's own account has no
// limits then (internal/host, spaceRun.Account), as ZeroGPU has an allowance of 1,500 s for the start.
func atStart(e *quota.IllegalDurationError) string {
	if e.Longest == 0 {
		return ""
	}
	return "; only the calls that a Space makes itself while it starts may be longer, up to 1,500 s on ZeroGPU"
}
