package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// leaseSteps request GPUs as the `spaces` package does, without the overhead of a Space's Python. Each lease is
// committed to disk before the answer, so the table also shows the time of an fsync.
func leaseSteps(short bool) []step {
	queue := 1000
	if short {
		queue = 20
	}
	text := fmt.Sprintf("GPU granted to the next of %d, ", queue)
	return []step{
		{name: "schedule", about: "/schedule with a free GPU, 200 a second", measure: scheduled, lines: []line{
			{key: "p50_ms", text: "/schedule at 200/s, p50 ms", format: "%.2f", oursOnly: true},
			{key: "p99_ms", text: "/schedule at 200/s, p99 ms", format: "%.2f", goal: "<= 5, or 3 fsyncs", oursOnly: true},
			{key: "fsync_ms", text: "one fsync at the same time, p99 ms", format: "%.2f", oursOnly: true}}},
		{name: "lend", about: fmt.Sprintf("release of a GPU while %d requests wait", queue), once: true, lines: []line{
			{key: "p50_ms", text: text + "p50 ms", format: "%.2f", oursOnly: true},
			{key: "worst_ms", text: text + "worst ms", format: "%.2f", goal: "<= 5", oursOnly: true},
			{key: "fsync_ms", text: "one fsync afterwards, p99 ms", format: "%.2f", oursOnly: true}},
			measure: func(ctx context.Context, b *bench, s *target) (values, error) { return regrant(ctx, b, s, queue) }},
	}
}

// leaseClient requests GPUs from the device API of a target, on account of an Event that lasts until close.
type leaseClient struct {
	client *http.Client
	url    string
	token  string
	close  func() error
}

// openLeaseClient starts an Event that returns the address of the device API. It returns nil if the target has none.
func openLeaseClient(ctx context.Context, s *target) (*leaseClient, error) {
	if s.name == stock {
		return nil, nil
	}
	if _, _, err := s.client.call(ctx, newHash(), "close_gate", "[]", `"closed"`); err != nil {
		return nil, err
	}
	session, first := newHash(), make(chan []byte, 1)
	if err := s.client.join(ctx, session, "lend", "[]"); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.client.listen(ctx, session, func(message []byte) {
			if bytes.HasPrefix(message, []byte(`process_generating"`)) {
				select {
				case first <- bytes.Clone(message):
				default:
				}
			}
		})
		ended <- err
	}()
	d := &leaseClient{client: &http.Client{Transport: transport(1)}}
	d.close = func() error {
		d.client.CloseIdleConnections()
		_, _, err := s.client.call(ctx, newHash(), "open_gate", "[]", `"open"`)
		return errors.Join(err, <-ended)
	}
	select {
	case message := <-first:
		return d, d.read(message)
	case err := <-ended:
		return nil, fmt.Errorf("the Space did not return the address of the device API: %w", err)
	}
}

func (d *leaseClient) read(message []byte) error {
	var m struct{ Output struct{ Data []string } }
	if err := json.Unmarshal(append([]byte(`{"msg":"`), message...), &m); err != nil || len(m.Output.Data) != 1 {
		return fmt.Errorf("read the first step of the Space: %w in %.200s", err, message)
	}
	var apiAndToken []string
	if err := json.Unmarshal([]byte(m.Output.Data[0]), &apiAndToken); err != nil {
		return fmt.Errorf("read the address of the device API: %w", err)
	}
	d.url, d.token = apiAndToken[0], apiAndToken[1]
	return nil
}

// post sends a request as spaces/zero/api.py does. The caller closes the body.
func (d *leaseClient) post(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := d.client.Do(r)
	if err == nil && answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		err = fmt.Errorf("%s: %s", path, answer.Status)
	}
	return answer, err
}

