package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/quota"
)

// The people of the host and their bearer tokens.
var (
	ListTiers    = Endpoint[NoBody, []Tier]{http.MethodGet, "/tiers"}
	ListPeople   = Endpoint[NoBody, []Person]{http.MethodGet, "/people"}
	AddPerson    = Endpoint[AddPersonRequest, Person]{http.MethodPost, "/people"}
	SetTier      = Endpoint[SetTierRequest, Person]{http.MethodPost, "/people/:name/tier"}
	ChangePerson = Endpoint[ChangePersonRequest, Person]{http.MethodPatch, "/people/:name"}
	RemovePerson = Endpoint[NoBody, Person]{http.MethodDelete, "/people/:name"}
	ListTokens   = Endpoint[NoBody, []Token]{http.MethodGet, "/tokens"} // of all people
	ListTokensOf = Endpoint[NoBody, []Token]{http.MethodGet, "/people/:name/tokens"}
	CreateToken  = Endpoint[CreateTokenRequest, CreatedToken]{http.MethodPost, "/people/:name/tokens"}
	RevokeToken  = Endpoint[NoBody, Token]{http.MethodDelete, "/tokens/:id"}
)

// Person is a payer that this host knows by name.
type Person struct {
	Name      string    `json:"name"`
	Tier      string    `json:"tier"`
	CreatedAt time.Time `json:"createdAt"`
	CreatedBy string    `json:"createdBy"`
	// Source is what manages the person: operator, config, or former (removed).
	Source string `json:"source"`
	// Overrides of the tier; null: the tier's value.
	QuotaSeconds   *float64 `json:"quotaSeconds"`
	LongestSeconds *float64 `json:"longestSeconds"`
	Priority       *int     `json:"priority"`
	Concurrency    *int     `json:"concurrency"`
	Runs           *int     `json:"runs"` // 0: no limit

	Admin  bool     `json:"admin,omitempty"`  // may read and change everything at the console
	Group  string   `json:"group,omitempty"`  // of the configuration
	Spaces []string `json:"spaces,omitempty"` // private Spaces that the person may open
	// Tokens counts the valid tokens, and LastSeenAt is the latest use of any, to the minute. Only lists have them.
	Tokens     int        `json:"tokens,omitempty"`
	LastSeenAt *time.Time `json:"lastSeenAt,omitempty"`
}

// Tier is a class of people with the same allowance.
type Tier struct {
	Name           string  `json:"name"`
	Unlimited      bool    `json:"unlimited,omitempty"`
	QuotaSeconds   float64 `json:"quotaSeconds"` // in 24 hours
	LongestSeconds float64 `json:"longestSeconds"`
	Runs           int     `json:"runs"` // in 24 hours; 0: no limit
	Priority       int     `json:"priority"`
	Concurrency    int     `json:"concurrency"` // 0: no limit
}

// ChangePersonRequest changes the fields that are given. Back lists overrides to remove.
type ChangePersonRequest struct {
	Tier           *string  `json:"tier,omitempty"`
	QuotaSeconds   *float64 `json:"quotaSeconds,omitempty"`
	LongestSeconds *float64 `json:"longestSeconds,omitempty"`
	Priority       *int     `json:"priority,omitempty"`
	Concurrency    *int     `json:"concurrency,omitempty"`
	Runs           *int     `json:"runs,omitempty"`
	Back           []string `json:"back,omitempty"` // quota, longest, priority, concurrency, runs
}

// AddPersonRequest adds a person.
type AddPersonRequest struct {
	Name string `json:"name"`
	Tier string `json:"tier"`
}

// SetTierRequest changes the tier of a person.
type SetTierRequest struct {
	Tier string `json:"tier"`
}

// CreateTokenRequest creates a token. Label is a note for lists.
type CreateTokenRequest struct {
	Label string `json:"label"`
	// Scope is what the token may be used for: call, read or all (people.Scope); empty: all.
	Scope string `json:"scope,omitempty"`
	// Spaces are the names of the Spaces at which the token is valid; empty: all.
	Spaces []string `json:"spaces,omitempty"`
	// ExpiresInSeconds is the life of the token; 0: without an end.
	ExpiresInSeconds float64 `json:"expiresInSeconds,omitempty"`
}

