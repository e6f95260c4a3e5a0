package web

import (
	"net/http"
	"strings"
)

// SetPageHeaders sets the headers of a page of the host with a Content-Security-Policy. The Referer is limited to the origin: the
// full URL may contain a code and the Space that a person came from, and a Space needs the console's origin to accept a sign-in.
func SetPageHeaders(h http.Header, policy string) {
	h.Set("Content-Security-Policy", policy)
	if strings.Contains(policy, "frame-ancestors 'none'") {
		h.Set("X-Frame-Options", "DENY") // for programs that know no frame-ancestors
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "origin")
	h.Set("Cache-Control", "no-store")
}

// KeepFlowing sets the headers of a stream of Server-Sent Events. Proxies must pass each event on as it arrives: nginx and others
// buffer no answer with X-Accel-Buffering, and those that compress or store answers leave it alone. The stream keeps a Cache-Control of
// no-store.
func KeepFlowing(h http.Header) {
	store := "no-cache"
	if h.Get("Cache-Control") == "no-store" {
		store = "no-store"
	}
	h.Set("Cache-Control", store+", no-transform")
	h.Set("X-Accel-Buffering", "no")
}