// schedule returns the lease, or the stream on which it will be granted.
func (d *leaseClient) schedule(ctx context.Context) (lease string, waiting io.ReadCloser, err error) {
	answer, err := d.post(ctx, "/schedule", url.Values{"taskId": {"1"}, "durationSeconds": {"1"}, "token": {d.token}})
	if err != nil {
		return "", nil, err
	}
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		return "", answer.Body, nil
	}
	defer answer.Body.Close()
	var granted struct{ AllowToken string }
	err = json.NewDecoder(answer.Body).Decode(&granted)
	return granted.AllowToken, nil, err
}

func (d *leaseClient) release(ctx context.Context, lease string) error {
	answer, err := d.post(ctx, "/release", url.Values{"allowToken": {lease}, "fail": {"true"}})
	if err == nil {
		answer.Body.Close()
	}
	return err
}

// scheduled sends 200 requests per second, without waiting for answers, and releases each lease at once.
func scheduled(ctx context.Context, b *bench, s *target) (_ values, err error) {
	d, err := openLeaseClient(ctx, s)
	if d == nil || err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	var mu sync.Mutex
	var took []time.Duration
	var wrong []error
	once := func() {
		began := time.Now()
		lease, waiting, err := d.schedule(ctx)
		spent := time.Since(began)
		if waiting != nil {
			waiting.Close()
			err = errors.New("no GPU was free")
		}
		if err == nil {
			err = d.release(ctx, lease)
		}
		mu.Lock()
		defer mu.Unlock()
		if took = append(took, spent); err != nil {
			wrong = append(wrong, err)
		}
	}
	syncs := make(chan []time.Duration, 1)
	go func() { syncs <- fsyncs(b.scratch, 0) }()
	var group sync.WaitGroup
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(5 * b.span / 2); time.Now().Before(end); <-ticker.C {
		group.Go(once)
	}
	group.Wait()
	slices.Sort(took)
	if len(wrong) > 0 {
		err = &wrongError{len(wrong), len(took), wrong[0]}
	}
	return values{"p50_ms": percentile(took, 50), "p99_ms": percentile(took, 99), "fsync_ms": percentile(<-syncs, 99)}, err
}

// regrant measures the time from the end of a release, which is answered when it is committed, to the next grant.
func regrant(ctx context.Context, b *bench, s *target, queue int) (_ values, err error) {
	d, err := openLeaseClient(ctx, s)
	if d == nil || err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithCancel(ctx) // cancels the requests that still wait at the end
	defer cancel()
	grants, waits := make(chan grant, queue), make(chan error, queue)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for range queue {
		group.Go(func() { d.queueForGPU(ctx, grants, waits) })
	}
	for range queue {
		if err := <-waits; err != nil {
			return nil, err
		}
	}
	var took []time.Duration
	held := <-grants
	for range min(100, queue/2) {
		for len(grants) > 0 { // the GPUs that were free at first
			<-grants
		}
		if err := d.release(ctx, held.lease); err != nil {
			return nil, err
		}
		released := time.Now()
		select {
		case held = <-grants:
			took = append(took, max(0, held.at.Sub(released)))
		case <-time.After(requestTimeout):
			return nil, errors.New("a GPU was released, but no waiting request got it")
		}
	}
	slices.Sort(took)
	return values{"p50_ms": percentile(took, 50), "worst_ms": ms(took[len(took)-1]), "fsync_ms": percentile(fsyncs(b.scratch, 0), 99)}, nil
}

type grant struct {
	lease string
	at    time.Time
}

// queueForGPU requests a GPU, reports on waits that it is granted or queued, and sends the grant when it arrives.
func (d *leaseClient) queueForGPU(ctx context.Context, grants chan<- grant, waits chan<- error) {
	lease, stream, err := d.schedule(ctx)
	if lease != "" {
		grants <- grant{lease, time.Now()}
	}
	waits <- err
	if stream == nil {
		return
	}
	defer stream.Close()
	for lines := bufio.NewScanner(stream); lines.Scan(); {
		if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			g := grant{at: time.Now()}
			var granted struct{ AllowToken string }
			if json.Unmarshal(data, &granted) == nil {
				g.lease = granted.AllowToken
				grants <- g
			}
			return
		}
	}
}
