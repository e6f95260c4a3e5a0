package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"spacehost/internal/control"
	"spacehost/internal/host"
	"spacehost/internal/hubapi"
	"spacehost/internal/views"
)

// patience bounds every wait: what takes longer on a loaded two-core machine is broken.
const patience = 90 * time.Second

// eventually waits for a state.
func eventually(t testing.TB, what string, within time.Duration, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", within, what)
		case <-tick.C:
		}
	}
}

// gradios are the lines of Gradio that the tests run, by the versions that were captured.
var gradios = map[string]string{"v4": "4.44.1", "v5": "5.49.1", "v6": "6.31.0"}

// promised are those on which every story is told; of v4 lines_test.go, the captures, pages and clients tell some.
var promised = []string{"v5", "v6"}

// eachLine runs a test against every line of Gradio. The lines run at the same time: most of it is waiting.
func eachLine(t *testing.T, test func(t *testing.T, line string)) {
	for _, line := range promised {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			test(t, line)
		})
	}
}

// eachLineAlone is for tests that hold times: one line after the other.
func eachLineAlone(t *testing.T, test func(t *testing.T, line string)) {
	for _, line := range promised {
		t.Run(line, func(t *testing.T) { test(t, line) })
	}
}

// runOn starts `spacehost run` on a copy of the Space that asks for this line's Gradio. Its clients are of that
// line too.
func runOn(t *testing.T, line, space string, args ...string) *product {
	t.Helper()
	p := startOn(t, line, t.TempDir(), onGradio(t, t.TempDir(), line, space), args...)
	t.Cleanup(p.stop)
	p.awaitReady()
	return p
}

// startOn is startProduct with this line's Gradio.
func startOn(t testing.TB, line, state, dir string, args ...string) *product {
	t.Helper()
	p := startProduct(t, state, dir, append(args, "--python", environmentOf(t, line))...)
	p.line = line
	if p.URL != "" && p.Spaces[0].Gradio != gradioOf(t, line) {
		t.Errorf("gradio %s runs, want %s", p.Spaces[0].Gradio, gradioOf(t, line))
	}
	return p
}

