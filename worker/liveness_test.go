package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hangsRecorder is a start that answers as the test decides.
type hangsRecorder struct {
	mu       sync.Mutex
	a        *answers
	config   Liveness
	up       bool
	stopped  bool
	traced   bool
	deaf     map[string]bool // "thread", "loop": it does not answer
	starves  time.Duration   // a probe blocks the host for so long
	events   []string
	began    time.Time
	lastSent int
}

func (r *hangsRecorder) settings() Liveness { r.mu.Lock(); defer r.mu.Unlock(); return r.config }
func (r *hangsRecorder) isUp() bool         { r.mu.Lock(); defer r.mu.Unlock(); return r.up }
func (r *hangsRecorder) isStopped() bool    { r.mu.Lock(); defer r.mu.Unlock(); return r.stopped }
func (r *hangsRecorder) mayRestart() bool   { r.mu.Lock(); defer r.mu.Unlock(); return !r.traced }

func (r *hangsRecorder) probe(number int) {
	r.mu.Lock()
	starves := r.starves
	r.starves, r.lastSent = 0, number
	r.mu.Unlock()
	time.Sleep(starves)
	r.answer()
}

// answer answers the last probe, as far as the start is not deaf.
func (r *hangsRecorder) answer() {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &session{answers: r.a}
	for _, part := range []string{"thread", "loop"} {
		if !r.deaf[part] {
			if err := s.alive(report{Number: r.lastSent, Loop: part == "loop", Server: "runs"}); err != nil {
				panic(err)
			}
		}
	}
}

func (r *hangsRecorder) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

func (r *hangsRecorder) note(format string, args ...any) {
	r.set(func() {
		r.events = append(r.events, fmt.Sprintf("%s: ", time.Since(r.began).Round(time.Second))+fmt.Sprintf(format, args...))
	})
}

func (r *hangsRecorder) unresponsive(_ context.Context, cause HangCause, silent time.Duration) {
	r.note("unresponsive, %s, silent for %s", cause, silent)
}

func (r *hangsRecorder) responsive(after time.Duration) { r.note("responsive after %s", after) }

// TestLiveness checks at which second a Space counts as unresponsive, and when it starts again.
func TestLiveness(t *testing.T) {
	usual := Liveness{After: 30 * time.Second, RestartAfter: 2 * time.Minute}
	for name, row := range map[string]struct {
		config Liveness
		script func(r *hangsRecorder)
		lasts  time.Duration
		want   []string
	}{
		"it answers": {usual, func(*hangsRecorder) {}, time.Hour, nil},
		"no thread answers": {usual, func(r *hangsRecorder) {
			time.Sleep(100 * time.Second)
			r.set(func() { r.deaf = map[string]bool{"thread": true, "loop": true} })
		}, 10 * time.Minute, []string{"2m12s: unresponsive, interpreter, silent for 30s", "4m12s: restart after 2m30s"}},
		"its loop does not answer": {usual, func(r *hangsRecorder) {
			time.Sleep(100 * time.Second)
			r.set(func() { r.deaf = map[string]bool{"loop": true} })
		}, 10 * time.Minute, []string{"2m12s: unresponsive, loop, silent for 30s", "4m12s: restart after 2m30s"}},
		"29 s without an answer": {usual, func(r *hangsRecorder) {
			r.set(func() { r.deaf = map[string]bool{"thread": true, "loop": true} })
			time.Sleep(29 * time.Second)
			r.set(func() { r.deaf = nil })
			r.answer()
		}, 10 * time.Minute, nil},
		"it answers again": {usual, func(r *hangsRecorder) {
			r.set(func() { r.deaf = map[string]bool{"thread": true, "loop": true} })
			time.Sleep(73 * time.Second)
			r.set(func() { r.deaf = nil })
			r.answer()
		}, 10 * time.Minute, []string{"33s: unresponsive, interpreter, silent for 30s", "1m13s: responsive after 1m9s"}},
		"never restarted": {Liveness{After: 30 * time.Second}, func(r *hangsRecorder) {
			r.set(func() { r.deaf = map[string]bool{"thread": true, "loop": true} })
		}, time.Hour, []string{"33s: unresponsive, interpreter, silent for 30s"}},
		"a debugger holds it": {usual, func(r *hangsRecorder) {
			r.set(func() { r.deaf, r.traced = map[string]bool{"thread": true, "loop": true}, true })
			time.Sleep(time.Hour - time.Second)
			r.set(func() { r.traced = false })
		}, 2 * time.Hour, []string{"33s: unresponsive, interpreter, silent for 30s", "1h0m0s: restart after 59m57s"}},
		"not probed": {Liveness{}, func(r *hangsRecorder) {
			r.set(func() { r.deaf = map[string]bool{"thread": true, "loop": true} })
		}, time.Hour, nil},
		"a reload ends the probes": {usual, func(r *hangsRecorder) {
			r.set(func() { r.deaf = map[string]bool{"thread": true, "loop": true} })
			time.Sleep(40 * time.Second)
			r.set(func() { r.config = Liveness{} })
		}, time.Hour, []string{"33s: unresponsive, interpreter, silent for 30s", "42s: responsive after 36s"}},
		"its import after launch() takes minutes": {usual, func(r *hangsRecorder) {
			r.set(func() { r.up, r.deaf = false, map[string]bool{"thread": true, "loop": true} })
			time.Sleep(5 * time.Minute)
			r.set(func() { r.up, r.deaf = true, nil })
		}, time.Hour, nil},
		// The answer of the runner is in the channel, and the host has had no time to read it.
		"the host was suspended for an hour": {usual, func(r *hangsRecorder) {
			time.Sleep(100 * time.Second)
			r.set(func() { r.deaf, r.starves = map[string]bool{"thread": true, "loop": true}, time.Hour })
			time.Sleep(time.Hour + time.Second)
			r.set(func() { r.deaf = nil })
			r.answer()
		}, 2 * time.Hour, nil},
		// inspect has let it run for a moment, in which it has answered.
		"a stopped process": {usual, func(r *hangsRecorder) {
			r.set(func() { r.deaf, r.stopped = map[string]bool{"thread": true, "loop": true}, true })
			time.Sleep(34 * time.Second)
			r.set(func() { r.deaf = nil })
			r.answer()
			r.set(func() { r.deaf = map[string]bool{"thread": true, "loop": true} })
			time.Sleep(36 * time.Second)
			r.set(func() { r.stopped, r.deaf = false, nil }) // continued
			r.answer()
		}, 10 * time.Minute, []string{"33s: unresponsive, interpreter, silent for 30s", "1m10s: responsive after 1m6s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &hangsRecorder{a: newAnswers(), config: row.config, up: true, began: time.Now()}
				ctx, cancel := context.WithCancel(t.Context())
				restart, ended := make(chan time.Duration, 1), make(chan struct{})
				go func() { watch(ctx, r.a, r, restart); close(ended) }()
				go func() {
					if after, ok := <-restart; ok {
						r.note("restart after %s", after)
					}
				}()
				row.script(r)
				time.Sleep(row.lasts)
				cancel()
				<-ended
				close(restart)
				synctest.Wait()
				if !slices.Equal(r.events, row.want) {
					t.Errorf("got\n  %s\nwant\n  %s", strings.Join(r.events, "\n  "), strings.Join(row.want, "\n  "))
				}
			})
		})
	}
}

