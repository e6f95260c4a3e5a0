package gradioapi

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/web"
)

// An app's own login: so many wrong passwords a visitor may send, and then has to wait.
const (
	wrongLogins  = 20
	loginsWithin = 5 * time.Minute
	loginRhythm  = 100 * time.Millisecond // answers to wrong ones come at a multiple of it
)

// passLogin lets the app look at a password (gradio/routes.py, login), and counts the wrong ones: Gradio does not. How
// long the app looks tells nobody whether there is such a person, nor how much of a password was right: Gradio hashes only
// for people whom it knows, and an app's own function compares as it likes (CVE-2024-1729, CVE-2024-47869).
func (h *Handler) passLogin(c call) error {
	response, began := c.Response(), time.Now()
	response.Before(func() {
		if response.Status == http.StatusBadRequest {
			awaitBeat(c.Request().Context(), began, loginRhythm)
		}
	})
	if !h.logins.Allow(c.Request().RemoteAddr) {
		return tooMany(c, "Too many wrong passwords have come from your address. Try again in five minutes.")
	}
	err := h.pass(c)
	if c.Response().Status == http.StatusBadRequest {
		h.logins.Wrong(c.Request().RemoteAddr)
	}
	return err
}

// awaitBeat returns a whole number of beats after began, at least one, or when ctx ends.
func awaitBeat(ctx context.Context, began time.Time, beat time.Duration) {
	timer := time.NewTimer(beat - time.Since(began)%beat)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
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
		if value, err := url.QueryUnescape(value); err != nil || !web.IsOwnPath(value) {
			return true
		}
	}
	return false
}
