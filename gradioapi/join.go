package gradioapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"spacehost/internal/pytext"
	"spacehost/queue"
)

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
	event.Request, event.Payer, event.Release = h.request(c), c.payer, h.released(c.Request(), event.ID)
	if err := h.config.Queue.Join(event); err != nil {
		event.Release()
		return refuseJoin(c, err)
	}
	h.recheck(c.Request(), event.ID)
	allowOrigin(c)
	return c.JSONBlob(http.StatusOK, pytext.JSON(map[string]queue.EventID{"event_id": event.ID}))
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
	raw, err := h.readBody(c)
	if err != nil {
		return nil, err
	}
	if err := h.checkFiles(c, raw, rule); err != nil {
		allowOrigin(c)
		return nil, err
	}
	h.noteCall(raw)
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
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return false
	}
	given, ok := topLevel(raw)
	if !ok {
		return false
	}
	for name, to := range fields {
		value, ok := given[name]
		if same, isRaw := to.(*json.RawMessage); ok && isRaw {
			*same = value // not scanned again: it may be most of a large body
		} else if ok && json.Unmarshal(value, to) != nil {
			return false
		}
	}
	return true
}

// topLevel returns the fields of a valid JSON object without copying them; of null, none. As in encoding/json, the last
// of several equal names counts. encoding/json scans a body of 65 MiB for 0.9 s; this takes a few milliseconds.
func topLevel(valid []byte) (fields map[string]json.RawMessage, ok bool) {
	fields = map[string]json.RawMessage{}
	rest := bytes.TrimLeft(valid, " \t\r\n")
	if rest[0] != '{' {
		return fields, rest[0] == 'n'
	}
	for rest = rest[1:]; ; rest = rest[1:] { // behind the brace, or a comma
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if rest[0] == '}' {
			return fields, true
		}
		end := valueEnd(rest)
		var name string
		if json.Unmarshal(rest[:end], &name) != nil {
			return nil, false
		}
		rest = bytes.TrimLeft(rest[end:], " \t\r\n")
		rest = bytes.TrimLeft(rest[1:], " \t\r\n") // behind the colon
		end = valueEnd(rest)
		fields[name] = json.RawMessage(bytes.TrimRight(rest[:end:end], " \t\r\n"))
		if rest = rest[end:]; rest[0] == '}' {
			return fields, true
		}
	}
}

// valueEnd returns the length of the value at the start of valid JSON, with the white space after a number or a word. A
// string ends with its quote.
func valueEnd(valid []byte) int {
	depth := 0
	for i := 0; ; {
		switch valid[i] {
		case '"':
			i += stringEnd(valid[i:])
			if depth == 0 {
				return i + len(valid[i:]) - len(bytes.TrimLeft(valid[i:], " \t\r\n"))
			}
			continue
		case '{', '[':
			depth++
		case ',', ':':
			if depth == 0 {
				return i
			}
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		}
		i++
	}
}

// stringEnd returns the length of the string at the start of valid JSON.
func stringEnd(valid []byte) int {
	for i := 1; ; {
		i += bytes.IndexAny(valid[i:], `"\`)
		if valid[i] == '"' {
			return i + 1
		}
		i += 2
	}
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
		return c.JSONBlob(http.StatusTooManyRequests, pytext.JSON(detail{crowded.Error()}))
	case errors.As(err, &full):
		return c.JSONBlob(http.StatusServiceUnavailable, pytext.JSON(detail{full.Error()}))
	case errors.Is(err, queue.ErrNoRunner):
		return c.JSONBlob(http.StatusServiceUnavailable, pytext.JSON(detail{"Queue is stopped."}))
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
	raw, err := h.readBody(c)
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
	raw, err := h.readBody(c)
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
	return c.JSONBlob(http.StatusOK, pytext.JSON(map[string]bool{"success": true}))
}
