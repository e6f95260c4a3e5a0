package gradioapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrNoInfo reports that a Space's endpoints are not known: it does not run, its app asks for a login, or Gradio's own routes do not
// answer.
var ErrNoInfo = errors.New("the endpoints of this Space are not known: it does not run, or its app has a login or routes of its own")

// Endpoint is a function of the app that clients call by name.
type Endpoint struct {
	Name       string      `json:"name"` // with a slash
	Parameters []Parameter `json:"parameters"`
}

// Parameter is an input of an Endpoint.
type Parameter struct {
	Name       string          `json:"name"`
	Label      string          `json:"label"`
	Type       string          `json:"type"` // in Python
	Component  string          `json:"component"`
	HasDefault bool            `json:"hasDefault"`
	Default    json.RawMessage `json:"default,omitempty"`
	Example    json.RawMessage `json:"example,omitempty"`
}

// Info describes how clients call a Space.
type Info struct {
	Prefix    string     `json:"prefix"` // of the paths of the API: /gradio_api, "" in Gradio 4
	Endpoints []Endpoint `json:"endpoints"`
}

// rawInfo is the answer of Gradio's GET /info (gradio/blocks.py, get_api_info).
type rawInfo struct {
	Named map[string]struct {
		Parameters []struct {
			Label      string          `json:"label"`
			Name       string          `json:"parameter_name"`
			HasDefault bool            `json:"parameter_has_default"`
			Default    json.RawMessage `json:"parameter_default"`
			Component  string          `json:"component"`
			Example    json.RawMessage `json:"example_input"`
			Python     struct {
				Type string `json:"type"`
			} `json:"python_type"`
		} `json:"parameters"`
	} `json:"named_endpoints"`
}

// Info returns the named endpoints of the app at the Space's root, as every visitor may read them, sorted by name. It requests them
// from the Space once per second at most. Errors: ErrNoInfo, and those of ctx.
func (h *Handler) Info(ctx context.Context) (Info, error) {
	m, attached := h.config.Queue.Manifest()
	path := m.Prefix + "/info"
	if !attached || m.Frontend == nil || !m.Frontend.Pages[path] {
		return Info{}, ErrNoInfo
	}
	key := pageKey{path: path, host: "127.0.0.1", scheme: "http"}
	p, first := h.pages.find(key, m.Revision, time.Now())
	if first {
		go func() { // others wait for it, too
			h.fetchPage(context.WithoutCancel(ctx), key, p)
			h.pages.addSize(key, p)
		}()
	}
	select {
	case <-p.ready:
	case <-ctx.Done():
		return Info{}, ctx.Err()
	}
	if !p.ok {
		return Info{}, ErrNoInfo
	}
	var raw rawInfo
	if err := json.Unmarshal(p.body, &raw); err != nil {
		return Info{}, fmt.Errorf("%w (%w)", ErrNoInfo, err)
	}
	return raw.info(m.Prefix), nil
}

func (raw rawInfo) info(prefix string) Info {
	info := Info{Prefix: prefix, Endpoints: []Endpoint{}}
	for name, one := range raw.Named {
		e := Endpoint{Name: name, Parameters: []Parameter{}}
		for _, p := range one.Parameters {
			e.Parameters = append(e.Parameters, Parameter{
				Name: p.Name, Label: p.Label, Type: p.Python.Type, Component: p.Component, HasDefault: p.HasDefault, Default: p.Default, Example: p.Example,
			})
		}
		info.Endpoints = append(info.Endpoints, e)
	}
	slices.SortFunc(info.Endpoints, func(a, b Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	return info
}
