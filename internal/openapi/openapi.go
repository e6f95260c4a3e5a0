// Package openapi writes the OpenAPI 3.1 document of an API from the descriptions of its routes.
//
// # Types
//
// [Document] turns each control.Operation into an operation of the document. The schemas come from the Go types by reflection: a
// field without omitempty or omitzero is required, a pointer without omitempty may be null, and a list is never null
// (views.Each). Package dashboard serves the document and has the descriptions.
//
// # Streams
//
// OpenAPI 3.1 has no form for Server-Sent Events. The schema of text/event-stream describes one event: its fields event, id and
// data. contentSchema is the schema of the JSON in data.
//
// # Failures
//
// Document fails for a type that JSON cannot express, and for two types with the same name.
package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/swaggest/openapi-go/openapi31"

	"spacehost/internal/control"
)

// Version is that of the API. It rises when a client of the version before may fail.
const Version = "1"

const about = "What the pages of the console show and change. Send a token of the host with each request. " +
	"GET changes nothing. A path that a role may not use is answered with 404. A refused request has a sentence in `detail`."

// Document returns the document of these operations, indented.
func Document(operations []control.Operation) ([]byte, error) {
	b := builder{schemas: newSchemas()}
	b.spec.Openapi = "3.1.0"
	b.spec.Info = *new(openapi31.Info).WithTitle("spacehost").WithVersion(Version).WithDescription(about)
	b.spec.WithServers(*new(openapi31.Server).WithURL("/").WithDescription("the console of a host"))
	b.spec.WithTags(tag("visitor", "Everyone with a token."), tag("member", "People of the host."), tag("admin", "Admins. The paths are those of the command line."))
	components := b.spec.ComponentsEns()
	components.WithSecuritySchemesItem("token", openapi31.SecuritySchemeOrReference{SecurityScheme: new(openapi31.SecurityScheme).
		WithDescription("A token of the host (sph_...).").WithHTTPBearer(*new(openapi31.SecuritySchemeHTTPBearer).WithScheme("bearer"))})
	refusal, err := b.schemas.of(reflect.TypeFor[Problem]())
	if err != nil {
		return nil, err
	}
	components.WithResponsesItem(refused, openapi31.ResponseOrReference{Response: response("The request is refused.", "application/json", refusal)})
	for _, o := range operations {
		if err := b.add(o); err != nil {
			return nil, fmt.Errorf("describe %s %s: %w", o.Method, o.Path, err)
		}
	}
	for name, schema := range b.schemas.named {
		components.WithSchemasItem(name, schema)
	}
	return json.MarshalIndent(&b.spec, "", "  ")
}

// Problem is the body of every answer with a status of 400 or above.
type Problem struct {
	Detail string `json:"detail"` // a sentence for the person
}

const refused = "Refused"

func tag(name, text string) openapi31.Tag {
	return *new(openapi31.Tag).WithName(name).WithDescription(text)
}

type builder struct {
	spec    openapi31.Spec
	schemas *schemas
}

func (b *builder) add(o control.Operation) error {
	path, parameters := pathOf(o.Path)
	op := new(openapi31.Operation).WithID(idOf(o)).WithSummary(o.Summary)
	if o.Access != "" {
		op.WithTags(o.Access).WithSecurity(map[string][]string{"token": {}})
	}
	for _, q := range o.Query {
		parameters = append(parameters, parameter(openapi31.ParameterInQuery, q))
	}
	if len(o.Events) > 1 { // named, with ids
		parameters = append(parameters, parameter(openapi31.ParameterInHeader, control.Parameter{Name: "Last-Event-ID", Text: "id of the last event that the client has received"}))
	}
	op.WithParameters(parameters...)
	if o.Body != nil {
		schema, err := b.schemas.of(o.Body)
		if err != nil {
			return err
		}
		op.WithRequestBody(openapi31.RequestBodyOrReference{RequestBody: new(openapi31.RequestBody).WithRequired(true).WithContentItem("application/json", openapi31.MediaType{Schema: schema})})
	}
	answer, err := b.answer(o)
	if err != nil {
		return err
	}
	responses := op.ResponsesEns()
	responses.WithMapOfResponseOrReferenceValuesItem(strconv.Itoa(o.Status), openapi31.ResponseOrReference{Response: answer})
	for _, status := range statusesOf(o) {
		responses.WithMapOfResponseOrReferenceValuesItem(strconv.Itoa(status), openapi31.ResponseOrReference{Reference: &openapi31.Reference{Ref: "#/components/responses/" + refused}})
	}
	item := b.spec.PathsEns().MapOfPathItemValues[path]
	if err := item.SetOperation(o.Method, op); err != nil {
		return err
	}
	b.spec.PathsEns().WithMapOfPathItemValuesItem(path, item)
	return nil
}

