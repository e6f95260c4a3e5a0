package control

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/people"
	"spacehost/internal/views"
	"spacehost/quota"
)

// The people of the host and their bearer tokens.
var (
	ListPeople   = Endpoint[NoBody, []Person]{http.MethodGet, "/people"}
	AddPerson    = Endpoint[AddPersonRequest, Person]{http.MethodPost, "/people"}
	SetTier      = Endpoint[SetTierRequest, Person]{http.MethodPost, "/people/:name/tier"}
	ChangePerson = Endpoint[ChangePersonRequest, Person]{http.MethodPatch, "/people/:name"}
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
	// Source is what manages the person: operator, config, or former (removed from the configuration).
	Source string `json:"source"`
	// Overrides of the tier; null: the tier's value.
	QuotaSeconds   *float64 `json:"quotaSeconds"`
	LongestSeconds *float64 `json:"longestSeconds"`
	Priority       *int     `json:"priority"`
	Concurrency    *int     `json:"concurrency"`
	Runs           *int     `json:"runs"` // 0: no limit
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
}

// Token shows a bearer token without its text.
type Token struct {
	ID         string     `json:"id"`
	Person     string     `json:"person"`
	Label      string     `json:"label"`
	CreatedAt  time.Time  `json:"createdAt"`
	LastUsedAt *time.Time `json:"lastUsedAt"` // accurate to a minute
	RevokedAt  *time.Time `json:"revokedAt"`
}

// CreatedToken is the only answer that contains the text of a token.
type CreatedToken struct {
	Text string `json:"token"`
	Token
}

func (a *API) listPeople(c echo.Context, _ NoBody) ([]Person, error) {
	all, err := a.config.People.List(c.Request().Context())
	return views.Each(all, personView), err
}

func (a *API) addPerson(c echo.Context, r AddPersonRequest) (Person, error) {
	if err := a.checkTier(r.Tier); err != nil {
		return Person{}, err
	}
	person, err := a.config.People.Add(c.Request().Context(), r.Name, r.Tier, "operator")
	return personView(person), err
}

func (a *API) setTier(c echo.Context, r SetTierRequest) (Person, error) {
	if err := a.checkTier(r.Tier); err != nil {
		return Person{}, err
	}
	person, err := a.config.People.SetTier(c.Request().Context(), c.Param("name"), r.Tier)
	return personView(person), err
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
	return personView(person), err
}

func (a *API) checkTier(tier string) error {
	if err := a.config.Host.CheckTier(tier); err != nil {
		return &views.RequestError{Err: err}
	}
	return nil
}

func (a *API) createToken(c echo.Context, r CreateTokenRequest) (CreatedToken, error) {
	text, token, err := a.config.People.CreateToken(c.Request().Context(), c.Param("name"), r.Label)
	c.Response().Header().Set(echo.HeaderCacheControl, "no-store")
	return CreatedToken{text, tokenView(token)}, err
}

// listTokens answers ListTokens and ListTokensOf.
func (a *API) listTokens(c echo.Context, _ NoBody) ([]Token, error) {
	all, err := a.config.People.Tokens(c.Request().Context(), c.Param("name"))
	return views.Each(all, tokenView), err
}

func (a *API) revokeToken(c echo.Context, _ NoBody) (Token, error) {
	token, err := a.config.People.Revoke(c.Request().Context(), c.Param("id"))
	return tokenView(token), err
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

func personView(p people.Person) Person {
	return Person{
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

func tokenView(t people.Token) Token {
	return Token{
		ID: t.ID, Person: t.Person, Label: t.Label, CreatedAt: t.CreatedAt,
		LastUsedAt: orNull(t.LastUsedAt), RevokedAt: orNull(t.RevokedAt),
	}
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