// TestAProbeIsNotRepeated checks that a stopped process does not fill its channel.
func TestAProbeIsNotRepeated(t *testing.T) {
	var l liveness
	if number, ok := l.next(); number != 1 || !ok {
		t.Errorf("first probe: %d %v", number, ok)
	}
	if number, ok := l.next(); ok {
		t.Errorf("probe %d while the first is unanswered", number)
	}
	l.loop.answer(1)
	if number, ok := l.next(); ok {
		t.Errorf("probe %d after the answer of the loop alone", number)
	}
	l.thread.answer(1)
	if number, ok := l.next(); number != 2 || !ok {
		t.Errorf("second probe: %d %v", number, ok)
	}
}

// TestThePlaceOfAHang uses the text of CPython 3.11, and the thread names that 3.14 adds.
func TestThePlaceOfAHang(t *testing.T) {
	const idle = "Thread 0x00007f01 (most recent call first):\n  File \"/usr/lib/python3.11/threading.py\", line 320 in wait\n  File \"/usr/lib/python3.11/queue.py\", line 171 in get\n\n"
	loop := "Thread 0x00007F02 [Thread-3 (run)] (most recent call first):\n  File \"/space/app.py\", line 20 in spin\n  File \"/usr/lib/python3.11/asyncio/events.py\", line 80 in _run\n\n"
	holder := "Thread 0x00007f03 (most recent call first):\n  File \"/space/lib/c.py\", line 7 in hold\n  File \"/space/app.py\", line 9 in call\n\n"
	main := "Current thread 0x00007f04 (most recent call first):\n  File \"/env/gradio/blocks.py\", line 3100 in block_thread\n  File \"/space/app.py\", line 40 in <module>\n"
	busy := "Thread 0x00007f05 (most recent call first):\n  File \"/env/torch/nn.py\", line 5 in forward\n  File \"/space/app.py\", line 30 in predict\n\n"
	for _, row := range []struct{ text, loop, want string }{
		{idle + loop + holder + main, "0000000000007f02", "app.py:20 in spin"},
		{idle + busy + holder + main, "", "lib/c.py:7 in hold"},
		{idle + busy + main, "", "app.py:30 in predict"},
		{idle + main, "7f02", "app.py:40 in <module>"},
		{idle, "", ""},
		{"", "", ""},
	} {
		if got := placeOf(parseStacks(row.text), "/space", row.loop); got != row.want {
			t.Errorf("got %q, want %q in\n%s", got, row.want, row.text)
		}
	}
	threads := parseStacks(idle + strings.ReplaceAll(idle, "7f01", "7f09") + "Thread 0x1 (most recent call first):\n  File \"\x1b[31m\", line 1 in f\n  <no Python frame>\n")
	want := "Thread 0x00007f01, 0x00007f09 (most recent call first):\n  File \"/usr/lib/python3.11/threading.py\", line 320 in wait\n  File \"/usr/lib/python3.11/queue.py\", line 171 in get\n"
	if text := stacksText(threads); !strings.HasPrefix(text, want) || strings.Contains(text, "\x1b") || !strings.Contains(text, "  <no Python frame>\n") {
		t.Errorf("got %q", text)
	}
}