// statusesOf returns the statuses of a refused request: those of every route, those of its form, and its own.
func statusesOf(o control.Operation) []int {
	if o.Access == "" {
		return o.Errors
	}
	all := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests} // no token, another site or plain http, too many wrong tokens
	if o.Access != "visitor" || strings.Contains(o.Path, "/:") {
		all = append(all, http.StatusNotFound)
	}
	if o.Body != nil || len(o.Query) > 0 {
		all = append(all, http.StatusBadRequest)
	}
	return append(all, o.Errors...)
}

func (b *builder) answer(o control.Operation) (*openapi31.Response, error) {
	text := http.StatusText(o.Status)
	if o.Answer == reflect.TypeFor[control.CSV]() {
		return response(text, "text/csv", map[string]any{"type": "string"}), nil
	}
	if o.Events == nil {
		schema, err := b.schemas.of(o.Answer)
		return response(text, "application/json", schema), err
	}
	var kinds []any
	for _, e := range o.Events {
		schema, err := b.schemas.of(e.Type)
		if err != nil {
			return nil, err
		}
		data := map[string]any{"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
		kind := map[string]any{"type": "object", "properties": map[string]any{"data": data}, "required": []string{"data"}}
		if e.Name != "" {
			kind["properties"] = map[string]any{"event": map[string]any{"const": e.Name}, "id": map[string]any{"type": "string"}, "data": data}
			kind["required"] = []string{"event", "id", "data"}
		}
		kinds = append(kinds, kind)
	}
	return response("A stream of Server-Sent Events. The schema describes one event.", "text/event-stream", map[string]any{"oneOf": kinds}), nil
}

func response(text, kind string, schema map[string]any) *openapi31.Response {
	return new(openapi31.Response).WithDescription(text).WithContentItem(kind, openapi31.MediaType{Schema: schema})
}

func parameter(in openapi31.ParameterIn, p control.Parameter) openapi31.ParameterOrReference {
	made := new(openapi31.Parameter).WithIn(in).WithName(p.Name).WithSchema(map[string]any{"type": "string"})
	if p.Text != "" {
		made.WithDescription(p.Text)
	}
	if p.Required {
		made.WithRequired(true)
	}
	return openapi31.ParameterOrReference{Parameter: made}
}

// pathOf returns a path in the form of OpenAPI, with its parameters: /people/:name is /people/{name}.
func pathOf(path string) (string, []openapi31.ParameterOrReference) {
	var found []openapi31.ParameterOrReference
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if name, is := strings.CutPrefix(s, ":"); is {
			segments[i] = "{" + name + "}"
			found = append(found, parameter(openapi31.ParameterInPath, control.Parameter{Name: name, Required: true}))
		}
	}
	return strings.Join(segments, "/"), found
}

// idOf returns a name for generated clients: GET /api/spacehost/admin/lease/timeline is getAdminLeaseTimeline.
func idOf(o control.Operation) string {
	id := strings.ToLower(o.Method)
	for s := range strings.FieldsFuncSeq(strings.TrimPrefix(o.Path, "/api/spacehost"), func(r rune) bool { return strings.ContainsRune("/-:.", r) }) {
		id += strings.ToUpper(s[:1]) + s[1:]
	}
	return id
}
