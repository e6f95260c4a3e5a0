package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The two targets.
const (
	stock = "gradio"
	ours  = "spacehost"
)

// target is plain Gradio or spacehost, running.
type target struct {
	name   string
	url    string
	client *client
	cmd    *exec.Cmd
	ended  chan struct{}
	output string // file with its output
	home   string // folder of its files
	events int    // number of answered calls
	host   time.Duration
	first  time.Duration // from start until the first answer
}

// startTimeout limits the time until the first answer.
const startTimeout = 3 * time.Minute

// start starts a target and returns once it has answered a call. Plain Gradio gets more variables.
func (b *bench) start(ctx context.Context, name string, more ...string) (*target, error) {
	home, err := os.MkdirTemp(b.scratch, name+"-")
	if err != nil {
		return nil, err
	}
	s := &target{name: name, home: home, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if name == stock {
		err = b.startStock(ctx, s, more)
	} else {
		err = b.startOurs(ctx, s)
	}
	if err != nil {
		output := s.lastOutput()
		s.stop()
		return nil, fmt.Errorf("start %s: %w\n%s", name, err, output)
	}
	return s, nil
}

// startStock starts the app as its author does: python app.py.
func (b *bench) startStock(ctx context.Context, s *target, more []string) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(addr)
	s.url = "http://" + addr
	s.cmd = exec.Command(b.env.Python, "app.py")
	s.cmd.Dir = b.app
	s.cmd.Env = append(plainEnv(s.home), "GRADIO_SERVER_PORT="+port, "GRADIO_SERVER_NAME=127.0.0.1")
	s.cmd.Env = append(s.cmd.Env, more...)
	began, err := s.launch(nil)
	if err != nil {
		return err
	}
	return s.awaitFirst(ctx, began)
}

// startOurs starts the same Space under spacehost. The console answers as soon as the host itself runs.
func (b *bench) startOurs(ctx context.Context, s *target) error {
	console, err := freeAddr()
	if err != nil {
		return err
	}
	// Plain Gradio isolates nothing, and bench itself sends requests to the device API. --isolation compares the levels.
	s.cmd = exec.Command(b.spacehost, "run", b.app, "--isolation", "none", "--gpus", "mock:8xH200", "--tier", "unlimited", "--python", b.env.Python,
		"--state", filepath.Join(s.home, "state"), "--addr", ":0", "--console-addr", console, "--ready-json")
	s.cmd.Env = plainEnv(s.home)
	lines := make(chan string, 1)
	began, err := s.launch(lines)
	if err != nil {
		return err
	}
	if err := s.await(ctx, func() bool { return answers(ctx, "http://"+console+"/healthz") }); err != nil {
		return err
	}
	s.host = time.Since(began)
	select {
	case line := <-lines:
		var ready struct{ URL string }
		if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.URL == "" {
			return errors.New("the process exited, or its first line is not that of --ready-json")
		}
		s.url = ready.URL
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.awaitFirst(ctx, began)
}

// launch starts the process. The first line of its stdout is sent to first, unless first is nil.
func (s *target) launch(first chan<- string) (began time.Time, err error) {
	out, err := os.Create(s.output)
	if err != nil {
		return began, err
	}
	defer out.Close()
	s.cmd.Stderr = out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches only this program, which stops the targets in order
	began = time.Now()
	if first == nil {
		s.cmd.Stdout = out
		if err = s.cmd.Start(); err != nil {
			s.cmd = nil
			return began, err
		}
		go s.reap()
		return began, nil
	}
	pipe, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.cmd = nil
		return began, err
	}
	go func() {
		line, _ := bufio.NewReader(pipe).ReadString('\n') // "" if the process exits; there is no further output
		first <- line
		s.reap()
	}()
	return began, nil
}

func (s *target) reap() {
	_ = s.cmd.Wait() // it exits by our signal; its output is in a file
	close(s.ended)
}

