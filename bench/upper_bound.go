package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Three upper bounds, measured besides the targets: no target can be faster.
const (
	engine = "process_events" // Gradio's own function in the Space's process, without a host
	stub   = "client"         // this program's client against a minimal server, in one process
	bare   = "machine"        // the machine's share of an upload: receive, hash, write
)

// boundStep is the step name of the upper bounds in the report.
const boundStep = "upper_bound"

// inFlight lists the numbers of concurrent events, as in the no-op steps.
var inFlight = []int{1, 16, 100}

// measureBounds measures the upper bounds, unless --only selects no step that they bound.
func (b *bench) measureBounds(ctx context.Context, round int) {
	wanted, uploads := false, false
	for _, s := range allSteps(b.short) {
		wanted = wanted || b.wants(s) && s.lines[0].share != ""
		uploads = uploads || b.wants(s) && s.name == "upload"
	}
	if uploads && ctx.Err() == nil {
		began := time.Now()
		v, err := b.uploadBound(ctx)
		b.record(round, bare, boundStep, v, err, began)
	}
	if !wanted || ctx.Err() != nil {
		return
	}
	began := time.Now()
	v, err := b.engineBound(ctx)
	b.record(round, engine, boundStep, v, err, began)
	began = time.Now()
	v, err = b.clientBound(ctx)
	b.record(round, stub, boundStep, v, err, began)
}

// engineBound runs upper_bound.py. Keys are the number of events in flight; values are events/s of process_events
// alone, unmodified ("plain-") or with the runner's fast paths, and of the runner around it ("whole-"). The suffix
// "-us" is the CPU time per event.
func (b *bench) engineBound(ctx context.Context) (values, error) {
	v := values{}
	for _, how := range []string{"plain", "short"} {
		rates, err := b.runBound(ctx, how)
		if err != nil {
			return v, err
		}
		for n, r := range rates {
			for prefix, rate := range map[string]*boundRate{"plain-": r.Plain, "": r.Alone, "whole-": r.Whole} {
				if rate != nil {
					v[prefix+n], v[prefix+n+"-us"] = rate.PerS, rate.US
				}
			}
		}
	}
	return v, nil
}

// rates are the results of upper_bound.py for one number in flight.
type rates struct{ Plain, Alone, Whole *boundRate }

type boundRate struct {
	PerS float64 `json:"per_s"`
	US   float64 `json:"us"` // CPU time per event
}

func (b *bench) runBound(ctx context.Context, how string) (map[string]rates, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	args := []string{filepath.Join(b.root, "bench", "upper_bound.py"), b.app, filepath.Join(b.root, "worker", "runner"), how, fmt.Sprint(b.boundSpan.Seconds())}
	for _, n := range inFlight {
		args = append(args, strconv.Itoa(n))
	}
	c := exec.CommandContext(ctx, b.env.Python, args...)
	c.Env = append(plainEnv(b.scratch), "GRADIO_SERVER_PORT="+port)
	c.WaitDelay = time.Second
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("upper_bound.py: %w: %s", err, stderr.String())
	}
	var found map[string]rates
	line, _, _ := bytes.Cut(out, []byte("\n")) // Gradio prints a message after it
	if err := json.Unmarshal(line, &found); err != nil {
		return nil, fmt.Errorf("upper_bound.py: %w in %.200s", err, out)
	}
	return found, nil
}

// clientBound measures how many events per second the client achieves against a server that does nothing.
func (b *bench) clientBound(ctx context.Context) (values, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: &stubSpace{}}
	var group sync.WaitGroup
	group.Go(func() { _ = server.Serve(l) }) // returns after Close
	defer group.Wait()
	defer server.Close()
	c, err := newClient(ctx, "http://"+l.Addr().String(), 1)
	if err != nil {
		return nil, err
	}
	defer c.close()
	v := values{}
	for _, n := range inFlight {
		r := events(ctx, &target{name: stub, client: c}, "noop", n, b.boundSpan)
		if v[strconv.Itoa(n)] = r.perSecond; r.err != nil {
			return v, r.err
		}
	}
	return v, nil
}

// stubSpace answers a no-op with the messages of Gradio 6, without a queue.
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
		body, _ := io.ReadAll(r.Body)           // sent by our own client
		if json.Unmarshal(body, &join) != nil { // sent by our own client
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
			_ = http.NewResponseController(w).Flush() // the client may have disconnected at Ctrl-C
		}
	}
}

// uploadBound measures, in MB/s, each part of an upload on this machine, one at a time.
func (b *bench) uploadBound(ctx context.Context) (values, error) {
	v := values{}
	for _, of := range []struct {
		key string
		do  func(context.Context, int64) error
	}{{"write", b.writeAll}, {"write-again", b.writeAll}, {"hash", hashAll}, {"receive", receiveAll}} {
		began := time.Now()
		if err := of.do(ctx, b.size.upload); err != nil {
			return v, fmt.Errorf("%s: %w", of.key, err)
		}
		v[of.key] = float64(b.size.upload) / 1e6 / time.Since(began).Seconds()
	}
	return v, nil
}

func (b *bench) writeAll(_ context.Context, size int64) error {
	f, err := os.Create(filepath.Join(b.scratch, "written"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	return noiseTo(f, size)
}

func hashAll(_ context.Context, size int64) error { return noiseTo(sha256.New(), size) }

func receiveAll(ctx context.Context, size int64) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		to, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		if err == nil {
			err = noiseTo(to, size)
			to.Close()
		}
		sent <- err
	}()
	from, err := l.Accept()
	if err != nil {
		return err
	}
	defer from.Close()
	for chunk := make([]byte, 256<<10); err == nil; {
		_, err = from.Read(chunk)
	}
	if err != io.EOF {
		return err
	}
	return <-sent
}

// noiseTo writes size bytes of noise.
func noiseTo(to io.Writer, size int64) (err error) {
	for left := size; left > 0 && err == nil; left -= int64(len(noise)) {
		_, err = to.Write(noise[:min(left, int64(len(noise)))])
	}
	return err
}
