package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/internal/audit"
	"spacehost/internal/lazyregexp"
	"spacehost/internal/people"
	"spacehost/internal/views"
)

// Action is one request of an operator that may change something, for the host's log and the audit log. Tokens in its texts are
// removed.
type Action struct {
	Actor  string            // as Host.Operator names the user at the other end of the socket
	Route  string            // method and path of the Endpoint, such as "POST /people/:name/tier"
	Params map[string]string // of the path; empty: none
	Fields map[string]any    // of the body as the handler has read it, without those whose name is that of a secret; empty: none
	Status int               // of the answer: below 400, the action was carried out

	Origin  audit.Origin
	Refusal string // the text of a refused request, as far as it is for the operator

	Unchanged bool   // nothing was to be changed: a dry run, or a repetition
	Token     string // ID of the bearer token of the request; empty: none, as at the control socket
}

// maxRecorded bounds the text of one recorded field in bytes.
const maxRecorded = 4 << 10

// Audit passes each request that is not a GET to record, after its answer. actor names the user of a connection. record is called
// concurrently. Every route of the control socket is covered, also one that a later version adds.
func Audit(actor func(context.Context) string, record func(Action)) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				return next(c)
			}
			a := Action{Actor: actor(r.Context()), Route: r.Method + " " + c.Path(), Params: params(c), Origin: origin(r.Context())}
			if proof, ok := proofOf(r.Context()); ok {
				a.Token = proof.Token()
			}
			err := next(c)
			a.Fields, a.Unchanged = recorded(views.Body(c)), c.Get(unchangedKey) != nil
			a.Status, a.Refusal = statusAfter(c, err), withoutToken(refusalAfter(c, err))
			record(a)
			return err
		}
	}
}

// The keys in the context of a request of what its handler notes for Audit.
const (
	unchangedKey = "spacehost.unchanged"
	failureKey   = "spacehost.failure"
)

// NoteUnchanged notes that a request changes nothing: the audit log then has no record of it. Only the handler may decide that, from
// the request that it has decoded.
func NoteUnchanged(c echo.Context) { c.Set(unchangedKey, true) }

// noteFailure notes why the change of a request failed after the status of its answer was sent.
func noteFailure(c echo.Context, err error) { c.Set(failureKey, err) }

// failureOf returns the error of noteFailure, nil without one.
func failureOf(c echo.Context) error {
	err, _ := c.Get(failureKey).(error)
	return err
}

func params(c echo.Context) map[string]string {
	all := map[string]string{}
	for _, name := range c.ParamNames() {
		all[name] = withoutToken(c.Param(name))
	}
	return all
}

// recorded returns the fields of a decoded body; none without a body.
func recorded(body any) (fields map[string]any) {
	text, err := json.Marshal(body)
	if err != nil || json.Unmarshal(text, &fields) != nil {
		return nil
	}
	for name, value := range fields {
		text, err := json.Marshal(value)
		switch {
		case err != nil || isSecretName(name):
			delete(fields, name)
		case withoutToken(string(text)) != string(text):
			fields[name] = people.TokenPrefix + "..."
		case len(text) > maxRecorded:
			fields[name] = strings.ToValidUTF8(string(text[:maxRecorded]), "") + "..."
		}
	}
	return fields
}

// tokenText finds a token of a person or of a node that was written into a name, a label or a reason by mistake.
var tokenText = lazyregexp.New(`(?i)(?:` + people.TokenPrefix + `|shj_)[\w.]*`)

func withoutToken(text string) string {
	return tokenText.ReplaceAllString(text, people.TokenPrefix+"...")
}

// origin returns the way by which a request came.
func origin(ctx context.Context) audit.Origin {
	if Actor(ctx) != "" {
		return audit.Console
	}
	return audit.CLI
}

func isSecretName(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"token", "secret", "password", "key"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// statusAfter returns the status of the answer, or that which the server's error handler will give it.
func statusAfter(c echo.Context, err error) int {
	refused, ok := errors.AsType[*echo.HTTPError](err)
	switch {
	case ok:
		return refused.Code
	case err != nil || failureOf(c) != nil:
		return http.StatusInternalServerError
	}
	return c.Response().Status
}

// refusalAfter returns why a request was refused. Errors of the host are in its log only.
func refusalAfter(c echo.Context, err error) string {
	if refused, ok := errors.AsType[*echo.HTTPError](err); ok {
		return fmt.Sprint(refused.Message)
	}
	if failed := failureOf(c); failed != nil {
		return failed.Error()
	}
	return views.RefusalText(c)
}
