package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// client sends requests to a Space as @gradio/client does: it joins, then opens the stream of its session, which ends
// with the last event. Connections are kept alive. One client serves all sessions of a measurement.
type client struct {
	http *http.Client
	url  string
	fns  map[string]int
}

// requestTimeout limits every request except the streams of waiting visitors.
const requestTimeout = 60 * time.Second

// newClient reads the names of the Space's functions. sources spreads connections over that many loopback addresses,
// because one address has 28,000 ports.
func newClient(ctx context.Context, url string, sources int) (*client, error) {
	c := &client{url: url, http: &http.Client{Transport: transport(sources)}}
	body, err := c.get(ctx, "/config")
	if err != nil {
		return nil, err
	}
	var config struct {
		Dependencies []struct {
			ID      int    `json:"id"`
			APIName string `json:"api_name"`
		} `json:"dependencies"`
	}
	if err := json.Unmarshal(body, &config); err != nil {
		return nil, fmt.Errorf("read /config: %w", err)
	}
	c.fns = map[string]int{}
	for _, d := range config.Dependencies {
		c.fns[d.APIName] = d.ID
	}
	return c, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

func transport(sources int) *http.Transport {
	var next atomic.Uint32
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{Timeout: requestTimeout}
		if sources > 1 {
			d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+next.Add(1)%uint32(sources)))}
		}
		return d.DialContext(ctx, network, addr)
	}
	return &http.Transport{
		DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 1000, ResponseHeaderTimeout: requestTimeout,
		IdleConnTimeout: 4 * time.Second, // uvicorn closes after 5: never reuse a connection that is about to close
	}
}

// get returns the body of an answer with status 200.
func (c *client) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return nil, err
	}
	return c.do(r)
}

func (c *client) do(r *http.Request) ([]byte, error) {
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s %.200s", r.Method, r.URL.Path, answer.Status, body)
	}
	return body, err
}

func newHash() string { return strings.ToLower(rand.Text()[:12]) }

// join submits one call of a session. args is the JSON of its inputs.
func (c *client) join(ctx context.Context, session, api, args string) error {
	fn, ok := c.fns[api]
	if !ok {
		return fmt.Errorf("the Space has no function %s", api)
	}
	body := fmt.Sprintf(`{"data":%s,"event_data":null,"fn_index":%d,"trigger_id":null,"session_hash":%q}`, args, fn, session)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/gradio_api/queue/join", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Gradio-User", "api")
	_, err = c.do(r)
	return err
}

// streamResult summarizes the messages of a stream.
type streamResult struct {
	completed  []byte    // the last message of the event
	at         time.Time // when it arrived
	estimates  int
	generating int
}

// onMessage is called with each message of a stream. It may be nil.
type onMessage func(message []byte)

// listen reads a session's stream to its end, so that its connection can be used again.
func (c *client) listen(ctx context.Context, session string, notify onMessage) (h streamResult, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+"/gradio_api/queue/data?session_hash="+session, nil)
	if err != nil {
		return h, err
	}
	r.Header.Set("Accept", "text/event-stream")
	answer, err := c.http.Do(r)
	if err != nil {
		return h, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return h, fmt.Errorf("stream: %s", answer.Status)
	}
	closed := false
	for lines := bufio.NewReaderSize(answer.Body, 4096); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && closed {
			return h, nil
		}
		if err != nil {
			return h, fmt.Errorf("the stream broke off: %w", err)
		}
		data, ok := bytes.CutPrefix(line, []byte(`data: {"msg":"`))
		if !ok {
			continue // the empty line after each message
		}
		if notify != nil {
			notify(data)
		}
		kind, _, _ := bytes.Cut(data, []byte(`"`))
		switch string(kind) {
		case "estimation":
			h.estimates++
		case "process_generating":
			h.generating++
		case "process_completed":
			h.completed, h.at = data, time.Now()
		case "close_stream":
			closed = true
		case "unexpected_error":
			return h, fmt.Errorf(`the stream contains {"msg":"%.200s`, bytes.TrimSpace(data))
		}
	}
}

// call runs one event from join to completion. The output must be want, as JSON text.
func (c *client) call(ctx context.Context, session, api, args, want string) (took time.Duration, h streamResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	began := time.Now()
	if err := c.join(ctx, session, api, args); err != nil {
		return 0, h, err
	}
	if h, err = c.listen(ctx, session, nil); err != nil {
		return 0, h, err
	}
	return h.at.Sub(began), h, h.check(want)
}

// check requires a success with exactly this output.
func (h streamResult) check(want string) error {
	if bytes.Contains(h.completed, []byte(`"data":[`+want+`]`)) && bytes.Contains(h.completed, []byte(`"success":true`)) {
		return nil
	}
	return fmt.Errorf("want %s, got {\"msg\":\"%.300s", want, bytes.TrimSpace(h.completed))
}
