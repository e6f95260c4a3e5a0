package worker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"spacehost/queue"
)

// The fake runner is the test binary itself, with switches for bad manners.
const (
	fakeVariable = "SPACEHOST_FAKE"      // which one
	fakeText     = "SPACEHOST_FAKE_TEXT" // what it needs to know
)

// beFake never returns.
func beFake(mode string) {
	fakes := map[string]func(){
		"good": fakeGood, "says": fakeSays, "silent": stay, "exits": fakeExits, "mid-frame": fakeMidFrame,
		"deaf": fakeDeaf, "closes": fakeCloses, "prints": fakePrints, "holder": fakeHolder, "daemon": fakeDaemon,
		"stay": stay,
	}
	fakes[mode]()
	os.Exit(0)
}

// fakeEnv makes this binary a fake.
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

func (c *fakeChannel) say(header any, payload string) {
	if _, err := newFrame(header, []byte(payload)).WriteTo(c.file); err != nil {
		fmt.Println("fake cannot speak:", err)
		os.Exit(70)
	}
}

func (c *fakeChannel) hear(into any) Frame {
	f, err := readFrame(c.reader)
	if err == io.EOF {
		os.Exit(3) // as the real one does when the host has gone
	}
	if err == nil {
		err = json.Unmarshal(f.Header, into)
	}
	if err != nil {
		fmt.Println("fake cannot hear:", err)
		os.Exit(70)
	}
	return f
}

// fakeHello says hello and takes the configuration.
func fakeHello() *fakeChannel {
	file := os.NewFile(3, "channel")
	c := &fakeChannel{file: file, reader: bufio.NewReader(file)}
	c.say(map[string]any{"op": "hello", "protocol": protocol, "pid": os.Getpid()}, "")
	c.hear(&c.config)
	return c
}

// said is one Frame of a fake.
type said struct {
	Header  any
	Payload string
}

// saying is the text for the fake "says".
func saying(frames ...said) string {
	data, err := json.Marshal(frames)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// fakeSays says what it is told to, and stays. A header that is a string stands for the bytes of a whole frame.
func fakeSays() {
	var frames []said
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

var helloFrame = said{Header: map[string]any{"op": "hello", "protocol": protocol}}

func manifestHeader(app int) map[string]any {
	return map[string]any{
		"op": "manifest", "app": app, "gradio": "6.31.0", "prefix": "/gradio_api", "port": 40000 + app, "max_threads": 40,
		"live_updates": true, "native": true, "endpoints": []any{map[string]any{"id": 0, "api_name": "do", "group": "g", "limit": nil, "native": true}},
	}
}

// fakeExits leaves before its manifest, in the way that its text says.
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

func fakeMidFrame() {
	c := fakeHello()
	_, _ = c.file.Write([]byte{0, 0, 0, 40, 0, 0, 0, 0, '{', '"'})
	os.Exit(7)
}

func fakeDeaf() {
	signal.Ignore(syscall.SIGTERM)
	c := fakeHello()
	c.say(manifestHeader(0), "")
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
	fakeHello()
	out := bufio.NewWriter(os.Stdout)
	for n := range lines {
		fmt.Fprintf(out, "%0*d\n", size, n)
	}
	fmt.Fprint(out, "last")
	out.Flush()
}

// again starts this binary as another fake, with this one's stdout.
func again(mode, text string, attr *syscall.SysProcAttr, inherited ...*os.File) *exec.Cmd {
	self, _ := os.Executable()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fakeEnv(mode, text)...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
	cmd.ExtraFiles = inherited
	if err := cmd.Start(); err != nil {
		fmt.Println("fake cannot start another:", err)
		os.Exit(70)
	}
	return cmd
}

// fakeHolder dies, and leaves a child that holds its stdout and its channel.
func fakeHolder() {
	c := fakeHello()
	child := again("stay", "", &syscall.SysProcAttr{Setpgid: true}, c.file)
	c.say(map[string]any{"op": "done", "error": fmt.Sprint(child.Process.Pid)}, "")
	os.Exit(5)
}

// fakeDaemon leaves a daemon behind, forked twice and in a session of its own, and stays.
func fakeDaemon() {
	if os.Getenv(fakeText) == "middle" {
		daemon := again("stay", "", &syscall.SysProcAttr{Setsid: true})
		fmt.Println("daemon", daemon.Process.Pid)
		os.Exit(0)
	}
	c := fakeHello()
	middle := again("daemon", "middle", &syscall.SysProcAttr{Setsid: true})
	_ = middle.Wait()
	c.say(manifestHeader(0), "")
	stay()
}

// fakeGood is a well-behaved runner. The first datum of an event says what the app's function does.
func fakeGood() {
	c := fakeHello()
	for name, value := range c.config.Environment {
		fmt.Println("given", name, value)
	}
	fmt.Println("subreaper", c.config.Subreaper)
	c.say(manifestHeader(0), "")
	apps := 1
	for {
		var order struct {
			Op     string
			Event  queue.EventID
			Events json.RawMessage
		}
		f := c.hear(&order)
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
			c.say(map[string]any{"op": "done", "event": order.Event, "error": "cancelled"}, "")
		case "gone":
			fmt.Println("gone", string(order.Events))
		}
	}
}

func (c *fakeChannel) work(e eventOrder, body string, apps int) (launched int) {
	deed, rest, _ := strings.Cut(body, " ")
	message := func(event queue.EventID, msg, payload string) {
		c.say(map[string]any{"op": "message", "event": event, "msg": msg, "success": true}, payload)
	}
	finish := func(event queue.EventID) {
		message(event, "process_completed", `{"token":"`+e.Token+`"}`)
		c.say(map[string]any{"op": "done", "event": event, "average": 0.5}, "")
	}
	message(e.ID, "process_starts", `{"n":1}`)
	admitted := map[string]any{
		"op": "admitted", "event": strings.Repeat("a", 32), "session": "admitted",
		"call": rest, "endpoint": map[string]any{"id": 0, "api_name": "do", "group": "g"},
	}
	switch deed {
	case "die":
		os.Exit(9)
	case "hang":
		return 0
	case "relaunch":
		c.say(manifestHeader(apps), "")
		return 1
	case "unknown":
		c.say(map[string]any{"op": "unknown", "gradio": "9.0", "port": 41000, "reason": "it has no Queue.push"}, "")
		return 0
	case "admit":
		c.say(admitted, "")
	case "cached":
		admitted["cached"] = true
		c.say(admitted, "")
		finish(queue.EventID(strings.Repeat("a", 32)))
	}
	finish(e.ID)
	return 0
}

// self is the path of this binary, the fake interpreter.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