// Token shows a bearer token without its text.
type Token struct {
	ID         string     `json:"id"`
	Person     string     `json:"person"`
	Label      string     `json:"label"`
	CreatedAt  time.Time  `json:"createdAt"`
	LastUsedAt *time.Time `json:"lastUsedAt"` // accurate to a minute
	RevokedAt  *time.Time `json:"revokedAt"`
	Scope      string     `json:"scope"`            // call, read or all
	Spaces     []string   `json:"spaces,omitempty"` // absent: all
	ExpiresAt  *time.Time `json:"expiresAt"`        // null: never
	// Declared reports that the configuration declares the token.
	Declared bool `json:"declared,omitempty"`
	// CreatedBy is the ID of the token with which the token was created; absent: none, as on the command line.
	CreatedBy string `json:"createdBy,omitempty"`
	// Current reports that the request was made with this token (own tokens only).
	Current bool `json:"current,omitempty"`
}

// CreatedToken is the only answer that contains the text of a token.
type CreatedToken struct {
	Text string `json:"token"`
	Token
}

func (a *API) listPeople(c echo.Context, _ NoBody) ([]Person, error) {
	return a.People(c.Request().Context())
}

// People returns all people of the host. It reads the database.
func (a *API) People(ctx context.Context) ([]Person, error) {
	all, err := a.config.People.List(ctx)
	if err != nil {
		return nil, err
	}
	activity, err := a.config.People.Activity(ctx)
	return views.Each(all, func(p people.Person) Person {
		view := a.personView(p)
		view.Tokens, view.LastSeenAt = activity[p.Name].Tokens, orNull(activity[p.Name].LastSeenAt)
		return view
	}), err
}

// listTiers answers ListTiers.
func (a *API) listTiers(echo.Context, NoBody) ([]Tier, error) {
	return views.Each(a.config.Host.Tiers(), func(t quota.Tier) Tier {
		return Tier{t.Name, t.Unlimited, t.Quota.Seconds(), t.LongestCall().Seconds(), t.Runs, t.Priority, t.Concurrency}
	}), nil
}

func (a *API) addPerson(c echo.Context, r AddPersonRequest) (Person, error) {
	if err := a.checkTier(r.Tier); err != nil {
		return Person{}, err
	}
	person, err := a.config.People.Add(c.Request().Context(), r.Name, r.Tier, a.config.Host.Operator(c.Request().Context()))
	return a.personView(person), err
}

func (a *API) setTier(c echo.Context, r SetTierRequest) (Person, error) {
	if err := a.checkTier(r.Tier); err != nil {
		return Person{}, err
	}
	person, err := a.config.People.SetTier(c.Request().Context(), c.Param("name"), r.Tier)
	return a.personView(person), err
}

func (a *API) changePerson(c echo.Context, r ChangePersonRequest) (Person, error) {
	change, err := r.change()
	if err == nil && r.Tier != nil {
		err = a.checkTier(*r.Tier)
	}
	if err != nil {
		return Person{}, err
	}
	person, err := a.config.People.Set(c.Request().Context(), c.Param("name"), change)
	return a.personView(person), err
}

func (a *API) removePerson(c echo.Context, _ NoBody) (Person, error) {
	person, err := a.config.People.Remove(c.Request().Context(), c.Param("name"))
	return a.personView(person), err
}

func (a *API) checkTier(tier string) error {
	if err := a.config.Host.CheckTier(tier); err != nil {
		return &views.RequestError{Err: err}
	}
	return nil
}

func (a *API) createToken(c echo.Context, r CreateTokenRequest) (CreatedToken, error) {
	rights, err := r.Rights(a.config.Now(), a.config.Host.SpaceNames(nil))
	if err != nil {
		return CreatedToken{}, err
	}
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	ctx := c.Request().Context()
	var text string
	var token people.Token
	if proof, ok := proofOf(ctx); ok {
		text, token, err = a.config.People.CreateTokenBy(ctx, proof, c.Param("name"), r.Label, rights)
	} else {
		text, token, err = a.config.People.CreateToken(ctx, c.Param("name"), r.Label, rights)
	}
	return CreatedToken{text, NewToken(token)}, err
}

