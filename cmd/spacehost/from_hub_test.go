package main

import (
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRunFromHub runs a Space by its name on a Hub, which git's own server plays, and shows its log when the host has stopped.
func TestRunFromHub(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	work := filepath.Join(root, "spaces", "owner", "demo")
	if err := os.CopyFS(work, os.DirFS("testdata/spaces/scripts")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "-A"}, {"-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "Add"}} {
		if out, err := exec.Command("git", append([]string{"-C", work}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	hub := httptest.NewServer(&cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	})
	t.Cleanup(hub.Close)
	state := t.TempDir()
	p := startProductWith(t, []string{"HF_ENDPOINT=" + hub.URL}, state, "owner/demo")
	t.Cleanup(p.stop)
	p.awaitReady()
	if got := p.client().ok("/run", "print('from the Space'); result = 1"); got != "1" {
		t.Errorf("got %q", got)
	}
	if _, err := os.Stat(filepath.Join(state, "clones", "owner", "demo", "app.py")); err != nil {
		t.Error(err)
	}
	if name := p.health().Spaces[0].Name; name != "demo" {
		t.Errorf("the Space is %q", name)
	}
	p.stop()
	log, err := os.ReadFile(filepath.Join(state, "logs", "run-demo.log"))
	if err != nil || !strings.Contains(string(log), " stdout from the Space\n") || !strings.Contains(string(log), " host RUNNING at http://") {
		t.Errorf("its log is %q, %v", log, err)
	}
}