// onGradio copies a Space below to, so that it may write into its folder, with a README.md that asks for this
// line's Gradio.
func onGradio(t testing.TB, to, line, space string) string {
	t.Helper()
	dir := filepath.Join(to, filepath.Base(space))
	if err := os.CopyFS(dir, os.DirFS(space)); err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(dir, "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	asked := bytes.Replace(text, []byte("sdk_version: "+gradios["v6"]), []byte("sdk_version: "+gradioOf(t, line)), 1)
	if gradioOf(t, line) != gradios["v6"] && bytes.Equal(asked, text) {
		t.Fatalf("%s does not ask for gradio %s", readme, gradios["v6"])
	}
	if err := os.WriteFile(readme, asked, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

const sampleDir = "../../examples/hello-zerogpu"

// product is a spacehost that runs as a process of its own.
type product struct {
	host.ReadyLine
	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{}
	took  time.Duration // from its start to the Space's first answer
	line  string        // of Gradio

	mu     sync.Mutex
	output bytes.Buffer
}

// runProduct starts `spacehost run` on dir and waits until the Space answers.
func runProduct(t testing.TB, dir string, args ...string) *product {
	t.Helper()
	p := startProduct(t, t.TempDir(), dir, args...)
	t.Cleanup(p.stop)
	p.awaitReady()
	return p
}

// startProduct starts it on a given state folder, and leaves waiting and ending to the caller.
func startProduct(t testing.TB, state, dir string, args ...string) *product {
	t.Helper()
	return startProductWith(t, nil, state, dir, args...)
}

// startProductWith also gives the host variables of its own.
func startProductWith(t testing.TB, env []string, state, dir string, args ...string) *product {
	t.Helper()
	usual := []string{"run", dir, "--addr", ":0", "--console-addr", ":0", "--python", environment(t), "--gpus", "mock:1xH200"}
	return startCommandWith(t, env, state, append(usual, args...)...)
}

// startCommand starts any command that runs a host.
func startCommand(t testing.TB, state string, args ...string) *product {
	t.Helper()
	return startCommandWith(t, nil, state, args...)
}

func startCommandWith(t testing.TB, env []string, state string, args ...string) *product {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &product{t: t, line: "v6", ended: make(chan struct{}), ReadyLine: host.ReadyLine{State: state}} // the rest comes with the line
	p.cmd = exec.Command(self, append(args, "--state", state, "--ready-json")...)
	p.cmd.Env = append(productEnv(t), env...)
	p.cmd.Stderr = p
	p.cmd.WaitDelay = time.Second
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		_ = json.NewDecoder(bufio.NewReader(stdout)).Decode(&p.ReadyLine) // checked by awaitReady
	}()
	go func() {
		<-ready // Wait closes the pipe
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("output of spacehost:\n%s", p.text())
			log := p.log()
			t.Logf("its log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	p.await(ready)
	p.took = time.Since(began)
	return p
}

// api is where the Gradio API of the (first) Space begins; Gradio 4 has no prefix.
func (p *product) api() string {
	if strings.HasPrefix(p.Spaces[0].Gradio, "4.") {
		return p.URL
	}
	return p.URL + "/gradio_api"
}

func (p *product) await(ready chan struct{}) {
	p.t.Helper()
	select {
	case <-ready:
	case <-time.After(2 * patience): // several Spaces may start at once
		p.t.Fatalf("spacehost is not ready:\n%s", p.text())
	}
}

func (p *product) awaitReady() {
	p.t.Helper()
	if p.URL == "" {
		p.t.Fatalf("spacehost ended before it was ready:\n%s", p.text())
	}
}

// Write collects what the product says to people.
func (p *product) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *product) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// log is what the host wrote down: one line per change of state.
func (p *product) log() string {
	data, _ := os.ReadFile(filepath.Join(p.State, "logs", "spacehost.log")) // "" before its first line
	return string(data)
}

// stop sends Ctrl-C and holds the promise that all is over within five seconds.
func (p *product) stop() {
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Errorf("spacehost does not end at SIGINT:\n%s", p.text())
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if took := time.Since(began); took > 5*time.Second {
		p.t.Errorf("Ctrl-C took %s, want at most 5s", took)
	}
	if left := processesOf(p.State); len(left) > 0 {
		p.t.Errorf("processes left after Ctrl-C: %v", left)
	}
}

// kill is what no program can answer to.
func (p *product) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// processesOf lists the living processes whose environment names a folder below state: every process of a
// Space does, by the cgroup file that `spaces` reads.
func processesOf(state string) map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if bytes.Contains(environ, []byte("ZEROGPU_PROC_SELF_CGROUP_PATH="+state+"/")) && alive(pid) {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			found[pid] = string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
		}
	}
	return found
}

// alive reports whether pid runs; a zombie does not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := bytes.Cut(data, []byte(") "))
	return len(after) > 0 && after[0] != 'Z' && after[0] != 'X'
}

// asked returns the JSON that the host answers on its control socket.
func asked[T any](t testing.TB, p *product, path string) (answer T) {
	t.Helper()
	body, err := overSocket(t, p.Socket, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Fatalf("%s: %v in %s", path, err, body)
	}
	return answer
}

// overSocket is one GET over a unix socket.
func overSocket(t testing.TB, socket, path string) ([]byte, error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://spacehost"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return body, err
}

// balance is the local visitor's account.
func (p *product) balance() control.Balance {
	p.t.Helper()
	for _, b := range asked[[]control.Balance](p.t, p, "/quota") {
		if b.Identity == "local" {
			return b
		}
	}
	p.t.Fatal("the ledger has no account of the local visitor")
	return control.Balance{}
}

func (p *product) leases() control.Leases {
	p.t.Helper()
	return asked[control.Leases](p.t, p, "/lease?limit=1000")
}

func (p *product) health() views.Health {
	p.t.Helper()
	return getJSON[views.Health](p.t, p.Console+"/healthz")
}

func (p *product) hubQuota() hubapi.Quota {
	p.t.Helper()
	return getJSON[hubapi.Quota](p.t, p.Console+"/api/spaces/zero-gpu/quota")
}

func getJSON[T any](t testing.TB, url string) T {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fetchJSON[T](t, r)
}

func fetchJSON[T any](t testing.TB, r *http.Request) (value T) {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %s %v", r.URL, answer.Status, body, err)
	}
	if err := json.Unmarshal(body, &value); err != nil {
		t.Fatalf("GET %s: %v in %s", r.URL, err, body)
	}
	return value
}

// client is the real gradio_client in a Python process; testdata/clients/client.py says how it is spoken to.
type client struct {
	t     testing.TB
	in    io.WriteCloser
	next  int
	mu    sync.Mutex
	calls map[int]chan reply
}

// reply is one line of it.
type reply struct {
	ID        int             `json:"id"`
	Ready     bool            `json:"ready"`
	Submitted bool            `json:"submitted"`
	Step      json.RawMessage `json:"step"`
	Log       string          `json:"log"`
	Level     string          `json:"level"`
	Progress  []any           `json:"progress"`
	Value     json.RawMessage `json:"value"`
	Error     *string         `json:"error"`
	Title     string          `json:"title"`
}

