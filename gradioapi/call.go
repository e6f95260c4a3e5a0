package gradioapi

import (
	"encoding/json"
	"strings"

	"spacehost/queue"
)

// callBody is what a /call may say (gradio/data_classes.py, SimplePredictBody).
type callBody struct {
	Data        []json.RawMessage
	SessionHash *string
	OAuthToken  *string
}

// joinOfCall is the join request that Gradio makes of a /call (gradio/routes.py, simple_predict_post).
type joinOfCall struct {
	Data         []json.RawMessage `json:"data"`
	SessionHash  string            `json:"session_hash"`
	FnIndex      int               `json:"fn_index"`
	SimpleFormat bool              `json:"simple_format"`
	OAuthToken   *string           `json:"oauth_token,omitempty"`
}

// joinByName admits an Event whose Endpoint has a name and whose stream is one of its own.
//
//  1. What a well-behaved caller would not send, and a function that only the Space can admit, are left to it, as
//     in join; so is a name that it does not have.
//  2. So is a call with another number of values than the function takes: Gradio 6 fills in what callers may
//     leave out (gradio/routes.py, prepare_simple_api_data).
//  3. Without a session_hash the Event is a Session by itself (gradio/queueing.py, push).
func (h *Handler) joinByName(c call, name string) error {
	raw, err := h.readData(c, kindsByName(name))
	if err != nil {
		return err
	}
	if err := h.ownsNamed(c, raw); err != nil {
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
	join := mustJSON(joinOfCall{body.Data, session, endpoint.ID, true, body.OAuthToken})
	return h.admit(c, &queue.Event{ID: id, Session: queue.SessionHash(session), Endpoint: endpoint, Body: join})
}

// joinByFields is a /call/v2, whose values have names that only the Space can put in order.
func (h *Handler) joinByFields(c call) error {
	if _, err := h.readData(c, kindsByField(strings.TrimPrefix(strings.TrimSuffix(c.rest, "/"), "/call/v2/"))); err != nil {
		return err
	}
	return h.admitBySpace(c, nil)
}

func parseCall(raw []byte) (body callBody, ok bool) {
	ok = parseFields(raw, map[string]any{"data": &body.Data, "session_hash": &body.SessionHash, "oauth_token": &body.OAuthToken})
	return body, ok && body.Data != nil && (body.SessionHash == nil || *body.SessionHash != "")
}

// endpointOf returns the Endpoint of that api_name: the first, as Gradio does (gradio/route_utils.py, get_fn).
func endpointOf(m queue.Manifest, name string) (found queue.Endpoint, ok bool) {
	for _, e := range m.Endpoints {
		if e.APIName == name && (!ok || e.ID < found.ID) {
			found, ok = e, true
		}
	}
	return found, ok
}
