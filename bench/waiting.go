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

// Limits on the visitors who wait: a side that takes longer has dropped whom it has not served.
const (
	fillTime  = 60 * time.Second // until all have joined, and fillEach for each
	drainTime = 60 * time.Second // until all are answered, once the function is free, and fillEach for each
	fillEach  = 15 * time.Millisecond
	streamsAt = 64 // that are opened at a time
	addresses = 8  // of loopback, from which they come

	spareFiles = 500 // that host and client have open besides
)

func longFor(base time.Duration, count int) time.Duration {
	return base + time.Duration(count)*fillEach
}

// visitor is one who waits. Its fields are written before listened is closed.
type visitor struct {
	number   int
	listened chan struct{}
	place    int   // in which the function was called for them
	err      error // why there was no right answer
}

// crowd is all who wait for one function.
type crowd struct {
	client   *client
	visitors []*visitor
	refused  int
	first    error // why the first of the refused was
	there    atomic.Int64
	group    sync.WaitGroup
	gate     chan struct{} // bounds how many streams are opened at a time
}

// waiting measures count visitors before a function that is not free, each with an open stream, and quick calls
// of another function beside them. Then the function is freed, and has to answer all in the order of their coming.
func waiting(count int, alone bool) step {
	text := fmt.Sprintf("%d waiting: ", count)
	return step{
		name: fmt.Sprintf("waiting-%d", count), once: true, alone: alone,
		about: fmt.Sprintf("%d visitors wait, each with an open stream", count),
		lines: []line{
			{key: "dropped", text: text + "dropped", format: "%.0f", goal: "0"},
			{key: "disorder", text: text + "answered out of order", format: "%.0f", goal: "0"},
			{key: "kB", text: text + "memory of each, kB", goal: "<= 30"},
			{key: "p50_ms", text: text + "quick event beside them, p50 ms", format: "%.2f"},
			{key: "p99_ms", text: text + "quick event beside them, p99 ms", format: "%.2f", goal: "<= 25"},
			{key: "joins_s", text: text + "joins/s, one after another", format: "%.0f"},
			{key: "drain_s", text: text + "until all are answered, s", format: "%.2f"},
		},
		measure: func(ctx context.Context, b *bench, s *side) (values, error) { return wait(ctx, b, s, count) },
	}
}

func wait(ctx context.Context, b *bench, s *side, count int) (values, error) {
	if files := b.report.Machine.OpenFiles; files < uint64(count)+spareFiles {
		return nil, fmt.Errorf("not measured: only %d files may be open at a time; say `ulimit -n %d` first", files, count+spareFiles)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // streams that are still open end here
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

// fill lets them come one after another, so that their order is known. It returns how many came a second.
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
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.client.join(ctx, session, "slow", fmt.Sprintf(`["%d"]`, number))
}

func (c *crowd) listen(ctx context.Context, session string, v *visitor) {
	defer close(v.listened)
	var once sync.Once
	arrived := func() { once.Do(func() { c.there.Add(1); <-c.gate }) }
	c.gate <- struct{}{}
	defer arrived() // if it was told nothing
	h, err := c.client.listen(ctx, session, func([]byte) { arrived() })
	if err != nil {
		v.err = err
		return
	}
	v.place, v.err = placeOf(h, v.number)
}

// placeOf reads "number place" in an answer.
func placeOf(h heard, number int) (int, error) {
	_, after, _ := bytes.Cut(h.completed, []byte(`"data":["`))
	text, _, _ := strings.Cut(string(after), `"`)
	name, place, _ := strings.Cut(text, " ")
	n, err := strconv.Atoi(place)
	if err != nil || name != strconv.Itoa(number) {
		return -1, fmt.Errorf("visitor %d got %.200s", number, h.completed)
	}
	return n, nil
}

// awaitStreams waits until each has been told something, or has been dropped.
func (c *crowd) awaitStreams(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); int(c.there.Load()) < len(c.visitors) && time.Since(began) < fillTime/2; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// drain waits until every stream has ended, and cuts those that do not.
func (c *crowd) drain(cut func()) (seconds float64) {
	began := time.Now()
	over := time.AfterFunc(longFor(drainTime, len(c.visitors)), cut)
	defer over.Stop()
	c.group.Wait()
	return time.Since(began).Seconds()
}

// count says how many of all were not answered, and how many were answered before somebody who had come earlier.
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
