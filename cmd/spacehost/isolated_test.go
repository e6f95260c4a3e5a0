package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/cli"
	"spacehost/internal/feature/featuretest"
)

// isolatedLab is a host at level namespaces with Spaces that run code of the test. Their settings differ.
type isolatedLab struct {
	*product
	t *testing.T // of the part that runs

	dir, venv, home string
	services        *services
}

// The Spaces of an isolatedLab, in the order of its configuration.
const (
	layered   = iota // the defaults of serve, with data and mounts
	writable         // source: rw, egress: none
	listed           // egress: names, calls: []
	reaching         // reach: the services of this machine
	neighbour        // the defaults
)

func newIsolatedLab(t *testing.T) *isolatedLab {
	t.Helper()
	requireLevel(t, "namespaces")
	l := &isolatedLab{t: t, dir: t.TempDir(), home: t.TempDir(), venv: layeredVenv(t), services: newServices(t)}
	for _, name := range []string{"layered", "writable", "listed", "reaching", "neighbour"} {
		if err := os.CopyFS(filepath.Join(l.dir, name), os.DirFS(codeDir)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(l.dir, "writable", ".git", "config"), "[core]")
	writeFile(t, filepath.Join(l.dir, "models", "model.txt"), "CANARY-model")
	writeFile(t, filepath.Join(l.dir, "out", "given.txt"), "given")
	writeFile(t, filepath.Join(l.home, ".cache/huggingface/hub/models--org--model/config.json"), "CANARY-config")
	file := filepath.Join(l.dir, "lab.yaml")
	writeFile(t, file, strings.NewReplacer("DIR", l.dir, "PYTHON", filepath.Join(l.venv, "bin", "python"), "SERVICE", fmt.Sprintf("%s:%d", l.services.machine, l.services.port)).Replace(`
gpus: {machine: mock:1xH200, large: 1}
quota: 2026-04
console: 127.0.0.1:0
isolation: namespaces
spaces:
  - {folder: DIR/layered, address: "127.0.0.1:0", python: PYTHON, data: true, mounts: [DIR/models, "DIR/out:rw"]}
  - {folder: DIR/writable, address: "127.0.0.1:0", python: PYTHON, source: rw, egress: none}
  - {folder: DIR/listed, address: "127.0.0.1:0", python: PYTHON, egress: [pypi.org, files.pythonhosted.org], calls: []}
  - {folder: DIR/reaching, address: "127.0.0.1:0", python: PYTHON, reach: ["SERVICE"]}
  - {folder: DIR/neighbour, address: "127.0.0.1:0", python: PYTHON}
`))
	l.product = startCommandWith(t, []string{"HOME=" + l.home, "XDG_CACHE_HOME=", "HF_HOME="}, t.TempDir(), "serve", "--config", file)
	t.Cleanup(l.stop)
	l.awaitReady()
	return l
}

// code runs code in a Space.
func (l *isolatedLab) code(space int, code string) string {
	l.t.Helper()
	return l.runCode(space, "", code)
}

// restart restarts a Space and returns once its next start runs.
func (l *isolatedLab) restart(space int) {
	l.t.Helper()
	name := l.Spaces[space].Name
	before := l.view(name).PID
	restartSpace(l.t, l.product, name)
	eventually(l.t, name+" runs again", patience, func() bool {
		now := l.view(name)
		return now.PID != before && now.Stage == "RUNNING"
	})
}

// wantFile checks the content of a file outside; "" means that it does not exist.
func (l *isolatedLab) wantFile(path, want string) {
	l.t.Helper()
	got, err := os.ReadFile(filepath.Join(l.dir, path))
	if err != nil && !os.IsNotExist(err) {
		l.t.Fatal(err)
	}
	if string(got) != want {
		l.t.Errorf("%s contains %q, want %q", path, got, want)
	}
}

func (l *isolatedLab) want(what, got, want string) {
	l.t.Helper()
	if got != want {
		l.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestIsolatedSpaces checks the files and the network that the settings give to a Space at level namespaces.
func TestIsolatedSpaces(t *testing.T) {
	requireOwnMachine(t, "mounts, `source: rw` and `python` are refused with `on`")
	l := newIsolatedLab(t)
	for name, test := range map[string]func(l *isolatedLab){
		"layers": testLayers, "writable source": testWritableSource, "mounts and data": testMounts, "pip": testPip, "Hub cache": testHubCache,
		"egress": testEgress, "calls": testCalls,
	} {
		t.Run(name, func(t *testing.T) {
			part := *l
			part.t = t
			test(&part)
		})
	}
}

// testLayers: what a Space writes into its folder is not seen outside and is gone after a restart. A new app.py counts from
// then on.
func testLayers(l *isolatedLab) {
	l.code(neighbour, `
with open("note.txt", "w") as file: file.write("inside")
with open("app.py", "a") as file: file.write("# changed inside\n")
with open("README.md", "w") as file: file.write("---\nsdk: static\n---\n")`)
	l.want("its own view", l.code(neighbour, `print(open("note.txt").read())`), "inside")
	l.wantFile("neighbour/note.txt", "")
	source := filepath.Join(l.dir, "neighbour", "app.py")
	app, err := os.ReadFile(source)
	if err != nil || bytes.Contains(app, []byte("changed inside")) {
		l.t.Errorf("app.py outside: %v, %.200s", err, app)
	}
	if err := os.WriteFile(source, bytes.Replace(app, []byte("CANARY-of-the-space"), []byte("the new version"), 1), 0o600); err != nil {
		l.t.Fatal(err)
	}
	l.restart(neighbour)
	l.want("after a restart", l.code(neighbour, `import os; print(os.path.exists("note.txt"), "changed inside" in open("app.py").read())`), "False False")
	if _, body := request(l.t, http.MethodGet, l.Spaces[neighbour].URL+"/", "", nil); body != "the new version" {
		l.t.Errorf("a new app.py: the Space answers %q", body)
	}
}

// testWritableSource: `source: rw` is the folder itself, and no other folder. Its .git is read-only, because git would run its hooks
// as the user. A link in its place leads nowhere.
func testWritableSource(l *isolatedLab) {
	l.code(writable, `
with open("note.txt", "w") as file: file.write("inside")`)
	l.wantFile("writable/note.txt", "inside")
	l.want("git", l.code(writable, `
try:
    open(".git/config", "a").write("[core] fsmonitor = /bin/false")
except OSError as error:
    print(error.strerror)`), "Read-only file system")
	l.wantFile("writable/.git/config", "[core]")
	if err := os.RemoveAll(filepath.Join(l.dir, "writable/.git")); err != nil {
		l.t.Fatal(err)
	}
	l.restart(writable)
	l.code(writable, fmt.Sprintf(`import os; os.symlink(%q, ".git")`, filepath.Join(l.dir, "models")))
	l.restart(writable)
	l.want("the target of a link", l.code(writable, `import os; print(os.path.exists(".git/model.txt"))`), "False")
	l.want("other Spaces", l.code(writable, fmt.Sprintf(`import os; print(sorted(os.listdir(%q)))`, l.dir)), "['writable']")
}

// testMounts: mounts are read-only unless they end in :rw, and data stays at /data without a warning.
func testMounts(l *isolatedLab) {
	l.want("mounts and data", l.code(layered, fmt.Sprintf(`
import os
os.chdir(%q)
def attempt(path):
    try:
        with open(path, "w") as file: file.write("inside")
        return "written"
    except OSError as error:
        return error.strerror
print(open("models/model.txt").read(), attempt("models/model.txt"), attempt("out/made.txt"), attempt("/data/kept.txt"), sep=", ")`, l.dir)),
		"CANARY-model, Read-only file system, written, written")
	l.wantFile("models/model.txt", "CANARY-model")
	l.wantFile("out/made.txt", "inside")
	l.restart(layered)
	l.want("after a restart", l.code(layered, `print(open("/data/kept.txt").read())`), "inside")
	l.want("without data", l.code(writable, `import os; print(os.path.exists("/data"))`), "False")
	if strings.Contains(l.text(), "/data") {
		l.t.Errorf("a warning about /data:\n%s", l.text())
	}
}

// testHubCache: models of the host's user are read, and changes stay in a layer over restarts.
func testHubCache(l *isolatedLab) {
	l.code(layered, `
import os
hub = os.path.join(os.environ["HF_HOME"], "hub")
with open(hub + "/models--org--model/config.json", "a") as file: file.write(" changed inside")
os.makedirs(hub + "/models--own--model")`)
	l.restart(layered)
	const show = `
import os
hub = os.path.join(os.environ["HF_HOME"], "hub")
print(open(hub + "/models--org--model/config.json").read(), sorted(os.listdir(hub)))`
	l.want("the Space's view after a restart", l.code(layered, show), "CANARY-config changed inside ['models--org--model', 'models--own--model']")
	l.want("another Space's view", l.code(writable, show), "CANARY-config ['models--org--model']")
	hub := filepath.Join(l.home, ".cache/huggingface/hub")
	if text, err := os.ReadFile(filepath.Join(hub, "models--org--model/config.json")); err != nil || string(text) != "CANARY-config" {
		l.t.Errorf("the model outside: %q (%v)", text, err)
	}
	if entries, err := os.ReadDir(hub); err != nil || len(entries) != 1 {
		l.t.Errorf("the cache outside: %v (%v), want one model", entries, err)
	}
}

// requireIndex skips the test if this machine does not reach the package index, or fails it if SPACEHOST_REQUIRE_ALL is set.
func requireIndex(t *testing.T) {
	t.Helper()
	c, err := net.DialTimeout("tcp", "pypi.org:443", patience/9)
	if err != nil {
		featuretest.Missing(t, "the package index is not reachable (%v)", err)
	}
	c.Close()
}

// pipCode installs a small package from the index.
const pipCode = `
import subprocess, sys
done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-cache-dir", "--force-reinstall", "six==1.16.0"], capture_output=True, text=True)
print(done.returncode, done.stderr[-1500:] if done.returncode else "")`

// testPip: a Space installs packages at run time through the host's resolver and egress. They are gone at the next start, and
// the environment is that of before.
func testPip(l *isolatedLab) {
	requireIndex(l.t)
	before, err := filepath.Glob(filepath.Join(l.venv, "lib", "*", "site-packages", "*"))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, space := range []int{layered, listed} { // by the Hub's rule, and by a list of names
		const find = `import importlib.util, sys; spec = importlib.util.find_spec("six"); print(bool(spec) and spec.origin.startswith(sys.prefix))`
		l.want("pip", l.code(space, pipCode), "0")
		l.want("the package", l.code(space, find), "True")
		l.restart(space)
		l.want("the package after a restart", l.code(space, find), "False")
	}
	after, _ := filepath.Glob(filepath.Join(l.venv, "lib", "*", "site-packages", "*"))
	l.want("the environment outside", fmt.Sprint(after), fmt.Sprint(before))
}

// connectCode prints what a service sends, or why not.
func connectCode(host string, port int) string {
	return fmt.Sprintf(`
import socket
try:
    with socket.create_connection((%q, %d), 10) as connection:
        connection.settimeout(10)
        print(connection.recv(100).decode() or "closed")
except OSError as error:
    print(type(error).__name__)`, host, port)
}

// testEgress: `egress: none` and a list of names refuse everything else, and `reach` opens one private destination. The operator
// sees the last refusal.
func testEgress(l *isolatedLab) {
	s := l.services
	for _, row := range []struct {
		what       string
		space      int
		host       string
		port       int
		want       string
		wantReason string // in `space list`
	}{
		{"a public address without egress", writable, "203.0.113.80", 443, "ConnectionRefusedError", ""},
		{"a name without egress", writable, "pypi.org", 443, "gaierror", "egress is none"},
		{"a name that is not listed", listed, "huggingface.co", 443, "gaierror", "huggingface.co"},
		{"an address that no listed name has", listed, "203.0.113.99", 443, "ConnectionResetError", "203.0.113.99:443"},
		{"a private destination", layered, "10.213.7.1", 443, "ConnectionResetError", "10.213.7.1:443"},
		{"a private destination of another Space's reach", layered, s.machine, s.port, "ConnectionRefusedError", ""},
		{"a private destination that reach names", reaching, s.machine, s.port, "CANARY-service", ""},
		{"another port of that destination", reaching, s.machine, s.hidden, "ConnectionRefusedError", ""},
		{"loopback with the port of that destination", reaching, "127.0.0.1", s.port, "ConnectionResetError", "loopback"},
	} {
		l.want(row.what, l.code(row.space, connectCode(row.host, row.port)), row.want)
		if row.wantReason != "" {
			l.wantRefusal(l.Spaces[row.space].Name, row.wantReason)
		}
	}
	metrics := l.metrics()
	for series, least := range map[string]float64{
		`spacehost_space_egress_connections_total{result="opened",space="reaching"}`:  1,
		`spacehost_space_egress_connections_total{result="refused",space="reaching"}`: 1,
		`spacehost_space_egress_bytes_total{direction="received",space="reaching"}`:   float64(len("CANARY-service")),
		`spacehost_space_egress_connections_total{result="refused",space="listed"}`:   1,
	} {
		if got := metrics[series]; got < least {
			l.t.Errorf("%s is %v, want at least %v", series, got, least)
		}
	}
	if opened, ok := metrics[`spacehost_space_egress_connections_total{result="opened",space="writable"}`]; !ok || opened != 0 {
		l.t.Errorf("a Space without egress has opened %v connections (counted: %v)", opened, ok)
	}
}

// wantRefusal checks `space list` and the log.
func (l *isolatedLab) wantRefusal(space, reason string) {
	l.t.Helper()
	var out, stderr bytes.Buffer
	if code := cli.Run(l.t.Context(), []string{"space", "list", "--state", l.State}, &out, &stderr); code != 0 {
		l.t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, space+" ") && !strings.Contains(line, reason) {
			l.t.Errorf("`space list` shows %q, want %q in it", line, reason)
		}
	}
	for line := range strings.Lines(l.log()) {
		if strings.Contains(line, `"space":"`+space+`"`) && strings.Contains(line, "refused") {
			return
		}
	}
	l.t.Errorf("the log has no refusal of %s", space)
}

// testCalls: a Space calls the others at their visitors' addresses, unless `calls` names none.
func testCalls(l *isolatedLab) {
	for space, want := range map[int]string{layered: "200", listed: "refused"} {
		got := l.code(space, fmt.Sprintf(`
import urllib.request
try:
    print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(%q, timeout=10).status)
except OSError as error:
    print("refused" if "refused" in str(error) else error)`, l.Spaces[reaching].URL+"/"))
		l.want("a call by "+l.Spaces[space].Name, got, want)
	}
}
