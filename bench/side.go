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

// The two sides.
const (
	stock = "gradio"
	ours  = "spacehost"
)

// side is one of the two, running.
type side struct {
	name   string
	url    string
	client *client
	cmd    *exec.Cmd
	ended  chan struct{}
	output string // file with what it printed
	home   string // its files
	events int    // calls that it has answered
	host   time.Duration
	first  time.Duration // from its start to the first answer
}

// startPatience bounds how long a side takes to its first answer.
const startPatience = 3 * time.Minute

// start starts a side and returns once it has answered a call. Plain Gradio gets more variables.
func (b *bench) start(ctx context.Context, name string, more ...string) (*side, error) {
	home, err := os.MkdirTemp(b.scratch, name+"-")
	if err != nil {
		return nil, err
	}
	s := &side{name: name, home: home, output: filepath.Join(home, "output.txt"), ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if name == stock {
		err = b.startStock(ctx, s, more)
	} else {
		err = b.startOurs(ctx, s)
	}
	if err != nil {
		said := s.said()
		s.stop()
		return nil, fmt.Errorf("start %s: %w\n%s", name, err, said)
	}
	return s, nil
}

// startStock is what its author does by hand: python app.py.
func (b *bench) startStock(ctx context.Context, s *side, more []string) error {
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

// startOurs is the same Space under spacehost. Its console answers as soon as the host itself runs.
func (b *bench) startOurs(ctx context.Context, s *side) error {
	console, err := freeAddr()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(b.spacehost, "run", b.app, "--gpus", "mock:8xH200", "--tier", "unlimited", "--python", b.env.Python,
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
			return errors.New("it ended, or its first line is not that of --ready-json")
		}
		s.url = ready.URL
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.awaitFirst(ctx, began)
}

// launch starts the process; the first line of its stdout goes to first, unless that is nil.
func (s *side) launch(first chan<- string) (began time.Time, err error) {
	out, err := os.Create(s.output)
	if err != nil {
		return began, err
	}
	defer out.Close()
	s.cmd.Stderr = out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us, who end it in order
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
		line, _ := bufio.NewReader(pipe).ReadString('\n') // "" if it ends; nothing else comes
		first <- line
		s.reap()
	}()
	return began, nil
}

func (s *side) reap() {
	_ = s.cmd.Wait() // it ends by our signal; what it said is in output
	close(s.ended)
}

// await looks every few milliseconds, and gives up when the side has ended.
func (s *side) await(ctx context.Context, holds func() bool) error {
	for tick := time.NewTicker(3 * time.Millisecond); ; {
		if holds() {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return errors.New("it ended before it answered")
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

// awaitFirst waits for the first right answer to a call.
func (s *side) awaitFirst(ctx context.Context, began time.Time) (err error) {
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

// stop ends the side and all that it has started.
func (s *side) stop() {
	if s.client != nil {
		s.client.close()
	}
	if s.cmd == nil {
		return
	}
	tree := descendants(s.cmd.Process.Pid)
	_ = s.cmd.Process.Signal(syscall.SIGINT) // it may have ended
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

// said is the end of what the side printed.
func (s *side) said() string {
	data, _ := os.ReadFile(s.output) // gone with its folder
	return string(data[max(0, len(data)-3000):])
}

// plainEnv is the environment of both sides: no analytics, no proxy, files below home.
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

// freeAddr is a loopback address that nobody had a moment ago.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// process is one of a side's, known by pid and start time.
type process struct {
	pid   int
	start string
}

func (p process) kill() {
	if at, _ := stat(p.pid); at == p.start {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may just have ended
	}
}

// fields are those of /proc/PID/stat from the third on, which is the state; nil if there is no such process.
func fields(pid int) []string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // gone
	_, after, _ := bytes.Cut(data, []byte(") "))
	if all := strings.Fields(string(after)); len(all) > 19 {
		return all
	}
	return nil
}

// stat returns when a process was started, in ticks, and its parent; "" if there is none.
func stat(pid int) (start string, parent int) {
	all := fields(pid)
	if all == nil {
		return "", 0
	}
	parent, _ = strconv.Atoi(all[1])
	return all[19], parent
}

// ticks is the processor time of a process, in user and kernel mode: hundredths of a second on Linux.
func ticks(pid int) (sum time.Duration) {
	if all := fields(pid); all != nil {
		user, _ := strconv.Atoi(all[11])
		system, _ := strconv.Atoi(all[12])
		sum = time.Duration(user + system)
	}
	return sum
}

// descendants lists pid and what it has started.
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

// cpu is the processor time that the side has taken: the host's, and that of the Space's processes. A machine
// that others use changes it less than it changes the clock on the wall. Read in ticks of ten milliseconds.
func (s *side) cpu() (host, space time.Duration) {
	for i, p := range descendants(s.cmd.Process.Pid) {
		if used := ticks(p.pid) * 10 * time.Millisecond; i == 0 && s.name == ours {
			host = used
		} else {
			space += used
		}
	}
	return host, space
}

// memory is what the side's processes hold, in bytes: each page once, or resident memory where the kernel does not say.
func (s *side) memory() (bytes float64) {
	for _, p := range descendants(s.cmd.Process.Pid) {
		if kB := kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid), "Pss:"); kB > 0 {
			bytes += kB * 1024
		} else {
			bytes += kilobytes(fmt.Sprintf("/proc/%d/status", p.pid), "VmRSS:") * 1024
		}
	}
	return bytes
}

// resident is cheaper to ask for than memory, often.
func (s *side) resident(tree []process) (bytes float64) {
	for _, p := range tree {
		bytes += kilobytes(fmt.Sprintf("/proc/%d/status", p.pid), "VmRSS:") * 1024
	}
	return bytes
}

func kilobytes(path, key string) float64 {
	data, _ := os.ReadFile(path) // 0 for a process that has ended
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n
		}
	}
	return 0
}
