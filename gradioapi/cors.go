package gradioapi

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// localAliases are the hosts at which Gradio takes itself to run locally (gradio/route_utils.py, CustomCORSMiddleware).
var localAliases = []string{"localhost", "127.0.0.1", "0.0.0.0"}

// allowOrigin gives a native answer the CORS headers that Gradio's own would have; captures/v6/root_cors.txt.
// An app on this machine may be read by pages of this machine, an app elsewhere by any page.
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

// isForeign reports whether a request would change something here for a page that Gradio would not let read the
// answer: Gradio only withholds that, and such a page can send a form, or an upload, without asking first.
//
//  1. What only asks is answered, without the header that lets a foreign page read it. A websocket asks nothing.
//  2. An app that goes by another name than this machine's own talks to any page, as Gradio says: others build upon it.
//  3. Without an Origin it is the browser's word that counts, if it is one.
func isForeign(r *http.Request) bool {
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

// hostName is empty if there is none to be made out (gradio/route_utils.py, get_hostname).
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
