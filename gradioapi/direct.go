package gradioapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"spacehost/internal/pytext"
	"spacehost/queue"
)

// takesData reports the routes that take values for a function and bypass the queue.
func takesData(path string) bool {
	for _, start := range []string{"/run/", "/api/", "/stream/", "/mcp/"} {
		if strings.HasPrefix(path, start) {
			return true
		}
	}
	return path == "/component_server"
}

// passData passes a direct call through after two checks: the files that its values name, and the existence of the
// function. Gradio fails on an unknown function (KeyError, 500).
func (h *Handler) passData(c call, path string) error {
	name, direct := strings.CutPrefix(path, "/run/")
	if !direct {
		name, direct = strings.CutPrefix(path, "/api/")
	}
	rule := kindRule(func(queue.Manifest, []byte) func(fileRef) kind { return allFreeKind })
	switch {
	case direct:
		rule = kindsByIndex(name)
	case strings.HasPrefix(path, "/stream/"):
		rule = allEitherKind // the running function decides, whatever index the body gives
	case path == "/component_server" && isForm(c.Request()):
		return h.pass(c) // a file for a component of the app itself
	case path == "/component_server":
		rule = kindsOfServer
	}
	raw, err := h.readData(c, rule)
	if err != nil {
		return err
	}
	if err := h.requireBodyOwner(c, raw); err != nil {
		return err
	}
	if event, ok := strings.CutPrefix(path, "/stream/"); ok {
		if err := h.requireEventOwner(c, queue.EventID(event)); err != nil {
			return err
		}
	}
	switch {
	case c.manifest.Renders:
	case direct && !isEndpoint(c.manifest, name, raw):
		return refuseDetail(c, http.StatusNotFound, "Could not infer function index for API name: "+name)
	case path == "/component_server" && !isServer(c.manifest, raw):
		return refuseDetail(c, http.StatusNotFound, "Function not found.")
	}
	return h.pass(c)
}

func isForm(r *http.Request) bool {
	kind, _ := pytext.ParseOptions(r.Header.Get("Content-Type"))
	return kind == "multipart/form-data"
}

// isEndpoint reports whether the function may exist: by its index if the body gives one, else by its name
// (gradio/route_utils.py, get_fn). A body that this code cannot read is left to Gradio, which refuses it.
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

// isServer reports whether the component exports that function to its frontend (gradio/routes.py, component_server).
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
