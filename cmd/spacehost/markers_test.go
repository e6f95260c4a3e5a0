package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"spacehost/internal/people"
)

// TestSecretsAreNotStoredOrShown plants markers as a Hugging Face token, a spacehost token, a cookie, a Secret and a prompt, and
// uses them in every way. Then it searches for them in all files, in all process environments, and in all that others can read.
func TestSecretsAreNotStoredOrShown(t *testing.T) {
	t.Parallel()
	p, m := startWithMarkers(t)
	headers := map[string]string{
		"Authorization": "Bearer " + m["our token"], "Cookie": "session=" + m["cookie"], "X-Hf-Authorization": "Bearer " + m["HF token"],
	}
	for _, call := range [][2]string{{"fail", "error"}, {"child_sees", "MARKER"}, {"generate", "18 MARKER"}} { // the last call leaves a warm worker
		if got := callAt(t, p.URL, call[0], fmt.Sprintf("[%q]", m["prompt"]), headers); !strings.Contains(got, call[1]) {
			t.Errorf("%s: %s, want %q in it", call[0], got, call[1])
		}
	}
	token := callAt(t, p.URL, "token", "[]", headers)
	if parts := strings.Split(token, `"`); len(parts) > 1 && strings.Count(parts[1], ".") == 2 {
		m["X-IP-Token"] = parts[1]
	} else {
		t.Errorf("token: %s", token)
	}
	sendMalformed(t, p, m, headers)
	if lines := readAs[[]any](t, p.Console+"/api/spacehost/ledger", m["our token"]); len(lines) < 4 {
		t.Errorf("the ledger has %d lines, want at least the four of two calls", len(lines))
	}
	shown := map[string]string{"what the host prints": p.text()}
	for _, path := range []string{"/metrics", "/healthz", "/api/spacehost/quota"} {
		status, body := request(t, http.MethodGet, p.Console+path, "", nil)
		if shown[path] = body; status != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
	}
	for _, args := range [][]string{{"lease", "--json"}, {"quota", "--json"}, {"ledger", "ada", "--json"}, {"explain", "ada", "--json"}, {"token", "list", "--json"}, {"user", "list"}} {
		shown["spacehost "+strings.Join(args, " ")] = runCLI(t, p, args...)
	}
	addFiles(t, p.State, shown)
	addProcesses(t, shown)
	for where, text := range shown {
		for what, marker := range m {
			if strings.Contains(text, marker) {
				t.Errorf("the %s is readable in %s", what, where)
			}
		}
	}
}

// startWithMarkers starts a host with a Space that has a Secret, and with the user ada.
func startWithMarkers(t *testing.T) (*product, map[string]string) {
	t.Helper()
	state, elsewhere := t.TempDir(), t.TempDir()
	adas, hash := people.NewToken()
	m := map[string]string{
		"HF token": "hf_MARKERhuggingfaceMARKER", "our token": adas, "cookie": "MARKERcookieMARKER", "Secret": "MARKERsecretMARKER", "prompt": "MARKERpromptMARKER",
	}
	space, err := filepath.Abs("testdata/spaces/markers")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("gpus: mock:1xH200\nconsole: 127.0.0.1:0\nspaces:\n- {folder: %s, address: '127.0.0.1:0', python: %s, secrets: {API_KEY: {file: key}}}\npeople:\n- {name: ada, tier: pro, tokens: [%q]}\n",
		space, environment(t), hash)
	for name, text := range map[string]string{"lab.yaml": config, "key": m["Secret"]} {
		if err := os.WriteFile(filepath.Join(elsewhere, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := startCommand(t, state, "serve", "--config", filepath.Join(elsewhere, "lab.yaml"))
	t.Cleanup(p.stop)
	p.awaitReady()
	return p, m
}

// sendMalformed sends invalid requests, which a host might log in full.
func sendMalformed(t *testing.T, p *product, m, headers map[string]string) {
	t.Helper()
	prompt := url.QueryEscape(m["prompt"])
	for _, row := range []struct{ method, url, body string }{
		{"POST", p.api() + "/queue/join?prompt=" + prompt, `{"data":["` + m["prompt"]},
		{"POST", p.api() + "/queue/join", `{"data":["` + m["prompt"] + `"],"fn_index":99,"session_hash":"` + m["prompt"] + `"}`},
		{"POST", p.api() + "/call/generate", `{"data":"` + m["prompt"] + `"}`},
		{"POST", p.api() + "/run/generate", `{"data":["` + m["prompt"] + `"]}`},
		{"GET", p.api() + "/file=" + prompt + "?token=" + m["HF token"], ""},
		{"GET", p.URL + "/nothing/" + prompt + "?__sign=" + m["HF token"], ""},
		{"GET", p.Console + "/api/spacehost/explain?space=" + prompt + "&seconds=" + prompt, ""},
		{"GET", p.Console + "/nothing/" + prompt, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), row.method, row.url, strings.NewReader(row.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20)) // a stream ends when its call ends
		answer.Body.Close()
	}
}

// addFiles adds the files of the state folder: database, write-ahead log, keys, logs, the Space's home.
func addFiles(t *testing.T, state string, shown map[string]string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(state, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		shown[path] = string(data)
		files++
		return err
	})
	if err != nil || files < 4 {
		t.Fatalf("%d files in the state folder (%v)", files, err)
	}
}

// addProcesses adds the command line and environment of every process except this one, which has the markers.
func addProcesses(t *testing.T, shown map[string]string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have exited
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(environ, []byte("SPACE_ID=local/markers")) {
			found++ // the Space's own environment, too: a Secret is not passed in it
		}
		shown[fmt.Sprintf("the environment of process %d (%.60q)", pid, cmdline)] = string(environ)
		shown[fmt.Sprintf("the command line of process %d", pid)] = string(cmdline)
	}
	if found < 2 {
		t.Errorf("%d processes of the Space, want its runner and its warm worker", found)
	}
}
