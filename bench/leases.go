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

// leaseSteps ask for GPUs as the `spaces` package does, without a Space's Python in the way. Each lease is committed
// to the disk before it is answered, so the disk's own time stands beside.
func leaseSteps(short bool) []step {
	queue := 1000
	if short {
		queue = 20
	}
	text := fmt.Sprintf("GPU lent to the next of %d, ", queue)
	return []step{
		{name: "schedule", about: "/schedule with a free GPU, 200 a second", measure: scheduled, lines: []line{
			{key: "p50_ms", text: "/schedule at 200/s, p50 ms", format: "%.2f", oursAlone: true},
			{key: "p99_ms", text: "/schedule at 200/s, p99 ms", format: "%.2f", goal: "<= 5, or 3 fsyncs", oursAlone: true},
			{key: "fsync_ms", text: "one fsync meanwhile, p99 ms", format: "%.2f", oursAlone: true}}},
		{name: "lend", about: fmt.Sprintf("a GPU that is released with %d waiting for one", queue), once: true, lines: []line{
			{key: "p50_ms", text: text + "p50 ms", format: "%.2f", oursAlone: true},
			{key: "worst_ms", text: text + "worst ms", format: "%.2f", goal: "<= 5", oursAlone: true},
			{key: "fsync_ms", text: "one fsync then, p99 ms", format: "%.2f", oursAlone: true}},
			measure: func(ctx context.Context, b *bench, s *side) (values, error) { return lent(ctx, b, s, queue) }},
	}
}

// door is where a Space asks for GPUs, on account of an Event that lasts until close.
type door struct {
	client *http.Client
	url    string
	token  string
	close  func() error
}

// open lets an Event run that says where the door is. Nil: this side has none.
func open(ctx context.Context, s *side) (*door, error) {
	if s.name == stock {
		return nil, nil
	}
	if _, _, err := s.client.call(ctx, newHash(), "close_gate", "[]", `"closed"`); err != nil {
		return nil, err
	}
	session, said := newHash(), make(chan []byte, 1)
	if err := s.client.join(ctx, session, "lend", "[]"); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.client.listen(ctx, session, func(message []byte) {
			if bytes.HasPrefix(message, []byte(`process_generating"`)) {
				select {
				case said <- bytes.Clone(message):
				default:
				}
			}
		})
		ended <- err
	}()
	d := &door{client: &http.Client{Transport: transport(1)}}
	d.close = func() error {
		d.client.CloseIdleConnections()
		_, _, err := s.client.call(ctx, newHash(), "open_gate", "[]", `"open"`)
		return errors.Join(err, <-ended)
	}
	select {
	case message := <-said:
		return d, d.read(message)
	case err := <-ended:
		return nil, fmt.Errorf("the Space does not say where it asks for GPUs: %w", err)
	}
}

func (d *door) read(message []byte) error {
	var m struct{ Output struct{ Data []string } }
	if err := json.Unmarshal(append([]byte(`{"msg":"`), message...), &m); err != nil || len(m.Output.Data) != 1 {
		return fmt.Errorf("read the Space's first step: %w in %.200s", err, message)
	}
	var there []string
	if err := json.Unmarshal([]byte(m.Output.Data[0]), &there); err != nil {
		return fmt.Errorf("read where it asks for GPUs: %w", err)
	}
	d.url, d.token = there[0], there[1]
	return nil
}

// post asks as spaces/zero/api.py does. The caller closes the body.
func (d *door) post(ctx context.Context, path string, query url.Values) (*http.Response, error) {
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

// schedule returns the lease, or the stream on which it will come.
func (d *door) schedule(ctx context.Context) (lease string, waiting io.ReadCloser, err error) {
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

func (d *door) release(ctx context.Context, lease string) error {
	answer, err := d.post(ctx, "/release", url.Values{"allowToken": {lease}, "fail": {"true"}})
	if err == nil {
		answer.Body.Close()
	}
	return err
}

// scheduled asks 200 times a second, whether or not the last is answered, and gives each back at once.
func scheduled(ctx context.Context, b *bench, s *side) (_ values, err error) {
	d, err := open(ctx, s)
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

// lent measures from the end of a release, which is answered when it is committed, to the next one's grant.
func lent(ctx context.Context, b *bench, s *side, queue int) (_ values, err error) {
	d, err := open(ctx, s)
	if d == nil || err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, cancel := context.WithCancel(ctx) // who still waits at the end leaves
	defer cancel()
	grants, waits := make(chan grant, queue), make(chan error, queue)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	for range queue {
		group.Go(func() { d.takeTurn(ctx, grants, waits) })
	}
	for range queue {
		if err := <-waits; err != nil {
			return nil, err
		}
	}
	var took []time.Duration
	holds := <-grants
	for range min(100, queue/2) {
		for len(grants) > 0 { // those that were free
			<-grants
		}
		if err := d.release(ctx, holds.lease); err != nil {
			return nil, err
		}
		released := time.Now()
		select {
		case holds = <-grants:
			took = append(took, max(0, holds.at.Sub(released)))
		case <-time.After(patience):
			return nil, errors.New("a GPU was released, and nobody got it")
		}
	}
	slices.Sort(took)
	return values{"p50_ms": percentile(took, 50), "worst_ms": ms(took[len(took)-1]), "fsync_ms": percentile(fsyncs(b.scratch, 0), 99)}, nil
}

type grant struct {
	lease string
	at    time.Time
}

// takeTurn asks, says on waits that it has a GPU or is in the line, and hands its grant on when it comes.
func (d *door) takeTurn(ctx context.Context, grants chan<- grant, waits chan<- error) {
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
