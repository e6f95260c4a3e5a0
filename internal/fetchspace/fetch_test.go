package fetchspace

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hub is a Hub that serves git repositories with git's own server.
type hub struct {
	*httptest.Server
	dir     string // of the author's working tree of owner/demo
	headers []string
}

const testToken = "hf_testtoken"

// newHub serves owner/demo to everyone and owner/secret to the holder of testToken.
func newHub(t *testing.T) *hub {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal("git is not installed; install it for this test")
	}
	root := t.TempDir()
	h := &hub{dir: filepath.Join(root, "work")}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.headers = append(h.headers, r.Header.Get("Authorization"))
		if r.URL.Path == "/api/spaces/by-subdomain/owner-demo" {
			fmt.Fprint(w, `{"id": "owner/demo", "private": false}`)
			return
		}
		if _, password, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/spaces/owner/secret") && password != testToken {
			w.Header().Set("WWW-Authenticate", "Basic realm=\"Authentication required\"")
			http.Error(w, "Invalid username or password.", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	for _, name := range []string{"demo", "secret"} {
		run(t, root, "git", "init", "--quiet", "--bare", "--initial-branch=main", filepath.Join("spaces", "owner", name))
	}
	run(t, root, "git", "init", "--quiet", "--initial-branch=main", "work")
	h.push(t, "app.py", "print(1)\n")
	return h
}

