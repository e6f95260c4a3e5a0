package gradioapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"spacehost/queue"
)

// takesData names the routes that take values for a function, and go past the queue.
func takesData(path string) bool {
	for _, start := range []string{"/run/", "/api/", "/stream/", "/mcp/"} {
		if strings.HasPrefix(path, start) {
			return true
		}
	}
	return path == "/component_server"
}

// passData hands on values that name nothing which the visitor may not have, for something that there is:
// Gradio breaks at the rest (KeyError, 500).
func (h *Handler) passData(c call, path string) error {
	name, direct := strings.CutPrefix(path, "/run/")
	if !direct {
		name, direct = strings.CutPrefix(path, "/api/")
	}
	what := kinds(func(queue.Manifest, []byte) func(named) kind { return allFree })
	switch {
	case direct:
		what = kindsByIndex(name)
	case strings.HasPrefix(path, "/stream/"):
		what = allEither // of the function that runs, whatever index the body gives
	case path == "/component_server" && isForm(c.Request()):
		return h.pass(c) // a file, for a component of the app's own
	case path == "/component_server":
		what = kindsOfServer
	}
	raw, err := h.readData(c, what)
	if err != nil {
		return err
	}
	if err := h.ownsNamed(c, raw); err != nil {
		return err
	}
	if event, ok := strings.CutPrefix(path, "/stream/"); ok {
		if err := h.ownsEvent(c, queue.EventID(event)); err != nil {
			return err
		}
	}
	switch {
	case c.manifest.Renders:
	case direct && !isEndpoint(c.manifest, name, raw):
		return answer(c, http.StatusNotFound, "Could not infer function index for API name: "+name)
	case path == "/component_server" && !isServer(c.manifest, raw):
		return answer(c, http.StatusNotFound, "Function not found.")
	}
	return h.pass(c)
}

func isForm(r *http.Request) bool {
	kind, _ := parseOptions(r.Header.Get("Content-Type"))
	return kind == "multipart/form-data"
}

// isEndpoint reports whether there may be something to run: by its index if the body gives one, else by its name
// (gradio/route_utils.py, get_fn). What cannot be read here, Gradio refuses.
func isEndpoint(m queue.Manifest, name string, raw []byte) bool {
	var index *int
	if !parseFields(raw, map[string]any{"fn_index": &index}) {
		return true
	}
	if index != nil {
		_, known := m.Endpoints[*index]
		return known
	}
	_, known := endpointOf(m, name)
	return known
}

// isServer reports whether a component lets its frontend call that (gradio/routes.py, component_server).
func isServer(m queue.Manifest, raw []byte) bool {
	id, name, ok := parseServer(raw)
	return !ok || slices.Contains(m.Servers[id], name)
}

func parseServer(raw []byte) (component int, name string, ok bool) {
	var id json.RawMessage
	if !parseFields(raw, map[string]any{"component_id": &id, "fn_name": &name}) {
		return 0, "", false
	}
	component, err := strconv.Atoi(strings.Trim(string(id), `"`))
	return component, name, err == nil
}
