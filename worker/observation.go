package worker

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/printable"
)

// Observe makes the starts of a Space observed, for `spacehost check`. Its functions are called in order, from one
// goroutine per start, and must not block.
type Observe struct {
	Fact func(Observation)
	// Calls receives how the app can be called; nil: the runner makes no CallList.
	Calls func(CallList)
}

// Observation is a claim of the runner, or of the Space's code in its place: a rule of package check, a place in the Space
// and the values of the rule's texts. Its texts are printable.
type Observation struct {
	Rule     string            `json:"rule"`
	File     string            `json:"file"` // relative to the Space's folder; "": the Space as a whole
	Line     int               `json:"line"`
	Values   map[string]string `json:"values"`
	Severity string            `json:"severity"` // "": the rule's
}

// CallList is how the endpoints of an app can be called, and what its duration functions return.
type CallList struct {
	Path      string        `json:"path"` // of Gradio's API below the Space's address, such as /gradio_api
	Endpoints []PlannedCall `json:"endpoints"`
	Durations []Duration    `json:"durations"`
	Skipped   []Skipped     `json:"skipped"`
}

// PlannedCall is one endpoint with the values of its inputs.
type PlannedCall struct {
	ID    int             `json:"id"` // fn_index
	Name  string          `json:"name"`
	Data  json.RawMessage `json:"data"`  // a JSON array
	Given bool            `json:"given"` // the app itself gives each value, as an example or as a component's value
	File  string          `json:"file"`
	Line  int             `json:"line"`
}

// Duration is what the duration function of a GPU function returns, in seconds before any factor.
type Duration struct {
	Function string            `json:"function"`
	Size     string            `json:"size"`
	File     string            `json:"file"`
	Line     int               `json:"line"`
	Longest  float64           `json:"longest"` // at the extremes of the inputs
	Inputs   map[string]string `json:"inputs"`  // of Longest, those that differ from the values of the PlannedCall
	Handler  string            `json:"handler"` // has these inputs and calls Function, maybe with changed values; "": Function is the endpoint
}

// Skipped is an endpoint or a function without a call, with the reason.
type Skipped struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Bounds of the observations of one start.
const (
	maxObservations = 1000
	maxCallList     = 1 << 20 // bytes
	maxValueNames   = 20
)

type observeOrder struct {
	Limit float64 `json:"limit"` // seconds after which the host ends the start
	Calls bool    `json:"calls"`
}

func (s *session) fact(r report) error {
	observe := s.supervisor.config.Observe
	if s.observations++; observe == nil || r.Fact == nil || s.observations > maxObservations {
		return &FrameError{fmt.Sprintf("unexpected or more than %d observations", maxObservations)}
	}
	observe.Fact(r.Fact.printable())
	return nil
}

func (s *session) calls(payload []byte) error {
	observe := s.supervisor.config.Observe
	if observe == nil || observe.Calls == nil || len(payload) > maxCallList {
		return &FrameError{"unexpected or too large list of calls"}
	}
	var list CallList
	if err := json.Unmarshal(payload, &list); err != nil {
		return &FrameError{"calls: " + err.Error()}
	}
	observe.Calls(list.printable())
	return nil
}

// printable returns o without control characters and with bounded texts. A path that leaves the Space is dropped.
func (o Observation) printable() Observation {
	o.Rule, o.Severity = printable.Reason(o.Rule), printable.Reason(o.Severity)
	o.File, o.Line = placeInSpace(o.File, o.Line)
	o.Values = printableValues(o.Values)
	return o
}

func printableValues(all map[string]string) map[string]string {
	values := map[string]string{}
	for name, value := range all {
		if len(values) < maxValueNames {
			values[printable.Reason(name)] = printable.Reason(value)
		}
	}
	return values
}

var apiPath = lazyregexp.New(`^(/[A-Za-z0-9._~-]+)*$`)

func (p CallList) printable() CallList {
	if !apiPath.MatchString(p.Path) { // it continues an address
		p.Path = ""
	}
	for i, e := range p.Endpoints {
		p.Endpoints[i].Name = printable.Reason(e.Name)
		p.Endpoints[i].File, p.Endpoints[i].Line = placeInSpace(e.File, e.Line)
	}
	for i, d := range p.Durations {
		one := &p.Durations[i]
		one.Function, one.Size, one.Inputs = printable.Reason(d.Function), printable.Reason(d.Size), printableValues(d.Inputs)
		one.Handler = printable.Reason(d.Handler)
		one.File, one.Line = placeInSpace(d.File, d.Line)
	}
	for i, s := range p.Skipped {
		p.Skipped[i] = Skipped{printable.Reason(s.Name), printable.Reason(s.Reason)}
	}
	return p
}

func placeInSpace(file string, line int) (string, int) {
	file = printable.Reason(file)
	if file == "" || !strings.HasPrefix(path.Clean("/"+file), "/"+file) || line < 0 || line > 1<<24 {
		return "", 0
	}
	return file, line
}
