package payer

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"spacehost/internal/identity"
	"spacehost/internal/web"
	"spacehost/queue"
)

// onHub returns the payer of a request without a token in identity mode `hub`. On the Hub, a Space receives the identity of a
// signed-in user only if its page requests a token from the surrounding page of the Hub. Gradio's own page and @gradio/client do
// so. Here they request it from the page /__spacehost/hub (docs/design/0039-bar.md), so a request without a token has lost the
// identity as on the Hub.
//
//  1. With `run`, a browser on this machine counts as signed in, as the local visitor.
//  2. A visitor without a sign-in pays by address and has nothing to lose.
//  3. A lost sign-in is reported: to the visitor in the token, to the operator with its cause.
func (r *Rule) onHub(req *http.Request, at Space, payer identity.Identity) (identity.Identity, error) {
	anonymous, err := identity.Anonymous(req.RemoteAddr)
	if err != nil {
		return identity.Identity{}, err
	}
	local := payer.Kind == identity.Local && !r.config.Shared
	if payer.Kind != identity.User && !local || local && !isBrowser(req) { // 1, 2
		return anonymous, nil
	}
	cause := cmp.Or(lossCause(req, at), "the page was opened at the Space's own address, without the page around it: open /__spacehost/hub")
	anonymous.Fallback = "your sign-in did not reach the Space with this call: " + cause // 3
	if req.Method == http.MethodPost {
		at.SignInLost(payer, cause)
	}
	return anonymous, nil
}

// isBrowser reports whether a browser sent a request. A program without a token has no sign-in.
func isBrowser(req *http.Request) bool {
	return req.Header.Get("Sec-Fetch-Site") != "" || req.Header.Get("Origin") != "" || strings.HasPrefix(req.UserAgent(), "Mozilla/")
}

// lossCause explains why the caller of a request would not have requested a token on the Hub; "" if it would have, inside the page
// of the Hub.
func lossCause(req *http.Request, at Space) string {
	m, attached := at.ManifestAt(req.URL.Path)
	if !attached || req.Method != http.MethodPost || req.URL.Path != m.Mount+m.Prefix+"/queue/join" {
		return "a page called " + clip(req.URL.Path) + " directly, instead of joining the queue with @gradio/client"
	}
	if isGradioPage(req.Referer(), req, m) || req.Header.Get("X-Gradio-User") != "" { // a @gradio/client that requests the token
		return ""
	}
	if isOld(m) {
		return "with Gradio " + m.Gradio + " only Gradio's own page sends the sign-in, and a custom page joined the queue"
	}
	return "a custom page joined the queue directly, instead of with @gradio/client"
}

// clip quotes a path and shortens it: a visitor chooses it, and the screen shows it.
func clip(path string) string { return fmt.Sprintf("%.60q", path) }

// isOld reports whether the @gradio/client of a Gradio version does not request the token (gradio#13210).
func isOld(m queue.Manifest) bool {
	return strings.HasPrefix(m.Gradio, "4.") || strings.HasPrefix(m.Gradio, "5.")
}

// isGradioPage reports whether the Referer is one of Gradio's own pages at the requested address. The runner reports
// those pages in the manifest where it can: an app may replace them with its own.
func isGradioPage(referer string, req *http.Request, m queue.Manifest) bool {
	u, err := url.Parse(referer)
	if err != nil || referer == "" || u.Host != req.Host {
		return false
	}
	path, below := strings.CutPrefix(u.Path, web.SubPath(req)+m.Mount)
	if path == "" {
		path = "/"
	}
	if m.Frontend == nil || !below {
		return below && path == "/"
	}
	isFile := strings.Contains(path, ".") || slices.Contains([]string{"config", "info", "app_id"}, path[strings.LastIndex(strings.TrimSuffix(path, "/"), "/")+1:])
	return m.Frontend.Pages[path] && !isFile
}
