package dashboard

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"spacehost/internal/control"
	"spacehost/internal/openapi"
)

// TestOperationsAreDescribed checks that each route has the types, the summary and the role that its description needs.
func TestOperationsAreDescribed(t *testing.T) {
	for _, o := range Operations() {
		if o.Status == 0 {
			t.Errorf("%s %s has no types: mount it with handle, control.Handle or control.Stream", o.Method, o.Path)
		}
		if o.Summary == "" {
			t.Errorf("%s %s has no summary: add one to docs (internal/dashboard/operations.go, or internal/control/docs.go)", o.Method, o.Path)
		}
	}
	for _, topic := range topicsOf[Admin] {
		if !slices.ContainsFunc(events, func(e control.Event) bool { return e.Name == string(topic) }) {
			t.Errorf("topic %s is not in events", topic)
		}
	}
}

// TestDocument checks the document against the schema of OpenAPI 3.1, its references, and the copy in docs.
func TestDocument(t *testing.T) {
	text, err := Document()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	rules, err := compiler.Compile("testdata/openapi-3.1-2022-10-07.json") // https://spec.openapis.org/oas/3.1/schema/2022-10-07
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.Validate(document); err != nil {
		t.Errorf("the document is not valid: %v", err)
	}
	if err := rules.Validate(map[string]any{"openapi": "3.1.0"}); err == nil {
		t.Error("a document without info is valid")
	}
	if err := compiler.AddResource("file:///openapi.json", document); err != nil {
		t.Fatal(err)
	}
	for name := range document.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any) {
		if _, err := compiler.Compile("file:///openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	copied, err := os.ReadFile("../../docs/openapi.json")
	if err != nil || string(copied) != string(text)+"\n" {
		t.Errorf("docs/openapi.json differs from the routes (%v); run `make docs`", err)
	}
	again, err := openapi.Document(Operations())
	if err != nil || !bytes.Equal(again, text) {
		t.Errorf("a second document differs from the first (%v)", err)
	}
}
