package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Two that are measured beside the sides, since neither can be faster.
const (
	engine = "process_events" // Gradio's own, in the Space's process, without a host
	stub   = "client"         // this program's client against a server of a few lines, in one process
)

// inFlight is how many events are under way at a time, here as in the no-op steps.
var inFlight = []int{1, 16, 100}

// ceilings measures both, unless --only wants no step that they bound.
func (b *bench) ceilings(ctx context.Context, round int) {
	wanted := false
	for _, s := range allSteps(b.short) {
		wanted = wanted || b.wants(s) && s.lines[0].share != ""
	}
	if !wanted || ctx.Err() != nil {
		return
	}
	began := time.Now()
	v, err := b.engineCeiling(ctx)
	b.note(round, engine, "ceiling", v, err, began)
	began = time.Now()
	v, err = b.clientCeiling(ctx)
	b.note(round, stub, "ceiling", v, err, began)
}

// engineCeiling runs ceiling.py: by number in flight, events/s of process_events alone; with "whole-" before
// it, of the runner around it as well.
func (b *bench) engineCeiling(ctx context.Context) (values, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	args := []string{filepath.Join(b.root, "bench", "ceiling.py"), b.app, filepath.Join(b.root, "worker", "runner"), fmt.Sprint(b.ceiling.Seconds())}
	for _, n := range inFlight {
		args = append(args, strconv.Itoa(n))
	}
	c := exec.CommandContext(ctx, b.env.Python, args...)
	c.Env = append(plainEnv(b.scratch), "GRADIO_SERVER_PORT="+port)
	c.WaitDelay = time.Second
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("ceiling.py: %w: %s", err, said.String())
	}
	var rates map[string]struct{ Alone, Whole float64 }
	line, _, _ := bytes.Cut(out, []byte("\n")) // Gradio says goodbye after it
	if err := json.Unmarshal(line, &rates); err != nil {
		return nil, fmt.Errorf("ceiling.py: %w in %.200s", err, out)
	}
	v := values{}
	for n, r := range rates {
		v[n], v["whole-"+n] = r.Alone, r.Whole
	}
	return v, nil
}

// clientCeiling is how many events a second the client can do when the server does nothing.
func (b *bench) clientCeiling(ctx context.Context) (values, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: &stubSpace{}}
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(l) }) // ends by Close
	defer group.Wait()
	defer server.Close()
	c, err := newClient(ctx, "http://"+l.Addr().String(), 1)
	if err != nil {
		return nil, err
	}
	defer c.close()
	v := values{}
	for _, n := range inFlight {
		r := events(ctx, &side{name: stub, client: c}, "noop", n, b.ceiling)
		if v[strconv.Itoa(n)] = r.perSecond; r.err != nil {
			return v, r.err
		}
	}
	return v, nil
}

// stubSpace answers a no-op with the messages of Gradio 6 and no queue at all.
type stubSpace struct{ inputs sync.Map }

func (s *stubSpace) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/config":
		fmt.Fprint(w, `{"dependencies":[{"id":0,"api_name":"noop"}]}`)
	case strings.HasSuffix(r.URL.Path, "/queue/join"):
		var join struct {
			Data json.RawMessage `json:"data"`
			Hash string          `json:"session_hash"`
		}
		body, _ := io.ReadAll(r.Body)           // our own client sends it
		if json.Unmarshal(body, &join) != nil { // as is this
			w.WriteHeader(http.StatusBadRequest)
		}
		s.inputs.Store(join.Hash, string(join.Data))
		fmt.Fprint(w, `{"event_id":"0"}`)
	default:
		data, _ := s.inputs.LoadAndDelete(r.URL.Query().Get("session_hash"))
		w.Header().Set("Content-Type", "text/event-stream")
		for _, message := range []string{
			`{"msg":"estimation","event_id":"0","rank":0,"queue_size":1,"rank_eta":null}`,
			`{"msg":"process_starts","event_id":"0","eta":null}`,
			fmt.Sprintf(`{"msg":"process_completed","event_id":"0","output":{"data":%v,"is_generating":false},"success":true}`, data),
			`{"msg":"close_stream","event_id":null}`,
		} {
			fmt.Fprintf(w, "data: %s\n\n", message)
			_ = http.NewResponseController(w).Flush() // the client may be gone at Ctrl-C
		}
	}
}
