package views

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"spacehost/internal/people"
)

// maxBody is more than any valid request body.
const maxBody = 64 << 10

// RequestError reports a mistake in a request. Its text is written for the caller, and answered with status 400.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }

func (e *RequestError) Unwrap() error { return e.Err }

// BadRequest returns a *RequestError with the formatted text.
func BadRequest(format string, args ...any) error { return &RequestError{fmt.Errorf(format, args...)} }

// Read decodes the JSON body of a request; an empty body reads as {}. An unknown field is refused, because it is usually a typo.
// Errors: *RequestError.
func Read[T any](c echo.Context) (body T, err error) {
	d := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		return body, BadRequest("the request body is not the expected JSON: %w", err)
	}
	return body, nil
}

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
	return c.JSON(status, map[string]string{"detail": known.Error()})
}

// statusOf maps errors to statuses: 400 for a wrong request, 404 for an unknown name, 409 for a conflict with the present state.
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
	}
	return 0, nil
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
