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

	mu     sync.Mutex
	limit  *rate.Limiter
	left   int  // lines left out since the last report
	ever   bool // lines were left out
	resume *time.Timer
}

// newOutput limits the lines to a number of bytes per second; 0 means outputRate.
func newOutput(show func(stream, line string), perSecond int64) *output {
	perSecond = cmp.Or(perSecond, outputRate)
	burst := max(outputBurst*perSecond, lineLimit+1) // else the longest line would never pass
	return &output{show: show, limit: rate.NewLimiter(rate.Limit(perSecond), int(min(burst, math.MaxInt)))}
}

// print shows a line, or leaves it out.
func (o *output) print(stream, line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left == 0 && o.limit.AllowN(time.Now(), len(line)+1) {
		o.show(stream, line)
		return
	}
	o.ever = true
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
