package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"spacehost/internal/space"
)

// The ways from an empty folder to a first answer: what is installed, and the installer. The goal compares the two ways with the
// same installer.
const (
	byUV    = "gradio, uv"
	byPip   = "gradio, pip"
	oursUV  = "spacehost, uv"
	oursPip = "spacehost, pip"

	firstStep = "first"
	firstGoal = 10 * time.Second // above plain Gradio
)

// firstPairs are the ways that are compared.
var firstPairs = [][2]string{{byUV, oursUV}, {byPip, oursPip}}

// firstTimeout limits one way, with cold caches.
const firstTimeout = 15 * time.Minute

// firstLines are the rows of the table of --first.
var firstLines = []line{
	{key: "install_s", text: "before the start: a virtual environment, and what is installed in it, s"},
	{key: "start_s", text: "from the start until the first answer, s"},
	{key: "both_s", text: "both, s"},
	{key: "cpu_s", text: "CPU of all programs until the end, s"}, // other load on the machine hardly changes it
}

// firstStart is what the ways share. Each measurement has a folder, a home and a state folder of its own; the caches of uv and
// pip are warm. PATH has python3 and sh only.
type firstStart struct {
	*bench
	sample    string // folder of the Space
	gradio    string // version that its README.md requires
	uv        string // program of byUV and oursUV
	path      string // PATH
	variables []string
}

// compareFirst measures the rounds of --first. A round before them fills the caches.
func (b *bench) compareFirst(ctx context.Context) error {
	f, err := b.newFirstStart(ctx)
	if err != nil {
		return err
	}
	ways := []string{byUV, oursUV, byPip, oursPip}
	if b.short {
		ways = ways[:2]
	}
	for round := 0; round <= b.options.rounds; round++ {
		for i := range ways {
			way := ways[(round+i)%len(ways)]
			began := time.Now()
			v, err := f.measure(ctx, way)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", way, round, err)
			}
			if round == 0 {
				b.printf("caches of %s are warm after %.0f s", way, time.Since(began).Seconds())
				continue
			}
			b.record(round, way, firstStep, v, nil, began)
		}
	}
	return nil
}

func (b *bench) newFirstStart(ctx context.Context) (*firstStart, error) {
	f := &firstStart{bench: b, sample: filepath.Join(b.root, "examples", "hello-zerogpu"), path: filepath.Join(b.scratch, "path")}
	s, err := space.Open(f.sample)
	if err != nil {
		return nil, err
	}
	f.gradio = s.SDKVersion
	f.variables = []string{"PATH=" + f.path, "GRADIO_ANALYTICS_ENABLED=False", "NO_PROXY=127.0.0.1,localhost,::1",
		"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_CACHE_DIR=" + filepath.Join(b.scratch, "pip"), "UV_CACHE_DIR=" + filepath.Join(b.scratch, "uv")}
	for _, name := range []string{"LANG", "SSL_CERT_FILE", "PIP_CERT", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "HTTP_PROXY", "HTTPS_PROXY"} {
		if value, ok := os.LookupEnv(name); ok {
			f.variables = append(f.variables, name+"="+value)
		}
	}
	python, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return nil, fmt.Errorf("run python3: %w; install Python 3.10 or newer with venv", err)
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(f.path, 0o755); err != nil {
		return nil, err
	}
	for name, target := range map[string]string{"python3": strings.TrimSpace(string(python)), "sh": shell} {
		if err := os.Symlink(target, filepath.Join(f.path, name)); err != nil {
			return nil, err
		}
	}
	tools := filepath.Join(b.scratch, "tools")
	f.uv = filepath.Join(tools, "bin", "uv")
	_, err = f.commands(ctx, b.scratch, f.variables, [][]string{{"python3", "-m", "venv", tools}, {filepath.Join(tools, "bin", "pip"), "install", "--quiet", "uv"}})
	return f, err
}

// commands runs programs one after the other, and returns their CPU time.
func (f *firstStart) commands(ctx context.Context, dir string, variables []string, all [][]string) (cpu time.Duration, err error) {
	for _, argv := range all {
		name := argv[0]
		if name == "python3" {
			name = filepath.Join(f.path, name)
		}
		c := exec.CommandContext(ctx, name, argv[1:]...)
		c.Dir, c.Env = dir, variables
		if out, err := c.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
		cpu += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
	}
	return cpu, nil
}

