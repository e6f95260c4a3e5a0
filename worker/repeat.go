package worker

import (
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// A start that fails like the one before prints the same lines again. The host holds them back while they are the same, and
// shows them once a line differs, the start takes longer than maxHeld, or the app runs.

// Bounds of the comparison of two starts.
const (
	maxCompared = 2000            // lines of one start; a longer output is never the same
	maxHeld     = 5 * time.Second // of lines that are the same so far
	maxHeldSize = 1 << 20         // bytes of such lines
)

// The streams of a start. Lines of two streams arrive in any order, so each is compared on its own.
const (
	streamOut = iota
	streamErr
	streamFailures // sentences about failures
	streams
)

// seed is that of the hashes of all transcripts.
var seed = maphash.MakeSeed()

// transcript is what one start has printed: a hash of each line, because a Space may print long ones.
type transcript struct {
	lines [streams][]uint64
	total int
}

func (t *transcript) add(stream int, line string) {
	if t.total++; t.total <= maxCompared {
		t.lines[stream] = append(t.lines[stream], maphash.String(seed, line))
	}
}

// repeats counts the failed starts of a Space in a row that have printed the same. It is used by the goroutine of
// Supervisor.Run.
type repeats struct {
	last  *transcript // of the failed start before; nil: none, or it was another kind of failure
	cause string
	count int
}

// begin returns the comparison of a new start.
func (r *repeats) begin() *comparison { return &comparison{last: r.last} }

// failed records the end of a start that never ran. It returns how often the same failure has occurred in a row, from 1.
func (r *repeats) failed(c *comparison, cause string) int {
	printed, same := c.end()
	if same && cause == r.cause {
		r.count++
	} else {
		r.count = 1
	}
	r.last, r.cause = printed, cause
	return r.count
}

// forget begins anew: the Space has run, or the operator wants to see everything.
func (r *repeats) forget() { *r = repeats{} }

// comparison compares what one start prints with the start before. It is safe for concurrent use; nil compares nothing.
type comparison struct {
	mu    sync.Mutex
	last  *transcript // nil: lines are shown at once
	now   transcript
	held  []func()
	size  int // bytes of the held lines
	timer *time.Timer
}

// add handles a line. show shows it, at once or later.
func (c *comparison) add(stream int, line string, show func()) {
	if c == nil {
		show()
		return
	}
	c.mu.Lock()
	c.now.add(stream, line)
	if c.last == nil {
		c.mu.Unlock() // a screen that does not accept lines must not block the other users of c
		show()
		return
	}
	defer c.mu.Unlock()
	if c.held = append(c.held, show); len(c.held) == 1 {
		c.timer = time.AfterFunc(maxHeld, c.release)
	}
	c.size += len(line)
	now, before := c.now.lines[stream], c.last.lines[stream]
	if c.now.total > maxCompared || c.size > maxHeldSize || len(now) > len(before) || before[len(now)-1] != now[len(now)-1] {
		c.releaseLocked()
	}
}

// release shows what was held back, and compares no longer.
func (c *comparison) release() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseLocked()
}

func (c *comparison) releaseLocked() {
	for _, show := range c.held {
		show()
	}
	c.drop()
}

func (c *comparison) drop() {
	c.held, c.last = nil, nil
	if c.timer != nil {
		c.timer.Stop()
	}
}

// end returns what the start has printed, and whether all of it was the same as before. Then nothing of it was shown.
func (c *comparison) end() (printed *transcript, same bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if same = c.last != nil && c.now.total > 0 && c.now.total == c.last.total; same {
		c.drop()
	} else {
		c.releaseLocked()
	}
	return &c.now, same
}

// sameAgain returns the words about a failure that was shown before.
func sameAgain(times int) string { return fmt.Sprintf("same error as before (%d times)", times) }
