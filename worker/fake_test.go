package worker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"spacehost/queue"
)

// The fake runner is the test binary itself, with a mode for each kind of misbehaviour.
const (
	fakeVariable = "SPACEHOST_FAKE"      // the mode
	fakeText     = "SPACEHOST_FAKE_TEXT" // parameters of the mode
)

// beFake never returns.
func beFake(mode string) {
	fakes := map[string]func(){
		"good": fakeGood, "sends": fakeSends, "silent": stay, "exits": fakeExits, "mid-frame": fakeMidFrame,
		"ignores-term": fakeIgnoresTERM, "closes": fakeCloses, "prints": fakePrints, "holder": fakeHolder, "daemon": fakeDaemon,
		"serves": fakeServes, "stay": stay, "allocates": fakeAllocates,
		"good-once": fakeGoodOnce,
	}
	fakes[mode]()
	os.Exit(0)
}

// fakeEnv returns the environment that makes this binary a fake.
func fakeEnv(mode, text string) []string {
	return []string{fakeVariable + "=" + mode, fakeText + "=" + text, "GORACE=atexit_sleep_ms=0"}
}

func stay() {
	forever := make(chan os.Signal, 1)
	signal.Notify(forever, syscall.SIGUSR1)
	<-forever
}

// fakeChannel is the runner's end of the channel.
type fakeChannel struct {
	file   *os.File
	reader *bufio.Reader
	config configOrder
}

func (c *fakeChannel) send(header any, payload string) {
	if _, err := newFrame(header, []byte(payload)).WriteTo(c.file); err != nil {
		fmt.Println("fake cannot send:", err)
		os.Exit(70)
	}
}

func (c *fakeChannel) receive(into any) Frame {
	f, err := ReadFrame(c.reader)
	if err == io.EOF {
		os.Exit(3) // as the real runner does when the host has exited
	}
	if err == nil {
		err = json.Unmarshal(f.Header, into)
	}
	if err != nil {
		fmt.Println("fake cannot receive:", err)
		os.Exit(70)
	}
	return f
}

// fakeHello sends hello and receives the configuration.
func fakeHello() *fakeChannel {
	file := os.NewFile(3, "channel")
	c := &fakeChannel{file: file, reader: bufio.NewReader(file)}
	c.send(map[string]any{"op": "hello", "protocol": protocol, "pid": os.Getpid()}, "")
	c.receive(&c.config)
	if c.config.Standby {
		c.receive(&goOrder{})
		if os.Getenv(fakeText) == "stale" {
			os.Exit(staleExit)
		}
	}
	return c
}

// sentFrame is one Frame of a fake.
type sentFrame struct {
	Header  any
	Payload string
}

// framesText returns the parameters of the fake "sends".
func framesText(frames ...sentFrame) string {
	data, err := json.Marshal(frames)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// fakeSends sends the frames of its parameters, and waits. A header that is a string is sent as raw bytes.
func fakeSends() {
	var frames []sentFrame
	if err := json.Unmarshal([]byte(os.Getenv(fakeText)), &frames); err != nil {
		panic(err)
	}
	file := os.NewFile(3, "channel")
	for _, f := range frames {
		if raw, ok := f.Header.(string); ok {
			_, _ = file.WriteString(raw)
			continue
		}
		_, _ = newFrame(f.Header, []byte(f.Payload)).WriteTo(file)
	}
	stay()
}

var helloFrame = sentFrame{Header: map[string]any{"op": "hello", "protocol": protocol}}

func manifestHeader(app int) map[string]any {
	return map[string]any{
		"op": "manifest", "app": app, "gradio": "6.31.0", "prefix": "/gradio_api", "port": 40000 + app, "max_threads": 40,
		"live_updates": true, "native": true, "endpoints": []any{map[string]any{"id": 0, "api_name": "do", "group": "g", "limit": nil, "native": true}},
	}
}

// fakeExits exits before its manifest, in the way that its parameters give.
func fakeExits() {
	fmt.Println("Traceback (most recent call last):")
	fmt.Fprintln(os.Stderr, "SyntaxError: invalid syntax")
	fakeHello()
	if os.Getenv(fakeText) == "signal" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		stay()
	}
	var code int
	_, _ = fmt.Sscan(os.Getenv(fakeText), &code)
	os.Exit(code)
}

// fakeGoodOnce is good if the file of its parameters does not exist yet, and exits like fakeExits otherwise.
func fakeGoodOnce() {
	if file, err := os.OpenFile(os.Getenv(fakeText), os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		file.Close()
		fakeGood()
	}
	fakeExits()
}

func fakeMidFrame() {
	c := fakeHello()
	_, _ = c.file.Write([]byte{0, 0, 0, 40, 0, 0, 0, 0, '{', '"'})
	os.Exit(7)
}

func fakeIgnoresTERM() {
	signal.Ignore(syscall.SIGTERM)
	c := fakeHello()
	c.send(manifestHeader(0), "")
	stay()
}

func fakeCloses() {
	fakeHello().file.Close()
	stay()
}

// fakePrints prints lines lines of size bytes each, then "last", and exits.
func fakePrints() {
	var lines, size int
	_, _ = fmt.Sscan(os.Getenv(fakeText), &lines, &size)
	channel := fakeHello()
	defer runtime.KeepAlive(channel) // the garbage collector would close it
	out := bufio.NewWriter(os.Stdout)
	for n := range lines {
		fmt.Fprintf(out, "%0*d\n", size, n)
	}
	fmt.Fprint(out, "last")
	out.Flush()
}