// measure goes one way, and removes its files.
func (f *firstStart) measure(ctx context.Context, way string) (values, error) {
	ctx, cancel := context.WithTimeout(ctx, firstTimeout)
	defer cancel()
	home, err := os.MkdirTemp(f.scratch, "first-")
	if err != nil {
		return nil, err
	}
	s := &target{name: way, home: home, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}
	defer func() {
		if s.cmd == nil || s.cmd.ProcessState == nil {
			s.stop()
		}
	}()
	app, venv := filepath.Join(home, "space"), filepath.Join(home, "venv")
	if err := os.CopyFS(app, os.DirFS(f.sample)); err != nil {
		return nil, err
	}
	variables := append(slices.Clone(f.variables), "HOME="+home)
	python := filepath.Join(venv, "bin", "python")
	isOurs := way == oursUV || way == oursPip
	packages := []string{"gradio==" + f.gradio, "spaces", "-r", filepath.Join(app, "requirements.txt")}
	if isOurs {
		packages = []string{f.wheel}
	}
	install := [][]string{{"python3", "-m", "venv", venv}, append([]string{python, "-m", "pip", "install", "--quiet"}, packages...)}
	if way == byUV || way == oursUV {
		install = [][]string{{f.uv, "venv", "--quiet", venv}, append([]string{f.uv, "pip", "install", "--quiet", "--python", python}, packages...)}
	}
	began := time.Now()
	cpu, err := f.commands(ctx, home, variables, install)
	if err != nil {
		return nil, err
	}
	installed := time.Since(began)
	if isOurs {
		s.cmd = exec.Command(filepath.Join(venv, "bin", "spacehost"), "run", app, "--addr", ":0", "--console-addr", "127.0.0.1:0", "--ready-json")
	} else {
		s.cmd = exec.Command(python, "app.py")
	}
	s.cmd.Dir, s.cmd.Env = app, variables
	if err := f.answer(ctx, s, isOurs); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.lastOutput())
	}
	both := time.Since(began)
	s.stop()
	cpu += s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime() // with its descendants, which it has waited for
	return values{"install_s": installed.Seconds(), "start_s": (both - installed).Seconds(), "both_s": both.Seconds(), "cpu_s": cpu.Seconds()}, nil
}

// answer starts the target, and returns when gradio_client has got the first answer.
func (f *firstStart) answer(ctx context.Context, s *target, isOurs bool) error {
	var lines chan string
	if isOurs {
		lines = make(chan string, 1)
	} else {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		_, port, _ := net.SplitHostPort(addr)
		s.url = "http://" + addr
		s.cmd.Env = append(s.cmd.Env, "GRADIO_SERVER_PORT="+port, "GRADIO_SERVER_NAME=127.0.0.1")
	}
	if _, err := s.launch(lines); err != nil {
		return err
	}
	if isOurs {
		select {
		case text := <-lines:
			var ready struct{ URL string }
			if err := json.Unmarshal([]byte(text), &ready); err != nil || ready.URL == "" {
				return errors.New("the process exited, or its first line is not that of --ready-json")
			}
			s.url = ready.URL
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := s.await(ctx, func() bool { return answers(ctx, s.url+"/config") }); err != nil {
		return err
	}
	const call = `import sys
from gradio_client import Client
print(Client(sys.argv[1], verbose=False).predict(0, api_name="/sleep"))`
	c := exec.CommandContext(ctx, f.env.Python, "-c", call, s.url)
	c.Env = append(slices.Clone(f.variables), "HOME="+s.home)
	out, err := c.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "slept 0 s") {
		return fmt.Errorf("call: %w: %s", err, out)
	}
	return nil
}

// printFirst writes the table of --first.
func (b *bench) printFirst(to io.Writer) {
	r := b.report
	r.printMachine(to)
	fmt.Fprintf(to, "Median of %d rounds. Differences are taken within each round. Each round: empty folder and home, warm caches of uv and pip.\n\n", r.lastRound())
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	heads := []string{}
	for _, pair := range firstPairs {
		heads = append(heads, pair[0], pair[1], "above")
	}
	fmt.Fprintf(t, "\t%s\tgoal\n", strings.Join(heads, "\t"))
	for _, l := range firstLines {
		fmt.Fprint(t, l.text)
		for _, pair := range firstPairs {
			for _, way := range pair {
				if value, ok := r.median(way, firstStep, l.key); ok {
					fmt.Fprintf(t, "\t%.1f", value)
				} else {
					fmt.Fprint(t, "\t-")
				}
			}
			fmt.Fprintf(t, "\t%s", r.firstDifference(pair, l.key))
		}
		goal := ""
		if l.key == "both_s" {
			goal = fmt.Sprintf("above <= %.0f", firstGoal.Seconds())
		}
		fmt.Fprintf(t, "\t%s\n", goal)
	}
	t.Flush()
}

// firstDifference returns the median of what the second way takes above the first one.
func (r report) firstDifference(pair [2]string, key string) string {
	var all []float64
	base := r.byRound(pair[0], firstStep, key)
	for round, value := range r.byRound(pair[1], firstStep, key) {
		if other, ok := base[round]; ok {
			all = append(all, value-other)
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf("%+.1f", quantile(all, 0.5))
}
