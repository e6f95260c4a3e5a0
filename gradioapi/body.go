package gradioapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/labstack/echo/v4"
)

// Limits of the body of a call, in bytes. A body and its headers must fit into one Frame to the runner (package worker).
// The bodies of one Space that are above smallBody share largeBodies; docs/design/0021-large-payloads.md gives the
// reason.
const (
	bodyLimit   = 300 << 20
	smallBody   = 63 << 20
	largeBodies = 640 << 20
)

// bodies counts the bytes of large bodies that are in memory, as they arrive: a client that sends slowly takes no room
// from others. It is safe for concurrent use.
type bodies struct {
	mu   sync.Mutex
	used int64
	held map[*http.Request]*heldBody
}

// heldBody is a counted body. It is counted until the request has ended and, if an Event holds it, until that has too.
type heldBody struct {
	size    int64
	holders int
}

// reserve counts further bytes for the body of r until the end of the request. It reports false if there is no room.
func (b *bodies) reserve(r *http.Request, size int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+size > largeBodies {
		return false
	}
	b.used += size
	if b.held[r] != nil {
		b.held[r].size += size
		return true
	}
	if b.held == nil {
		b.held = map[*http.Request]*heldBody{}
	}
	b.held[r] = &heldBody{size, 1}
	return true
}

// end is called at the end of every request.
func (b *bodies) end(r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.held[r]
	delete(b.held, r)
	b.drop(held)
}

// keep returns a function that an Event calls when it needs the body of r no longer. It may be called more than once.
func (b *bodies) keep(r *http.Request) (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.held[r]
	if held == nil {
		return func() {}
	}
	held.holders++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.drop(held)
	})
}

func (b *bodies) drop(held *heldBody) {
	if held == nil {
		return
	}
	if held.holders--; held.holders == 0 {
		b.used -= held.size
	}
}

// readBody reads the body of a call. A large body needs a Content-Length, and room among the other large bodies.
func (h *Handler) readBody(c call) ([]byte, error) {
	r := c.Request()
	if r.ContentLength > bodyLimit {
		return nil, tooLarge(fmt.Sprintf("The request is larger than %d MiB; upload files first.", bodyLimit>>20))
	}
	body := http.MaxBytesReader(c.Response(), r.Body, max(r.ContentLength, smallBody))
	raw, err := readSized(body, r.ContentLength, func(size int64) bool { return h.bodies.reserve(r, size) })
	switch {
	case errors.Is(err, errNoRoom):
		c.Response().Header().Set("Retry-After", "10")
		return nil, echo.NewHTTPError(http.StatusServiceUnavailable, "The Space is handling other large requests; try again later.")
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, tooLarge(fmt.Sprintf("A request larger than %d MiB needs a Content-Length.", smallBody>>20))
	case err != nil:
		return nil, echo.NewHTTPError(http.StatusBadRequest, "The request ended before its body was complete.")
	}
	r.Body = io.NopCloser(bytes.NewReader(raw)) // for a pass-through
	return raw, nil
}

func tooLarge(text string) error { return echo.NewHTTPError(http.StatusRequestEntityTooLarge, text) }

var errNoRoom = errors.New("no room for a large body")

// firstRead is the memory for a body before its first byte: a large Content-Length alone takes no more.
const firstRead = 1 << 20

// readSized reads to the end. Its memory grows with the bytes that arrive, and is exact for a truthful size. A size of
// -1 is unknown. Memory above smallBody is reserved first; the error is errNoRoom if that fails.
func readSized(from io.Reader, size int64, reserve func(size int64) bool) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(from)
	}
	data := make([]byte, 0, min(size, firstRead))
	for {
		n, err := io.ReadFull(from, data[len(data):cap(data)])
		if data = data[:len(data)+n]; err != nil || int64(len(data)) == size {
			return data, err
		}
		larger := min(size, 2*int64(cap(data)))
		if added := larger - max(smallBody, int64(cap(data))); added > 0 && !reserve(added) {
			return nil, errNoRoom
		}
		grown := make([]byte, len(data), larger)
		copy(grown, data)
		data = grown
	}
}

// isCompressed reports a compressed body. Gradio's clients never send one, and a small one may expand to a large one.
func isCompressed(r *http.Request) bool {
	coding := r.Header.Get("Content-Encoding")
	return coding != "" && !strings.EqualFold(coding, "identity")
}

var errCompressed = echo.NewHTTPError(http.StatusUnsupportedMediaType, "Compressed request bodies are not supported; send the body uncompressed.")