// await polls every few milliseconds, and fails when the target has exited.
func (s *target) await(ctx context.Context, holds func() bool) error {
	for tick := time.NewTicker(3 * time.Millisecond); ; {
		if holds() {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return errors.New("the process exited before it answered")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func answers(ctx context.Context, url string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// awaitFirst waits for the first correct answer to a call.
func (s *target) awaitFirst(ctx context.Context, began time.Time) (err error) {
	if err := s.await(ctx, func() bool { return answers(ctx, s.url+"/config") }); err != nil {
		return err
	}
	if s.client, err = newClient(ctx, s.url, 1); err != nil {
		return err
	}
	if _, _, err = s.client.call(ctx, newHash(), "noop", `["first"]`, `"first"`); err != nil {
		return err
	}
	s.first = time.Since(began)
	s.events++
	return nil
}

// stop stops the target and all its descendants.
func (s *target) stop() {
	if s.client != nil {
		s.client.close()
	}
	if s.cmd == nil {
		return
	}
	tree := descendants(s.cmd.Process.Pid)
	_ = s.cmd.Process.Signal(syscall.SIGINT) // it may have exited
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
	for _, p := range tree {
		p.kill()
	}
	_ = os.RemoveAll(s.home) // a temporary folder
}

// lastOutput returns the end of the target's output.
func (s *target) lastOutput() string {
	data, _ := os.ReadFile(s.output) // removed with its folder
	return string(data[max(0, len(data)-3000):])
}

// plainEnv returns the environment of both targets: no analytics, no proxy, files below home.
func plainEnv(home string) []string {
	env := []string{"HOME=" + home, "GRADIO_TEMP_DIR=" + filepath.Join(home, "gradio"), "GRADIO_ANALYTICS_ENABLED=False",
		"NO_PROXY=127.0.0.1,localhost,::1", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"}
	for _, name := range []string{"PATH", "LANG", "TZ", "LD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// freeAddr returns a loopback address that was free a moment ago.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// process is a process of a target, identified by pid and start time.
type process struct {
	pid   int
	start string
}

func (p process) kill() {
	if at, _ := stat(p.pid); at == p.start {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may just have exited
	}
}

// fields returns the fields of /proc/PID/stat from the third (the state) on; nil if there is no such process.
func fields(pid int) []string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // the process may have exited
	_, after, _ := bytes.Cut(data, []byte(") "))
	if all := strings.Fields(string(after)); len(all) > 19 {
		return all
	}
	return nil
}

// stat returns the start time in ticks and the parent of a process; "" if there is none.
func stat(pid int) (start string, parent int) {
	all := fields(pid)
	if all == nil {
		return "", 0
	}
	parent, _ = strconv.Atoi(all[1])
	return all[19], parent
}

// ticks returns the CPU time of a process, in user and kernel mode: hundredths of a second on Linux.
func ticks(pid int) (sum time.Duration) {
	if all := fields(pid); all != nil {
		user, _ := strconv.Atoi(all[11])
		system, _ := strconv.Atoi(all[12])
		sum = time.Duration(user + system)
	}
	return sum
}

// descendants lists pid and all its descendants.
func descendants(pid int) []process {
	children := map[int][]process{}
	entries, _ := os.ReadDir("/proc") // as of now
	for _, entry := range entries {
		if child, err := strconv.Atoi(entry.Name()); err == nil {
			start, parent := stat(child)
			children[parent] = append(children[parent], process{child, start})
		}
	}
	start, _ := stat(pid)
	all := []process{{pid, start}}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i].pid]...)
	}
	return all
}

// cpu returns the CPU time used by the target: the host's, and that of the Space's processes. Other load on the
// machine affects it less than wall-clock time. The resolution is ten milliseconds.
func (s *target) cpu() (host, space time.Duration) {
	for i, p := range descendants(s.cmd.Process.Pid) {
		if used := ticks(p.pid) * 10 * time.Millisecond; i == 0 && s.name == ours {
			host = used
		} else {
			space += used
		}
	}
	return host, space
}

// memory returns the memory of the target's processes, in bytes: each page once, or resident memory where the kernel
// does not report shares.
func (s *target) memory() (bytes float64) {
	for _, p := range descendants(s.cmd.Process.Pid) {
		bytes += proportional(p.pid)
	}
	return bytes
}

// proportional returns the memory of a process in bytes: shared pages in part, or resident memory where the kernel does
// not report shares.
func proportional(pid int) float64 {
	if kB := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:"); kB > 0 {
		return kB * 1024
	}
	return kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:") * 1024
}

// resident returns the resident memory, which can be read more often than memory because it is cheaper.
func (s *target) resident(tree []process) (bytes float64) {
	for _, p := range tree {
		bytes += kilobytes(fmt.Sprintf("/proc/%d/status", p.pid), "VmRSS:") * 1024
	}
	return bytes
}

func kilobytes(path, key string) float64 {
	data, _ := os.ReadFile(path) // 0 for a process that has exited
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	return 0
}
