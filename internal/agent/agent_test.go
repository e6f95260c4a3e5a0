package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/proctree"
	"spacehost/internal/proctree/proctreetest"
	"spacehost/worker"
)

// TestReportsBothWays starts a process, sends it commands and receives its reports and lines, small and large, and its end.
func TestReportsBothWays(t *testing.T) {
	r := begin(t)
	c := r.connect()
	p, to := r.launch(c, "one")
	if root := p.Tree().Root; !root.Alive() || p.Tree().Interpreter() != root || p.Tree().Marker == "" {
		t.Errorf("tree %+v", p.Tree())
	}
	if status, ok := p.Status(); !ok {
		t.Errorf("status %+v", status)
	}
	order(p, "a", "echo")
	if got := to.next("message"); got.Event != "a" || string(got.Payload) != "echo" {
		t.Errorf("got %+v", got)
	}
	to.next("done")
	order(p, "b", "print hello")
	to.line("stdout hello")
	to.next("done")

	large := "echo " + strings.Repeat("x", 10<<20)
	order(p, "c", large)
	if got := to.next("message"); string(got.Payload) != large {
		t.Errorf("got %d bytes, want %d", len(got.Payload), len(large))
	}
	to.next("done")
	order(p, "d", "exit")
	r.awaitEnd(p)
	if err := p.Err(); err == nil || err.Error() != "it exited with code 5" || p.Exit().Code != 5 {
		t.Errorf("ended with %v, %+v", err, p.Exit())
	}
	if got := p.Tail(); len(got) != 1 || got[0] != "hello" {
		t.Errorf("tail %q", got)
	}
	if _, err := p.Dial(t.Context(), 1); err == nil {
		t.Error("connected to an ended process")
	}
}

// TestProcessIsTaken closes a host during an Event and connects another one. The Frames that tell the state come again, in order,
// and the lines printed meanwhile. Reports about the Event of the first host are dropped, and it is cancelled.
func TestProcessIsTaken(t *testing.T) {
	r := begin(t)
	first := r.connect()
	p, to := r.launch(first, "one")
	for _, command := range []string{"changed ", "changed xx", "closed"} {
		order(p, "a", command)
		op, _, _ := strings.Cut(command, " ")
		to.next(op)
		to.next("done")
	}
	order(p, "b", "hang")
	to.next("message")
	p.Leave()
	first.Close()
	proctreetest.Eventually(t, "the runner has cancelled the Event", func() bool { _, err := os.Stat(filepath.Join(r.state, "cancelled")); return err == nil })
	if got := first.Kept("test"); len(got) != 0 {
		t.Errorf("a host has kept its own processes: %+v", got)
	}

	second := r.connect()
	kept := second.All()
	if len(kept) != 1 || len(second.Kept("other")) != 0 || kept[0].Facts.PID != p.Tree().Root.PID || kept[0].Likeness != "like" || kept[0].Door != keptOf("").Door {
		t.Fatalf("kept %+v", kept)
	}
	if first.Devices().Addr().String() != second.Devices().Addr().String() {
		t.Errorf("the device API is at %s, was at %s", second.Devices().Addr(), first.Devices().Addr())
	}
	taken, again := r.take(second)
	if len(second.All()) != 0 {
		t.Errorf("a process that was taken is kept: %+v", second.All())
	}
	again.next("manifest")
	if got := again.next("changed"); got.Number != 2 {
		t.Errorf("got %+v, want the last one", got.header)
	}
	again.next("closed")
	again.line("stdout cancelled b")
	again.line("stdout cancelled all")
	order(taken, "c", "echo")
	if got := again.next("message"); got.Event != "c" { // nothing of b, which has ended
		t.Errorf("got %+v", got.header)
	}
	again.next("done")
	taken.End(t.Context(), endGrace)
	r.awaitEnd(taken)
}