// again starts this binary as another fake, with the stdout of this process.
func again(mode, text string, attr *syscall.SysProcAttr, inherited ...*os.File) *exec.Cmd {
	self, _ := os.Executable()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fakeEnv(mode, text)...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
	cmd.ExtraFiles = inherited
	if err := cmd.Start(); err != nil {
		fmt.Println("fake cannot start a child:", err)
		os.Exit(70)
	}
	return cmd
}

// number returns the number that a text consists of.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

// fakeAllocates uses as many MiB of memory as its parameters say.
func fakeAllocates() {
	var mib int
	_, _ = fmt.Sscan(os.Getenv(fakeText), &mib)
	memory := make([]byte, mib<<20)
	for i := range memory {
		memory[i] = 1
	}
	stay()
	runtime.KeepAlive(memory)
}

// fakeHolder exits, and leaves a child that keeps its stdout and its channel open.
func fakeHolder() {
	c := fakeHello()
	child := again("stay", "", &syscall.SysProcAttr{Setpgid: true}, c.file)
	c.send(map[string]any{"op": "done", "error": fmt.Sprint(child.Process.Pid)}, "")
	os.Exit(5)
}

// fakeDaemon starts a daemon, forked twice and in its own session, and waits.
func fakeDaemon() {
	if os.Getenv(fakeText) == "middle" {
		daemon := again("stay", "", &syscall.SysProcAttr{Setsid: true})
		fmt.Println("daemon", daemon.Process.Pid)
		os.Exit(0)
	}
	c := fakeHello()
	middle := again("daemon", "middle", &syscall.SysProcAttr{Setsid: true})
	_ = middle.Wait()
	c.send(manifestHeader(0), "")
	stay()
}

// fakeGood is a well-behaved runner. The first datum of an event determines what the app's function does.
func fakeGood() {
	c := fakeHello()
	for name, value := range c.config.Environment {
		fmt.Println("given", name, value)
	}
	fmt.Println("subreaper", c.config.Subreaper)
	c.send(manifestHeader(0), "")
	apps := 1
	for {
		var order struct {
			Op     string
			Event  queue.EventID
			Events json.RawMessage
		}
		f := c.receive(&order)
		switch order.Op {
		case "start":
			var events []eventOrder
			_ = json.Unmarshal(order.Events, &events)
			for _, e := range events {
				body := f.Payload[:e.Size]
				f.Payload = f.Payload[e.Size:]
				apps += c.work(e, string(body), apps)
			}
		case "cancel":
			c.send(map[string]any{"op": "done", "event": order.Event, "error": "cancelled"}, "")
		case "gone":
			fmt.Println("gone", string(order.Events))
		}
	}
}

func (c *fakeChannel) work(e eventOrder, body string, apps int) (launched int) {
	action, rest, _ := strings.Cut(body, " ")
	message := func(event queue.EventID, msg, payload string) {
		c.send(map[string]any{"op": "message", "event": event, "msg": msg, "success": true}, payload)
	}
	finish := func(event queue.EventID) {
		message(event, "process_completed", `{"token":"`+e.Token+`"}`)
		c.send(map[string]any{"op": "done", "event": event, "average": 0.5}, "")
	}
	message(e.ID, "process_starts", `{"n":1}`)
	admitted := map[string]any{
		"op": "admitted", "event": strings.Repeat("a", 32), "session": "admitted",
		"call": rest, "endpoint": map[string]any{"id": 0, "api_name": "do", "group": "g"},
	}
	switch action {
	case "die":
		os.Exit(9)
	case "hang":
		return 0
	case "allocate":
		again("allocates", rest, nil)
		return 0
	case "fork":
		for range number(rest) {
			again("stay", "", nil)
		}
		return 0
	case "relaunch":
		c.send(manifestHeader(apps), "")
		return 1
	case "unknown":
		c.send(map[string]any{"op": "unknown", "gradio": "9.0", "port": 41000, "reason": "it has no Queue.push"}, "")
		return 0
	case "admit":
		c.send(admitted, "")
	case "cached":
		admitted["cached"] = true
		c.send(admitted, "")
		finish(queue.EventID(strings.Repeat("a", 32)))
	}
	finish(e.ID)
	return 0
}

// fakeServes attaches, and listens at the port of its manifest afterwards. It echoes one byte of each connection. At a byte
// it closes the port and launches at another one.
func fakeServes() {
	c := fakeHello()
	for app := 0; ; app++ {
		reserved, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		reserved.Close()
		header := manifestHeader(app)
		header["port"] = reserved.Addr().(*net.TCPAddr).Port
		c.send(header, "")
		l, err := net.Listen("tcp", reserved.Addr().String())
		if err != nil {
			panic(err)
		}
		for moved := false; !moved; {
			conn, err := l.Accept()
			if err != nil {
				panic(err)
			}
			n, _ := io.CopyN(conn, conn, 1) // 0 if the client has closed the connection
			conn.Close()
			moved = n == 1
		}
		l.Close()
		fmt.Println("released")
	}
}

// self returns the path of this binary, the fake interpreter.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
