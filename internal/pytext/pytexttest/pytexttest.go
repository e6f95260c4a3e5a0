// Package pytexttest compares JSON texts in tests.
package pytexttest

import (
	"bytes"
	"encoding/json"
)

// Decode decodes exactly one value of JSON, and keeps the text of numbers.
func Decode(data []byte, to *any) error {
	if !json.Valid(data) {
		return &json.SyntaxError{}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(to)
}
