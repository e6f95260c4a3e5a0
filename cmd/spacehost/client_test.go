package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// client is the real gradio_client in a Python process. testdata/clients/client.py documents its protocol.
type client struct {
	t     testing.TB
	in    io.WriteCloser
	next  int
	mu    sync.Mutex
	calls map[int]chan reply
}

// reply is one line of the process's output.
type reply struct {
	ID        int             `json:"id"`
	Ready     bool            `json:"ready"`
	Submitted bool            `json:"submitted"`
	Step      json.RawMessage `json:"step"`
	Log       string          `json:"log"`
	Level     string          `json:"level"`
	Progress  []any           `json:"progress"`
	Value     json.RawMessage `json:"value"`
	Error     *string         `json:"error"`
	Title     string          `json:"title"`
}

func (p *product) client() *client {
	p.t.Helper()
	return p.clientAt(p.URL)
}

// clientAt connects to another Space than the host's first.
func (p *product) clientAt(url string) *client { return p.clientAs(url, "") }

// clientAs connects with a user's token.
func (p *product) clientAs(url, token string) *client {
	p.t.Helper()
	return p.clientIn(environmentOf(p.t, p.line), url, token)
}

// clientIn connects with the gradio_client of this interpreter.
func (p *product) clientIn(python, url, token string) *client {
	p.t.Helper()
	cmd := exec.Command(python, filepath.Join("testdata", "clients", "client.py"), url, token)
	cmd.Env = append(os.Environ(), "GRADIO_ANALYTICS_ENABLED=False", "HOME="+p.t.TempDir(), "TMPDIR="+p.t.TempDir()) // it leaves a folder for each file
	cmd.Stderr = p
	in, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	c := &client{t: p.t, in: in, calls: map[int]chan reply{0: make(chan reply, 1)}}
	read := make(chan struct{})
	go func() { defer close(read); c.read(out) }()
	p.t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait() // killed above
	})
	if r := c.reply(c.calls[0], patience); !r.Ready {
		p.t.Fatalf("gradio_client did not connect: %+v", r)
	}
	return c
}

func (c *client) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // other output
		}
		c.mu.Lock()
		to := c.calls[r.ID]
		c.mu.Unlock()
		to <- r
	}
}

func (c *client) reply(from chan reply, within time.Duration) reply {
	c.t.Helper()
	select {
	case r := <-from:
		return r
	case <-time.After(within):
		c.t.Fatalf("no reply from gradio_client within %s", within)
		return reply{}
	}
}

// call is a call in progress.
type call struct {
	c  *client
	id int
	ch chan reply
}

// result is the outcome of a call.
type result struct {
	Value    json.RawMessage
	Err      string
	Title    string
	Failed   bool
	Steps    []json.RawMessage
	Logs     []string
	Progress [][]any
}

func (c *client) send(command map[string]any) call {
	c.t.Helper()
	c.mu.Lock()
	c.next++
	k := call{c, c.next, make(chan reply, 4096)}
	c.calls[k.id] = k.ch
	c.mu.Unlock()
	command["id"] = k.id
	data, err := json.Marshal(command)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.in.Write(append(data, '\n')); err != nil {
		c.t.Fatal(err)
	}
	return k
}

// submit starts a call and returns once it has joined the queue.
func (c *client) submit(api string, args ...any) call {
	c.t.Helper()
	k := c.send(map[string]any{"api": api, "args": list(args)})
	c.reply(k.ch, patience)
	return k
}

func list(args []any) []any {
	if args == nil {
		return []any{}
	}
	return args
}

func (c *client) call(api string, args ...any) result {
	c.t.Helper()
	return c.submit(api, args...).wait()
}

// ok makes a call that must succeed and returns the value as text.
func (c *client) ok(api string, args ...any) string {
	c.t.Helper()
	r := c.call(api, args...)
	if r.Failed {
		c.t.Fatalf("%s%v: %s", api, args, r.Err)
	}
	return text(r.Value)
}

// text returns a JSON value as text: strings without quotes.
func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

func (k call) wait() result {
	k.c.t.Helper()
	return k.waitWithin(patience)
}

// waitWithin returns the outcome of the call, which may send nothing for that long.
func (k call) waitWithin(silence time.Duration) (all result) {
	k.c.t.Helper()
	for {
		switch r := k.c.reply(k.ch, silence); {
		case r.Error != nil:
			all.Err, all.Title, all.Failed = *r.Error, r.Title, true
			return all
		case r.Value != nil:
			all.Value = r.Value
			return all
		case r.Step != nil:
			all.Steps = append(all.Steps, r.Step)
		case r.Log != "":
			all.Logs = append(all.Logs, r.Log)
		case r.Progress != nil:
			all.Progress = append(all.Progress, r.Progress)
		}
	}
}
