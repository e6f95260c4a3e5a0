//go:build ignore

// Take records the captures anew from stock Gradio: one server per Gradio major version (v4, v5, v6), with the Space of
// the end-to-end tests (cmd/spacehost/testdata/spaces/captured) and without spacehost.
//
//	go run take.go              every major version, in the version that its captures name
//	go run take.go v6=6.32.0    one major version, in another version
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"spacehost/internal/build"
)

const (
	root = "../../.." // of the repository; make runs this program in its own folder
	app  = root + "/cmd/spacehost/testdata/spaces/captured"
)

func main() {
	log.SetFlags(0)
	given := os.Args[1:]
	if len(given) == 0 {
		given = []string{"v4", "v5", "v6"}
	}
	for _, one := range given {
		major, version, ok := strings.Cut(one, "=")
		if !ok {
			version = versionOf(major)
		}
		if err := take(major, version); err != nil {
			log.Fatalf("%s: %v", major, err)
		}
	}
}

var gradioVersion = regexp.MustCompile(`^# gradio (\S+)`)

func versionOf(major string) string {
	text, _ := os.ReadFile(filepath.Join(major, "quick.txt"))
	found := gradioVersion.FindSubmatch(text)
	if found == nil {
		log.Fatalf("read version of %s/quick.txt: no Gradio version in its first line; pass %s=VERSION", major, major)
	}
	return string(found[1])
}

// stock is a running stock Gradio server.
type stock struct {
	major    string
	versions string
	url      string // with the prefix of the API's paths
	prefix   string
	fns      map[string]int
}

