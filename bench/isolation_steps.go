package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// levelStep is one measurement of --isolation. It returns the values of each level.
type levelStep struct {
	step
	measure func(context.Context, *comparison) (map[string]values, error)
}

// restartStep is the name of the step that every round begins with.
const restartStep = "start"

// levelSize is the amount of measurement of --isolation in one round.
type levelSize struct {
	warmUp   int   // calls of each kind after a start
	each     int   // calls at each level
	cold     int   // calls that need a new worker
	posts    int   // requests
	uploads  int   // files
	file     int64 // bytes of an upload
	download int64 // bytes of a download
	firsts   int   // downloads of one byte
}

var (
	fullLevels  = levelSize{warmUp: 20, each: 150, cold: 12, posts: 200, uploads: 3, file: 32 << 20, download: 1 << 30, firsts: 40}
	shortLevels = levelSize{warmUp: 2, each: 6, cold: 2, posts: 6, uploads: 1, file: 4 << 20, download: 16 << 20, firsts: 3}
)

func levelSizeFor(short bool) levelSize {
	if short {
		return shortLevels
	}
	return fullLevels
}

// levelSteps lists the steps of --isolation in execution order.
func levelSteps(short bool) []levelStep {
	size := levelSizeFor(short)
	latency := func(name, about, text, goal string, n int, do timedCall) levelStep {
		s := step{name: name, about: about, lines: []line{{key: "p50_ms", text: text + ", p50 ms", format: "%.2f", goal: goal}}}
		return levelStep{s, func(ctx context.Context, c *comparison) (map[string]values, error) { return c.latency(ctx, n, do) }}
	}
	return []levelStep{
		{step{name: restartStep, about: "restart of the Space, in every round", lines: []line{
			{key: "process_ms", text: "start until the interpreter runs, ms", format: "%.1f", goal: "+30 ms"},
			{key: "running_ms", text: "start until the Space runs, ms", format: "%.0f", goal: "+30 ms"},
			{key: "cpu_ms", text: "CPU of the Space until it runs, ms", format: "%.0f"}}}, restart},
		latency("noop", "call of a function without a GPU", "plain call", "+2 %", size.each, noopCall),
		latency("gpu", "call of a @spaces.GPU function with a warm worker", "warm GPU call", "+2 %", size.each, warmCall),
		latency("new-worker", "call of a @spaces.GPU function that needs a new worker", "cold GPU call", "", size.cold, coldCall),
		latency("get", "request that is passed through on a kept connection", "pass-through GET", "", size.posts, passedGet),
		latency("post", "request that is passed through on a connection of its own", "pass-through POST, new connection", "+0.5 ms", size.posts, passedPost),
		{step{name: "upload", about: "upload of a file", lines: []line{
			{key: "MB_s", text: fmt.Sprintf("upload of %d MiB, MB/s", size.file>>20), format: "%.0f"}}}, func(ctx context.Context, c *comparison) (map[string]values, error) {
			rates, err := c.uploads(ctx, size.uploads, size.file, c.host.home)
			return asValues("MB_s", rates), err
		}},
		{step{name: "egress", about: "download by the Space from an address of this machine; at level namespaces through the relay", lines: []line{
			{key: "GB_s", text: "download by the Space, GB/s", format: "%.2f", goal: ">= 1 GB/s"},
			{key: "first_ms", text: "first byte of a download, p50 ms", format: "%.2f"}}}, downloads(size)},
		{step{name: "memory", about: "memory of init, the process 1 of a sandbox", lines: []line{
			{key: "init_MB", text: "memory of init (PSS), MB", format: "%.1f"}}}, initMemory},
	}
}

// restart restarts each Space. The host logs the duration of a start until the interpreter runs, and until the Space does.
// The former includes the sandbox.
func restart(ctx context.Context, c *comparison) (map[string]values, error) {
	all := map[string]values{}
	for _, s := range c.inTurn() {
		c.log.skip()
		command := exec.CommandContext(ctx, c.spacehost, "space", "restart", s.name, "--state", filepath.Join(c.host.home, "state"))
		if out, err := command.CombinedOutput(); err != nil {
			return all, fmt.Errorf("restart the Space: %w: %s", err, bytes.TrimSpace(out))
		}
		v, err := c.awaitStart(ctx, s.name)
		if err != nil {
			return all, err
		}
		if err := c.connect(ctx, s); err != nil {
			return all, err
		}
		all[s.name] = v
	}
	return all, nil
}

// awaitStart returns the durations of a start once the host has logged them, and the CPU time that the processes of the
// Space have used until then, in steps of 10 ms.
func (c *comparison) awaitStart(ctx context.Context, level string) (values, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	started, processTook, err := c.await(ctx, "space started", level)
	if err != nil {
		return nil, err
	}
	_, runningTook, err := c.await(ctx, "space running", level)
	if err != nil {
		return nil, err
	}
	v := values{"process_ms": ms(processTook), "running_ms": ms(runningTook)}
	for _, p := range descendants(started.PID) {
		v["cpu_ms"] += ms(ticks(p.pid) * 10 * time.Millisecond)
	}
	return v, nil
}