// TestDial passes a connection to a port of the process.
func TestDial(t *testing.T) {
	r := begin(t)
	c := r.connect()
	p, to := r.launch(c, "one", func(c *worker.ProcessConfig) { c.IsHostPort = func(port int) bool { return port == 7860 } })
	order(p, "a", "listen")
	port := to.next("port").Number
	conn, err := p.Dial(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := p.Dial(t.Context(), 1); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port 1: %v, want that no server listens", err)
	}
	var foreign *proctree.ForeignPortError
	if _, err := p.Dial(t.Context(), 7860); !errors.As(err, &foreign) {
		t.Errorf("port of the host: %v", err)
	}
	other := c.Devices().Addr().String()
	_, text, _ := strings.Cut(other, ":")
	var number int
	_, _ = fmt.Sscan(text, &number)
	if _, err := p.Dial(t.Context(), number); !errors.As(err, &foreign) || foreign.Port != number {
		t.Errorf("port of another program: %v", err)
	}
	if got := p.Inspect(t.Context(), false); got.Why == "" && got.State == "" && got.Stacks == "" {
		t.Errorf("inspection %+v", got)
	}
	if err := p.Show(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestEndsOfAProcess ends processes in each way.
func TestEndsOfAProcess(t *testing.T) {
	r := begin(t)
	c := r.connect()
	t.Run("by SIGTERM", func(t *testing.T) {
		p, _ := r.launch(c, "term")
		p.End(t.Context(), time.Minute)
		r.awaitEnd(p)
		if err := p.Err(); err == nil || !strings.Contains(err.Error(), "signal 15") {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("before the grace if the context ends", func(t *testing.T) {
		p, to := r.launch(c, "kill")
		order(p, "a", "ignore")
		to.next("done")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.End(ctx, time.Hour) }()
		cancel()
		proctreetest.Within(t, patience, "End returns", ended)
		r.awaitEnd(p)
	})
	t.Run("for a reason of the host", func(t *testing.T) {
		p, _ := r.launch(c, "fail")
		p.Fail(&worker.RefusedError{Reason: "it is too large", Next: "Make it smaller.", Cause: worker.CauseStart})
		r.awaitEnd(p)
		var refused *worker.RefusedError
		if !errors.As(p.Err(), &refused) || refused.Reason != "it is too large" || refused.Next != "Make it smaller." || refused.Cause != worker.CauseStart {
			t.Errorf("ended with %#v", p.Err())
		}
	})
	t.Run("by the next host", func(t *testing.T) {
		p, to := r.launch(c, "left")
		order(p, "a", "worker")
		pid := processOf(t, to.next("worker").Number)
		p.Leave()
		c.Close()
		c = r.connect()
		kept := c.Kept("test")
		if len(kept) != 1 {
			t.Fatalf("kept %+v", kept)
		}
		c.End(kept[0])
		if kept[0].Tree().Root.Alive() || pid.Alive() {
			t.Errorf("process %d or its worker %d is left", kept[0].Facts.PID, pid.PID)
		}
		c.End(kept[0]) // it has ended
		if _, err := c.Take(kept[0], worker.ProcessConfig{Reporter: newRecorder(t)}); err == nil || !strings.Contains(err.Error(), "instance left has ended") {
			t.Errorf("took an ended process: %v", err)
		}
	})
}

// TestLaunchFails: nothing is left of a process that cannot start, and its error has its type.
func TestLaunchFails(t *testing.T) {
	r := begin(t)
	c := r.connect()
	config := r.config("none")
	config.Python, config.Reporter = "/no/such/python", newRecorder(t)
	if _, err := c.Launch(config, keptOf("none")); err == nil || !strings.Contains(err.Error(), "/no/such/python") {
		t.Errorf("got %v", err)
	}
	c.Close()
	if kept := r.connect().All(); len(kept) != 0 {
		t.Errorf("kept %+v", kept)
	}
}

// TestEndsOfAnAgent ends agents in each way: no process is left, and the next agent begins.
func TestEndsOfAnAgent(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*ServeConfig)
		end    func(r *running, c *Client)
	}{
		"by its context": {end: func(r *running, c *Client) { r.stop() }},
		"by its host": {end: func(r *running, c *Client) {
			if err := c.Stop(r.t.Context()); err != nil {
				r.t.Error(err)
			}
		}},
		"without a host": {func(c *ServeConfig) { c.OrphanAfter = 300 * time.Millisecond }, func(r *running, c *Client) { c.Close() }},
		"by a host of another version": {end: func(r *running, c *Client) {
			c.Close()
			if got := r.answerOf(request{Op: "host", Protocol: protocol + 1}); got.Protocol != protocol || got.Error != nil {
				r.t.Errorf("got %+v", got)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			change := row.change
			if change == nil {
				change = func(*ServeConfig) {}
			}
			r := begin(t, change)
			c := r.connect()
			p, to := r.launch(c, "one")
			order(p, "a", "worker")
			pid := processOf(t, to.next("worker").Number)
			row.end(r, c)
			proctreetest.Within(t, patience, "the agent ends", r.ended)
			if r.err != nil {
				t.Error(r.err)
			}
			r.awaitEnd(p)
			if pid.Alive() {
				t.Errorf("worker %d is left", pid.PID)
			}
			if _, err := os.Stat(socketPath(r.state)); !os.IsNotExist(err) {
				t.Errorf("the socket is left: %v", err)
			}
		})
	}
}

// answerOf makes a request.
func (r *running) answerOf(q request) answer {
	r.t.Helper()
	c := &Client{config: ConnectConfig{State: r.state}}
	a, files, err := c.call(r.t.Context(), q)
	closeAll(files)
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// TestSecondAgent: a state folder has one agent.
func TestSecondAgent(t *testing.T) {
	r := begin(t)
	c := r.connect()
	err := Serve(t.Context(), ServeConfig{State: r.state})
	if err == nil || !strings.Contains(err.Error(), "another agent runs on the state folder "+r.state) {
		t.Errorf("got %v", err)
	}
	r.launch(c, "one") // the first one goes on
	if err := Serve(t.Context(), ServeConfig{State: filepath.Join(r.state, "nowhere")}); err == nil || !strings.Contains(err.Error(), "open state folder") {
		t.Errorf("got %v", err)
	}
}

// TestASpaceIsRefused: neither a process of a Space nor one that it has left behind can use the agent.
func TestASpaceIsRefused(t *testing.T) {
	r := begin(t)
	c := r.connect()
	p, to := r.launch(c, "one")
	order(p, "a", "connect")
	if got := to.next("answered"); !isRefused(got.Payload) && !bytes.Contains(got.Payload, []byte("reset")) {
		t.Errorf("a process of a Space reads %q, want the end of the connection", got.Payload)
	}
	to.next("done")
	order(p, "b", "echo") // the host is served still
	to.next("message")
}

// TestMalformedMessages sends an agent what no host sends. It goes on.
func TestMalformedMessages(t *testing.T) {
	r := begin(t)
	c := r.connect()
	p, to := r.launch(c, "one")
	for _, data := range []string{
		"", "q", "GET / HTTP/1.1\r\n\r\n", "q\xff\xff\xff\xff", "q\x00\x00\x00\x02{]", "a\x00\x00\x00\x02{}", "q\x00\x00\x00\x10{}",
		string(bytes.Join(message(kindRequest, []byte(`{"Op":"launch"}`)), nil)), string(bytes.Join(message(kindRequest, []byte(`{"Op":"nothing"}`)), nil)),
		string(bytes.Join(message(kindRequest, []byte(`{"Op":"nothing","Instance":"one"}`)), nil)),
		string(bytes.Join(message(kindRequest, []byte(`{"Op":"dial","Instance":"one","Port":-1}`)), nil)),
		string(bytes.Join(message(kindRequest, []byte(`{"Op":"host","Protocol":1,"Files":1}`)), nil)) + "x",
	} {
		conn, err := c.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, data)
		_ = conn.CloseWrite()
		_, _ = io.ReadAll(conn) // until the agent closes it
		conn.Close()
	}
	order(p, "a", "echo")
	to.next("message")
	to.next("done")
}

// TestAgentIsKilled: with the agent its processes end, the host reads why, and its next start begins another agent, with the
// device API at the same address.
func TestAgentIsKilled(t *testing.T) {
	r := prepare(t)
	c := r.connect() // starts one
	address := c.Devices().Addr().String()
	p, to := r.launch(c, "one")
	order(p, "a", "worker")
	pid := processOf(t, to.next("worker").Number)
	kill := func(left worker.LocalProcess) {
		t.Helper()
		a := r.answerOf(request{Op: "host", Protocol: protocol}) // it closes the connection of c, which does not mind
		if err := syscall.Kill(a.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.awaitEnd(left)
		if err := left.Err(); err == nil || err.Error() != errAgentEnded.Error() || left.Exit().Signal != syscall.SIGKILL {
			t.Errorf("ended with %v, %+v", err, left.Exit())
		}
	}
	kill(p)
	if pid.Alive() {
		t.Errorf("worker %d is left", pid.PID)
	}
	var next [2]worker.LocalProcess
	ended := make(chan struct{})
	for i := range next { // two Spaces at a time
		go func() {
			defer func() { ended <- struct{}{} }()
			config := r.config(fmt.Sprint("next", i))
			config.Reporter = newRecorder(t)
			p, err := c.Launch(config, keptOf(fmt.Sprint("next", i)))
			if err != nil {
				t.Error(err)
				return
			}
			next[i] = p
		}()
	}
	for range next {
		proctreetest.Within(t, patience, "the process is started", ended)
	}
	if t.Failed() {
		t.FailNow()
	}
	next[0].Leave()
	next[1].Leave()
	c.Close()
	second := r.connect()
	if kept := second.All(); len(kept) != 2 || second.Devices().Addr().String() != address {
		t.Errorf("kept %+v, device API at %s, want two and %s", kept, second.Devices().Addr(), address)
	}
	if err := second.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// command is the command line of an agent that is a process of its own.
func (r *running) command() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fakeAgent+"="+r.state, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// TestConnect connects while an agent ends, and where none can start.
func TestConnect(t *testing.T) {
	t.Run("while an agent of another version ends", func(t *testing.T) {
		r := begin(t)
		c := r.connect()
		p, to := r.launch(c, "slow to end")
		order(p, "a", "ignore")
		to.next("done")
		c.Close()
		r.answerOf(request{Op: "host", Protocol: protocol + 1})
		proctreetest.Eventually(t, "the agent answers no host", func() bool { _, err := os.Stat(socketPath(r.state)); return os.IsNotExist(err) })
		next := r.connect() // starts another one
		if kept := next.All(); len(kept) != 0 {
			t.Errorf("kept %+v", kept)
		}
		if err := next.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("where none can start", func(t *testing.T) {
		r := prepare(t)
		_, err := Connect(t.Context(), ConnectConfig{State: r.state, Command: func() *exec.Cmd { return exec.Command("/bin/false") }})
		if err == nil || !strings.Contains(err.Error(), "it has ended at once (exit status 1), see "+r.state+"/logs/agent.log") {
			t.Errorf("got %v", err)
		}
		_, err = Connect(t.Context(), ConnectConfig{State: r.state, Command: func() *exec.Cmd { return exec.Command("/no/such/program") }})
		if err == nil || !strings.Contains(err.Error(), "start the agent: ") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("until the context ends", func(t *testing.T) {
		r := prepare(t)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := Connect(ctx, ConnectConfig{State: r.state, Command: func() *exec.Cmd { return exec.Command("/bin/sleep", "0.3") }})
		if err == nil || !strings.Contains(err.Error(), "the agent does not answer at "+socketPath(r.state)) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("until the context ends, with an agent that is stopped", func(t *testing.T) {
		r := prepare(t)
		listener, err := net.Listen("unix", socketPath(r.state))
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := Connect(ctx, ConnectConfig{State: r.state}); err == nil || !strings.Contains(err.Error(), "the agent does not answer at "+socketPath(r.state)) {
			t.Errorf("got %v", err)
		}
	})
}