func take(major, version string) error {
	python, err := environment(version)
	if err != nil {
		return err
	}
	s := &stock{major: major}
	if s.versions, err = versions(python); err != nil {
		return err
	}
	end, err := s.start(python)
	if err != nil {
		return err
	}
	defer end()
	if err := os.MkdirAll(major, 0o755); err != nil {
		return err
	}
	for _, c := range captures {
		if err := s.takeStream(c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for _, part := range []func() error{s.takeCalls, s.takeMisc, s.takeOrigins} {
		if err := part(); err != nil {
			return err
		}
	}
	log.Printf("%s: taken from %s", major, s.versions)
	return nil
}

// environment builds the environment of the tests (cmd/spacehost/harness_test.go).
func environment(gradio string) (string, error) {
	cache := os.Getenv("SPACEHOST_TEST_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(user, "spacehost-test")
	}
	b := build.New(build.Config{Dir: filepath.Join(cache, "environments")})
	env, err := b.Build(context.Background(), build.Spec{Gradio: gradio, Dir: root + "/examples/hello-zerogpu"})
	if err != nil {
		return "", err
	}
	return env.Python, nil
}

func versions(python string) (string, error) {
	out, err := exec.Command(python, "-c", `from importlib.metadata import version as v
print("gradio", v("gradio"), f"(gradio_client {v('gradio_client')})")`).Output()
	return strings.TrimSpace(string(out)), err
}

func (s *stock) start(python string) (end func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command(python, "app.py")
	cmd.Dir = app
	cmd.Env = append(os.Environ(), fmt.Sprint("GRADIO_SERVER_PORT=", port), "GRADIO_ANALYTICS_ENABLED=False", "GRADIO_SSR_MODE=False", "PYTHONDONTWRITEBYTECODE=1", "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() } // a kill loses nothing: the captures are on disk
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err = s.readConfig(fmt.Sprint("http://127.0.0.1:", port)); err == nil {
			return end, nil
		}
		if time.Now().After(deadline) {
			end()
			return nil, err
		}
	}
}

func (s *stock) readConfig(url string) error {
	var config struct {
		APIPrefix    string `json:"api_prefix"` // none in Gradio 4
		Dependencies []struct {
			ID      int    `json:"id"`
			APIName string `json:"api_name"`
		}
	}
	response, err := http.Get(url + "/config")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&config); err != nil {
		return err
	}
	s.prefix, s.url, s.fns = config.APIPrefix, url+config.APIPrefix, map[string]int{}
	for _, d := range config.Dependencies {
		s.fns[d.APIName] = d.ID
	}
	return nil
}

// capture is the recording of one Session's stream.
type capture struct {
	name, here string
	joins      []string // name and data
	cancel     int      // cancel after this number of outputs; 0: never
}

var captures = []capture{
	{"quick", `quick ["a"] joined in a fresh session, then its stream`, []string{`quick ["a"]`}, 0},
	{"gen", `gen [3], a generator of three strings; from the second on they come as differences`, []string{`gen [3]`}, 0},
	{"boom", `boom ["a"], which raises ValueError while show_error is off`, []string{`boom ["a"]`}, 0},
	{"gerr", `gerr ["a"], which raises gr.Error("custom boom", duration=3), with title="My Title" where there are titles`, []string{`gerr ["a"]`}, 0},
	{"logs", `logs ["a"], which calls gr.Info, gr.Warning and, where there is one, gr.Success`, []string{`logs ["a"]`}, 0},
	{"prog", `prog ["a"], which reports gr.Progress three times`, []string{`prog ["a"]`}, 0},
	{"two_same_session", `slow ["a"] and quick ["b"] in one session; two groups`, []string{`slow ["a"]`, `quick ["b"]`}, 0},
	{"queue_rank_3slow", `slow ["a"], ["b"], ["c"] of 1.2 s each in one session; limit 1`, []string{`slow ["a"]`, `slow ["b"]`, `slow ["c"]`}, 0},
	{"batch", `batch ["i0"] ... ["i3"] in one session; batch=True, max_batch_size=3`, []string{`batch ["i0"]`, `batch ["i1"]`, `batch ["i2"]`, `batch ["i3"]`}, 0},
	{"cancel_running", `forever ["a"], an endless generator, cancelled after its third answer`, []string{`forever ["a"]`}, 3},
}

// takeStream repeats a capture until its joins are in the usual order. Gradio 4 and 5 poll their queue every 50 ms
// and find all joins there; Gradio 6 starts the first at once.
func (s *stock) takeStream(c capture) error {
	usual := len(c.joins)
	if s.major == "v6" {
		usual = 1
	}
	for range 20 {
		text, early, err := s.stream(c)
		if err != nil {
			return err
		}
		if early == usual {
			return s.write(c.name, fmt.Sprintf("sent: POST %s/queue/join {data, fn_index, session_hash} as below, then GET %s/queue/data?session_hash=\nhere: %s\nvary: event ids; the seconds in front of each line; every duration, avg_time, eta and rank_eta", s.prefix, s.prefix, c.here), text)
		}
	}
	return errors.New("joins not in the usual order in 20 attempts; retry on an idle machine")
}

// stream returns the lines of one capture, and the number of joins before the first start.
func (s *stock) stream(c capture) (text string, early int, err error) {
	var out strings.Builder
	began, session, event := time.Now(), fmt.Sprint("capture", time.Now().UnixNano()), ""
	record := func(format string, args ...any) {
		fmt.Fprintf(&out, "%.3f %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	for _, join := range c.joins {
		name, data, _ := strings.Cut(join, " ")
		status, body, err := s.post("/queue/join", fmt.Sprintf(`{"data":%s,"fn_index":%d,"session_hash":%q}`, data, s.fns[name], session))
		if err != nil {
			return "", 0, err
		}
		event = eventOf(body)
		record("POST queue/join %s -> %d %s", join, status, body)
	}
	response, err := http.Get(s.url + "/queue/data?session_hash=" + session)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	record("GET queue/data -> %d %s", response.StatusCode, response.Header.Get("Content-Type"))
	outputs, started := 0, false
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if lines.Text() == "" {
			continue
		}
		record("%s", lines.Text())
		started = started || strings.Contains(lines.Text(), `"process_starts"`)
		if !started {
			early++
		}
		if strings.Contains(lines.Text(), `"process_generating"`) {
			outputs++
		}
		if outputs == c.cancel && c.cancel > 0 {
			outputs++ // cancel only once
			name, _, _ := strings.Cut(c.joins[0], " ")
			status, body, err := s.post("/cancel", fmt.Sprintf(`{"session_hash":%q,"fn_index":%d,"event_id":%q}`, session, s.fns[name], event))
			if err != nil {
				return "", 0, err
			}
			record("POST cancel -> %d %s", status, body)
		}
	}
	record("# EOF")
	return out.String(), min(early, len(c.joins)), lines.Err()
}

func (s *stock) takeCalls() error {
	var out strings.Builder
	for _, call := range []string{`quick ["a"]`, `gen [3]`, `boom ["a"]`, `gerr ["a"]`, `prog ["a"]`, `st ["a"]`, `batch ["q"]`} {
		name, data, _ := strings.Cut(call, " ")
		status, body, err := s.post("/call/"+name, `{"data":`+data+`}`)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "POST call/%s -> %d %s\n", call, status, body)
		g, err := s.get("/call/" + name + "/" + eventOf(body))
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "GET call/%s/<id> -> %d %s %s %s\n", name, g.status, g.header.Get("Content-Type"), quote(g.body), g.end)
	}
	g, err := s.get("/call/quick/nosuch")
	if err != nil {
		return err
	}
	fmt.Fprintf(&out, "GET call unknown event -> %d %s %s\n", g.status, quote(g.body), g.end)
	return s.write("call", fmt.Sprintf("sent: POST %s/call/{name} {data} as below, then GET %s/call/{name}/{event_id}; bodies are shown as Python\n      prints them; clean-EOF: the answer ended as HTTP wants it, ABORT: it broke off\nvary: event ids", s.prefix, s.prefix), out.String())
}

