package openapi

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"spacehost/internal/control"
)

type forecast struct {
	Rank int `json:"rank"`
}

type answer struct {
	Name   string     `json:"name"`
	Note   string     `json:"note,omitempty"`
	Until  time.Time  `json:"until,omitzero"`
	At     *time.Time `json:"at"`
	List   []string   `json:"list"`
	Kept   *Problem   `json:"kept"`
	Secret string     `json:"-"`
	*forecast
}

// TestSchemas checks what JSON leaves out, and what it writes as null.
func TestSchemas(t *testing.T) {
	text, err := Document([]control.Operation{{
		Doc: control.Doc{Summary: "x", Query: []control.Parameter{{Name: "from", Required: true}}}, Method: http.MethodGet, Path: "/api/spacehost/a/:name/b-c", Access: "admin",
		Answer: reflect.TypeFor[answer](), Status: http.StatusOK,
	}})
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	if got := document.Paths["/api/spacehost/a/{name}/b-c"]["get"].OperationID; got != "getANameBC" {
		t.Errorf("operationId %q of %v", got, document.Paths)
	}
	const want = `{"properties":{"at":{"format":"date-time","type":["null","string"]},"kept":{"anyOf":[{"type":"null"},{"$ref":"#/components/schemas/Problem"}]},` +
		`"list":{"items":{"type":"string"},"type":"array"},"name":{"type":"string"},"note":{"type":"string"},"rank":{"type":"integer"},"until":{"format":"date-time","type":"string"}},` +
		`"required":["name","at","list","kept"],"type":"object"}`
	if got, _ := json.Marshal(document.Components.Schemas["answer"]); string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestTypesThatCannotBeDescribed checks that a wrong type fails with the route in its error.
func TestTypesThatCannotBeDescribed(t *testing.T) {
	type Problem struct{ Other int }
	for _, row := range []struct {
		answer reflect.Type
		want   string
	}{
		{reflect.TypeFor[Problem](), "have the same name"},
		{reflect.TypeFor[chan int](), "describe GET /x"},
	} {
		_, err := Document([]control.Operation{{Method: http.MethodGet, Path: "/x", Answer: row.answer, Status: http.StatusOK}})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v: %v, want %q", row.answer, err, row.want)
		}
	}
}
