package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// step is one measurement on a running target. It yields one or more lines of the table.
type step struct {
	name, about string
	lines       []line
	once        bool // only in the first round
	alone       bool // in its own process
	measure     func(context.Context, *bench, *target) (values, error)
}

// line is one row of the table.
type line struct {
	key, text string
	format    string // of a number; default %.1f
	goal      string // goal for spacehost; a ratio is spacehost divided by gradio
	oursOnly  bool   // plain Gradio has no such value
	share     string // key of the upper bound (upper_bound.go) to compare with
}

// values are the results of a step in one round on one target, by the keys of its lines.
type values map[string]float64

// allSteps lists the steps in execution order. Steps that need a new process come first.
func allSteps(short bool) []step {
	all := []step{
		{name: "start", about: "start of the host, and of the Space until its first answer", measure: startTimes, lines: []line{
			{key: "host_ms", text: "start of the host itself, ms", format: "%.0f", goal: "<= 150", oursOnly: true},
			{key: "first_s", text: "start until the first answer, s", format: "%.2f", goal: "<= 4"}}},
		noop(1, "noop", "no-op, 1 session", "", "<= 0.33x", "1"),
		noop(16, "noop", "no-op, 16 sessions", ">= 4x", "", "1"),
		noop(100, "noop", "no-op, 100 sessions", ">= 5x", "", "1"),
		noop(16, "beside", "no-op side by side, 16 sessions", "", "", "16"),
		noop(100, "beside", "no-op side by side, 100 sessions", "", "", "100"),
		{name: "steps", about: "steps of a generator", measure: generator, lines: []line{{key: "per_s", text: "generator, steps/s", format: "%.0f"}}},
		{name: "gpu", about: "a call of a @spaces.GPU function compared with a plain one; Gradio uses a GPU stub without accounting", measure: gpuCalls, lines: []line{
			{key: "plain_ms", text: "plain call, p50 ms", format: "%.2f"},
			{key: "gpu_ms", text: "GPU call, p50 ms", format: "%.2f"},
			{key: "over_ms", text: "GPU call over a plain one, ms", format: "%.2f", goal: "<= 3"},
			{key: "fsync_ms", text: "one fsync at the same interval, p50 ms", format: "%.2f", oursOnly: true}}},
		{name: "config", about: "/config", measure: gets(configPath), lines: perSecond("/config per second", ">= 15x")},
		{name: "static", about: "a file of Gradio's page", measure: gets(assetPath), lines: perSecond("static file per second", "")},
		{name: "file", about: "reading an uploaded file", measure: gets(filePath), lines: perSecond("/file= per second", "")},
		{name: "upload", about: "an upload, and its memory use", measure: upload, lines: []line{
			{key: "MB_s", text: "first upload, MB/s", format: "%.0f", goal: ">= 4x"},
			{key: "again_MB_s", text: "later uploads, MB/s", format: "%.0f", goal: ">= 4x"},
			{key: "growth_MB", text: "memory growth during an upload, MB", goal: "< 16"}}},
		{name: "page", about: "first load of the page in Chromium, cold cache", measure: page, lines: []line{
			{key: "ms", text: "first page load, ms", format: "%.0f", goal: "<= 1x"}}},
		{name: "console", about: "the console's timeline of a week with 100,000 leases, in Chromium", measure: consoleTimeline, once: true, lines: []line{
			{key: "week_ms", text: "timeline of a week until it is drawn, ms", format: "%.0f", goal: "<= 1000", oursOnly: true},
			{key: "frame_ms", text: "one frame while it moves, mean ms", format: "%.1f", oursOnly: true},
			{key: "worst_ms", text: "the longest of 60 frames, ms", format: "%.0f", goal: "<= 50", oursOnly: true}}},
		{name: "reload", about: "an edit of app.py until it is served: run --watch, and Gradio's own reload (gradio app.py)", measure: reload, lines: []line{
			{key: "p50_ms", text: "edit until it is served, p50 ms", format: "%.0f", goal: "<= 1x"},
			{key: "worst_ms", text: "edit until it is served, worst ms", format: "%.0f"}}},
		{name: "restart", about: "stop and start of spacehost serve with an unchanged Space; plain Gradio: a start of the Space", measure: restartHost, lines: []line{
			{key: "p50_s", text: "restart until the Space answers; plain: its start, p50 s", format: "%.2f"},
			{key: "above_s", text: "restart above the Space's own start, p50 s", format: "%.2f", goal: "<= 1", oursOnly: true}}},
		{name: "check", about: "spacehost check, which reads, and check --run; plain Gradio: its start until the first answer", measure: checkTimes, lines: []line{
			{key: "read_ms", text: "check of the files, p50 ms", format: "%.0f", goal: "<= 300", oursOnly: true},
			{key: "run_s", text: "check --run, s", format: "%.2f", goal: "<= 1x"}}},
		{name: "tired", about: "a no-op after 5,000 events (150 with --short)", measure: usedProcess, lines: []line{
			{key: "p50_ms", text: "no-op, 1 session, used process, p50 ms", format: "%.2f", goal: "<= 0.17x"}}},
	}
	all = append(all, leaseSteps(short)...)
	all = append(all, consoleStep(short))
	if short {
		return append(all, waiting(40, false))
	}
	return append(all, neighbourStep(), waiting(1000, true), waiting(3000, true), waiting(10000, true))
}

