package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"spacehost/internal/dashboard"
	"spacehost/internal/spacelog"
)

// refusal is the sentence of an answer that fails.
const refusal = "the database cannot be read: disk I/O error; see the log of the host"

// handler serves the pages and the answers of a story.
func (s story) handler(now time.Time) http.Handler {
	e := echo.New()
	e.HideBanner = true
	dashboard.RegisterPages(e)
	c := s.values(now)
	e.GET("/login/me", s.answer(c, func(v values) any { return map[string]string{"identity": v.me().Identity, "name": v.me().Name} }))
	e.GET("/api/spacehost/changes", s.stream(c))
	for _, a := range answers() {
		e.Add(a.method, a.path, s.answer(c, a.value))
	}
	e.Any("/*", func(echo.Context) error {
		return echo.NewHTTPError(http.StatusNotImplemented, "the storybook has no answer for this request; add it to answers.go")
	})
	return e
}

// answer answers with a value, as the state has it.
func (s story) answer(v values, value func(values) any) echo.HandlerFunc {
	return func(c echo.Context) error {
		switch {
		case s.state == loading:
			<-c.Request().Context().Done()
			return nil
		case s.state == failing:
			return echo.NewHTTPError(http.StatusInternalServerError, refusal)
		case c.Request().Method != http.MethodGet:
			return echo.NewHTTPError(http.StatusConflict, "the storybook changes nothing")
		case c.QueryParam("after") != "": // a page follows a log that has no new lines
			return c.JSON(http.StatusOK, spacelog.Page{Lines: []spacelog.PageLine{}, After: c.QueryParam("after")})
		}
		asked := v // requests are answered concurrently
		asked.asks = c.QueryParams()
		return c.JSON(http.StatusOK, value(asked))
	}
}

// event is one event of the stream.
type event struct {
	topic string
	value any
}

// stream sends the topics of a story and then keeps the connection, as the state has it.
func (s story) stream(v values) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, w := c.Request(), c.Response()
		switch {
		case s.state == ended:
			return echo.NewHTTPError(http.StatusUnauthorized, "unknown token")
		case s.state == unreachable, s.state == lost && r.Header.Get("Last-Event-ID") != "":
			return echo.NewHTTPError(http.StatusBadGateway, "the host is restarting")
		}
		w.Header().Set(echo.HeaderContentType, "text/event-stream")
		for i, e := range s.events(v) {
			line, err := json.Marshal(e.value)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(w, "event: %s\nid: %d\ndata: %s\n\n", e.topic, i+1, line); err != nil {
				return err
			}
		}
		w.Flush()
		if s.state != lost {
			<-r.Context().Done()
		}
		return nil
	}
}

// events are what a stream sends.
func (s story) events(v values) []event {
	all := []event{{"clock", dashboard.Clock{Now: v.now}}, {"me", v.me()}}
	topics := topicsOf(v)
	switch s.state {
	case loading:
		return all
	case failing:
		return append(all, event{"stale", staleOf(topics, v.now)})
	case stale:
		topics = append(topics, event{"stale", staleOf(topics, v.now)})
	}
	return append(all, topics...)
}

// staleOf marks all topics.
func staleOf(topics []event, now time.Time) map[string]dashboard.Stale {
	all := map[string]dashboard.Stale{}
	for _, e := range topics {
		all[e.topic] = dashboard.Stale{Since: now.Add(-90 * time.Second)}
		if e.topic == string(dashboard.GPUs) {
			all[e.topic] = dashboard.Stale{Since: now.Add(-90 * time.Second), Error: "the driver does not answer"}
		}
	}
	return all
}

// values returns the values of a story.
func (s story) values(now time.Time) values {
	v := values{now: now.UTC().Truncate(time.Second), role: s.role, text: func(t string) string { return t }, rows: 24}
	switch s.state {
	case empty:
		v.rows = 0
	case many:
		v.rows = 1000
	case hostile:
		v.text = func(t string) string { return t + hostileText }
	case long:
		v.text = func(t string) string { return t + "-" + strings.Repeat("considerably-longer-", 6) + "than-usual" }
	}
	return v
}

// hostileText would run as code, colour a terminal, or turn the text around.
const hostileText = `<script>document.body.remove()</script><img src=x onerror="document.body.remove()">` + "\x1b[31m\u202e${1+1}\u2066'\"&amp;"