// await waits for a line of the host's log with a duration.
func (c *comparison) await(ctx context.Context, message, level string) (entry logEntry, took time.Duration, err error) {
	err = c.host.await(ctx, func() (ok bool) { entry, ok = c.log.find(message, level); return ok })
	if err == nil {
		took, err = time.ParseDuration(entry.Took)
	}
	if err != nil {
		return entry, 0, fmt.Errorf("await %q of the Space %s in the log: %w", message, level, err)
	}
	return entry, took, nil
}

// coldCall ends the worker after the call.
func coldCall(ctx context.Context, s *servedSpace, n int) (time.Duration, error) {
	took, err := s.echo(ctx, "on_new_worker", n)
	if err != nil {
		return 0, err
	}
	session := newHash()
	if err := s.client.join(ctx, session, "on_new_worker", `["end"]`); err != nil {
		return 0, err
	}
	h, err := s.client.listen(ctx, session, nil)
	if err == nil && !bytes.Contains(h.completed, []byte(`"success":false`)) {
		err = fmt.Errorf("end the worker: got {\"msg\":\"%.300s, want a failure", h.completed)
	}
	return took, err
}

// passedPath is answered by the Space's own server, and never by the host. The server refuses POST.
const passedPath = "/gradio_api/token"

func passedGet(ctx context.Context, s *servedSpace, _ int) (time.Duration, error) {
	began := time.Now()
	_, err := s.client.get(ctx, passedPath)
	return time.Since(began), err
}

// passedPost measures a connection from the host to the Space: the host uses each once, because it cannot repeat a POST.
func passedPost(ctx context.Context, s *servedSpace, _ int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+passedPath, strings.NewReader("{}"))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	answer, err := s.client.http.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return 0, err
	}
	if answer.StatusCode != http.StatusMethodNotAllowed {
		return 0, fmt.Errorf("POST %s: got %s, want 405 from the Space", passedPath, answer.Status)
	}
	return time.Since(began), nil
}

// asValues returns a value of each Space.
func asValues(key string, of map[string]float64) map[string]values {
	all := map[string]values{}
	for name, value := range of {
		all[name] = values{key: value}
	}
	return all
}

// downloads skips the level files: there a Space reaches only the ports that the Hub opens.
func downloads(size levelSize) func(context.Context, *comparison) (map[string]values, error) {
	return func(ctx context.Context, c *comparison) (map[string]values, error) {
		all := map[string]values{}
		if c.server == nil {
			return all, nil
		}
		measured := func(s *servedSpace) bool { return s.name != levelFiles }
		medians, err := c.rates(ctx, 2, func(ctx context.Context, s *servedSpace) (float64, error) {
			if !measured(s) {
				return 0, nil
			}
			_, last, err := c.download(ctx, s, size.download)
			return float64(size.download) / last.Seconds(), err
		})
		if err != nil {
			return all, err
		}
		for level, rate := range medians {
			all[level] = values{"GB_s": rate / 1e9}
		}
		first, err := c.latency(ctx, size.firsts, func(ctx context.Context, s *servedSpace, _ int) (took time.Duration, err error) {
			if measured(s) {
				took, _, err = c.download(ctx, s, 1)
			}
			return took, err
		})
		for level, v := range all {
			v["first_ms"] = first[level]["p50_ms"]
		}
		return all, err
	}
}

// download lets the Space read that many bytes, and returns its times until the first byte and the last one.
func (c *comparison) download(ctx context.Context, s *servedSpace, size int64) (first, last time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	session := newHash()
	if err := s.client.join(ctx, session, "fetch", fmt.Sprintf(`["%s",%d]`, c.server.address(), size)); err != nil {
		return 0, 0, err
	}
	h, err := s.client.listen(ctx, session, nil)
	if err != nil {
		return 0, 0, err
	}
	var m struct{ Output struct{ Data []string } }
	var seconds [3]float64 // the third is the number of bytes
	if err = json.Unmarshal(append([]byte(`{"msg":"`), h.completed...), &m); err == nil && len(m.Output.Data) == 1 {
		err = json.Unmarshal([]byte(m.Output.Data[0]), &seconds)
	}
	if err != nil || int64(seconds[2]) != size {
		return 0, 0, fmt.Errorf("download of %d bytes: %w, got {\"msg\":\"%.300s", size, err, h.completed)
	}
	of := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	return of(seconds[0]), of(seconds[1]), nil
}

// initName begins the command line of init (internal/sandbox).
const initName = "spacehost: init of a Space"

// initMemory returns the memory of init: each page that it shares with the host counts in part. A kernel that refuses this
// value to an ordinary user reports the resident memory.
func initMemory(_ context.Context, c *comparison) (map[string]values, error) {
	for _, p := range descendants(c.host.cmd.Process.Pid) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid)) // the process may have exited
		if bytes.HasPrefix(command, []byte(initName)) {
			return map[string]values{levelNamespaces: {"init_MB": proportional(p.pid) / 1e6}}, nil
		}
	}
	return nil, nil
}