func startTimes(_ context.Context, _ *bench, s *target) (values, error) {
	v := values{"first_s": s.first.Seconds()}
	if s.name == ours {
		v["host_ms"] = ms(s.host)
	}
	return v, nil
}

func perSecond(text, goal string) []line {
	return []line{{key: "per_s", text: text, format: "%.0f", goal: goal}}
}

// noop measures a function that returns its input. The API name "noop" has Gradio's default concurrency limit of one;
// "beside" has no limit.
func noop(sessions int, api, text, goal, goalP50, share string) step {
	return step{
		name: fmt.Sprintf("%s-%d", api, sessions), about: text,
		lines: []line{
			{key: "per_s", text: text + ", events/s", format: "%.0f", goal: goal, share: share},
			{key: "p50_ms", text: text + ", p50 ms", format: "%.2f", goal: goalP50},
			{key: "p99_ms", text: text + ", p99 ms", format: "%.2f"},
			{key: "space_us", text: text + ", CPU of the Space per event, us", format: "%.0f"},
			{key: "host_us", text: text + ", CPU of the host per event, us", format: "%.0f", oursOnly: true},
		},
		measure: func(ctx context.Context, b *bench, s *target) (values, error) {
			host, space := s.cpu()
			r := events(ctx, s, api, sessions, b.span)
			hostAfter, spaceAfter := s.cpu()
			v := values{"per_s": r.perSecond, "p50_ms": r.ms(50), "p99_ms": r.ms(99)}
			each := float64(max(1, len(r.took)))
			v["space_us"] = float64((spaceAfter - space).Microseconds()) / each
			if s.name == ours {
				v["host_us"] = float64((hostAfter - host).Microseconds()) / each
			}
			return v, r.err
		},
	}
}

// events runs concurrent sessions; each starts its next call when the previous one is answered.
func events(ctx context.Context, s *target, api string, sessions int, span time.Duration) rate {
	hashes := make([]string, sessions)
	for i := range hashes {
		hashes[i] = newHash()
	}
	r := repeat(ctx, sessions, span, func(ctx context.Context, worker, n int) (time.Duration, error) {
		text := fmt.Sprintf(`"%s-%d"`, hashes[worker], n)
		took, _, err := s.client.call(ctx, hashes[worker], api, "["+text+"]", text)
		return took, err
	})
	s.events += len(r.took)
	return r
}

// rate is the result of repeat. err reports the failures and their number.
type rate struct {
	perSecond float64
	took      []time.Duration // ascending
	err       error
}

func (r rate) ms(percent int) float64 { return percentile(r.took, percent) }

