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

// pageMaxAge is the maximum age of a cached page. Gradio builds its config at the start, and the runner reports each
// rebuild. Changes that the app's own code makes to the config are not reported.
const pageMaxAge = time.Second

// Limits of the cached pages of one Space. A full cache starts anew: visitors request a handful of pages at one or
// two addresses, and only a visitor who requests many more would fill it.
const (
	maxPageBytes  = 8 << 20
	maxPagesBytes = 32 << 20
	maxPages      = 64
	maxQueryBytes = 200
)

// pages caches responses of the Space that are the same for all visitors with an equal request. The request to the
// Space contains no data of a visitor, so the response cannot contain any.
type pages struct {
	mu       sync.Mutex
	revision int // of the manifest at the time of the request
	kept     map[pageKey]*page
	size     int
}

// pageKey holds everything that a response depends on: Gradio writes its root, made of host, scheme and sub-path, into the pages
// (gradio/route_utils.py, get_root_url), and its BrotliMiddleware encodes them.
type pageKey struct{ mount, subPath, path, query, host, scheme, encoding string }

// page is one response. It is requested once for all visitors that wait for it.
type page struct {
	requested time.Time
	ready     chan struct{} // closed once the fields below are set
	ok        bool          // false: the request of each visitor is passed through
	header    http.Header
	body      []byte
}

// isPage reports whether a cached response may answer the request. Below a mount, all other paths belong to the outer
// app.
//
//  1. An encoded path or query may hide its meaning, and deep links are files that come and go.
//  2. A request for a part of the response, or for a protocol upgrade, is left to the Space.
func isPage(c call) bool {
	r, frontend := c.Request(), c.manifest.Frontend
	if frontend == nil || c.manifest.Mount != "" || r.Method != http.MethodGet || !frontend.Pages[r.URL.Path] {
		return false
	}
	query := r.URL.RawQuery
	if r.URL.RawPath != "" || len(query) > maxQueryBytes || strings.Contains(query, "%") || strings.Contains(query, "deep_link") { // 1
		return false
	}
	return r.Header.Get("Range") == "" && r.Header.Get("Upgrade") == "" // 2
}

// page answers as the Space does, and requests the page from the Space once per second at most.
func (h *Handler) page(c call) error {
	if _, _, up := h.config.Upstream.Upstream(); !up {
		return h.pass(c) // it waits for the Space or reports the stage
	}
	r := c.Request()
	inserted := h.insertion(r)
	key := pageKey{c.manifest.Mount, web.SubPath(r), r.URL.Path, r.URL.RawQuery, r.Host, web.Scheme(r), encoding(r)}
	if inserted != "" {
		key.encoding = ""
	}
	p, first := h.pages.find(key, c.manifest.Revision, time.Now())
	if first {
		h.fetchPage(context.WithoutCancel(r.Context()), key, p) // the first visitor may disconnect while others wait
		h.pages.addSize(key, p)
	}
	select {
	case <-p.ready:
	case <-r.Context().Done():
		return nil
	}
	if !p.ok {
		return h.pass(c)
	}
	if inserted != "" && takesInsertion(http.StatusOK, p.header) {
		h.writeInserted(c.Response(), r, p, inserted)
		return nil
	}
	for name, values := range p.header {
		c.Response().Header()[name] = append([]string(nil), values...)
	}
	h.vary(http.StatusOK, c.Response().Header())
	allowOrigin(c)
	c.Response().WriteHeader(http.StatusOK)
	_, _ = c.Response().Write(p.body) // fails if the visitor has left
	return nil
}

// encoding returns the encoding that Gradio selects from Accept-Encoding, in its order of preference
// (gradio/brotli_middleware.py).
func encoding(r *http.Request) string {
	accepted := r.Header.Get("Accept-Encoding")
	for _, name := range []string{"br", "gzip"} {
		if strings.Contains(accepted, name) {
			return name
		}
	}
	return ""
}

// find returns a page that is fresh or being requested. If first is set, the caller requests it.
func (s *pages) find(key pageKey, revision int, now time.Time) (p *page, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.revision || len(s.kept) >= maxPages || s.size > maxPagesBytes {
		s.kept, s.size, s.revision = map[pageKey]*page{}, 0, revision
	}
	if p = s.kept[key]; p != nil && (now.Sub(p.requested) < pageMaxAge || !p.isReady()) {
		return p, false
	}
	if p != nil {
		s.size -= len(p.body)
	}
	p = &page{requested: now, ready: make(chan struct{})}
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

func (s *pages) addSize(key pageKey, p *page) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[key] == p {
		s.size += len(p.body)
	}
}

// fetchPageTimeout bounds the shared request to the Space. After a timeout each waiting visitor's own request is
// passed through, without a bound.
const fetchPageTimeout = 30 * time.Second

func (h *Handler) fetchPage(ctx context.Context, key pageKey, p *page) {
	defer close(p.ready)
	ctx, cancel := context.WithTimeout(ctx, fetchPageTimeout)
	defer cancel()
	server, spaceKey, ok := h.config.Upstream.Upstream()
	if !ok {
		return
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, spaceURL(key.path, key.query).String(), nil)
	if err != nil {
		return
	}
	r.Host = key.host
	r.Header.Set("X-Forwarded-Proto", key.scheme)
	forwardHost(r.Header, key.host, key.mount)
	forwardSubPath(r.Header, key.subPath)
	stampKey(r.Header, spaceKey)
	if key.encoding != "" {
		r.Header.Set("Accept-Encoding", key.encoding)
	}
	response, err := h.upstream.to(server).RoundTrip(r)
	if err != nil {
		return
	}
	defer response.Body.Close()
	p.store(response)
}

// store keeps a response that every visitor may receive: it must not set a cookie.
func (p *page) store(response *http.Response) {
	if response.StatusCode != http.StatusOK || response.Header.Get("Set-Cookie") != "" {
		return
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxPageBytes+1))
	if err != nil || len(body) > maxPageBytes {
		return
	}
	p.header = response.Header
	for _, name := range []string{"Connection", "Date", "Server", "Transfer-Encoding"} { // specific to that response
		p.header.Del(name)
	}
	p.body, p.ok = body, true
}
