package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/proctree"
	"spacehost/internal/proctree/proctreetest"
	"spacehost/internal/sandbox"
	"spacehost/worker"
)

// The test binary is also the runner of a Space and an agent of its own.
const (
	fakeRunner = "SPACEHOST_FAKE_RUNNER" // the path of the agent's socket, or anything else
	fakeAgent  = "SPACEHOST_FAKE_AGENT"  // the state folder
)

func TestMain(m *testing.M) {
	sandbox.MaybeRun()
	if at := os.Getenv(fakeRunner); at != "" {
		runFake(at)
	}
	if state := os.Getenv(fakeAgent); state != "" {
		ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		if err := Serve(ctx, ServeConfig{State: state, OrphanAfter: time.Minute}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	proctreetest.Main(m)
}

const patience = proctreetest.Patience

// header is that of any Frame of the runner or of the host.
type header struct {
	Op        string   `json:"op"`
	Protocol  int      `json:"protocol,omitempty"`
	App       int      `json:"app"`
	Event     string   `json:"event,omitempty"`
	Events    []header `json:"events,omitempty"`
	ID        string   `json:"id,omitempty"`
	Paths     []string `json:"paths,omitempty"`
	Number    int      `json:"number,omitempty"`
	Size      int      `json:"size,omitempty"`
	Subreaper bool     `json:"subreaper,omitempty"`
}

func frame(h header, payload []byte) worker.Frame {
	return worker.Frame{Header: encode(h), Payload: payload}
}

// runFake never returns. Its "start" has the command as its payload.
func runFake(socket string) {
	file := os.NewFile(3, "channel")
	reader := bufio.NewReader(file)
	send := func(h header, payload []byte) {
		if _, err := frame(h, payload).WriteTo(file); err != nil {
			os.Exit(70)
		}
	}
	send(header{Op: "hello", Protocol: 1}, nil)
	for {
		f, err := worker.ReadFrame(reader)
		if err != nil {
			os.Exit(3)
		}
		var h header
		if err := json.Unmarshal(f.Header, &h); err != nil {
			os.Exit(70)
		}
		switch h.Op {
		case "config":
			send(header{Op: "manifest"}, nil)
		case "cancel":
			fmt.Println("cancelled", h.Event)
			send(header{Op: "done", Event: h.Event}, nil)
			fmt.Println("cancelled all")
			_ = os.WriteFile("cancelled", nil, 0o600)
		case "start":
			for _, e := range h.Events {
				command, rest, _ := strings.Cut(string(f.Payload), " ")
				runCommand(e.ID, command, rest, socket, f.Payload, send)
			}
		}
	}
}

func runCommand(event, command, rest, socket string, payload []byte, send func(header, []byte)) {
	switch command {
	case "hang": // until it is cancelled
		send(header{Op: "message", Event: event}, nil)
		return
	case "print":
		fmt.Println(rest)
	case "exit":
		os.Exit(5)
	case "ignore":
		signal.Ignore(syscall.SIGTERM)
	case "changed":
		send(header{Op: "changed", Number: len(rest)}, nil)
	case "closed":
		send(header{Op: "closed"}, nil)
	case "listen":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			os.Exit(70)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}
		}()
		send(header{Op: "port", Number: l.Addr().(*net.TCPAddr).Port}, nil)
	case "connect": // to the agent
		send(header{Op: "answered", Event: event}, connectAsSpace(socket))
	case "worker":
		send(header{Op: "worker", Number: startSleep()}, nil)
	default:
		send(header{Op: "message", Event: event}, payload)
	}
	send(header{Op: "done", Event: event}, nil)
}

// connectAsSpace returns what a process of a Space reads from the agent.
func connectAsSpace(socket string) []byte {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return []byte(err.Error())
	}
	defer conn.Close()
	_ = write(conn, message(kindRequest, encode(request{Op: "host", Protocol: protocol})))
	got, err := io.ReadAll(conn)
	return fmt.Appendf(got, "%v", err)
}

// startSleep starts a process that stands for a GPU worker.
func startSleep() int {
	process, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, nil, nil}})
	if err != nil {
		os.Exit(70)
	}
	go func() { _, _ = process.Wait() }()
	return process.Pid
}

// recorder is the Reporter of a host.
type recorder struct {
	t       testing.TB
	reports chan recorded
	lines   chan string
}

type recorded struct {
	header
	Payload []byte
}

func newRecorder(t testing.TB) *recorder {
	return &recorder{t, make(chan recorded, 10000), make(chan string, 10000)}
}

func (r *recorder) Report(f worker.Frame) error {
	var h header
	if err := json.Unmarshal(f.Header, &h); err != nil {
		return &worker.FrameError{Reason: err.Error()}
	}
	if h.Op == "refused" {
		return &worker.RefusedError{Reason: "it is refused"}
	}
	r.reports <- recorded{h, f.Payload}
	return nil
}