// percentile returns a percentile of ascending times in milliseconds; 0 if there are none.
func percentile(took []time.Duration, percent int) float64 {
	if len(took) == 0 {
		return 0
	}
	return ms(took[min(len(took)-1, len(took)*percent/100)])
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// wrongError reports how many calls were dropped or answered incorrectly.
type wrongError struct {
	count, of int
	first     error
}

func (e *wrongError) Error() string { return fmt.Sprintf("%d of %d: %v", e.count, e.of, e.first) }

// repeat calls do on several goroutines for span, at least once on each. A worker stops after ten failures, so that a
// target that is down does not receive a million requests.
func repeat(ctx context.Context, workers int, span time.Duration, do func(ctx context.Context, worker, n int) (time.Duration, error)) (r rate) {
	var mu sync.Mutex
	wrong := &wrongError{}
	began := time.Now()
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for n, failed := 0, 0; (n == 0 || time.Since(began) < span) && failed < 10 && ctx.Err() == nil; n++ {
				took, err := do(ctx, worker, n)
				mu.Lock()
				wrong.of++
				if err == nil {
					r.took = append(r.took, took)
				} else {
					failed++
					if wrong.count++; wrong.first == nil {
						wrong.first = err
					}
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	r.perSecond = float64(len(r.took)) / time.Since(began).Seconds()
	slices.Sort(r.took)
	if wrong.count > 0 {
		r.err = wrong
	}
	return r
}

// usedProcess runs that many events on the target, then measures one session.
func usedProcess(ctx context.Context, b *bench, s *target) (values, error) {
	for s.events < b.usedEvents && ctx.Err() == nil {
		if r := events(ctx, s, "noop", 4, min(b.span, time.Second)); r.err != nil {
			return nil, r.err
		}
	}
	r := events(ctx, s, "noop", 1, b.span)
	return values{"p50_ms": r.ms(50)}, r.err
}

func generator(ctx context.Context, b *bench, s *target) (values, error) {
	r := repeat(ctx, 1, b.span, func(ctx context.Context, _, _ int) (time.Duration, error) {
		took, h, err := s.client.call(ctx, newHash(), "steps", fmt.Sprintf("[%d]", b.steps), fmt.Sprintf(`"%d"`, b.steps-1))
		if err == nil && h.generating != b.steps {
			err = fmt.Errorf("%d steps received, want %d", h.generating, b.steps)
		}
		return took, err
	})
	s.events += len(r.took)
	return values{"per_s": r.perSecond * float64(b.steps)}, r.err
}

// gpuCalls compares a call that gets a GPU with one that needs none. They alternate, so that both run under the same
// conditions; the first calls are warm-up. Plain Gradio provides no GPU: it is started again with a stub that grants
// one.
func gpuCalls(ctx context.Context, b *bench, s *target) (_ values, err error) {
	if s.name == stock {
		g, stubErr := newGPUStub()
		if stubErr != nil {
			return nil, stubErr
		}
		defer func() { err = errors.Join(err, g.close()) }()
		if s, err = b.start(ctx, stock, "SPACES_ZERO_GPU=true", "SPACES_ZERO_DEVICE_API_URL="+g.url); err != nil {
			return nil, err
		}
		defer s.stop()
	}
	took := map[string][]time.Duration{}
	for n := range 2 * b.calls {
		for _, api := range []string{"noop", "on_gpu"} {
			text := fmt.Sprintf(`"%d"`, n)
			one, _, err := s.client.call(ctx, newHash(), api, "["+text+"]", text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", api, err)
			}
			if s.events++; n >= b.calls {
				took[api] = append(took[api], one)
			}
		}
	}
	slices.Sort(took["noop"])
	slices.Sort(took["on_gpu"])
	plain, gpu := percentile(took["noop"], 50), percentile(took["on_gpu"], 50)
	return values{"plain_ms": plain, "gpu_ms": gpu, "over_ms": gpu - plain, "fsync_ms": percentile(fsyncs(b.scratch, 10*time.Millisecond), 50)}, nil
}

// readers is the number of concurrent reads of the same file.
const readers = 16

// gets measures how often a path can be read per second; each answer must equal the first.
func gets(path func(context.Context, *target) (string, error)) func(context.Context, *bench, *target) (values, error) {
	return func(ctx context.Context, b *bench, s *target) (values, error) {
		p, err := path(ctx, s)
		if err != nil {
			return nil, err
		}
		want, err := s.client.get(ctx, p)
		if err != nil {
			return nil, err
		}
		r := repeat(ctx, readers, b.span, func(ctx context.Context, _, _ int) (time.Duration, error) {
			got, err := s.client.get(ctx, p)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("%s differs from its first answer: %d bytes, then %d", p, len(want), len(got))
			}
			return 0, err
		})
		return values{"per_s": r.perSecond}, r.err
	}
}

func configPath(context.Context, *target) (string, error) { return "/config", nil }

var asset = regexp.MustCompile(`assets/[\w.-]+\.js`)

// assetPath returns a script that Gradio's page loads.
func assetPath(ctx context.Context, s *target) (string, error) {
	body, err := s.client.get(ctx, "/")
	if err != nil {
		return "", err
	}
	found := asset.Find(body)
	if found == nil {
		return "", fmt.Errorf("the page of Gradio contains no script")
	}
	return "/" + string(found), nil
}

func filePath(ctx context.Context, s *target) (string, error) {
	path, err := s.client.upload(ctx, 4096)
	return "/gradio_api/file=" + path, err
}

// laterUploads follow the first upload, which writes to memory that was unused for a while. A virtual machine may
// have to fetch such memory from its own host first, which would dominate the measurement.
const laterUploads = 3

// upload also checks the size of each file that the Space received.
func upload(ctx context.Context, b *bench, s *target) (values, error) {
	first, growth, err := b.uploadOnce(ctx, s)
	if err != nil {
		return nil, err
	}
	var later []float64
	for range laterUploads {
		rate, grown, err := b.uploadOnce(ctx, s)
		if err != nil {
			return nil, err
		}
		later, growth = append(later, rate), max(growth, grown)
	}
	slices.Sort(later)
	return values{"MB_s": first, "again_MB_s": later[len(later)/2], "growth_MB": growth}, nil
}

func (b *bench) uploadOnce(ctx context.Context, s *target) (rate, growth float64, err error) {
	tree := descendants(s.cmd.Process.Pid)
	before := s.resident(tree)
	peak := watchPeak(func() float64 { return s.resident(tree) })
	began := time.Now()
	path, err := s.client.upload(ctx, b.size.upload)
	took := time.Since(began)
	highest := peak()
	if err != nil {
		return 0, 0, err
	}
	file, _ := json.Marshal(map[string]any{"path": path, "meta": map[string]string{"_type": "gradio.FileData"}}) // plain strings
	_, _, err = s.client.call(ctx, newHash(), "size", "["+string(file)+"]", fmt.Sprintf(`"%d"`, b.size.upload))
	if below, bad := filepath.Rel(s.home, path); bad == nil && filepath.IsLocal(below) {
		_ = os.Remove(path) // the folder is removed at the end, but twenty such files are large
	}
	return float64(b.size.upload) / 1e6 / took.Seconds(), max(0, highest-before) / 1e6, err
}

// watchPeak samples every ten milliseconds until the returned function is called, which returns the highest value.
func watchPeak(sample func() float64) (stop func() float64) {
	ended, highest := make(chan struct{}), make(chan float64)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for most := sample(); ; most = max(most, sample()) {
			select {
			case <-tick.C:
			case <-ended:
				highest <- most
				return
			}
		}
	}()
	return func() float64 { close(ended); return <-highest }
}

// upload sends a file of that size and returns its path as seen by the Space. It writes directly to its connection:
// CPU time of the client is taken from the target.
func (c *client) upload(ctx context.Context, size int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	addr := strings.TrimPrefix(c.url, "http://")
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // a TCP connection takes it
	const boundary = "----spacehost-bench"
	head := "--" + boundary + "\r\nContent-Disposition: form-data; name=\"files\"; filename=\"bench.bin\"\r\n" +
		"Content-Type: application/octet-stream\r\n\r\n"
	tail := "\r\n--" + boundary + "--\r\n"
	sent := make(chan error, 1)
	go func() {
		_, err := fmt.Fprintf(conn, "POST /gradio_api/upload HTTP/1.1\r\nHost: %s\r\nContent-Type: multipart/form-data; boundary=%s\r\n"+
			"Content-Length: %d\r\nConnection: close\r\n\r\n%s", addr, boundary, int64(len(head)+len(tail))+size, head)
		if err == nil {
			err = noiseTo(conn, size)
		}
		if err == nil {
			_, err = io.WriteString(conn, tail)
		}
		sent <- err
	}()
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		conn.Close()
		return "", fmt.Errorf("upload: %w", errors.Join(<-sent, err))
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", fmt.Errorf("upload: %w", err)
	}
	var paths []string
	if err := json.Unmarshal(body, &paths); err != nil || answer.StatusCode != http.StatusOK || len(paths) != 1 || !strings.HasPrefix(paths[0], "/") {
		return "", fmt.Errorf("upload: want one path, got %s %.200s", answer.Status, body)
	}
	return paths[0], <-sent
}

// noise is the content of uploads, repeated: cheap to produce, and not compressible by a disk.
var noise = func() []byte {
	block := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(block) // never fails
	return block
}()
