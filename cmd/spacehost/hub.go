package main

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"spacehost/internal/identity"
	"spacehost/queue"
	"spacehost/server"
)

// onHub is who pays for a request in the mode `hub`: on the Hub, who signed in is known to a Space only if the page that
// stands around it is asked, which Gradio's own page and @gradio/client do. It tries to be as wrong as the Hub is.
//
//  1. Somebody at this machine's keyboard is signed in there, as the local visitor of `run`.
//  2. Who is not signed in pays by address, and misses nothing.
//  3. What does not travel is told: the visitor by the token, and the operator with the cause.
func (s *spaceRun) onHub(r *http.Request, who identity.Identity) (identity.Identity, error) {
	anonymous, err := identity.Anonymous(r.RemoteAddr)
	if err != nil {
		return identity.Identity{}, err
	}
	local := who.Kind == identity.Local && !s.host.settings.isServe()
	if who.Kind != identity.User && !local || local && !isBrowser(r) { // 1, 2
		return anonymous, nil
	}
	cause := s.lost(r)
	if cause == "" {
		return who, nil
	}
	anonymous.Fallback = "your sign-in did not come with this call: " + cause // 3
	if r.Method == http.MethodPost {
		s.tellLost(r, who, cause)
	}
	return anonymous, nil
}

// isBrowser reports whether a page has sent a request: what a program sends without a token is nobody's.
func isBrowser(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Site") != "" || r.Header.Get("Origin") != "" || strings.HasPrefix(r.UserAgent(), "Mozilla/")
}

// lost says why the sign-in of a request's browser would not have reached the Space on the Hub; "" if it would.
func (s *spaceRun) lost(r *http.Request) string {
	m, attached := s.queue.ManifestAt(r.URL.Path)
	if !attached || r.Method != http.MethodPost || r.URL.Path != m.Mount+m.Prefix+"/queue/join" {
		return "a browser called " + clip(r.URL.Path) + " by itself, and not the queue with @gradio/client"
	}
	if isGradios(r.Referer(), r, m) || r.Header.Get("X-Gradio-User") != "" && !isOld(m) {
		return ""
	}
	if isOld(m) {
		return "with Gradio " + m.Gradio + " it travels from Gradio's own page alone, and a custom page joined the queue"
	}
	return "a custom page joined the queue by itself, and not with @gradio/client"
}

func clip(path string) string { return fmt.Sprintf("%.60q", path) }

// isOld is before @gradio/client itself asked for who signed in (gradio#13210).
func isOld(m queue.Manifest) bool {
	return strings.HasPrefix(m.Gradio, "4.") || strings.HasPrefix(m.Gradio, "5.")
}

// isGradios reports whether the Referer is one of Gradio's own pages at the address that was asked. Which those are the
// runner has found, where it could: an app may have put a page of its own in their place.
func isGradios(referer string, r *http.Request, m queue.Manifest) bool {
	u, err := url.Parse(referer)
	if err != nil || referer == "" || u.Host != r.Host {
		return false
	}
	path, below := strings.CutPrefix(u.Path, m.Mount)
	if path == "" {
		path = "/"
	}
	if m.Frontend == nil || !below {
		return below && path == "/"
	}
	isFile := strings.Contains(path, ".") || slices.Contains([]string{"config", "info", "app_id"}, path[strings.LastIndex(strings.TrimSuffix(path, "/"), "/")+1:])
	return m.Frontend.Pages[path] && !isFile
}

// tellLost tells the operator: each cause once on the screen, each call in the log.
func (s *spaceRun) tellLost(r *http.Request, who identity.Identity, cause string) {
	s.host.log.Info("identity did not travel", zap.String("space", s.space.Name), zap.String("identity", who.Key()), zap.String("reason", cause))
	if s.told.first(cause) {
		s.note(fmt.Sprintf("%s is signed in, and yet pays by address, as on the Hub: %s. See %s/__spacehost/.", who, cause, s.url()))
	}
}

// fallen is who pays if a browser brings a sign-in that is over: they should learn of it, and not wonder.
func (s *spaceRun) fallen(r *http.Request, who identity.Identity) identity.Identity {
	if s.cookies().SignIn(r) != "" && server.IsOwnPage(r) && r.Method == http.MethodPost {
		who.Fallback = "your sign-in here has ended: open /__spacehost/login to sign in again"
	}
	return who
}

// onces remembers what has been said. Visitors choose the words, so it says a hundred things at most.
type onces struct {
	mu   sync.Mutex
	said map[string]bool
}

func (o *onces) first(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.said[text] || len(o.said) == 100 {
		return false
	}
	if o.said == nil {
		o.said = map[string]bool{}
	}
	o.said[text] = true
	return true
}
