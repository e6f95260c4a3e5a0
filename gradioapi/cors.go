package gradioapi

import (
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
