package worker

import (
	"cmp"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits of what one start may print. A Space that prints in a loop must not fill the operator's disk or keep the host
// busy.
const (
	outputRate  = 1 << 20 // bytes per second, unless the configuration names another number
	outputBurst = 4       // seconds at the full rate
	// outputPause is the time for which all lines are left out once the limit is reached. It lets the reader see whole
	// passages instead of single lines.
	outputPause = time.Second
	// readRate is the least number of bytes per second that the host reads. A Space that prints faster waits: each line costs the
	// host, and so the other Spaces, a microsecond even if it is left out.
	readRate = 8 << 20
	// readPause is the least time for which a Space waits, so that a line below the rate costs no pause.
	readPause = 5 * time.Millisecond
	// shownCost is what a line of a flood that is shown counts for readRate, beside its own bytes: it is written twice. Otherwise
	// the second's worth of lines after each pause would come at once, and occupy a core for a tenth of a second.
	shownCost = 7
	// floodTime is how long a Space counts as flooding after a line was left out.
	floodTime = 5 * time.Second
)

// The streams of the lines of a Space. HostStream is that of the host's own lines about them.
const (
	Stdout     = "stdout"
	Stderr     = "stderr"
	HostStream = "host"
)

// output passes on the lines of a Space below a rate limit. It is safe for concurrent use. Lines that are left out are
// reported in one line once they are over.
type output struct {
	show func(stream, line string)
	read *rate.Limiter // of both streams

	mu     sync.Mutex
	limit  *rate.Limiter
	left   int       // lines left out since the last report
	ever   bool      // lines were left out
	last   time.Time // when one was left out
	resume *time.Timer
}

// newOutput limits the lines to a number of bytes per second; 0 means outputRate.
func newOutput(show func(stream, line string), perSecond int64) *output {
	perSecond = cmp.Or(perSecond, outputRate)
	burst := max(outputBurst*perSecond, lineLimit+1) // else the longest line would never pass
	reads := max(readRate, 2*perSecond)
	return &output{
		show: show, limit: rate.NewLimiter(rate.Limit(perSecond), int(min(burst, math.MaxInt))),
		read: rate.NewLimiter(rate.Limit(reads), int(min(reads, math.MaxInt))),
	}
}

// slowDown waits while the Space prints faster than the host reads. n is the number of bytes just read.
func (o *output) slowDown(n int) {
	if wait := o.read.ReserveN(time.Now(), n).Delay(); wait > readPause {
		time.Sleep(wait)
	}
}

// print shows a line, or leaves it out.
func (o *output) print(stream, line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.left == 0 && o.limit.AllowN(now, len(line)+1) {
		if o.ever && now.Sub(o.last) < floodTime {
			o.read.ReserveN(now, shownCost*len(line))
		}
		o.show(stream, line)
		return
	}
	o.ever, o.last = true, now
	if o.left++; o.left == 1 {
		o.resume = time.AfterFunc(outputPause, o.flush)
	}
}

// dropped reports whether lines were ever left out.
func (o *output) dropped() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ever
}

// flush reports the lines left out. Later lines are shown again, as far as the limit allows.
func (o *output) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left == 0 {
		return
	}
	o.resume.Stop()
	lines := "lines were"
	if o.left == 1 {
		lines = "line was"
	}
	o.show(HostStream, fmt.Sprintf("… %d %s left out: the Space prints more than %.3g MB per second", o.left, lines, float64(o.limit.Limit())/(1<<20)))
	o.left = 0
}