// Rights returns the rights that the request asks for. spaces are the Spaces that exist for the caller. Errors: *views.RequestError.
func (r CreateTokenRequest) Rights(now time.Time, spaces []string) (people.Rights, error) {
	rights := people.Rights{Scope: people.Scope(cmp.Or(r.Scope, string(people.ScopeAll))), Spaces: r.Spaces}
	for _, name := range r.Spaces {
		if !slices.Contains(spaces, name) {
			return rights, views.BadRequest("unknown Space %.70q; Spaces for which a token can be created: %s", name, strings.Join(spaces, ", "))
		}
	}
	if s := r.ExpiresInSeconds; s != 0 {
		if !(s >= 1 && s <= maxTokenSeconds) {
			return rights, views.BadRequest("a token cannot expire in %g s; give from 1s to 3650d", s)
		}
		rights.ExpiresAt = now.Add(time.Duration(s * float64(time.Second)))
	}
	return rights, nil
}

// maxTokenSeconds is the longest life of a token that expires: ten years.
const maxTokenSeconds = 3650 * 24 * 3600

// listTokens answers ListTokens and ListTokensOf.
func (a *API) listTokens(c echo.Context, _ NoBody) ([]Token, error) {
	all, err := a.config.People.Tokens(c.Request().Context(), c.Param("name"))
	return views.Each(all, NewToken), err
}

func (a *API) revokeToken(c echo.Context, _ NoBody) (Token, error) {
	token, changed, err := a.config.People.Revoke(c.Request().Context(), c.Param("id"))
	if err == nil && !changed {
		NoteUnchanged(c)
	}
	return NewToken(token), err
}

// change checks the request. Errors: *views.RequestError.
func (r ChangePersonRequest) change() (people.Change, error) {
	for _, override := range []struct {
		name    string
		seconds *float64
	}{{"quota", r.QuotaSeconds}, {"longest", r.LongestSeconds}} {
		if s := override.seconds; s != nil && !(*s >= 1 && *s <= quota.MostGrant.Seconds()) {
			return people.Change{}, views.BadRequest("%s must be from 1s to %v, not %g s", override.name, quota.MostGrant, *s)
		}
	}
	c := people.Change{Tier: r.Tier, Quota: span(r.QuotaSeconds), Longest: span(r.LongestSeconds)}
	if r.Priority != nil {
		c.Priority = &r.Priority
	}
	if r.Concurrency != nil {
		c.Concurrency = &r.Concurrency
	}
	if r.Runs != nil {
		c.Runs = &r.Runs
	}
	for _, name := range r.Back {
		switch name {
		case "quota":
			c.Quota = new(*time.Duration)
		case "longest":
			c.Longest = new(*time.Duration)
		case "priority":
			c.Priority = new(*int)
		case "concurrency":
			c.Concurrency = new(*int)
		case "runs":
			c.Runs = new(*int)
		default:
			return c, views.BadRequest("unknown override %.40q; give quota, longest, priority, concurrency or runs", name)
		}
	}
	if err := c.Check(); err != nil {
		return c, &views.RequestError{Err: err}
	}
	return c, nil
}

// span returns a duration as an override: set, or not given.
func span(seconds *float64) **time.Duration {
	if seconds == nil {
		return nil
	}
	d := time.Duration(*seconds * float64(time.Second))
	into := &d
	return &into
}

// Standing is what the configuration says about a person.
type Standing struct {
	Admin  bool     // at the console
	Group  string   // "": none
	Spaces []string // the private ones that the person may open
}

func (a *API) personView(p people.Person) Person {
	var s Standing
	if p.Source != people.Former {
		s = a.config.Host.Standing(p.Name)
	}
	return Person{
		Admin: s.Admin, Group: s.Group, Spaces: s.Spaces,
		Name: p.Name, Tier: p.Tier, CreatedAt: p.CreatedAt, CreatedBy: p.CreatedBy, Source: string(p.Source),
		QuotaSeconds: secondsOf(p.Overrides.Quota), LongestSeconds: secondsOf(p.Overrides.Longest), Priority: p.Overrides.Priority, Concurrency: p.Overrides.Concurrency,
		Runs: p.Overrides.Runs,
	}
}

func secondsOf(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	seconds := d.Seconds()
	return &seconds
}

// NewToken returns the view of a token.
func NewToken(t people.Token) Token {
	return Token{
		ID: t.ID, Person: t.Person, Label: t.Label, CreatedAt: t.CreatedAt,
		LastUsedAt: orNull(t.LastUsedAt), RevokedAt: orNull(t.RevokedAt),
		Scope: string(t.Rights.Scope), Spaces: t.Rights.Spaces, ExpiresAt: orNull(t.Rights.ExpiresAt), Declared: t.Declared, CreatedBy: t.CreatedBy,
	}
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