func (p *product) client() *client {
	p.t.Helper()
	return p.clientAt(p.URL)
}

// clientAt is a client of another Space of the host than the first.
func (p *product) clientAt(url string) *client { return p.clientAs(url, "") }

// clientAs is one of somebody with a token.
func (p *product) clientAs(url, token string) *client {
	p.t.Helper()
	return p.clientIn(environmentOf(p.t, p.line), url, token)
}

// clientIn is the gradio_client that this interpreter has.
func (p *product) clientIn(python, url, token string) *client {
	p.t.Helper()
	cmd := exec.Command(python, filepath.Join("testdata", "clients", "client.py"), url, token)
	cmd.Env = append(os.Environ(), "GRADIO_ANALYTICS_ENABLED=False", "HOME="+p.t.TempDir())
	cmd.Stderr = p
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	c := &client{t: p.t, in: in, calls: map[int]chan reply{0: make(chan reply, 1)}}
	read := make(chan struct{})
	go func() { defer close(read); c.read(out) }()
	p.t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // it was killed
	})
	if r := c.reply(c.calls[0], patience); !r.Ready {
		p.t.Fatalf("gradio_client did not connect: %+v", r)
	}
	return c
}

func (c *client) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // something else printed
		}
		c.mu.Lock()
		to := c.calls[r.ID]
		c.mu.Unlock()
		to <- r
	}
}

func (c *client) reply(from chan reply, within time.Duration) reply {
	c.t.Helper()
	select {
	case r := <-from:
		return r
	case <-time.After(within):
		c.t.Fatalf("no answer from gradio_client within %s", within)
		return reply{}
	}
}

// call is one call under way.
type call struct {
	c  *client
	id int
	ch chan reply
}

// result is what became of it.
type result struct {
	Value    json.RawMessage
	Err      string
	Title    string
	Failed   bool
	Steps    []json.RawMessage
	Logs     []string
	Progress [][]any
}

func (c *client) order(order map[string]any) call {
	c.t.Helper()
	c.mu.Lock()
	c.next++
	k := call{c, c.next, make(chan reply, 4096)}
	c.calls[k.id] = k.ch
	c.mu.Unlock()
	order["id"] = k.id
	data, err := json.Marshal(order)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.in.Write(append(data, '\n')); err != nil {
		c.t.Fatal(err)
	}
	return k
}

// submit starts a call and returns once it has joined the queue.
func (c *client) submit(api string, args ...any) call {
	c.t.Helper()
	k := c.order(map[string]any{"api": api, "args": list(args)})
	c.reply(k.ch, patience)
	return k
}

func list(args []any) []any {
	if args == nil {
		return []any{}
	}
	return args
}

func (c *client) call(api string, args ...any) result {
	c.t.Helper()
	return c.submit(api, args...).wait()
}

// ok is a call that must succeed; it returns the value as text.
func (c *client) ok(api string, args ...any) string {
	c.t.Helper()
	r := c.call(api, args...)
	if r.Failed {
		c.t.Fatalf("%s%v: %s", api, args, r.Err)
	}
	return text(r.Value)
}

// text is a JSON value as people write it: strings without quotes.
func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

func (k call) wait() (all result) {
	k.c.t.Helper()
	for {
		switch r := k.c.reply(k.ch, patience); {
		case r.Error != nil:
			all.Err, all.Title, all.Failed = *r.Error, r.Title, true
			return all
		case r.Value != nil:
			all.Value = r.Value
			return all
		case r.Step != nil:
			all.Steps = append(all.Steps, r.Step)
		case r.Log != "":
			all.Logs = append(all.Logs, r.Log)
		case r.Progress != nil:
			all.Progress = append(all.Progress, r.Progress)
		}
	}
}

// await waits in a script for a line in a file that a background command writes: `await FILE TEXT`.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE TEXT")
	}
	path := ts.MkAbs(args[0])
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		data, _ := os.ReadFile(path) // it may not be there yet
		if strings.Contains(string(data), args[1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q is not in %s after %s:\n%s", args[1], args[0], patience, data)
		}
	}
}

// nobody checks that no process of a Space on this state folder lives: `nobody STATE`.
func nobody(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: nobody STATE")
	}
	if left := processesOf(ts.MkAbs(args[0])); len(left) > 0 {
		ts.Fatalf("processes are left: %v", left)
	}
}
