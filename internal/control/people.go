package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/people"
	"spacehost/quota"
)

// PeopleConfig is what People need.
type PeopleConfig struct {
	People *people.Store
	// CheckTier refuses a tier that this host does not have, and says which it has.
	CheckTier func(name string) error
	// By says who asks, for the record; nil: "operator".
	By func(echo.Context) string
}

// People lets an operator add people and make tokens. It is for the CLI's socket alone: whoever reaches it may be
// anybody.
type People struct{ config PeopleConfig }

// NewPeople returns the People of a host.
func NewPeople(config PeopleConfig) *People {
	if config.By == nil {
		config.By = func(echo.Context) string { return "operator" }
	}
	return &People{config}
}

// Register mounts them. A GET changes nothing.
func (p *People) Register(e *echo.Echo) {
	e.GET("/people", p.list)
	e.POST("/people", p.add)
	e.POST("/people/:name/tier", p.setTier)
	e.PATCH("/people/:name", p.set)
	e.GET("/people/:name/tokens", p.tokens)
	e.POST("/people/:name/tokens", p.createToken)
	e.GET("/tokens", p.tokens) // of everybody
	e.DELETE("/tokens/:id", p.revoke)
}

// Person is somebody whom this host knows by name.
type Person struct {
	Name      string    `json:"name"`
	Tier      string    `json:"tier"`
	CreatedAt time.Time `json:"createdAt"`
	CreatedBy string    `json:"createdBy"`
	// Source is who has the say over them: operator, config, or former (the configuration has dropped them).
	Source string `json:"source"`
	// What they have in place of their tier's; null: as the tier.
	QuotaSeconds   *float64 `json:"quotaSeconds"`
	LongestSeconds *float64 `json:"longestSeconds"`
	Priority       *int     `json:"priority"`
	Concurrency    *int     `json:"concurrency"`
}

// PersonChange asks for a change of a person. What is not named stays; Back names what shall be as the tier again.
type PersonChange struct {
	Tier           *string  `json:"tier,omitempty"`
	QuotaSeconds   *float64 `json:"quotaSeconds,omitempty"`
	LongestSeconds *float64 `json:"longestSeconds,omitempty"`
	Priority       *int     `json:"priority,omitempty"`
	Concurrency    *int     `json:"concurrency,omitempty"`
	Back           []string `json:"back,omitempty"` // quota, longest, priority, concurrency
}

// NewPerson asks for a person.
type NewPerson struct {
	Name string `json:"name"`
	Tier string `json:"tier"`
}

// NewTier asks for another tier.
type NewTier struct {
	Tier string `json:"tier"`
}

// NewToken asks for a token.
type NewToken struct {
	Label string `json:"label"`
}

// Token is what is shown of a bearer token.
type Token struct {
	ID         string     `json:"id"`
	Person     string     `json:"person"`
	Label      string     `json:"label"`
	CreatedAt  time.Time  `json:"createdAt"`
	LastUsedAt *time.Time `json:"lastUsedAt"` // to the minute
	RevokedAt  *time.Time `json:"revokedAt"`
}

// CreatedToken is the one answer in which the text of a token stands.
type CreatedToken struct {
	Text string `json:"token"`
	Token
}

func (p *People) list(c echo.Context) error {
	all, err := p.config.People.List(c.Request().Context())
	return answer(c, http.StatusOK, each(all, personView), err)
}

func (p *People) add(c echo.Context) error {
	asked, err := read[NewPerson](c)
	if err == nil {
		err = p.checkTier(asked.Tier)
	}
	if err != nil {
		return refuse(c, err)
	}
	person, err := p.config.People.Add(c.Request().Context(), asked.Name, asked.Tier, p.config.By(c))
	return answer(c, http.StatusCreated, personView(person), err)
}

func (p *People) setTier(c echo.Context) error {
	asked, err := read[NewTier](c)
	if err == nil {
		err = p.checkTier(asked.Tier)
	}
	if err != nil {
		return refuse(c, err)
	}
	person, err := p.config.People.SetTier(c.Request().Context(), c.Param("name"), asked.Tier)
	return answer(c, http.StatusOK, personView(person), err)
}

func (p *People) set(c echo.Context) error {
	asked, err := read[PersonChange](c)
	var change people.Change
	if err == nil {
		change, err = asked.change()
	}
	if err == nil && asked.Tier != nil {
		err = p.checkTier(*asked.Tier)
	}
	if err != nil {
		return refuse(c, err)
	}
	person, err := p.config.People.Set(c.Request().Context(), c.Param("name"), change)
	return answer(c, http.StatusOK, personView(person), err)
}

