package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// httpRequest is one request and how its response is read. In path, header and body, {name} stands for a value that an earlier
// request kept, and {fn:NAME} for the fn_index of a function.
type httpRequest struct {
	method, path, body string
	header             http.Header
	keep               string // NAME=REGEXP keeps the group's match in the response body or in Location; "cookies" keeps the response's cookies
	frames             int    // ends the request after this number of frames
	open               bool   // leaves the response open, to be read by
	resume             bool   // the request that continues to read it
}

// requests runs the cases that consist of plain requests.
func (s *sides) requests(v verdicts) {
	for _, c := range s.cases(func(c fidelityCase) bool { return c.requests != nil }) {
		s.t.Run(c.name, func(t *testing.T) { s.in(t).exchange(v, c) })
	}
}

func (s *sides) exchange(v verdicts, c fidelityCase) {
	var got [2]string
	s.both(c, func(side int) (err error) { got[side], err = s.sendAll(side, c); return err })
	v.judge(s.t, c, "http", got)
}

// comparedHeaders are the response headers that are compared.
var comparedHeaders = []string{"Content-Type", "Cache-Control", "Location", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Content-Disposition",
	"Accept-Ranges", "Content-Range", "Www-Authenticate", "Allow"}

func (s *sides) sendAll(side int, c fidelityCase) (string, error) {
	v := &visit{s, side, c.page, map[string]string{"session": fmt.Sprintf("S%010x", time.Now().UnixNano()&0xffffffffff)}, nil}
	var out strings.Builder
	for _, one := range c.requests {
		text, err := v.send(one)
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", one.method, one.path, err)
		}
		fmt.Fprintf(&out, "%s %s -> %s\n", one.method, one.path, text)
	}
	return out.String(), nil
}

// visit is the state of one case on one side.
type visit struct {
	*sides
	side int
	page string
	kept map[string]string
	open *bufio.Reader // body of the response that was left open
}

// api is the prefix that `A` stands for in paths.
func (s *sides) api() string {
	if s.line == "v4" {
		return ""
	}
	return "/gradio_api"
}

func (v *visit) send(one httpRequest) (string, error) {
	if one.resume {
		text, err := read(v.open, one.frames)
		return comparedText(nil, text, err), nil
	}
	r, cancel, err := v.request(one)
	if err != nil {
		return "", err
	}
	answer, err := transportFor(r).RoundTrip(r)
	if err != nil {
		cancel()
		return "", err
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		defer cancel()
		answer.Body.Close()
		return "101", nil
	}
	if one.open {
		v.t.Cleanup(func() { cancel(); answer.Body.Close() })
	} else {
		defer cancel()
		defer answer.Body.Close()
	}
	v.open = bufio.NewReader(answer.Body)
	text, err := read(v.open, one.frames)
	v.keep(answer, text, one.keep)
	return comparedText(answer, text, err), nil
}

// aloneTransport opens a connection for each request. uvicorn closes a connection after an internal error, and the next request
// on it would fail.
var aloneTransport = &http.Transport{DisableKeepAlives: true, DisableCompression: true}

// transportFor returns a transport that sends no Connection: close with an upgrade.
func transportFor(r *http.Request) http.RoundTripper {
	if r.Header.Get("Upgrade") != "" {
		return &http.Transport{}
	}
	return aloneTransport
}

// comparedText returns the parts of a response that are compared.
func comparedText(answer *http.Response, text string, err error) string {
	var out strings.Builder
	if answer != nil {
		fmt.Fprintf(&out, "%d", answer.StatusCode)
		stream := strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream")
		for _, name := range comparedHeaders {
			if stream && name == "Cache-Control" { // the host asks proxies to pass streams on (gradioapi, keepFlowing)
				continue
			}
			for _, value := range answer.Header.Values(name) {
				fmt.Fprintf(&out, " %s: %s;", name, masked(value))
			}
		}
	}
	fmt.Fprintf(&out, "\n%s", masked(text))
	if err != nil {
		fmt.Fprint(&out, " (cut off)")
	}
	return out.String()
}

// request builds a request with a timeout and expands its placeholders.
func (v *visit) request(one httpRequest) (*http.Request, context.CancelFunc, error) {
	path, body := v.expand(one.path, one.header), v.expand(one.body, one.header)
	if rest, ok := strings.CutPrefix(path, "A/"); ok {
		path = v.api() + "/" + rest
	}
	ctx, cancel := context.WithTimeout(v.t.Context(), time.Minute)
	r, err := http.NewRequestWithContext(ctx, one.method, v.at(v.side, v.page)+path, strings.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, values := range one.header {
		r.Header.Del(name)
		for _, value := range values {
			r.Header.Add(name, v.expand(value, nil))
		}
	}
	return r, cancel, nil
}

var placeholder = regexp.MustCompile(`\{(fn:)?(\w+)\}`)

// expand replaces the placeholders by kept values and by the numbers of functions.
func (v *visit) expand(text string, header http.Header) string {
	return placeholder.ReplaceAllStringFunc(text, func(found string) string {
		m := placeholder.FindStringSubmatch(found)
		if m[1] != "" {
			return v.functionOf(m[2], header)
		}
		if value, ok := v.kept[m[2]]; ok {
			return value
		}
		return found
	})
}

// keep stores the value that the expression keep selects; see httpRequest.
func (v *visit) keep(answer *http.Response, text, keep string) {
	name, pattern, _ := strings.Cut(keep, "=")
	switch {
	case keep == "":
	case keep == "cookies":
		var all []string
		for _, cookie := range answer.Cookies() {
			all = append(all, cookie.Name+"="+cookie.Value)
		}
		v.kept[keep] = strings.Join(all, "; ")
	default:
		if m := regexp.MustCompile(pattern).FindStringSubmatch(text + answer.Header.Get("Location")); m != nil {
			v.kept[name] = m[1]
		}
	}
}

// functionOf returns the fn_index of a function, looked up as the JavaScript client does, or -1.
func (v *visit) functionOf(name string, header http.Header) string {
	var config struct {
		Dependencies []struct {
			ID      int `json:"id"`
			APIName any `json:"api_name"`
		} `json:"dependencies"`
	}
	r, cancel, err := v.request(httpRequest{method: "GET", path: "/config", header: header})
	if err != nil {
		return "-1"
	}
	defer cancel()
	answer, err := aloneTransport.RoundTrip(r)
	if err != nil {
		return "-1"
	}
	defer answer.Body.Close()
	_ = json.NewDecoder(answer.Body).Decode(&config) // after an error no function is found
	for _, one := range config.Dependencies {
		if one.APIName == name {
			return fmt.Sprint(one.ID)
		}
	}
	return "-1"
}

// read reads the whole body, or a number of frames.
func read(body *bufio.Reader, frames int) (string, error) {
	if frames == 0 {
		text, err := io.ReadAll(body)
		return string(text), err
	}
	var out strings.Builder
	for frames > 0 {
		line, err := body.ReadString('\n')
		out.WriteString(line)
		if err != nil {
			return out.String(), err
		}
		if line == "\n" {
			frames--
		}
	}
	return out.String(), nil
}
