package shelf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
)

// answerUpload takes the connection over, and answers an upload in frames. It returns an error before the first frame only.
//
//	front                                 node
//	request, without the body       -->
//	                                <--   go         the Shelf reads the body
//	body, ..., end or body error    -->
//	                                <--   response   it may come before the end of the body
//
//	                                <--   pass       only the Space's own server can answer; no body was read
//	count, ..., end or body error   -->
//	                                <--   taken, or refusal
//	answered, text                  -->
//	                                <--   marked
//
// The front closes the connection at the end, or when the visitor has left.
func (s *Shelf) answerUpload(w http.ResponseWriter, r *http.Request, m manifest) error {
	v := r.URL.Query()
	visit, c := decodeCall(r, v, m)
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("take an upload: %w", err)
	}
	defer conn.Close()
	link := newFramed(conn, buffered.Reader)
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+wireUpgrade+"\r\n\r\n"); err != nil {
		return nil // the front has left
	}
	out := &responseBuffer{uploadResponse: uploadResponse{Header: http.Header{}}}
	body := &sentBody{link: link}
	c.AllowOrigin = func(http.Header) { out.AllowOrigin = true }
	c.Pass = func(_ http.ResponseWriter, sent *http.Request, answered func(*http.Response)) {
		out.passed = true
		passUploadTo(link, body, sent, needed(r.Header), answered)
	}
	visit.Body = body
	s.ServeHTTP(out, With(visit, c, v.Get("path")))
	if !out.passed {
		_ = link.writeJSON(frameResponse, out.uploadResponse) // fails if the front has left
		_, _ = io.Copy(io.Discard, link.in)                   // until the front closes: a reset could overtake the response
	}
	return nil
}

// responseBuffer keeps the response to an upload until the Shelf has given back the room for it.
type responseBuffer struct {
	uploadResponse
	passed bool
}

func (b *responseBuffer) Header() http.Header { return b.uploadResponse.Header }

func (b *responseBuffer) WriteHeader(status int) {
	if b.Status == 0 {
		b.Status = status
	}
}

func (b *responseBuffer) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	b.Body = append(b.Body, p...)
	return len(p), nil
}

// sentBody is the body of an upload, which the front sends after the first Read, or counts if the upload is passed through.
type sentBody struct {
	link    *framed
	asked   bool
	rest    int // bytes of the frame that were not read
	counted int // bytes that have passed at the front and were not read here
	passed  bool
	failed  error
}

func (b *sentBody) Close() error { return nil }

func (b *sentBody) Read(p []byte) (int, error) {
	if b.passed {
		return b.readCounted(p)
	}
	if b.failed == nil && !b.asked {
		b.asked, b.failed = true, b.link.write(frameGo, nil)
	}
	for b.failed == nil && b.rest == 0 {
		b.failed = b.nextFrame()
	}
	if b.failed != nil {
		return 0, b.failed
	}
	n, err := b.link.in.Read(p[:min(len(p), b.rest)])
	b.rest -= n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.failed = err
	return n, err
}

func (b *sentBody) nextFrame() error {
	kind, size, err := b.link.begin()
	if err != nil {
		return err
	}
	if kind == frameBody {
		b.rest = size
		return nil
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(b.link.in, content); err != nil {
		return err
	}
	switch kind {
	case frameEnd:
		return io.EOF
	case frameBodyError:
		return decodeBodyError(content)
	}
	return fmt.Errorf("read an upload: unexpected frame %q", kind)
}

// readCounted stands for a Read at the front: p has no content.
func (b *sentBody) readCounted(p []byte) (int, error) {
	if b.counted == 0 {
		if b.failed == nil {
			return 0, io.ErrNoProgress
		}
		return 0, b.failed
	}
	n := min(len(p), b.counted)
	b.counted -= n
	return n, nil
}

// passUploadTo lets the front pass an upload through, and returns when the front has closed the connection. What the Shelf has put
// around the body is applied to the count of its bytes.
func passUploadTo(link *framed, body *sentBody, sent *http.Request, received http.Header, answered func(*http.Response)) {
	body.passed = true
	order := passOrder{}
	for name := range received {
		if _, kept := sent.Header[name]; !kept {
			order.Drop = append(order.Drop, name)
		}
	}
	if link.writeJSON(framePass, order) != nil {
		return
	}
	text, refused := &lateText{}, false
	var response *http.Response
	for {
		kind, content, err := link.next()
		if err != nil {
			return
		}
		switch kind {
		case frameCount, frameEnd, frameBodyError:
			if !refused {
				refused = count(link, body, sent.Body, kind, content)
			}
		case frameAnswered:
			if response == nil {
				response = &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: text}
				answered(response)
			}
		case frameText:
			if response != nil {
				text.Reader = *bytes.NewReader(content)
				_, _ = io.Copy(io.Discard, response.Body) // memory
			}
			if link.write(frameMarked, nil) != nil {
				return
			}
		}
	}
}

// count lets the bytes that have passed go through the body of the Shelf, and reports whether that refuses more.
func count(link *framed, body *sentBody, through io.Reader, kind frameKind, content []byte) (refused bool) {
	switch kind {
	case frameCount:
		n, _ := binary.Uvarint(content)
		body.counted += int(min(n, maxFrame))
	case frameEnd:
		body.failed = io.EOF
	case frameBodyError:
		body.failed = decodeBodyError(content)
	}
	var err error
	scratch := chunks.Get().(*[uploadChunk]byte)
	defer chunks.Put(scratch)
	for err == nil && (body.counted > 0 || body.failed != nil) {
		_, err = through.Read(scratch[:])
	}
	switch {
	case err == nil:
		return false
	case err == io.EOF:
		_ = link.write(frameTaken, nil) // the front has left: the next read fails
		return false
	}
	_ = link.writeJSON(frameRefusal, newBodyError(err))
	return true
}

// lateText is the body of an answer, which the front sends after the answer.
type lateText struct{ bytes.Reader }

func (t *lateText) Close() error { return nil }