// push commits a file to both Spaces.
func (h *hub) push(t *testing.T, name, text string) {
	t.Helper()
	write(t, filepath.Join(h.dir, name), text)
	run(t, h.dir, "git", "add", "-A")
	run(t, h.dir, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", name)
	for _, space := range []string{"demo", "secret"} {
		run(t, h.dir, "git", "push", "--quiet", filepath.Join("..", "spaces", "owner", space), "main")
	}
}

func run(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fetcher returns a Fetcher for the hub, and the sentences that it has shown since the last look.
func (h *hub) fetcher(t *testing.T) (*Fetcher, func() string) {
	t.Helper()
	t.Setenv("HOME", t.TempDir()) // no settings of git's user
	var notes []string
	f := &Fetcher{Dir: filepath.Join(t.TempDir(), "clones"), Endpoint: h.URL, Note: func(text string) { notes = append(notes, text) }}
	return f, func() string { all := strings.Join(notes, "\n"); notes = nil; return all }
}

func (f *Fetcher) mustFetch(t *testing.T, argument string) string {
	t.Helper()
	s, ok := Parse(argument, f.Endpoint)
	if !ok {
		t.Fatalf("%s is no Source", argument)
	}
	dir, err := f.Fetch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFetch clones a Space, updates it, and leaves the user's changes alone.
func TestFetch(t *testing.T) {
	h := newHub(t)
	f, notes := h.fetcher(t)
	dir := f.mustFetch(t, "owner/demo")
	if want := filepath.Join(f.Dir, "owner", "demo"); dir != want || !strings.Contains(notes(), "cloning "+h.URL+"/spaces/owner/demo into "+want) {
		t.Errorf("got %s, want %s", dir, want)
	}
	holds := func(name, want string) {
		t.Helper()
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != want {
			t.Errorf("%s: got %q, %v, want %q", name, text, err, want)
		}
	}
	holds("app.py", "print(1)\n")

	write(t, filepath.Join(dir, "result.txt"), "of the app")
	h.push(t, "app.py", "print(2)\n")
	f.mustFetch(t, h.URL+"/spaces/owner/demo/tree/main")
	holds("app.py", "print(2)\n")
	holds("result.txt", "of the app")
	if got := notes(); !strings.Contains(got, "is updated to commit ") {
		t.Errorf("after a push: %q", got)
	}
	f.mustFetch(t, h.URL+"/spaces/owner/demo")
	if got := notes(); got != "" {
		t.Errorf("without a change: %q", got)
	}

	h.push(t, "result.txt", "of the author")
	f.mustFetch(t, "owner/demo")
	holds("result.txt", "of the app")
	if got := notes(); !strings.Contains(got, "is not updated, and used as it is: ") || !strings.Contains(got, "result.txt") {
		t.Errorf("a file in the way: %q", got)
	}

	write(t, filepath.Join(dir, "app.py"), "print('mine')\n")
	f.mustFetch(t, "owner/demo")
	holds("app.py", "print('mine')\n")
	if got := notes(); !strings.Contains(got, "it has changes of yours") {
		t.Errorf("after a change: %q", got)
	}
	mine := func(args ...string) {
		t.Helper()
		run(t, dir, append([]string{"git", "--git-dir", filepath.Join(f.Dir, repositories, "owner", "demo.git"), "--work-tree", dir}, args...)...)
	}
	mine("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-am", "mine")
	f.mustFetch(t, "owner/demo")
	holds("app.py", "print('mine')\n")
	if got := notes(); !strings.Contains(got, "it has commits of yours") {
		t.Errorf("after a commit: %q", got)
	}

	h.Close()
	mine("update-ref", fetchedRef, "HEAD")
	f.mustFetch(t, "owner/demo")
	if got := notes(); !strings.Contains(got, "used as it is: git fetch: ") {
		t.Errorf("without a connection: %q", got)
	}
}

// TestASpaceCannotRunProgramsThroughGit: the app writes git directories into its folder, whose configuration names a program. The
// next update does not run it.
func TestASpaceCannotRunProgramsThroughGit(t *testing.T) {
	h := newHub(t)
	h.push(t, "requirements.txt", "")
	run(t, h.dir, "git", "update-index", "--add", "--cacheinfo", "160000,4b825dc642cb6eb9a060e54bf8d69288fbee4904,assets")
	run(t, h.dir, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "a submodule")
	run(t, h.dir, "git", "push", "--quiet", filepath.Join("..", "spaces", "owner", "demo"), "main")
	f, _ := h.fetcher(t)
	dir := f.mustFetch(t, "owner/demo")
	ran := filepath.Join(t.TempDir(), "ran")
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\ntouch "+ran+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{dir, filepath.Join(dir, "assets")} {
		run(t, dir, "git", "init", "--quiet", folder)
		write(t, filepath.Join(folder, "file"), "")
		run(t, folder, "git", "add", "file")
		run(t, folder, "git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x")
		run(t, folder, "git", "config", "core.fsmonitor", program)
	}
	run(t, dir, "git", "status")
	if !exists(ran) {
		t.Fatal("git does not run the program at all: the test shows nothing")
	}
	if err := os.Remove(ran); err != nil {
		t.Fatal(err)
	}
	h.push(t, "app.py", "print(2)\n")
	f.mustFetch(t, "owner/demo")
	if exists(ran) {
		t.Error("an update has run a program of the Space")
	}
	if text, err := os.ReadFile(filepath.Join(dir, "app.py")); err != nil || string(text) != "print(2)\n" {
		t.Errorf("after the update: %q, %v", text, err)
	}
}

// TestToken reads a private Space. The token goes to the Hub alone, and is not stored.
func TestToken(t *testing.T) {
	h := newHub(t)
	f, _ := h.fetcher(t)
	s, _ := Parse("owner/secret", f.Endpoint)
	for token, want := range map[string]string{"": "it is private; correct its name, or set HF_TOKEN", "hf_wrong": "HF_TOKEN may not read it"} {
		f.Token = token
		_, err := f.Fetch(t.Context(), s)
		if failed := (*Error)(nil); !errors.As(err, &failed) || !strings.Contains(err.Error(), want) {
			t.Errorf("token %q: %v", token, err)
		}
		if left, _ := filepath.Glob(filepath.Join(f.Dir, "owner", "*")); len(left) > 0 {
			t.Errorf("a failed clone leaves %v", left)
		}
	}
	f.Token = testToken
	dir := f.mustFetch(t, "owner/secret")
	if err := exec.Command("grep", "-rq", testToken, f.Dir).Run(); err == nil {
		t.Error("the token is in the clone")
	}
	if text, err := os.ReadFile(filepath.Join(dir, "app.py")); err != nil || string(text) != "print(1)\n" {
		t.Errorf("got %q, %v", text, err)
	}
	other := newHub(t)
	if _, err := f.Fetch(t.Context(), Source{URL: other.URL + "/spaces/owner/demo", Folder: "elsewhere"}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(other.headers, ""); got != "" || len(other.headers) == 0 {
		t.Errorf("another host receives %q", other.headers)
	}
	_, err := f.Fetch(t.Context(), Source{URL: "https://me:pw-1@git.example/x", Folder: "x"})
	if err == nil || strings.Contains(err.Error(), "pw-1") || !strings.Contains(err.Error(), "credential helper") {
		t.Errorf("a password in the address: %v", err)
	}
}

func TestFetchBySubdomain(t *testing.T) {
	h := newHub(t)
	f, _ := h.fetcher(t)
	if dir := f.mustFetch(t, "https://owner-demo.hf.space/?x=1"); dir != filepath.Join(f.Dir, "owner", "demo") {
		t.Errorf("got %s", dir)
	}
	_, err := f.Fetch(t.Context(), Source{Subdomain: "no-such"})
	if err == nil || !strings.Contains(err.Error(), "no-such.hf.space: the Hub knows no such Space (status 404); name it as owner/space") {
		t.Errorf("an unknown address: %v", err)
	}
}

// TestLFSPointers clones a Space whose model is in Git LFS, without git-lfs.
func TestLFSPointers(t *testing.T) {
	h := newHub(t)
	h.push(t, "model.bin", pointer+"oid sha256:4d7a\nsize 12345\n")
	f, notes := h.fetcher(t)
	dir := f.mustFetch(t, "owner/demo")
	if got := notes(); !strings.Contains(got, "1 file of Git LFS missing in "+dir+", such as model.bin") || !strings.Contains(got, "lfs pull`") {
		t.Errorf("got %q", got)
	}
}

func TestWithoutGit(t *testing.T) {
	f := &Fetcher{Dir: t.TempDir(), Endpoint: Hub}
	t.Setenv("PATH", t.TempDir())
	_, err := f.Fetch(t.Context(), onHub("owner/demo", Hub))
	if err == nil || !strings.Contains(err.Error(), "install git, or run `hf download --repo-type space owner/demo --local-dir demo` and name the folder demo") {
		t.Errorf("got %v", err)
	}
}

func TestParse(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("mine/folder", 0o755); err != nil {
		t.Fatal(err)
	}
	const own = "http://hub.example:8080"
	for argument, want := range map[string]Source{
		"owner/demo":  {URL: own + "/spaces/owner/demo", Folder: "owner/demo", id: "owner/demo"},
		"owner/d.e_m": {URL: own + "/spaces/owner/d.e_m", Folder: "owner/d.e_m", id: "owner/d.e_m"},
		"https://huggingface.co/spaces/owner/demo":                  {URL: own + "/spaces/owner/demo", Folder: "owner/demo", id: "owner/demo"},
		"https://huggingface.co/spaces/owner/demo.git":              {URL: own + "/spaces/owner/demo", Folder: "owner/demo", id: "owner/demo"},
		"https://hf.co/spaces/owner/demo/":                          {URL: own + "/spaces/owner/demo", Folder: "owner/demo", id: "owner/demo"},
		"https://huggingface.co/spaces/owner/demo/blob/main/app.py": {URL: own + "/spaces/owner/demo", Folder: "owner/demo", id: "owner/demo"},
		own + "/spaces/owner/demo?logs=container":                   {URL: own + "/spaces/owner/demo", Folder: "owner/demo", id: "owner/demo"},
		"https://owner-demo.hf.space":                               {Subdomain: "owner-demo"},
		"https://github.com/o/r.git":                                {URL: "https://github.com/o/r.git", Folder: "github.com/o/r"},
		"git@hf.co:spaces/o/r":                                      {URL: "git@hf.co:spaces/o/r", Folder: "hf.co/spaces/o/r"},
		"ssh://git@host:22/a/../b c":                                {URL: "ssh://git@host:22/a/../b c", Folder: "host-22/b-c"},
	} {
		if got, ok := Parse(argument, own); !ok || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", argument, got, ok, want)
		}
	}
	for _, argument := range []string{"mine/folder", "mine/mistyped", ".", "demo", "../x/y", "./a/b", "a/b/c", "/abs/path", "-x/y", "ext::sh -c x", "file:///etc", ""} {
		if got, ok := Parse(argument, own); ok {
			t.Errorf("%q: got %+v", argument, got)
		}
	}
}
