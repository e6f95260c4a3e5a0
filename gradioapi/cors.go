package gradioapi

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"spacehost/internal/web"
)

// localAliases are the hosts that Gradio treats as local (gradio/route_utils.py, CustomCORSMiddleware).
var localAliases = []string{"localhost", "127.0.0.1", "0.0.0.0"}

// allowOrigin sets the CORS headers that Gradio's own response would have (captures/v6/root_cors.txt). A local app
// may be read by local pages only, an app at any other host name by every page.
func allowOrigin(c call) { setOrigin(c.Request(), c.Response().Header()) }

func setOrigin(r *http.Request, h http.Header) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return
	}
	h.Set("Access-Control-Allow-Credentials", "true")
	if mayRead(r, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Add("Vary", "Origin")
	}
}

// mayRead reports whether a page of origin may read the response to a request.
func mayRead(r *http.Request, origin string) bool {
	return !slices.Contains(localAliases, hostName(web.ReceivedHost(r))) || slices.Contains(localAliases, hostName(origin)) || isOwn(r, origin)
}

// isCrossSite reports a state-changing request of a page that Gradio's CORS policy would not let read the response.
// Gradio only withholds the response. Such a page can still send a form or an upload without a preflight.
//
//  1. A read-only request is answered without the CORS header, so a page of another site cannot read the
//     response. A WebSocket has no preflight and counts as state-changing.
//  2. An app with a non-local host name accepts every page, as Gradio documents: other sites build on it.
//  3. Without an Origin header, the browser's Sec-Fetch-Site header decides, if present.
func isCrossSite(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions: // 1
		if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			return false
		}
	}
	if !isLocal(hostName(web.ReceivedHost(r))) { // 2
		return false
	}
	origins := r.Header.Values("Origin")
	for _, origin := range origins {
		if !isOwn(r, origin) && !slices.Contains(localAliases, hostName(origin)) {
			return true
		}
	}
	return len(origins) == 0 && slices.Contains(r.Header.Values("Sec-Fetch-Site"), "cross-site") // 3
}

// isOwn reports whether an origin is the address of the request: the public one, or that at which it was received.
func isOwn(r *http.Request, origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && (u.Host == r.Host || u.Host == web.ReceivedHost(r))
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return slices.Contains(localAliases, host) || ip != nil && ip.IsLoopback()
}

// hostName returns the host of an address, or "" if it has none (gradio/route_utils.py, get_hostname).
func hostName(address string) string {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}
