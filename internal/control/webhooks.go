package control

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"spacehost/internal/notify"
	"spacehost/internal/views"
)

// The webhooks of the host.
var (
	ListWebhooks = Endpoint[NoBody, []Webhook]{http.MethodGet, "/webhooks"}
	TestWebhooks = Endpoint[NoBody, []WebhookResult]{http.MethodPost, "/webhooks/test"}
)

// Webhook is a webhook without its URL, which may be a credential.
type Webhook struct {
	Name   string        `json:"name"`
	Format notify.Format `json:"format"`
	Signed bool          `json:"signed"`
	Events []notify.Kind `json:"events"`           // all that it receives
	Person string        `json:"person,omitempty"` // the webhook of a person receives the notices about this person alone
}

// WebhookResult is the outcome of one attempt.
type WebhookResult struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"` // empty: it was accepted
}

func (a *API) listWebhooks(echo.Context, NoBody) ([]Webhook, error) {
	return views.Each(a.config.Notices.Hooks(), webhookView), nil
}

func webhookView(h notify.Hook) Webhook {
	w := Webhook{Name: h.Name, Format: h.Format, Signed: h.Secret != "", Events: h.Kinds, Person: h.Person}
	switch {
	case h.Person != "":
		w.Events = []notify.Kind{notify.QuotaLow}
	case h.Kinds == nil:
		w.Events = notify.Kinds
	}
	return w
}

// testWebhooks waits for the answers of all webhooks.
func (a *API) testWebhooks(c echo.Context, _ NoBody) ([]WebhookResult, error) {
	test := notify.Notice{Kind: notify.Test, Text: "This is a test by " + a.config.Host.Operator(c.Request().Context()) + "."}
	return views.Each(a.config.Notices.Try(c.Request().Context(), test), func(t notify.Attempt) WebhookResult {
		r := WebhookResult{Name: t.Hook}
		if t.Error != nil {
			r.Error = t.Error.Error()
		}
		return r
	}), nil
}
