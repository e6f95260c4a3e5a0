package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"spacehost/internal/people"
)

// Numbers of the step console-streams: open consoles, streams of one token (the host refuses more than 20), and changes.
const (
	consoles        = 500
	fewConsoles     = 2 * streamsPerToken // with --short
	streamsPerToken = 20
	consoleChanges  = 5
)

// consoleStep measures open pages of the console.
func consoleStep(short bool) step {
	count := consoles
	if short {
		count = fewConsoles
	}
	return step{
		name: "console-streams", once: true, about: fmt.Sprintf("%d open consoles of admins: cost without a change, and time until all show one", count),
		measure: func(ctx context.Context, b *bench, s *target) (values, error) {
			return consoleStreams(ctx, b, s, count)
		},
		lines: []line{
			{key: "idle_percent", text: fmt.Sprintf("%d consoles: CPU of the host without changes, %% of a core", count), goal: "<= 5", oursOnly: true},
			{key: "all_ms", text: fmt.Sprintf("%d consoles: change until the last one has it, worst ms", count), format: "%.0f", goal: "<= 1000", oursOnly: true},
			{key: "kB", text: "memory of the host per console, kB", oursOnly: true},
		},
	}
}

// consoleHost is a `spacehost serve` with an admin.
type consoleHost struct {
	*target
	console string
	tokens  []string // of the admin
	http    *http.Client
}

func consoleStreams(ctx context.Context, b *bench, s *target, count int) (values, error) {
	if s.name != ours {
		return values{}, nil // plain Gradio has no console
	}
	if files := b.report.Machine.OpenFiles; files < uint64(count)+spareFiles {
		return nil, fmt.Errorf("not measured: the limit of open files is %d; run `ulimit -n %d` first", files, count+spareFiles)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel() // closes the streams
	home, err := os.MkdirTemp(b.scratch, "console-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(home)
	h, err := b.startConsole(ctx, home, count)
	if err != nil {
		return nil, err
	}
	defer h.stop()
	v := values{}
	before := h.memory()
	w, err := h.watch(ctx, count)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, h.lastOutput())
	}
	defer w.group.Wait()
	defer cancel()
	v["kB"] = (h.memory() - before) / 1000 / float64(count)
	used, _ := h.cpu()
	began := time.Now()
	if err := sleep(ctx, max(b.hold, time.Second)); err != nil {
		return nil, err
	}
	usedAfter, _ := h.cpu()
	v["idle_percent"] = 100 * (usedAfter - used).Seconds() / time.Since(began).Seconds()
	for n := range consoleChanges {
		took, err := w.change(ctx, h, fmt.Sprintf("change-%d", n))
		if err != nil {
			return nil, err
		}
		v["all_ms"] = max(v["all_ms"], ms(took))
	}
	return v, nil
}

// startConsole starts a host whose admin has a token for each twenty consoles, and waits until its Space answers.
func (b *bench) startConsole(ctx context.Context, home string, count int) (*consoleHost, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	console, err := freeAddr()
	if err != nil {
		return nil, err
	}
	h := &consoleHost{console: "http://" + console, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: count}}}
	var hashes []string
	for range count / streamsPerToken {
		token, hash := people.NewToken()
		h.tokens, hashes = append(h.tokens, token), append(hashes, hash)
	}
	file := filepath.Join(home, "lab.yaml")
	text := fmt.Sprintf("gpus: mock:2xH200\nconsole: %s\npeople:\n- {name: ada, tier: pro, admin: true, tokens: [%s]}\nspaces:\n- {folder: %s, address: %q}\n",
		console, strings.Join(hashes, ", "), b.app, addr)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	h.target = &target{name: ours, url: "http://" + addr, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}
	h.cmd = exec.Command(b.spacehost, "serve", "--config", file, "--state", filepath.Join(home, "state"))
	h.cmd.Env = append(plainEnv(home), "SPACEHOST_ENVIRONMENTS="+b.environments)
	if _, err := h.launch(nil); err != nil {
		return nil, err
	}
	if err := h.await(ctx, func() bool { return answers(ctx, h.url+"/config") }); err != nil {
		output := h.lastOutput()
		h.stop()
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	return h, nil
}

// watchers are the open consoles.
type watchers struct {
	count   int
	group   sync.WaitGroup
	opened  atomic.Int64
	wanted  atomic.Pointer[string] // text of the next change
	arrived atomic.Int64           // consoles that have received it
	done    chan struct{}          // receives when all have
	failed  chan error
}

// watch opens all consoles, and returns when each of them has its first values.
func (h *consoleHost) watch(ctx context.Context, count int) (*watchers, error) {
	w := &watchers{count: count, done: make(chan struct{}, 1), failed: make(chan error, count)}
	for n := range count {
		w.group.Go(func() {
			if err := w.read(ctx, h, h.tokens[n/streamsPerToken]); err != nil && ctx.Err() == nil {
				w.failed <- err
			}
		})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for w.opened.Load() < int64(count) {
		select {
		case <-tick.C:
		case err := <-w.failed:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return w, nil
}

// read reads one stream until ctx ends.
func (w *watchers) read(ctx context.Context, h *consoleHost, token string) error {
	answer, err := h.send(ctx, token, http.MethodGet, "/api/spacehost/changes", "")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	lines := bufio.NewReaderSize(answer.Body, 64<<10)
	last := ""
	for isOpen := false; ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("a stream has ended: %w", err)
		}
		if !isOpen && strings.HasPrefix(line, "event: account") {
			isOpen = true
			w.opened.Add(1)
		}
		if want := w.wanted.Load(); want != nil && *want != last && strings.Contains(line, *want) {
			last = *want
			if w.arrived.Add(1) == int64(w.count) {
				w.done <- struct{}{}
			}
		}
	}
}

// change drains a GPU with a new reason, and returns the time until all consoles have received it.
func (w *watchers) change(ctx context.Context, h *consoleHost, reason string) (time.Duration, error) {
	w.arrived.Store(0)
	w.wanted.Store(&reason)
	began := time.Now()
	answer, err := h.send(ctx, h.tokens[0], http.MethodPost, "/api/spacehost/admin/gpu/drain", fmt.Sprintf(`{"uuid": "0", "reason": %q}`, reason))
	if err != nil {
		return 0, err
	}
	answer.Body.Close()
	select {
	case <-w.done:
		return time.Since(began), nil
	case err := <-w.failed:
		return 0, err
	case <-time.After(requestTimeout):
		return 0, fmt.Errorf("%d of %d consoles received a change within %s", w.arrived.Load(), w.count, requestTimeout)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// send sends a request of the admin, and refuses every answer but 200.
func (h *consoleHost) send(ctx context.Context, token, method, path, body string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, h.console+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Origin", h.console)
	r.Header.Set("Content-Type", "application/json")
	answer, err := h.http.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 500))
		answer.Body.Close()
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(text))
	}
	return answer, nil
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
