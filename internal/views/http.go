package views

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/people"
)

// RequestError reports a mistake in a request. Its text is written for the caller, and answered with status 400.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }

func (e *RequestError) Unwrap() error { return e.Err }

// BadRequest returns a *RequestError with the formatted text.
func BadRequest(format string, args ...any) error { return &RequestError{fmt.Errorf(format, args...)} }

// Answer sends v as JSON, or refuses the request if err is not nil.
func Answer(c echo.Context, status int, v any, err error) error {
	if err != nil {
		return Refuse(c, err)
	}
	return c.JSON(status, v)
}

// Refuse answers a mistake of the caller with its text. It returns every other error, for the server's error handler.
func Refuse(c echo.Context, err error) error {
	status, known := statusOf(err)
	if known == nil {
		return err
	}
	return RefuseWith(c, status, known.Error())
}

// RefuseWith answers with a status and a text for the caller.
func RefuseWith(c echo.Context, status int, text string) error {
	c.Set(refusalKey, text)
	return c.JSON(status, map[string]string{"detail": text})
}

// refusalKey is the key of the text of a refusal in the context of its request.
const refusalKey = "spacehost.refusal"

// RefusalText returns the text with which RefuseWith has answered a request, "" if it has not.
func RefusalText(c echo.Context) string {
	text, _ := c.Get(refusalKey).(string)
	return text
}

// statusOf maps errors to statuses: 400 for a wrong request, 401 for a token that has ended, 403 for too few rights, 404 for an unknown
// name, 409 for a conflict with the present state.
// known is nil if err is none of these.
func statusOf(err error) (status int, known error) {
	var request *RequestError
	var name *people.BadNameError
	var label *people.BadLabelError
	var unknown *people.UnknownPersonError
	var unknownToken *people.UnknownTokenIDError
	var duplicate *people.DuplicatePersonError
	var tooMany *people.TooManyTokensError
	var configured *people.ConfiguredPersonError
	var badRights *people.BadRightsError
	var rights *people.RightsError
	var declared *people.DeclaredTokenError
	var noPerson *people.NoPersonError
	var ended *people.UnknownTokenError
	switch {
	case errors.As(err, &request):
		return http.StatusBadRequest, request
	case errors.As(err, &name):
		return http.StatusBadRequest, name
	case errors.As(err, &label):
		return http.StatusBadRequest, label
	case errors.As(err, &unknown):
		return http.StatusNotFound, unknown
	case errors.As(err, &unknownToken):
		return http.StatusNotFound, unknownToken
	case errors.As(err, &duplicate):
		return http.StatusConflict, duplicate
	case errors.As(err, &tooMany):
		return http.StatusConflict, tooMany
	case errors.As(err, &configured):
		return http.StatusConflict, configured
	case errors.As(err, &badRights):
		return http.StatusBadRequest, badRights
	case errors.As(err, &rights):
		return http.StatusForbidden, rights
	case errors.As(err, &declared):
		return http.StatusConflict, declared
	case errors.As(err, &noPerson):
		return http.StatusConflict, noPerson
	case errors.As(err, &ended):
		return http.StatusUnauthorized, ended
	}
	return 0, nil
}

// Time parses a query parameter that is a time. Errors: *RequestError.
func Time(name, text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, BadRequest("%s=%.40q is not a time; write it as 2026-11-30T14:00:00Z", name, text)
	}
	return at, nil
}

// maxRows bounds the rows of one answer.
const maxRows = 10_000

// Limit parses the query parameter `limit`, the number of rows to list. Errors: *RequestError.
func Limit(text string, byDefault int) (int, error) {
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, BadRequest("limit=%.40q is not a number of rows; give one from 1 to %d", text, maxRows)
	}
	return min(n, maxRows), nil
}
