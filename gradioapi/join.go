package gradioapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// bodyLimit bounds a join request. The request and its headers must fit into one Frame to the runner.
const bodyLimit = 63 << 20

// joinBody holds the fields of a join request that the host needs (gradio/data_classes.py, PredictBody). The Space
// receives the original bytes.
type joinBody struct {
	SessionHash, EventID, OAuthToken *string
	FnIndex, TriggerID               *int
	SimpleFormat, Batched            *bool
	Data                             json.RawMessage
}

// join admits an Event.
//
//  1. A request that a well-behaved client would not send is left to Gradio. Gradio words the 4xx response, or
//     accepts the request (it reads "0" as a number).
//  2. A function that only the Space can admit is left to Gradio too: a validator, a cache, a login, gr.render.
//  3. Every other Event joins the queue here.
func (h *Handler) join(c call) error {
	raw, err := h.readData(c, kindsByIndex(""))
	if err != nil {
		return err
	}
	body, ok := parseJoin(raw)
	if err := h.requireBodyOwner(c, raw); err != nil {
		return err
	}
	if !ok || !isJSON(c.Request()) { // 1
		return h.admitBySpace(c, body.SessionHash)
	}
	endpoint, known := c.manifest.Endpoints[*body.FnIndex]
	if !known || !h.admitsHere(c, endpoint) { // 2
		return h.admitBySpace(c, body.SessionHash)
	}
	return h.admit(c, &queue.Event{ID: queue.NewEventID(), Session: queue.SessionHash(*body.SessionHash), Endpoint: endpoint, Body: raw}) // 3
}

// admitsHere reports whether a call can be admitted without Python.
func (h *Handler) admitsHere(c call, e queue.Endpoint) bool {
	return c.manifest.Native && e.Native && !h.config.AdmitBySpace
}

// admit adds an Event to the queue. The Space first sees it when it starts.
func (h *Handler) admit(c call, event *queue.Event) error {
	event.Request, event.Payer = h.request(c), c.payer
	if err := h.config.Queue.Join(event); err != nil {
		return refuseJoin(c, err)
	}
	allowOrigin(c)
	return c.JSONBlob(http.StatusOK, mustJSON(map[string]queue.EventID{"event_id": event.ID}))
}

// admitBySpace passes the call to the Space's own route, and the runner then reports the Event. A nil session is a
// new one.
func (h *Handler) admitBySpace(c call, session *string) error {
	hash := queue.SessionHash("")
	if session != nil {
		hash = queue.SessionHash(*session)
	}
	if err := h.config.Queue.Refuses(c.payer, hash, c.manifest.Mount); err != nil {
		return refuseJoin(c, err)
	}
	return h.passAdmitted(c)
}

// readData reads the body of a call. It refuses a body that names a file which the caller may not use.
func (h *Handler) readData(c call, rule kindRule) ([]byte, error) {
	if isCompressed(c.Request()) {
		return nil, errCompressed
	}
	raw, err := readBody(c)
	if err != nil {
		return nil, err
	}
	if err := h.checkFiles(c, raw, rule); err != nil {
		allowOrigin(c)
		return nil, err
	}
	return raw, nil
}

func readBody(c call) ([]byte, error) {
	tooLarge := echo.NewHTTPError(http.StatusRequestEntityTooLarge, "The request is larger than 63 MiB; upload files first.")
	if c.Request().ContentLength > bodyLimit {
		return nil, tooLarge
	}
	raw, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, bodyLimit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, tooLarge
	}
	if err != nil {
		return nil, echo.NewHTTPError(http.StatusBadRequest, "The request ended before its body was complete.")
	}
	c.Request().Body = io.NopCloser(bytes.NewReader(raw)) // for a pass-through
	return raw, nil
}

func parseJoin(raw []byte) (body joinBody, ok bool) {
	ok = parseFields(raw, map[string]any{
		"session_hash": &body.SessionHash, "fn_index": &body.FnIndex, "data": &body.Data, "event_id": &body.EventID,
		"oauth_token": &body.OAuthToken, "trigger_id": &body.TriggerID, "simple_format": &body.SimpleFormat, "batched": &body.Batched,
	})
	return body, ok && body.SessionHash != nil && *body.SessionHash != "" && body.FnIndex != nil && len(body.Data) > 0 && body.Data[0] == '['
}

// parseFields matches names exactly, as Python does. encoding/json also takes FN_INDEX for fn_index: the Space would
// then run another function than the one that was checked here.
func parseFields(raw []byte, fields map[string]any) bool {
	var given map[string]json.RawMessage
	if !utf8.Valid(raw) || json.Unmarshal(raw, &given) != nil {
		return false
	}
	for name, to := range fields {
		if value, ok := given[name]; ok && json.Unmarshal(value, to) != nil {
			return false
		}
	}
	return true
}

// isJSON reports whether FastAPI would read the body as JSON. A page of another site can send any other media type
// without a preflight, and FastAPI refuses it.
func isJSON(r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"))
}

// refuseJoin maps an error of the Queue to a response.
func refuseJoin(c call, err error) error {
	var full *queue.FullError
	var crowded *queue.CrowdedError
	allowOrigin(c)
	switch {
	case errors.As(err, &crowded):
		return c.JSONBlob(http.StatusTooManyRequests, mustJSON(detail{crowded.Error()}))
	case errors.As(err, &full):
		return c.JSONBlob(http.StatusServiceUnavailable, mustJSON(detail{full.Error()}))
	case errors.Is(err, queue.ErrNoRunner):
		return c.JSONBlob(http.StatusServiceUnavailable, mustJSON(detail{"Queue is stopped."}))
	}
	return err
}

// cancelBody mirrors CancelBody of gradio/data_classes.py.
type cancelBody struct {
	SessionHash *string `json:"session_hash"`
	FnIndex     *int    `json:"fn_index"`
	EventID     *string `json:"event_id"`
}

func (h *Handler) cancel(c call) error {
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	var body cancelBody
	if !isJSON(c.Request()) || json.Unmarshal(raw, &body) != nil || body.SessionHash == nil || body.FnIndex == nil || body.EventID == nil {
		return h.pass(c)
	}
	if err := h.requireOwner(c, queue.SessionHash(*body.SessionHash)); err != nil {
		return err
	}
	h.config.Queue.Cancel(queue.SessionHash(*body.SessionHash), queue.EventID(*body.EventID))
	return succeed(c)
}

// reset validates the request; there is nothing to reset (gradio/routes.py, reset_iterator).
func (h *Handler) reset(c call) error {
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	var body cancelBody
	if !isJSON(c.Request()) || json.Unmarshal(raw, &body) != nil || body.EventID == nil {
		return h.pass(c)
	}
	return succeed(c)
}

func succeed(c call) error {
	allowOrigin(c)
	return c.JSONBlob(http.StatusOK, mustJSON(map[string]bool{"success": true}))
}
