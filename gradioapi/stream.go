package gradioapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"spacehost/queue"
)

// data is the stream of a Session. It contains only `data:` frames, and a heartbeat after each quiet interval.
func (h *Handler) data(c call) error {
	if !c.Request().URL.Query().Has("session_hash") {
		return h.pass(c) // FastAPI words the 422
	}
	hash := queue.SessionHash(c.QueryParam("session_hash"))
	if err := h.requireOwner(c, hash); err != nil {
		return err
	}
	session := h.config.Queue.Session(hash)
	if session == nil {
		h.sessionGuesses.Wrong(c.Request().RemoteAddr)
	}
	d := dialectOf(c.manifest)
	return h.openStream(c, session, func(m queue.Message) []byte {
		frame := dataFrame(d, m)
		if m.Kind == queue.Completed || m.Kind == queue.Generating {
			h.noteUses(frame, hash)
		}
		return frame
	})
}

// dataFrame splices Gradio's own output in unchanged. A line break would end the frame. In JSON it can only be
// whitespace, so a space replaces it.
func dataFrame(d dialect, m queue.Message) []byte {
	data := d.encode(m)
	if bytes.IndexByte(data, '\n') >= 0 || bytes.IndexByte(data, '\r') >= 0 {
		data = bytes.Map(breakToSpace, data)
	}
	frame := make([]byte, 0, len("data: ")+len(data)+len("\n\n"))
	return append(append(append(frame, "data: "...), data...), "\n\n"...)
}

func breakToSpace(r rune) rune {
	if r == '\n' || r == '\r' {
		return ' '
	}
	return r
}

// callData is the stream of one /call. The path names the Event; its api_name is ignored (gradio/routes.py,
// simple_predict_get).
func (h *Handler) callData(c call) error {
	parts := strings.Split(strings.Trim(c.apiPath, "/"), "/")
	if parts[1] == "v2" {
		parts = parts[1:]
	}
	if len(parts) != 3 {
		return h.pass(c)
	}
	if err := h.requireEventOwner(c, queue.EventID(parts[2])); err != nil {
		return err
	}
	session := h.config.Queue.SessionOf(queue.EventID(parts[2]))
	d := dialectOf(c.manifest)
	return h.openStream(c, session, func(m queue.Message) []byte { return simpleFrame(d, m) })
}

// openStream starts a Session's stream. The stream outlives the request handler and may last for hours, so it keeps
// only the needed parts of the request.
func (h *Handler) openStream(c call, session *queue.Session, frame func(queue.Message) []byte) error {
	s, err := h.openSSE(c)
	if err != nil {
		return err
	}
	if session == nil {
		s.sendNotFound(frame)
		s.close()
		return nil
	}
	closeSession, endVisit := session.Open(), h.config.Queue.Visit(session.Hash)
	go func() {
		defer s.close()
		defer closeSession()
		defer endVisit()
		h.stream(s, session, frame)
	}()
	return nil
}

// stream writes a Session's Messages until its last Event has ended. A client that disconnects earlier leaves its
// Session.
func (h *Handler) stream(s *sse, session *queue.Session, frame func(queue.Message) []byte) {
	beat := time.NewTimer(h.config.Heartbeat)
	defer beat.Stop()
	if !session.Ready() {
		_ = s.send() // send the head at once, as Gradio does; the first Message may take long
	}
	for {
		beat.Reset(h.config.Heartbeat)
		frames, m, err := s.gather(session, beat.C, frame)
		switch {
		case errors.Is(err, io.EOF), err == nil && m.Kind == queue.UnexpectedError:
			s.end(frames)
			return
		case errors.Is(err, io.ErrUnexpectedEOF): // left through another stream, or cut off
			_ = s.write(frames)
			s.sendNotFound(frame)
			return
		case err != nil && s.refused.Load():
			_ = s.write(frames)
			h.dismiss(s, session, frame)
			return
		case err != nil || s.write(frames) != nil:
			h.config.Queue.Leave(session)
			return
		}
	}
}

// gatherBytes is the size from which due frames are written without gathering more.
const gatherBytes = 64 << 10

// gather returns all frames that are due, the last Message among them, and the error of Next.
func (s *sse) gather(session *queue.Session, beat <-chan time.Time, frame func(queue.Message) []byte) (frames []byte, m queue.Message, err error) {
	for first := true; first || err == nil && m.Kind != queue.UnexpectedError && len(frames) < gatherBytes && session.Ready(); first = false {
		m, err = session.Next(s.ctx, beat)
		if !m.Beside.IsZero() && s.pollInterval > 0 {
			s.delayUntil(m.Beside)
		}
		if err == nil || errors.Is(err, io.EOF) {
			if one := frame(m); frames == nil {
				frames = one // not copied: it may be large
			} else {
				frames = append(frames, one...)
			}
		}
	}
	return frames, m, err
}

// delayUntil waits for one poll interval after a join that arrived while this stream was open. The response to the
// join must reach the client first. The Python client of Gradio 4 and 5 takes the first Message of a call for its
// last, and waits forever (gradio_client 1.13, stream_messages and submit). Gradio's own stream has that delay
// because it polls for Messages.
func (s *sse) delayUntil(joined time.Time) {
	late := time.NewTimer(time.Until(joined.Add(s.pollInterval)))
	defer late.Stop()
	select {
	case <-late.C:
	case <-s.ctx.Done():
	}
}

// sendNotFound reports that the Session does not exist (any more). The stream then breaks off: Gradio raises an
// exception there, and the client sees an incomplete response (gradio/routes.py, queue_data_helper).
func (s *sse) sendNotFound(frame func(queue.Message) []byte) {
	_ = s.write(frame(queue.Message{Kind: queue.UnexpectedError, Text: s.notFoundText}))
}

// status returns the number of waiting Events, without a rank (gradio/queueing.py, get_status).
func (h *Handler) status(c call) error {
	allowOrigin(c)
	body := fmt.Sprintf(`{"msg":"estimation","event_id":null,"rank":null,"queue_size":%d,"rank_eta":null}`, h.config.Queue.Size())
	return c.JSONBlob(http.StatusOK, []byte(body))
}
