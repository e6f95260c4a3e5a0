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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/control"
	"spacehost/internal/host"
	"spacehost/internal/hubapi"
	"spacehost/internal/views"
)

const sampleDir = "../../examples/hello-zerogpu"

// product is a spacehost that runs as a separate process.
type product struct {
	host.ReadyLine
	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{}
	line  string // the line of Gradio

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

// startProduct starts `spacehost run` on a given state folder. The caller waits for it and stops it.
func startProduct(t testing.TB, state, dir string, args ...string) *product {
	t.Helper()
	return startProductWith(t, nil, state, dir, args...)
}

// startProductWith is startProduct with more environment variables for the host.
func startProductWith(t testing.TB, env []string, state, dir string, args ...string) *product {
	t.Helper()
	usual := []string{"run", dir, "--addr", ":0", "--console-addr", ":0", "--python", environment(t), "--gpus", "mock:1xH200", "--quota", "2026-04"}
	return startCommandWith(t, env, state, append(usual, args...)...)
}

// startCommand starts any command that runs a host.
func startCommand(t testing.TB, state string, args ...string) *product {
	t.Helper()
	return startCommandWith(t, nil, state, args...)
}

// levelVariable selects the level of isolation at which the tests run their Spaces. Without it they run at the default of
// the command, which is namespaces on a machine that offers it. At users, `run`, which lacks that level, uses namespaces.
const levelVariable = "SPACEHOST_TEST_ISOLATION"

// atLevel adds the level to a command line, or for `serve` to its file, unless it is there already.
func atLevel(t testing.TB, args []string) []string {
	t.Helper()
	level := os.Getenv(levelVariable)
	if level == "" || slices.Contains(args, "--isolation") {
		return args
	}
	at := slices.Index(args, "--config")
	if at < 0 && level == "users" {
		level = "namespaces"
	}
	if at < 0 {
		return append(slices.Clone(args), "--isolation", level)
	}
	if level == "users" {
		level += fmt.Sprintf("\nusers: %d-%d", firstUID, firstUID+99)
	}
	text, err := os.ReadFile(args[at+1])
	if err == nil && !bytes.Contains(text, []byte("isolation:")) {
		err = os.WriteFile(args[at+1], append([]byte("isolation: "+level+"\n"), text...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return args
}

func startCommandWith(t testing.TB, env []string, state string, args ...string) *product {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = atLevel(t, args)
	withAgent(t, state, args)
	node := withNode(t, state, args)
	p := &product{t: t, line: "v6", ended: make(chan struct{}), ReadyLine: host.ReadyLine{State: state}} // the ready line fills the other fields
	p.cmd = exec.Command(self, append(args, "--state", state, "--ready-json")...)
	p.cmd.Env = append(productEnv(t), env...)
	p.cmd.Stderr = p
	p.cmd.WaitDelay = time.Second
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
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
			text, log := p.text(), p.log() // of a flood
			t.Logf("output of spacehost:\n%s", text[max(0, len(text)-20_000):])
			t.Logf("its log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	p.await(ready)
	if node != nil && p.URL != "" {
		node.join(p, env)
	}
	return p
}

// api returns the base URL of the first Space's Gradio API. Gradio 4 has no prefix.
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
		output := p.text()
		p.stop() // the caller has not yet registered it
		p.t.Fatalf("spacehost did not become ready in time:\n%s", output)
	}
}

func (p *product) awaitReady() {
	p.t.Helper()
	if p.URL == "" {
		p.t.Fatalf("spacehost exited before it was ready:\n%s", p.text())
	}
}

// Write collects the product's stderr.
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

// log returns the host's log file.
func (p *product) log() string {
	data, _ := os.ReadFile(filepath.Join(p.State, "logs", "spacehost.log")) // "" before its first line
	return string(data)
}

// stop sends Ctrl-C and checks that all processes exit, without waiting for a drain of 60 s.
func (p *product) stop() {
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have exited
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Errorf("spacehost does not exit after SIGINT:\n%s", p.text())
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if took := time.Since(began); took > 45*time.Second { // on an idle machine 5 s for a Space that does not end, else less than 1 s
		p.t.Errorf("Ctrl-C took %s, want at most 45s", took)
	}
	if left := processesOf(p.State); len(left) > 0 {
		p.t.Errorf("processes left after Ctrl-C: %v", left)
	}
}

// kill sends SIGKILL.
func (p *product) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// processesOf lists the running processes of Spaces on this state folder. They are found by their environment: it names a file
// below state, the cgroup file that `spaces` reads.
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

// alive reports whether pid is running. A zombie is not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := bytes.Cut(data, []byte(") "))
	return len(after) > 0 && after[0] != 'Z' && after[0] != 'X'
}

// controlJSON returns the host's response on its control socket.
func controlJSON[T any](t testing.TB, p *product, path string) (answer T) {
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

// overSocket sends a GET to a control socket, with its key.
func overSocket(t testing.TB, socket, path string) ([]byte, error) {
	status, body, err := overSocketWith(t, socket, controlKey(t, socket), http.MethodGet, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d: %s", status, body)
	}
	return body, err
}

// controlKey returns the key of a control socket.
func controlKey(t testing.TB, socket string) string {
	key, err := control.ReadKey(filepath.Dir(socket))
	if err != nil {
		t.Error(err)
	}
	return key
}

// overSocketWith sends a request to a control socket with any key, or none.
func overSocketWith(t testing.TB, socket, key, method, path string) (status int, body []byte, err error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://spacehost"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if key != "" {
		r.Header.Set(control.KeyHeader, key)
	}
	answer, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// balance returns the local visitor's balance.
func (p *product) balance() control.Balance {
	p.t.Helper()
	for _, b := range controlJSON[[]control.Balance](p.t, p, "/quota") {
		if b.Identity == "local" {
			return b
		}
	}
	p.t.Fatal("the ledger has no account of the local visitor")
	return control.Balance{}
}

func (p *product) leases() control.Leases {
	p.t.Helper()
	return controlJSON[control.Leases](p.t, p, "/lease?limit=1000")
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
