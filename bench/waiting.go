package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits for waiting visitors: a visitor who is not served within them counts as dropped.
const (
	fillTime  = 60 * time.Second // until all have joined, plus fillEach per visitor
	drainTime = 60 * time.Second // until all are answered after the function is free, plus fillEach per visitor
	fillEach  = 15 * time.Millisecond
	streamsAt = 64 // number of streams opened at the same time
	addresses = 8  // number of loopback addresses of the visitors

	spareFiles = 500 // other open files of host and client
)

func longFor(base time.Duration, count int) time.Duration {
	return base + time.Duration(count)*fillEach
}

// visitor is a waiting visitor. Its fields are written before listened is closed.
type visitor struct {
	number   int
	listened chan struct{}
	place    int   // position in the order of calls
	err      error // why there was no correct answer
}

// crowd is all visitors who wait for one function.
type crowd struct {
	client   *client
	visitors []*visitor
	refused  int
	first    error // reason of the first refusal
	arrived  atomic.Int64
	group    sync.WaitGroup
	gate     chan struct{} // limits the number of streams opened at the same time
}

// waiting measures count visitors who wait for a blocked function, each with an open stream, and concurrent quick
// calls of another function. Then the function is unblocked, and must answer all visitors in the order of arrival.
func waiting(count int, alone bool) step {
	text := fmt.Sprintf("%d waiting: ", count)
	return step{
		name: fmt.Sprintf("waiting-%d", count), once: true, alone: alone,
		about: fmt.Sprintf("%d visitors wait, each with an open stream", count),
		lines: []line{
			{key: "dropped", text: text + "dropped", format: "%.0f", goal: "0"},
			{key: "disorder", text: text + "answered out of order", format: "%.0f", goal: "0"},
			{key: "kB", text: text + "memory per visitor, kB", goal: "<= 30"},
			{key: "p50_ms", text: text + "concurrent quick event, p50 ms", format: "%.2f"},
			{key: "p99_ms", text: text + "concurrent quick event, p99 ms", format: "%.2f", goal: "<= 25"},
			{key: "joins_s", text: text + "sequential joins/s", format: "%.0f"},
			{key: "drain_s", text: text + "until all are answered, s", format: "%.2f"},
		},
		measure: func(ctx context.Context, b *bench, s *target) (values, error) { return wait(ctx, b, s, count) },
	}
}

func wait(ctx context.Context, b *bench, s *target, count int) (values, error) {
	if files := b.report.Machine.OpenFiles; files < uint64(count)+spareFiles {
		return nil, fmt.Errorf("not measured: the limit of open files is %d; run `ulimit -n %d` first", files, count+spareFiles)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // closes the streams that are still open
	if _, _, err := s.client.call(ctx, newHash(), "close_gate", "[]", `"closed"`); err != nil {
		return nil, err
	}
	c := &crowd{gate: make(chan struct{}, streamsAt)}
	var err error
	if c.client, err = newClient(ctx, s.url, addresses); err != nil {
		return nil, err
	}
	defer c.client.close()
	before := s.memory()
	joined := c.fill(ctx, count)
	c.awaitStreams(ctx)
	v := values{"kB": (s.memory() - before) / 1000 / float64(max(1, len(c.visitors))), "joins_s": joined}
	quick := events(ctx, s, "noop", 1, b.hold)
	v["p50_ms"], v["p99_ms"] = quick.ms(50), quick.ms(99)
	_, _, err = s.client.call(ctx, newHash(), "open_gate", "[]", `"open"`)
	v["drain_s"] = c.drain(cancel)
	dropped, disorder, first := c.count(count)
	v["dropped"], v["disorder"] = float64(dropped), float64(disorder)
	if dropped > 0 {
		err = errors.Join(err, &wrongError{dropped, count, first})
	}
	return v, errors.Join(err, quick.err)
}

// fill lets the visitors join one after another, so that their order is known. It returns the joins per second.
func (c *crowd) fill(ctx context.Context, count int) float64 {
	began := time.Now()
	for number := 0; number < count && time.Since(began) < longFor(fillTime, count); number++ {
		session := newHash()
		if err := c.join(ctx, session, number); err != nil {
			if c.refused++; c.first == nil {
				c.first = err
			}
			if c.refused > 10 {
				break
			}
			continue
		}
		v := &visitor{number: number, place: -1, listened: make(chan struct{})}
		c.visitors = append(c.visitors, v)
		c.group.Go(func() { c.listen(ctx, session, v) })
	}
	return float64(len(c.visitors)) / time.Since(began).Seconds()
}

func (c *crowd) join(ctx context.Context, session string, number int) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.client.join(ctx, session, "slow", fmt.Sprintf(`["%d"]`, number))
}

func (c *crowd) listen(ctx context.Context, session string, v *visitor) {
	defer close(v.listened)
	var once sync.Once
	arrived := func() { once.Do(func() { c.arrived.Add(1); <-c.gate }) }
	c.gate <- struct{}{}
	defer arrived() // if no message arrived
	h, err := c.client.listen(ctx, session, func([]byte) { arrived() })
	if err != nil {
		v.err = err
		return
	}
	v.place, v.err = placeOf(h, v.number)
}

// placeOf parses "number place" from an answer.
func placeOf(h streamResult, number int) (int, error) {
	_, after, _ := bytes.Cut(h.completed, []byte(`"data":["`))
	text, _, _ := strings.Cut(string(after), `"`)
	name, place, _ := strings.Cut(text, " ")
	n, err := strconv.Atoi(place)
	if err != nil || name != strconv.Itoa(number) {
		return -1, fmt.Errorf("visitor %d got %.200s", number, h.completed)
	}
	return n, nil
}

// awaitStreams waits until each visitor has received a message, or has been dropped.
func (c *crowd) awaitStreams(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); int(c.arrived.Load()) < len(c.visitors) && time.Since(began) < fillTime/2; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// drain waits until every stream has ended, and cancels the others after the limit.
func (c *crowd) drain(cancel func()) (seconds float64) {
	began := time.Now()
	over := time.AfterFunc(longFor(drainTime, len(c.visitors)), cancel)
	defer over.Stop()
	c.group.Wait()
	return time.Since(began).Seconds()
}

// count returns how many visitors were not answered, and how many were answered after a visitor who joined later.
func (c *crowd) count(all int) (dropped, disorder int, first error) {
	answered, last := 0, -1
	first = c.first
	for _, v := range c.visitors {
		if v.err != nil {
			if first == nil {
				first = v.err
			}
			continue
		}
		answered++
		if v.place < last {
			disorder++
		}
		last = max(last, v.place)
	}
	if first == nil && answered < all {
		first = fmt.Errorf("only %d joined within %s", len(c.visitors), longFor(fillTime, all))
	}
	return all - answered, disorder, first
}
