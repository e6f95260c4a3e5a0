package gradioapi

import "net/http"

// A loop exists if the Space's own server sends the host's requests back to the host, for example a program of the Space
// that relays the bytes of its port to the Space's public address. Each round would cost the host two connections. So the
// host marks its requests with headerHop, and a host refuses a marked request.
//
// A Space that calls another Space, or itself as Gradio's MCP server does, sends requests of its own without the header.
// The app never sees it, even if it copies all headers of a request: guard.py removes it.

// loopText is the response to a marked request.
const loopText = "This request comes from spacehost itself: the Space relays requests to a spacehost address. Send a request of its own instead."

// stampKey sets the headers of every request that the host sends to a Space.
func stampKey(h http.Header, key string) {
	h.Set(headerKey, key)
	h.Set(headerHop, "1")
}

func isLoop(r *http.Request) bool { return r.Header.Get(headerHop) != "" }
