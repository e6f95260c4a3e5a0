package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// fileData returns the JSON shapes in which a client can send a file path.
func fileData(path string) []string {
	p, _ := json.Marshal(path)
	return []string{
		fmt.Sprintf(`{"path":%s,"meta":{"_type":"gradio.FileData"}}`, p),
		fmt.Sprintf(`{"path":%s,"url":"http://h/file=/help","orig_name":"x","size":1,"mime_type":"text/plain"}`, p),
		fmt.Sprintf(`{"path":%s}`, p),
		fmt.Sprintf(`[{"a":{"b":[{"meta":{"_type":"gradio.FileData"},"path":%s}]}}]`, p),
		fmt.Sprintf(`{"text":"x","files":[{"path":%s,"meta":{"_type":"gradio.FileData"}}]}`, p),
	}
}

// answer is a complete response.
type answer struct {
	a      *attacker
	what   string
	status int
	header http.Header
	body   string
}

func (g answer) is(status int) answer {
	g.a.t.Helper()
	if g.status != status {
		g.a.t.Errorf("%s: %d %.200s, want %d", g.what, g.status, g.body, status)
	}
	return g
}

func (g answer) below(status int) answer {
	g.a.t.Helper()
	if g.status >= status {
		g.a.t.Errorf("%s: %d %.200s", g.what, g.status, g.body)
	}
	return g
}

// not fails for a response with this status and text. The app's own page does not count: Gradio serves it at many paths.
func (g answer) not(status int, text string) answer {
	g.a.t.Helper()
	if g.status == status && strings.Contains(g.body, text) && !strings.Contains(g.body, "window.gradio_config") {
		g.a.t.Errorf("%s: %d %.200s", g.what, g.status, g.body)
	}
	return g
}

func (g answer) has(text string) answer {
	g.a.t.Helper()
	if !strings.Contains(g.body, text) {
		g.a.t.Errorf("%s: %.200s, want %q", g.what, g.body, text)
	}
	return g
}

// answers are the responses to the variants of one request.
type answers []answer

func (all answers) not(status int, text string) answers {
	for _, g := range all {
		g.a.t.Helper()
		g.not(status, text)
	}
	return all
}

func (all answers) below(status int) answers {
	for _, g := range all {
		g.a.t.Helper()
		g.below(status)
	}
	return all
}

// sendVariants sends a path on both prefixes, literally and in the encodings that path filters are known to miss.
func (a *attacker) sendVariants(method, path string) (all answers) {
	a.t.Helper()
	head, tail := path, ""
	if at := strings.IndexAny(path[1:], "=/"); at >= 0 {
		head, tail = path[:at+2], path[at+2:]
	}
	ways := []string{
		tail, strings.ReplaceAll(tail, "..", "%2e%2e"), strings.ReplaceAll(tail, "..", "%252e%252e"), strings.ReplaceAll(tail, "/", "%2f"),
		strings.ReplaceAll(tail, "/", "%5C"), strings.ReplaceAll(tail, "/", "//"), tail + "%00", tail + ".", tail + "%20", strings.ReplaceAll(tail, "/", "%c0%af"), "/" + tail,
		strings.ReplaceAll(tail, "/", "%252f"), strings.ReplaceAll(tail, "..", "%c0%ae%c0%ae"), strings.ReplaceAll(tail, "../", "..%5C"), tail + "/", tail + "%2e%20",
	}
	for _, way := range slices.Compact(ways) {
		for _, prefix := range prefixes {
			all = append(all, a.sent(method, prefix+head+way, "", ""))
		}
	}
	return all
}

func (a *attacker) api(method, path string) answer {
	a.t.Helper()
	return a.sent(method, a.prefix+path, "", "")
}

func (a *attacker) post(path, body string) answer {
	a.t.Helper()
	for _, prefix := range prefixes {
		if prefix != a.prefix {
			a.sent("POST", prefix+path, "application/json", body)
		}
	}
	return a.sent("POST", a.prefix+path, "application/json", body)
}

func (a *attacker) sent(method, path, kind, body string) answer {
	a.t.Helper()
	request := method + " " + strings.ReplaceAll(path, " ", "%20") + " HTTP/1.1\r\nHost: " + a.host + "\r\nConnection: close\r\n"
	if kind != "" {
		request += "Content-Type: " + kind + "\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n"
	}
	return a.raw(request + "\r\n" + body)
}

func (a *attacker) dial() net.Conn {
	a.t.Helper()
	conn, err := net.Dial("tcp", a.host)
	if err != nil {
		a.t.Fatal(err)
	}
	return conn
}

// raw sends bytes and applies the oracle to the response: its status is below 500, it contains no canary, and it redirects to no
// other host.
func (a *attacker) raw(request string) answer {
	a.t.Helper()
	return a.rawTo(request, "")
}

