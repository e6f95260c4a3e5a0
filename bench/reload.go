package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// edits is the number of edits of one round; editPause is the time between them, in which an author reads the page.
const (
	edits     = 5
	editPause = 5 * time.Second
)

// reload measures the time from an edit of app.py until /config shows it: spacehost run --watch, which starts the app in a new
// process, and Gradio's own reload (`gradio app.py`), which executes app.py again in the same process. Both are started for this
// step, on a copy of the Space.
func reload(ctx context.Context, b *bench, s *target) (values, error) {
	home, err := os.MkdirTemp(b.scratch, "reload-")
	if err != nil {
		return nil, err
	}
	watched := &target{name: s.name, home: home, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}
	defer watched.stop()
	app := filepath.Join(home, "app")
	if err := os.CopyFS(app, os.DirFS(b.app)); err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	watched.url = "http://" + addr
	_, port, _ := net.SplitHostPort(addr)
	if s.name == stock {
		watched.cmd = exec.Command(filepath.Join(filepath.Dir(b.env.Python), "gradio"), "app.py")
	} else {
		watched.cmd = exec.Command(b.spacehost, "run", app, "--watch", "--gpus", "mock:1xH200", "--python", b.env.Python,
			"--state", filepath.Join(home, "state"), "--addr", addr, "--console-addr", ":0")
	}
	watched.cmd.Dir = app
	watched.cmd.Env = append(plainEnv(home), "GRADIO_SERVER_PORT="+port, "GRADIO_SERVER_NAME=127.0.0.1")
	if _, err := watched.launch(nil); err != nil {
		return nil, err
	}
	took, err := watched.edit(ctx, filepath.Join(app, "app.py"))
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, watched.lastOutput())
	}
	slices.Sort(took)
	return values{"p50_ms": percentile(took, 50), "worst_ms": ms(took[len(took)-1])}, nil
}

// edit changes the title of the Space several times, and returns the times until it is served, in any order.
func (s *target) edit(ctx context.Context, path string) (took []time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, func() bool { return answers(ctx, s.url+"/config") }); err != nil {
		return nil, err
	}
	for n := range edits {
		select {
		case <-time.After(editPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		title := fmt.Sprint("edit ", n)
		edited := strings.Replace(string(source), `title="Bench"`, fmt.Sprintf("title=%q", title), 1)
		began := time.Now()
		if err := os.WriteFile(path, []byte(edited), 0o644); err != nil {
			return nil, err
		}
		if err := s.await(ctx, func() bool { return strings.Contains(body(ctx, s.url+"/config"), title) }); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// body returns what url answers, "" for an error.
func body(ctx context.Context, url string) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return ""
	}
	return string(text)
}
