package gradioapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/web"
)

// Limits of an app's own login: maxFailedLogins per address within failedLoginWindow.
const (
	maxFailedLogins   = 20
	failedLoginWindow = 5 * time.Minute
	loginDelayStep    = 100 * time.Millisecond // responses to failed logins are sent at a multiple of it
)

// passLogin passes a login to the app (gradio/routes.py, login) and limits the rate of failed ones, which Gradio does
// not. The response time of a failed login reveals neither whether the user exists nor how much of the password
// matched. Gradio computes a hash only for known users, and an app's own function may compare in any way
// (CVE-2024-1729, CVE-2024-47869).
func (h *Handler) passLogin(c call) error {
	response, began := c.Response(), time.Now()
	response.Before(func() {
		if response.Status == http.StatusBadRequest {
			delayToMultiple(c.Request().Context(), began, loginDelayStep)
		}
	})
	if !h.loginAttempts.Allow(c.Request().RemoteAddr) {
		return tooManyRequests(c, "Too many wrong passwords have come from your address. Try again in five minutes.")
	}
	err := h.pass(c)
	if c.Response().Status == http.StatusBadRequest {
		h.loginAttempts.Wrong(c.Request().RemoteAddr)
	}
	return err
}

// delayToMultiple returns a whole number of steps after began, at least one, or when ctx ends.
func delayToMultiple(ctx context.Context, began time.Time, step time.Duration) {
	timer := time.NewTimer(step - time.Since(began)%step)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func tooManyRequests(c call, text string) error {
	c.Response().Header().Set(echo.HeaderRetryAfter, "300")
	return refuseDetail(c, http.StatusTooManyRequests, text)
}

// isOpenRedirect reports whether a login or logout route names a page of another site as its target. Gradio below 6.6
// redirects visitors there (gradio/oauth.py, _redirect_to_target). The query is parsed as Python does: ";" separates
// nothing.
func isOpenRedirect(r *http.Request) bool {
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

// behindLogin asks an app with a login whether the visitor may read a stream (gradio/routes.py, login_check).
func (h *Handler) behindLogin(c call, then func(call) error) error {
	if c.manifest.Native {
		return then(c)
	}
	response, body, err := h.checkLogin(c)
	if err != nil {
		return h.down(c)
	}
	if response.StatusCode == http.StatusOK {
		return then(c)
	}
	allowOrigin(c)
	return c.Blob(response.StatusCode, response.Header.Get(echo.HeaderContentType), body)
}

// checkLogin ends its own request before the stream that it allows begins.
func (h *Handler) checkLogin(c call) (*http.Response, []byte, error) {
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	response, err := h.fetch(ctx, c, c.manifest.Mount+c.manifest.Prefix+"/login_check")
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response, body, err
}
