package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sethvargo/go-retry"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	attemptTimeout = 10 * time.Second
	firstPause     = 2 * time.Second
	lastPause      = 5 * time.Minute
	// attempts and the pauses between them take about 20 minutes. That outlasts a restart of the receiver, and a notice
	// that is older helps little.
	attempts = 10
	// retryTime bounds a delivery, also if a receiver demands long pauses.
	retryTime = 30 * time.Minute
)

// secretPrefix and the length are those of Standard Webhooks: 24 to 64 random bytes, in base64.
const (
	secretPrefix   = "whsec_"
	minSecretBytes = 24
	maxSecretBytes = 64
)

// CheckSecret returns an error, without the secret, for one that Standard Webhooks does not allow.
func CheckSecret(secret string) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil || len(key) < minSecretBytes || len(key) > maxSecretBytes {
		return fmt.Errorf("the secret is not %s and %d to %d bytes in base64; create one with: echo %s$(openssl rand -base64 32)", secretPrefix, minSecretBytes, maxSecretBytes, secretPrefix)
	}
	return nil
}

// CheckURL returns an error, without the URL, for one that is not absolute, or not of http or https.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errors.New("this is not a URL of http or https, such as https://hooks.lab.example/spacehost")
	}
	return nil
}

// HostOf returns the host of a URL, the only part of it that may be shown.
func HostOf(text string) string {
	if u, err := url.Parse(text); err == nil {
		return u.Hostname()
	}
	return ""
}

// client posts to one hook. It may be used concurrently.
type client struct {
	hook   Hook
	host   string
	http   *http.Client
	signer *webhooks.Webhook // nil: requests are not signed
	now    func() time.Time

	failing atomic.Bool // the last attempt of a delivery failed
}

func newClient(hook Hook, host string, transport http.RoundTripper, now func() time.Time) *client {
	c := &client{hook: hook, host: host, now: now, http: &http.Client{
		Transport: transport, Timeout: attemptTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if hook.Secret != "" {
		c.signer, _ = webhooks.NewWebhook(hook.Secret) // CheckSecret has accepted it
	}
	return c
}

// deliver posts a Notice until it is accepted, is refused for good, or ctx ends. Its error contains no URL.
func (c *client) deliver(ctx context.Context, n Notice) error {
	ctx, cancel := context.WithTimeout(ctx, retryTime)
	defer cancel()
	var demanded time.Duration // by the receiver
	pauses := retry.WithMaxRetries(attempts-1, retry.WithCappedDuration(lastPause, retry.NewExponential(firstPause)))
	return retry.Do(ctx, retry.BackoffFunc(func() (time.Duration, bool) {
		pause, stop := pauses.Next()
		return max(pause, demanded), stop
	}), func(ctx context.Context) error {
		err := c.attempt(ctx, n)
		if ctx.Err() == nil { // otherwise it was interrupted
			c.failing.Store(err != nil)
		}
		var refused *refusedError
		if isRefusal := errors.As(err, &refused); isRefusal && !refused.temporary() || errors.As(err, new(*tls.CertificateVerificationError)) {
			return err
		} else if isRefusal {
			demanded = refused.after
		}
		return retry.RetryableError(err)
	})
}

// attempt posts a Notice once. Errors: *refusedError, or of the network, without the URL.
func (c *client) attempt(ctx context.Context, n Notice) error {
	body, err := n.body(c.hook.Format, c.host)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.hook.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL is not valid")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "spacehost")
	request.Header.Set(webhooks.HeaderWebhookID, n.id)
	if err := c.sign(request, n.id, body); err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		return wrapped.Err // *url.Error contains the URL
	} else if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return &refusedError{answer.Status, answer.StatusCode, c.retryAfter(answer.Header.Get("Retry-After"))}
	}
	return nil
}

// sign sets the headers of one attempt.
func (c *client) sign(r *http.Request, id string, body []byte) error {
	if c.signer == nil {
		return nil
	}
	now := c.now()
	signature, err := c.signer.Sign(id, now, body)
	if err != nil {
		return err
	}
	r.Header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(webhooks.HeaderWebhookSignature, signature)
	return nil
}

// retryAfter returns the pause that a receiver demands, as seconds or as a date; 0: none.
func (c *client) retryAfter(text string) time.Duration {
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(c.now())
	}
	return 0
}

// refusedError is an answer that does not accept the notice.
type refusedError struct {
	status string
	code   int
	after  time.Duration // that the receiver demands until the next attempt; not above 0: any
}

func (e *refusedError) Error() string { return "it answers " + e.status }

// temporary reports whether a later attempt may succeed.
func (e *refusedError) temporary() bool {
	return e.code == http.StatusRequestTimeout || e.code == http.StatusTooManyRequests || e.code >= 500 && e.code != http.StatusNotImplemented
}
