package control

import (
	"reflect"

	"github.com/labstack/echo/v4"
)

// Operation describes a route of the API for the OpenAPI document. Method, path, types and status come from its registration.
type Operation struct {
	Doc
	Method, Path string       // a parameter of the path is written ":name"
	Access       string       // least role of the console that may use it; "": any caller
	Body, Answer reflect.Type // nil: none, or a stream
	Status       int          // of a successful answer
	Events       []Event      // of a stream of Server-Sent Events
}

// Doc is what the types of an Endpoint do not show.
type Doc struct {
	Summary string // one sentence
	Query   []Parameter
	Errors  []int // statuses of this route alone
}

// Parameter is a query parameter.
type Parameter struct {
	Name, Text string
	Required   bool
}

// Event is one kind of Server-Sent Event. Name is "" in a stream of unnamed events.
type Event struct {
	Name string
	Type reflect.Type
}

// Recorder collects the Operations of the routes that are registered at it. It serves nothing. Docs are by method and path.
type Recorder struct {
	Operations []Operation
	Docs       map[string]Doc
}

// Add implements Routes. Handle and Stream add the types.
func (r *Recorder) Add(method, path string, _ echo.HandlerFunc, _ ...echo.MiddlewareFunc) *echo.Route {
	r.Operations = append(r.Operations, Operation{Method: method, Path: path, Doc: r.Docs[method+" "+path]})
	return &echo.Route{Method: method, Path: path}
}

// Describe records an Endpoint that another package answers.
func Describe[Body, Answer any](r *Recorder, at Endpoint[Body, Answer], status int) {
	mount(r, at, status, nil)
}

// Last returns the Operation that was registered last.
func (r *Recorder) Last() *Operation { return &r.Operations[len(r.Operations)-1] }

// typeOf returns the type of T, or nil for NoBody.
func typeOf[T any]() reflect.Type {
	if t := reflect.TypeFor[T](); t != reflect.TypeFor[NoBody]() {
		return t
	}
	return nil
}

// AdminOperations returns the Operations of RegisterAdmin.
func AdminOperations() []Operation {
	r := &Recorder{Docs: docs}
	(&API{}).RegisterAdmin(r)
	return r.Operations
}