// rawTo is raw, except that a redirect to the origin also is allowed.
func (a *attacker) rawTo(request, also string) answer {
	a.t.Helper()
	conn := a.dial()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience / 2))   // reached only by a hang, even on a loaded machine
	go func() { _, _ = io.WriteString(conn, request) }() // the server may refuse it half-way
	line, _, _ := strings.Cut(request, " HTTP/1.1")
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		a.t.Fatalf("%.200s: %v", line, err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 16<<20)) // the body may be truncated
	g := answer{a, fmt.Sprintf("%.300s", line), response.StatusCode, response.Header, string(body)}
	a.check(g.what, fmt.Sprint(g.header)+g.body)
	if g.status >= 500 {
		a.t.Errorf("%s: %d %.200s", g.what, g.status, g.body)
	}
	if to, err := url.Parse(g.header.Get("Location")); err != nil || to.Host != "" && to.Host != a.host && "http://"+to.Host != also {
		a.t.Errorf("%s: redirected to %s", g.what, g.header.Get("Location"))
	}
	return g
}

// check fails if text, which a visitor can read, contains the canary.
func (a *attacker) check(what, text string) {
	a.t.Helper()
	if strings.Contains(text, canary) {
		a.t.Errorf("%s: the response contains the canary: %.300s", what, text)
	}
}

// event calls a function through the queue and returns its stream. It also fetches each file that the stream names.
func (a *attacker) event(api string, values ...string) string {
	a.t.Helper()
	fn, ok := a.fns[api]
	if !ok {
		a.t.Fatalf("the app has no function %s, only %v", api, a.apis())
	}
	session := fmt.Sprintf("s%d", time.Now().UnixNano())
	got := a.sent("POST", a.prefix+"/queue/join", "application/json",
		fmt.Sprintf(`{"data":[%s],"fn_index":%d,"trigger_id":2,"session_hash":%q}`, strings.Join(values, ","), fn, session))
	if got.status != 200 {
		got.below(500)
		return got.body
	}
	stream := a.api("GET", "/queue/data?session_hash="+session)
	for _, path := range filePaths(stream.body) {
		a.api("GET", "/file="+escaped(path))
	}
	return stream.body
}

var pathField = regexp.MustCompile(`"path":("(?:[^"\\]|\\.)*")`)

func filePaths(text string) (paths []string) {
	for _, m := range pathField.FindAllStringSubmatch(text, -1) {
		var path string
		if json.Unmarshal([]byte(m[1]), &path) == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

func escaped(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// upload uploads a file as clients do and returns the path from the response.
func (a *attacker) upload(name, content string) string {
	a.t.Helper()
	return a.uploadRaw(strings.NewReplacer("\\", "\\\\", `"`, "\\\"").Replace(name), content)
}

func (a *attacker) uploadRaw(name, content string) string {
	a.t.Helper()
	got := a.form("/upload", `form-data; name="files"; filename="`+name+`"`, content).is(200)
	var paths []string
	if err := json.Unmarshal([]byte(got.body), &paths); err != nil || len(paths) != 1 {
		a.t.Fatalf("upload of %q: %s", name, got.body)
	}
	return paths[0]
}

func (a *attacker) form(path, disposition, content string) answer {
	a.t.Helper()
	body := "--B\r\nContent-Disposition: " + disposition + "\r\n\r\n" + content + "\r\n--B--\r\n"
	return a.sent("POST", a.prefix+path, "multipart/form-data; boundary=B", body)
}

// rpc sends a JSON-RPC request to the Space's MCP server and returns the response body.
func (a *attacker) rpc(method, params string) string {
	a.t.Helper()
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params)
	return a.raw(fmt.Sprintf("POST %s/mcp/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/json\r\n"+
		"Accept: application/json, text/event-stream\r\nContent-Length: %d\r\n\r\n%s", a.prefix, a.host, len(body), body)).is(200).body
}

// tools returns the app's MCP tools, each with the name of an argument.
func (a *attacker) tools() map[string]string {
	a.t.Helper()
	listed, tools := a.rpc("tools/list", "{}"), map[string]string{}
	_, data, _ := strings.Cut(listed, "data: ")
	var answer struct {
		Result struct {
			Tools []struct {
				Name        string `json:"name"`
				InputSchema struct {
					Properties map[string]any `json:"properties"`
				} `json:"inputSchema"`
			} `json:"tools"`
		} `json:"result"`
	}
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&answer); err != nil {
		a.t.Fatalf("tools: %v in %.300s", err, listed)
	}
	for _, tool := range answer.Result.Tools {
		for argument := range tool.InputSchema.Properties {
			tools[tool.Name] = argument
		}
	}
	return tools
}

// wantInert checks that a browser does not run the response as a page of the Space, whatever its content.
func (a *attacker) wantInert(g answer, attachment bool) {
	a.t.Helper()
	g.is(200)
	shown := g.header.Get("Content-Disposition")
	if attachment && (!strings.HasPrefix(shown, "attachment") || g.header.Get("Content-Type") != "application/octet-stream") {
		a.t.Errorf("%s: %s as %s", g.what, g.header.Get("Content-Type"), shown)
	}
	if g.header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(g.header.Get("Content-Security-Policy"), "sandbox") || g.header.Get("X") != "" {
		a.t.Errorf("%s: %v", g.what, g.header)
	}
}