func (r *recorder) Print(stream, line string) { r.lines <- stream + " " + line }
func (r *recorder) Mark(number int)           { r.lines <- fmt.Sprint("mark ", number) }
func (r *recorder) Note(text string)          { r.lines <- "note " + text }

// next returns the next report, which has that op.
func (r *recorder) next(op string) recorded {
	r.t.Helper()
	got := proctreetest.Within(r.t, patience, "the runner reports "+op, r.reports)
	if got.Op != op {
		r.t.Fatalf("got %+v, want %s", got.header, op)
	}
	return got
}

// line returns the next line, which is want.
func (r *recorder) line(want string) {
	r.t.Helper()
	if got := proctreetest.Within(r.t, patience, "the runner prints "+want, r.lines); got != want {
		r.t.Fatalf("got line %q, want %q", got, want)
	}
}

// running is an agent in this process.
type running struct {
	t     testing.TB
	state string
	stop  context.CancelFunc
	ended chan struct{}
	err   error // valid once ended is closed
}

// begin starts an agent that ends with the test.
func begin(t testing.TB, change ...func(*ServeConfig)) *running {
	t.Helper()
	r := prepare(t)
	config, ready := ServeConfig{State: r.state, OrphanAfter: time.Hour}, make(chan struct{})
	config.Ready = func(func() (int, int)) { close(ready) }
	for _, c := range change {
		c(&config)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { defer close(r.ended); r.err = Serve(ctx, config) }()
	t.Cleanup(func() { r.stop(); proctreetest.Within(t, patience, "the agent ends", r.ended) })
	select {
	case <-ready:
	case <-r.ended:
		t.Fatal(r.err)
	}
	return r
}

// prepare returns a state folder without an agent.
func prepare(t testing.TB) *running {
	t.Helper()
	state, err := os.MkdirTemp(proctreetest.Root, "a") // short: the path of a socket is bounded
	if err == nil {
		err = os.Mkdir(filepath.Join(state, "logs"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &running{t: t, state: state, ended: make(chan struct{})}
}

// connect connects a host, which is closed with the test.
func (r *running) connect() *Client {
	r.t.Helper()
	c, err := Connect(context.Background(), ConnectConfig{State: r.state, Command: r.command})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// launch starts a Space with a new instance.
func (r *running) launch(c *Client, instance string, change ...func(*worker.ProcessConfig)) (worker.LocalProcess, *recorder) {
	r.t.Helper()
	to := newRecorder(r.t)
	config := r.config(instance)
	config.Reporter = to
	for _, change := range change {
		change(&config)
	}
	p, err := c.Launch(config, keptOf(instance))
	if err != nil {
		r.t.Fatal(err)
	}
	to.next("manifest")
	return p, to
}

func keptOf(instance string) worker.Kept {
	return worker.Kept{Facts: worker.Facts{Instance: instance}, Space: "test", Door: "http://127.0.0.1:1/d/x", Likeness: "like"}
}

func (r *running) config(instance string) worker.ProcessConfig {
	r.t.Helper()
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	return worker.ProcessConfig{
		Space: "test", Dir: r.state, AppFile: "app.py", Python: self, Runner: "/nowhere", RunDir: filepath.Join(r.state, "run", instance),
		Env: []string{fakeRunner + "=" + socketPath(r.state), "GORACE=atexit_sleep_ms=0"}, Port: 40000, Key: "key", Public: "http://127.0.0.1:7860/",
	}
}

// take takes the only kept process over.
func (r *running) take(c *Client) (worker.LocalProcess, *recorder) {
	r.t.Helper()
	kept := c.Kept("test")
	if len(kept) != 1 {
		r.t.Fatalf("kept %+v, want one", kept)
	}
	to := newRecorder(r.t)
	p, err := c.Take(kept[0], worker.ProcessConfig{Reporter: to})
	if err != nil {
		r.t.Fatal(err)
	}
	return p, to
}

// order makes the runner execute a command as an Event.
func order(p worker.LocalProcess, event, command string) {
	p.Send(frame(header{Op: "start", Events: []header{{ID: event, Size: len(command)}}}, []byte(command)))
}

// awaitEnd waits for the end of a process, of which nothing is left.
func (r *running) awaitEnd(p worker.LocalProcess) {
	r.t.Helper()
	proctreetest.Within(r.t, patience, "the process has ended", p.Done())
	if root := p.Tree().Root; root.Alive() {
		r.t.Errorf("process %d is left", root.PID)
	}
}

// processOf is the identity of a process by its pid.
func processOf(t testing.TB, pid int) proctree.Process {
	t.Helper()
	stat, ok := proctree.ReadStat(pid)
	if !ok {
		t.Fatalf("no process %d", pid)
	}
	return stat.Process
}

// isRefused reports whether an answer comes from an agent that has closed the connection without one.
func isRefused(answer []byte) bool { return bytes.Equal(answer, []byte("<nil>")) }
