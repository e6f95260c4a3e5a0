package gradioapi

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// localAliases are the hosts that Gradio treats as local (gradio/route_utils.py, CustomCORSMiddleware).
var localAliases = []string{"localhost", "127.0.0.1", "0.0.0.0"}

// allowOrigin sets the CORS headers that Gradio's own response would have (captures/v6/root_cors.txt). A local app
// may be read by local pages only, an app at any other host name by every page.
func allowOrigin(c call) {
	origin := c.Request().Header.Get("Origin")
	if origin == "" {
		return
	}
	h := c.Response().Header()
	h.Set("Access-Control-Allow-Credentials", "true")
	if !slices.Contains(localAliases, hostName(c.Request().Host)) || slices.Contains(localAliases, hostName(origin)) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Add("Vary", "Origin")
	}
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
	if !isLocal(hostName(r.Host)) { // 2
		return false
	}
	origins := r.Header.Values("Origin")
	for _, origin := range origins {
		if u, err := url.Parse(origin); err == nil && u.Host == r.Host {
			continue
		}
		if !slices.Contains(localAliases, hostName(origin)) {
			return true
		}
	}
	return len(origins) == 0 && slices.Contains(r.Header.Values("Sec-Fetch-Site"), "cross-site") // 3
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
