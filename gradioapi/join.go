package gradioapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// bodyLimit bounds a join request: with its headers it has to fit into one Frame to the runner.
const bodyLimit = 63 << 20

// joinBody is what the host must know of a join request (gradio/data_classes.py, PredictBody). The Space gets the bytes.
type joinBody struct {
	SessionHash  *string         `json:"session_hash"`
	FnIndex      *int            `json:"fn_index"`
	Data         json.RawMessage `json:"data"`
	EventID      *string         `json:"event_id"`
	OAuthToken   *string         `json:"oauth_token"`
	TriggerID    *int            `json:"trigger_id"`
	SimpleFormat *bool           `json:"simple_format"`
	Batched      *bool           `json:"batched"`
}

// join admits an Event.
//
//  1. What a well-behaved client would not send is left to Gradio, which words the 4xx.
//  2. So is a function that only the Space can admit: a validator, a cache, a login, gr.render.
//  3. The rest joins the queue here.
func (h *Handler) join(c call) error {
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	body, ok := parseJoin(raw)
	if !ok { // 1
		return h.pass(c)
	}
	endpoint, known := c.manifest.Endpoints[*body.FnIndex]
	if !known || !endpoint.Native || !c.manifest.Native { // 2
		return h.admitBySpace(c)
	}
	event := &queue.Event{
		ID: queue.NewEventID(), Session: queue.SessionHash(*body.SessionHash), Endpoint: endpoint,
		Body: raw, Request: h.request(c), Payer: c.payer,
	}
	if err := h.config.Queue.Join(event); err != nil { // 3
		return refuse(c, err)
	}
	allowOrigin(c)
	return c.JSON(http.StatusOK, map[string]queue.EventID{"event_id": event.ID})
}

// admitBySpace lets the Space's own route admit the call; its runner reports the Event back.
func (h *Handler) admitBySpace(c call) error {
	if err := h.config.Queue.Full(); err != nil {
		return refuse(c, err)
	}
	return h.passAdmitted(c)
}

func readBody(c call) ([]byte, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, bodyLimit))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, echo.NewHTTPError(http.StatusRequestEntityTooLarge, "The request is larger than 63 MiB; upload files first.")
	}
	if err != nil {
		return nil, echo.NewHTTPError(http.StatusBadRequest, "The request broke off.")
	}
	c.Request().Body = io.NopCloser(bytes.NewReader(raw)) // for a pass-through
	return raw, nil
}

func parseJoin(raw []byte) (body joinBody, ok bool) {
	if json.Unmarshal(raw, &body) != nil {
		return body, false
	}
	data := bytes.TrimLeft(body.Data, " \t\r\n")
	return body, body.SessionHash != nil && *body.SessionHash != "" && body.FnIndex != nil && len(data) > 0 && data[0] == '['
}

// refuse words what the Queue refuses.
func refuse(c call, err error) error {
	var full *queue.FullError
	allowOrigin(c)
	switch {
	case errors.As(err, &full):
		return c.JSON(http.StatusServiceUnavailable, detail{full.Error()})
	case errors.Is(err, queue.ErrNoRunner):
		return c.JSON(http.StatusServiceUnavailable, detail{"Queue is stopped."})
	}
	return err
}

// cancelBody is gradio/data_classes.py, CancelBody.
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
	if json.Unmarshal(raw, &body) != nil || body.SessionHash == nil || body.FnIndex == nil || body.EventID == nil {
		return h.pass(c)
	}
	h.config.Queue.Cancel(queue.SessionHash(*body.SessionHash), queue.EventID(*body.EventID))
	return succeed(c)
}

// reset has nothing to do (gradio/routes.py, reset_iterator).
func (h *Handler) reset(c call) error {
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	var body cancelBody
	if json.Unmarshal(raw, &body) != nil || body.EventID == nil {
		return h.pass(c)
	}
	return succeed(c)
}

func succeed(c call) error {
	allowOrigin(c)
	return c.JSON(http.StatusOK, map[string]bool{"success": true})
}
