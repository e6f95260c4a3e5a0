package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// openAPI is the OpenAPI document of a running host.
type openAPI struct {
	compiler *jsonschema.Compiler
	paths    map[string]map[string]operation
}

// operation is the part of an operation that the test needs to make a request.
type operation struct {
	Parameters []struct{ Name, In string }
	Responses  map[string]struct{ Content map[string]any }
}

func (l consoleLab) openAPI(t *testing.T) openAPI {
	t.Helper()
	_, text := request(t, "GET", l.Console+"/api/spacehost/openapi.json", "", nil)
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("the document: %v: %.300s", err, text)
	}
	d := openAPI{compiler: jsonschema.NewCompiler()}
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource("file:///openapi.json", document); err != nil {
		t.Fatal(err)
	}
	var routes struct {
		Paths map[string]map[string]operation
	}
	if err := json.Unmarshal([]byte(text), &routes); err != nil {
		t.Fatal(err)
	}
	d.paths = routes.Paths
	return d
}

// check validates an answer of a GET request. path is as in the document.
func (d openAPI) check(t *testing.T, path, answer string) {
	t.Helper()
	schema, err := d.compiler.Compile("file:///openapi.json#/paths/" + url.PathEscape(strings.ReplaceAll(path, "/", "~1")) + "/get/responses/200/content/application~1json/schema")
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(answer))
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		t.Errorf("the answer of GET %s does not match the document: %v: %.1000s", path, err, answer)
	}
}

// checkAnswers reads every path that has a GET, with a value for each parameter that needs one, and validates the answers.
func (l consoleLab) checkAnswers(t *testing.T, values map[string]string) {
	t.Helper()
	d := l.openAPI(t)
	checked := 0
	for path, methods := range d.paths {
		get, ok := methods["get"]
		if _, isJSON := get.Responses["200"].Content["application/json"]; !ok || !isJSON {
			continue // a stream, or a file
		}
		if strings.Contains(path, "/nodes/{") {
			continue // this host has no nodes (TestNodes)
		}
		at, query := path, url.Values{}
		for _, p := range get.Parameters {
			value, given := values[p.Name]
			switch {
			case p.In == "path" && strings.Contains(path, "/spaces/{"+p.Name+"}"):
				at = strings.ReplaceAll(at, "{"+p.Name+"}", values["space"])
			case p.In == "path":
				at = strings.ReplaceAll(at, "{"+p.Name+"}", value)
			case p.In == "query" && given:
				query.Set(p.Name, value)
			}
		}
		status, answer := request(t, "GET", l.Console+at+"?"+query.Encode(), "", bearer(l.ada))
		if status != http.StatusOK {
			t.Errorf("GET %s: %d: %.300s", at, status, answer)
			continue
		}
		checked++
		if strings.HasSuffix(path, ".csv") {
			if !strings.HasPrefix(answer, "id,at,kind,") {
				t.Errorf("GET %s: %.300s", at, answer)
			}
			continue
		}
		d.check(t, path, answer)
	}
	if checked < 15 {
		t.Errorf("only %d answers were checked", checked)
	}
}