func (n PersonChange) change() (people.Change, error) {
	for _, own := range []struct {
		name    string
		seconds *float64
	}{{"quota", n.QuotaSeconds}, {"longest", n.LongestSeconds}} {
		if s := own.seconds; s != nil && !(*s >= 1 && *s <= quota.MostGrant.Seconds()) {
			return people.Change{}, &requestError{fmt.Errorf("%s must be from 1s to %v, and not %g s", own.name, quota.MostGrant, *s)}
		}
	}
	c := people.Change{Tier: n.Tier, Quota: span(n.QuotaSeconds), Longest: span(n.LongestSeconds)}
	if n.Priority != nil {
		c.Priority = &n.Priority
	}
	if n.Concurrency != nil {
		c.Concurrency = &n.Concurrency
	}
	for _, name := range n.Back {
		switch name {
		case "quota":
			c.Quota = new(*time.Duration)
		case "longest":
			c.Longest = new(*time.Duration)
		case "priority":
			c.Priority = new(*int)
		case "concurrency":
			c.Concurrency = new(*int)
		default:
			return c, &requestError{fmt.Errorf("there is no %.40q to take back: say quota, longest, priority or concurrency", name)}
		}
	}
	if err := c.Check(); err != nil {
		return c, &requestError{err}
	}
	return c, nil
}

// span is a duration of so many seconds.
func span(seconds *float64) **time.Duration {
	if seconds == nil {
		return nil
	}
	d := time.Duration(*seconds * float64(time.Second))
	into := &d
	return &into
}

func (p *People) checkTier(tier string) error {
	if err := p.config.CheckTier(tier); err != nil {
		return &requestError{err}
	}
	return nil
}

func (p *People) createToken(c echo.Context) error {
	asked, err := read[NewToken](c)
	if err != nil {
		return refuse(c, err)
	}
	text, token, err := p.config.People.CreateToken(c.Request().Context(), c.Param("name"), asked.Label)
	c.Response().Header().Set("Cache-Control", "no-store")
	return answer(c, http.StatusCreated, CreatedToken{text, tokenView(token)}, err)
}

func (p *People) tokens(c echo.Context) error {
	all, err := p.config.People.Tokens(c.Request().Context(), c.Param("name"))
	return answer(c, http.StatusOK, each(all, tokenView), err)
}

func (p *People) revoke(c echo.Context) error {
	token, err := p.config.People.Revoke(c.Request().Context(), c.Param("id"))
	return answer(c, http.StatusOK, tokenView(token), err)
}

// maxAsked is more than any request here takes.
const maxAsked = 64 << 10

// requestError is a mistake in what was asked for.
type requestError struct{ error }

func (e *requestError) Unwrap() error { return e.error }

// read takes the request's JSON; no body is {}. A field that is not known is refused, since it is a mistyped one.
func read[T any](c echo.Context) (asked T, err error) {
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxAsked))
	d.DisallowUnknownFields()
	if err := d.Decode(&asked); err != nil && !errors.Is(err, io.EOF) {
		return asked, &requestError{fmt.Errorf("the request is not the JSON that is asked for here: %w", err)}
	}
	return asked, nil
}

// answer sends v, or says why not.
func answer(c echo.Context, status int, v any, err error) error {
	if err != nil {
		return refuse(c, err)
	}
	return c.JSON(status, v)
}

// refuse says which mistake was made, and what to do instead. All else is for the log: the server's error handler.
func refuse(c echo.Context, err error) error {
	status, known := mistake(err)
	if known == nil {
		return err
	}
	return c.JSON(status, map[string]string{"detail": known.Error()})
}

// mistake is the table from errors to statuses: 400 the request is wrong, 404 it speaks of nobody, 409 it cannot be.
func mistake(err error) (status int, known error) {
	var request *requestError
	var name *people.BadNameError
	var label *people.BadLabelError
	var nobody *people.UnknownPersonError
	var nothing *people.UnknownTokenIDError
	var twice *people.DuplicatePersonError
	var many *people.TooManyTokensError
	var configured *people.ConfiguredPersonError
	switch {
	case errors.As(err, &request):
		return http.StatusBadRequest, request
	case errors.As(err, &name):
		return http.StatusBadRequest, name
	case errors.As(err, &label):
		return http.StatusBadRequest, label
	case errors.As(err, &nobody):
		return http.StatusNotFound, nobody
	case errors.As(err, &nothing):
		return http.StatusNotFound, nothing
	case errors.As(err, &twice):
		return http.StatusConflict, twice
	case errors.As(err, &many):
		return http.StatusConflict, many
	case errors.As(err, &configured):
		return http.StatusConflict, configured
	}
	return 0, nil
}

func personView(p people.Person) Person {
	return Person{
		Name: p.Name, Tier: p.Tier, CreatedAt: p.CreatedAt, CreatedBy: p.CreatedBy, Source: string(p.Source),
		QuotaSeconds: inSeconds(p.Overrides.Quota), LongestSeconds: inSeconds(p.Overrides.Longest), Priority: p.Overrides.Priority, Concurrency: p.Overrides.Concurrency,
	}
}

func inSeconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	seconds := d.Seconds()
	return &seconds
}

func tokenView(t people.Token) Token {
	return Token{
		ID: t.ID, Person: t.Person, Label: t.Label, CreatedAt: t.CreatedAt,
		LastUsedAt: unlessZero(t.LastUsedAt), RevokedAt: unlessZero(t.RevokedAt),
	}
}

func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// each views all; of none it makes an empty list, which is [] in JSON.
func each[A, B any](all []A, view func(A) B) []B {
	views := make([]B, 0, len(all))
	for _, v := range all {
		views = append(views, view(v))
	}
	return views
}
