package gradioapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/queue"
)

// sse is a stream under way.
type sse struct {
	c        call
	control  *http.ResponseController
	patience time.Duration // what a client gets to take a frame
}

func (h *Handler) openSSE(c call) sse {
	allowOrigin(c)
	c.Response().Header().Set(echo.HeaderContentType, "text/event-stream; charset=utf-8")
	c.Response().WriteHeader(http.StatusOK)
	s := sse{c, http.NewResponseController(c.Response().Writer), h.config.Patience}
	_ = s.write(nil) // the head goes out at once, as Gradio's, though there may be nothing to say for long
	return s
}

// write sends one frame at once; an error means that the client has gone or does not read.
func (s sse) write(frame []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(s.patience)); err != nil {
		return err
	}
	if _, err := s.c.Response().Write(frame); err != nil {
		return err
	}
	return s.control.Flush()
}

// data is the stream of a Session: nothing but `data:` frames, and a heartbeat when nothing else is said.
func (h *Handler) data(c call) error {
	if !c.Request().URL.Query().Has("session_hash") {
		return h.pass(c) // 422 in FastAPI's words
	}
	session := h.config.Queue.Session(queue.SessionHash(c.QueryParam("session_hash")))
	d := dialectOf(c.manifest)
	return h.tell(c, session, func(m queue.Message) []byte { return dataFrame(d, m) })
}

// dataFrame splices what Gradio made as it is; a line break in it would end the frame, and in JSON it stands
// only where a space may.
func dataFrame(d dialect, m queue.Message) []byte {
	data := d.encode(m)
	if bytes.IndexByte(data, '\n') >= 0 || bytes.IndexByte(data, '\r') >= 0 {
		data = bytes.Map(breakToSpace, data)
	}
	return fmt.Appendf(nil, "data: %s\n\n", data)
}

func breakToSpace(r rune) rune {
	if r == '\n' || r == '\r' {
		return ' '
	}
	return r
}

// callData is the stream of one /call; its path names the Event, the API's name in it is not looked at
// (gradio/routes.py, simple_predict_get).
func (h *Handler) callData(c call) error {
	parts := strings.Split(strings.Trim(c.rest, "/"), "/")
	if parts[1] == "v2" {
		parts = parts[1:]
	}
	if len(parts) != 3 {
		return h.pass(c)
	}
	session := h.config.Queue.SessionOf(queue.EventID(parts[2]))
	return h.tell(c, session, func(m queue.Message) []byte { return simpleFrame(c.manifest, m) })
}

// tell writes a Session's Messages until its last Event is told. A client that goes earlier leaves its Session.
func (h *Handler) tell(c call, session *queue.Session, frame func(queue.Message) []byte) error {
	s := h.openSSE(c)
	if session == nil {
		s.breakOff(frame)
	}
	defer session.Open()()
	for {
		m, err := h.next(c.Request().Context(), session)
		if err == nil || errors.Is(err, io.EOF) {
			if data := frame(m); data != nil && s.write(data) != nil {
				err = context.Canceled
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF): // left on another stream, or cut
			s.breakOff(frame)
		case err != nil:
			h.config.Queue.Leave(session)
			return nil
		case m.Kind == queue.UnexpectedError:
			return nil
		}
	}
}

// breakOff says that there is no such Session (any more). Gradio raises there: the client sees an answer that
// ends in the middle (gradio/routes.py, queue_data_helper).
func (s sse) breakOff(frame func(queue.Message) []byte) {
	_ = s.write(frame(queue.Message{Kind: queue.UnexpectedError, Text: dialectOf(s.c.manifest).notFound()}))
	panic(http.ErrAbortHandler)
}

// next is the Session's next Message, or a heartbeat if it has nothing to say for a while.
func (h *Handler) next(ctx context.Context, session *queue.Session) (queue.Message, error) {
	beat, cancel := context.WithTimeout(ctx, h.config.Heartbeat)
	defer cancel()
	m, err := session.Next(beat)
	if err != nil && beat.Err() != nil && ctx.Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return queue.Message{Kind: queue.Heartbeat}, nil
	}
	return m, err
}

// status answers with the number that waits, without a rank (gradio/queueing.py, get_status).
func (h *Handler) status(c call) error {
	allowOrigin(c)
	body := fmt.Sprintf(`{"msg":"estimation","event_id":null,"rank":null,"queue_size":%d,"rank_eta":null}`, h.config.Queue.Size())
	return c.JSONBlob(http.StatusOK, []byte(body))
}

// heartbeat tells a visitor that the Space lives, and the Space that its visitor does: one upstream heartbeat
// for each, opened again when the Space was started again. Its end runs unload functions and ages gr.State.
func (h *Handler) heartbeat(c call) error {
	s := h.openSSE(c)
	ctx, cancel := context.WithCancel(c.Request().Context())
	upstream := make(chan struct{})
	go func() {
		defer close(upstream)
		h.keepUpstream(ctx, c)
	}()
	defer func() { <-upstream }()
	defer cancel()
	ticker := time.NewTicker(h.config.Heartbeat)
	defer ticker.Stop()
	for {
		if s.write([]byte("data: ALIVE\n\n")) != nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// reopenAfter is the pause before an upstream heartbeat that broke off is opened again.
const reopenAfter = time.Second

func (h *Handler) keepUpstream(ctx context.Context, c call) {
	for ctx.Err() == nil {
		h.beat(ctx, c)
		select {
		case <-time.After(reopenAfter):
		case <-ctx.Done():
		}
	}
}

// beat is one upstream heartbeat, until either side ends it.
func (h *Handler) beat(ctx context.Context, c call) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer, err := h.fetch(ctx, c, c.Request().URL.Path)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body) // its end says all
}

// behindLogin asks an app that signs people in whether this visitor may read (gradio/routes.py, login_check).
func (h *Handler) behindLogin(c call, then func(call) error) error {
	if c.manifest.Native {
		return then(c)
	}
	answer, body, err := h.checkLogin(c)
	if err != nil {
		return h.down(c)
	}
	if answer.StatusCode == http.StatusOK {
		return then(c)
	}
	allowOrigin(c)
	return c.Blob(answer.StatusCode, answer.Header.Get(echo.HeaderContentType), body)
}

// checkLogin ends its own request before the stream that it allows begins.
func (h *Handler) checkLogin(c call) (*http.Response, []byte, error) {
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	answer, err := h.fetch(ctx, c, c.manifest.Mount+c.manifest.Prefix+"/login_check")
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	return answer, body, err
}
