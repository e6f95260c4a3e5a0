package views

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/labstack/echo/v4"
)

// MaxBody is more than any valid request body.
const MaxBody = 64 << 10

// bodyKey is the key of the decoded body in the context of its request.
const bodyKey = "spacehost.body"

// Read decodes the JSON body of a request, a struct; an empty body reads as {}. An unknown field is refused, because it is usually a
// typo. Text after the JSON, a repeated key and a key in another case are refused too: encoding/json would accept them, and the
// audit log must show exactly what the handler has read. Errors: *RequestError.
func Read[T any](c echo.Context) (body T, err error) {
	text, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, MaxBody))
	if err == nil && len(text) > 0 {
		err = decode(text, &body)
	}
	if err != nil {
		return body, BadRequest("the request body is not the expected JSON: %w", err)
	}
	c.Set(bodyKey, body)
	return body, nil
}

// Body returns what Read has decoded, nil without a valid body.
func Body(c echo.Context) any { return c.Get(bodyKey) }

func decode[T any](text []byte, body *T) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(body); err != nil && err != io.EOF {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("text follows the JSON object; send one object")
	}
	return checkKeys(text, reflect.TypeFor[T]())
}

// checkKeys refuses a repeated key, and a key that is not exactly the JSON name of a field. text is valid JSON.
func checkKeys(text []byte, of reflect.Type) error {
	names := map[string]bool{}
	for _, field := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names[name] = true
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if begin, err := d.Token(); begin != json.Delim('{') {
		return ignoreEnd(err) // null, or white space
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		if allowed, known := names[name]; !known {
			return fmt.Errorf("unknown field %.40q; names are case-sensitive", name)
		} else if !allowed {
			return fmt.Errorf("field %.40q is repeated; send it once", name)
		}
		names[name] = false
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	return nil
}

func ignoreEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
