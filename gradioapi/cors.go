package gradioapi

import (
	"net"
	"net/url"
	"slices"
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
	if !slices.Contains(localAliases, hostName(c.Request().Host)) || slices.Contains(localAliases, originName(origin)) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Add("Vary", "Origin")
	}
}

func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

func originName(origin string) string {
	u, err := url.Parse(origin)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
