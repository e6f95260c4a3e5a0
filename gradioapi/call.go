package gradioapi

import (
	"encoding/json"
	"strings"

	"spacehost/internal/pytext"
	"spacehost/queue"
)

// callBody holds the fields of a /call that Gradio reads (gradio/data_classes.py, SimplePredictBody).
type callBody struct {
	Data        []json.RawMessage
	SessionHash *string
	OAuthToken  *string
}

// joinOfCall is the join request that Gradio derives from a /call (gradio/routes.py, simple_predict_post).
type joinOfCall struct {
	Data         []json.RawMessage `json:"data"`
	SessionHash  string            `json:"session_hash"`
	FnIndex      int               `json:"fn_index"`
	SimpleFormat bool              `json:"simple_format"`
	OAuthToken   *string           `json:"oauth_token,omitempty"`
}

// joinByName admits an Event whose Endpoint is given by its api_name. The Event has a stream of its own.
//
//  1. As in join, the Space admits a request that a well-behaved client would not send, a function that only the
//     Space can admit, and an unknown name.
//  2. The Space also admits a call whose number of values differs from the function's inputs: Gradio 6 fills in
//     values that callers may leave out (gradio/routes.py, prepare_simple_api_data).
//  3. Without a session_hash the Event is its own Session (gradio/queueing.py, push).
func (h *Handler) joinByName(c call, name string) error {
	raw, err := h.readData(c, kindsByName(name))
	if err != nil {
		return err
	}
	if err := h.requireBodyOwner(c, raw); err != nil {
		return err
	}
	body, ok := parseCall(raw)
	endpoint, known := endpointOf(c.manifest, name)
	if !ok || !isJSON(c.Request()) || !known || !h.admitsHere(c, endpoint) { // 1
		return h.admitBySpace(c, body.SessionHash)
	}
	if len(body.Data) != endpoint.Inputs { // 2
		return h.admitBySpace(c, body.SessionHash)
	}
	id := queue.NewEventID()
	session := string(id) // 3
	if body.SessionHash != nil {
		session = *body.SessionHash
	}
	join := pytext.JSON(joinOfCall{body.Data, session, endpoint.ID, true, body.OAuthToken})
	return h.admit(c, &queue.Event{ID: id, Session: queue.SessionHash(session), Endpoint: endpoint, Body: join})
}

// joinByFields handles a /call/v2. Its values have names, and only the Space can put them in order.
func (h *Handler) joinByFields(c call) error {
	if _, err := h.readData(c, kindsByField(strings.TrimPrefix(strings.TrimSuffix(c.apiPath, "/"), "/call/v2/"))); err != nil {
		return err
	}
	return h.admitBySpace(c, nil)
}

func parseCall(raw []byte) (body callBody, ok bool) {
	ok = parseFields(raw, map[string]any{"data": &body.Data, "session_hash": &body.SessionHash, "oauth_token": &body.OAuthToken})
	return body, ok && body.Data != nil && (body.SessionHash == nil || *body.SessionHash != "")
}

// endpointOf returns the first Endpoint with the given api_name, as Gradio does (gradio/route_utils.py, get_fn).
func endpointOf(m queue.Manifest, name string) (found queue.Endpoint, ok bool) {
	for _, e := range m.Endpoints {
		if e.APIName == name && (!ok || e.ID < found.ID) {
			found, ok = e, true
		}
	}
	return found, ok
}
