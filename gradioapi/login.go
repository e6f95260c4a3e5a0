package gradioapi

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
)

// An app's own login: so many wrong passwords a visitor may send, and then has to wait.
const (
	wrongLogins  = 20
	loginsWithin = 5 * time.Minute
)

// passLogin lets the app look at a password (gradio/routes.py, login), and counts the wrong ones: Gradio does not.
func (h *Handler) passLogin(c call) error {
	if !h.logins.Allow(c.Request().RemoteAddr) {
		return tooMany(c, "Too many wrong passwords have come from your address. Try again in five minutes.")
	}
	err := h.pass(c)
	if c.Response().Status == http.StatusBadRequest {
		h.logins.Wrong(c.Request().RemoteAddr)
	}
	return err
}

func tooMany(c call, text string) error {
	c.Response().Header().Set(echo.HeaderRetryAfter, "300")
	return answer(c, http.StatusTooManyRequests, text)
}

// leadsAway reports whether a way in or out of the app names a page of another site to go on to: Gradio below 6.6 sends
// visitors there (gradio/oauth.py, _redirect_to_target). The query is read as Python does, to which ";" parts nothing.
func leadsAway(r *http.Request) bool {
	path := strings.TrimRight(r.URL.Path, "/")
	if !strings.HasSuffix(path, "/logout") && !strings.Contains(path, "/login/") {
		return false
	}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err == nil && name != "_target_url" {
			continue
		}
		if value, err := url.QueryUnescape(value); err != nil || !identity.IsOwnPath(value) {
			return true
		}
	}
	return false
}