func (s *stock) takeMisc() error {
	unknown, err := s.get("/queue/data?session_hash=nosuch")
	if err != nil {
		return err
	}
	status, err := s.get("/queue/status")
	if err != nil {
		return err
	}
	text := fmt.Sprintf("queue/data unknown session -> %d %s %s\nqueue/status -> %d %s\n", unknown.status, quote(unknown.body), unknown.end, status.status, status.body)
	return s.write("misc", fmt.Sprintf("sent: GET %s/queue/data with a session_hash that nobody has joined with; GET %s/queue/status of an empty queue\nvary: nothing", s.prefix, s.prefix), text)
}

func (s *stock) takeOrigins() error {
	var out strings.Builder
	for _, origin := range []string{"http://evil.com", "http://localhost:3", "null"} {
		g, err := s.get("/queue/status", "Origin", origin)
		if err != nil {
			return err
		}
		var pairs []string
		for _, name := range []string{"Access-Control-Allow-Credentials", "Access-Control-Allow-Origin", "Vary"} {
			if value := g.header.Get(name); value != "" {
				pairs = append(pairs, fmt.Sprintf("('%s', '%s')", strings.ToLower(name), value))
			}
		}
		fmt.Fprintf(&out, "origin %s -> [%s]\n", origin, strings.Join(pairs, ", "))
	}
	return s.write("cors", fmt.Sprintf("sent: GET %s/queue/status to 127.0.0.1 with the Origin shown; here is what came of access-control-* and vary\nvary: nothing", s.prefix), out.String())
}

// write writes a capture below its header.
func (s *stock) write(name, header, text string) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# %s, its own server; taken %s\n", s.versions, time.Now().UTC().Format("2 January 2006"))
	for line := range strings.Lines(header) {
		fmt.Fprintf(&out, "# %s\n", strings.TrimSuffix(line, "\n"))
	}
	out.WriteString(text)
	return os.WriteFile(filepath.Join(s.major, name+".txt"), out.Bytes(), 0o644)
}

func (s *stock) post(path, body string) (int, string, error) {
	response, err := http.Post(s.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, strings.TrimSpace(string(text)), err
}

type got struct {
	status    int
	header    http.Header
	body, end string
}

func (s *stock) get(path string, header ...string) (got, error) {
	r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		return got{}, err
	}
	if len(header) == 2 {
		r.Header.Set(header[0], header[1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return got{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	end := "clean-EOF"
	if err != nil {
		end = "ABORT"
	}
	return got{response.StatusCode, response.Header, string(text), end}, nil
}

func eventOf(body string) string {
	var response struct {
		EventID string `json:"event_id"`
	}
	_ = json.Unmarshal([]byte(body), &response) // an empty id shows in the capture
	return response.EventID
}

// quote prints text without quotes in it as Python does.
func quote(text string) string {
	inner := strconv.Quote(text)
	return "'" + strings.ReplaceAll(inner[1:len(inner)-1], `\"`, `"`) + "'"
}
