package gradioapi

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"spacehost/internal/web"
)

// pageLife is how old a kept answer may be. Gradio makes its config at the start, and its runner says when it makes
// it anew; what an app's own code writes into it nobody says.
const pageLife = time.Second

// Bounds of what is kept of one Space. What is full starts anew: visitors ask for a handful of pages at one or two
// addresses, and who asks for more would only fill it.
const (
	pageBytes  = 8 << 20
	pagesBytes = 32 << 20
	pagesCount = 64
	queryBytes = 200
)

// pages keeps answers of the Space that are the same for all who ask alike. Nothing of whoever asks reaches the
// Space with the question, so that nothing of them can be in the answer.
type pages struct {
	mu       sync.Mutex
	revision int // of the manifest under which they were asked for
	kept     map[pageKey]*page
	size     int
}

// pageKey is all that the answers depend on: Gradio writes its root into them, made of host and scheme
// (gradio/route_utils.py, get_root_url), and its BrotliMiddleware encodes them.
type pageKey struct{ mount, path, query, host, scheme, encoding string }

// page is one answer, asked for once however many wait for it.
type page struct {
	asked  time.Time
	ready  chan struct{} // closed once the rest is set
	ok     bool          // false: each visitor asks the Space themselves
	header http.Header
	body   []byte
}

// isPage reports whether a kept answer will do.
//
// Below a mount the rest of the paths is the app's own.
//
//  1. An encoded path or query may hide what it names, and deep links are files that come and go.
//  2. What the request asks of the answer's bytes is left to the Space.
func isPage(c call) bool {
	r, frontend := c.Request(), c.manifest.Frontend
	if frontend == nil || c.manifest.Mount != "" || r.Method != http.MethodGet || !frontend.Pages[r.URL.Path] {
		return false
	}
	query := r.URL.RawQuery
	if r.URL.RawPath != "" || len(query) > queryBytes || strings.Contains(query, "%") || strings.Contains(query, "deep_link") { // 1
		return false
	}
	return r.Header.Get("Range") == "" && r.Header.Get("Upgrade") == "" // 2
}

// page answers as the Space does, and asks it once a second at most.
func (h *Handler) page(c call) error {
	if _, _, up := h.config.Upstream.Upstream(); !up {
		return h.pass(c) // which waits, or says why
	}
	r := c.Request()
	key := pageKey{c.manifest.Mount, r.URL.Path, r.URL.RawQuery, r.Host, web.Scheme(r), encoding(r)}
	p, mine := h.pages.find(key, c.manifest.Revision, time.Now())
	if mine {
		h.ask(context.WithoutCancel(r.Context()), key, p) // whoever asked first may leave: others wait too
		h.pages.count(key, p)
	}
	select {
	case <-p.ready:
	case <-r.Context().Done():
		return nil
	}
	if !p.ok {
		return h.pass(c)
	}
	for name, values := range p.header {
		c.Response().Header()[name] = append([]string(nil), values...)
	}
	allowOrigin(c)
	c.Response().WriteHeader(http.StatusOK)
	_, _ = c.Response().Write(p.body) // the visitor left
	return nil
}

// encoding is what Gradio looks for in Accept-Encoding, in its order (gradio/brotli_middleware.py).
func encoding(r *http.Request) string {
	accepted := r.Header.Get("Accept-Encoding")
	for _, name := range []string{"br", "gzip"} {
		if strings.Contains(accepted, name) {
			return name
		}
	}
	return ""
}

// find returns a page that is fresh or asked for; if mine, the caller asks.
func (s *pages) find(key pageKey, revision int, now time.Time) (p *page, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.revision || len(s.kept) >= pagesCount || s.size > pagesBytes {
		s.kept, s.size, s.revision = map[pageKey]*page{}, 0, revision
	}
	if p = s.kept[key]; p != nil && (now.Sub(p.asked) < pageLife || !p.isReady()) {
		return p, false
	}
	if p != nil {
		s.size -= len(p.body)
	}
	p = &page{asked: now, ready: make(chan struct{})}
	s.kept[key] = p
	return p, true
}

func (p *page) isReady() bool {
	select {
	case <-p.ready:
		return true
	default:
		return false
	}
}

func (s *pages) count(key pageKey, p *page) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[key] == p {
		s.size += len(p.body)
	}
}

// askWait bounds a question to the Space; whoever waited for it then asks without a bound.
const askWait = 30 * time.Second

func (h *Handler) ask(ctx context.Context, key pageKey, p *page) {
	defer close(p.ready)
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	port, spaceKey, ok := h.config.Upstream.Upstream()
	if !ok {
		return
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, upstreamURL(port, key.path, key.query), nil)
	if err != nil {
		return
	}
	r.Host = key.host
	r.Header.Set("X-Forwarded-Proto", key.scheme)
	forwardHost(r.Header, key.host, key.mount)
	r.Header.Set(headerKey, spaceKey)
	if key.encoding != "" {
		r.Header.Set("Accept-Encoding", key.encoding)
	}
	answer, err := upstreamTransport.RoundTrip(r)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	p.keep(answer)
}

// keep takes what everybody may have: no page that sets a cookie.
func (p *page) keep(answer *http.Response) {
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Set-Cookie") != "" {
		return
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, pageBytes+1))
	if err != nil || len(body) > pageBytes {
		return
	}
	p.header = answer.Header
	for _, name := range []string{"Connection", "Date", "Server", "Transfer-Encoding"} { // of that answer alone
		p.header.Del(name)
	}
	p.body, p.ok = body, true
}
