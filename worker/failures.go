package worker

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/printable"
	"spacehost/queue"
)

// Failure is a known failure of a Space, recognized by its runner (runner/spacehost_runner/failures.py). Rule and Values are
// those of a Fact of package internal/check. All fields are claims of the Space; their sizes are bounded.
type Failure struct {
	Rule   string
	File   string // relative to the Space's folder, with slashes; "": unknown
	Line   int    // from 1; 0: unknown
	Values map[string]string
	Events []queue.EventID // the calls that failed; none at a start
}

// Bounds of Failures. The runner applies smaller ones to each.
const (
	maxFailures      = 100 // that wait for their marks, and of a burst
	failureRate      = 1   // per second, in the long run
	maxFailureFile   = 300
	maxFailureEvents = 100
)

// failureMark begins a line of output that stands for a Failure: its number follows. The runner writes the mark after the
// traceback (printing.py), so that the sentence about the Failure follows it too.
const failureMark = "\x1espacehost:"

var ruleName = lazyregexp.New(`^[A-HS][0-9]{3}$`)

// failureOf reads the Failure of a report. ok is false for one that exceeds the bounds, which is dropped: it would only be
// shown.
func (r report) failureOf() (f Failure, ok bool) {
	if !ruleName.MatchString(r.Rule) || len(r.File) > maxFailureFile || r.Line < 0 || len(r.Values) > maxValueNames || len(r.Events) > maxFailureEvents {
		return Failure{}, false
	}
	f = Failure{Rule: r.Rule, File: printable.Line(r.File), Line: r.Line, Values: printableValues(r.Values), Events: slices.Clone(r.Events)}
	return f, true
}

// failures joins the Failures of one start with the marks in its output. Each pair is shown once, when the second of both
// has arrived: they take different ways to the host. It is safe for concurrent use.
type failures struct {
	show  func(Failure)
	shown chan struct{} // receives a value after a Failure was shown

	mu       sync.Mutex
	reported map[int]Failure // without a mark so far
	marked   map[int]bool    // without a report so far
	rate     *rate.Limiter
}

func newFailures(show func(Failure)) *failures {
	shown := make(chan struct{}, 1)
	return &failures{shown: shown, rate: rate.NewLimiter(failureRate, maxFailures), show: func(f Failure) {
		show(f)
		select {
		case shown <- struct{}{}:
		default:
		}
	}}
}

// accepts reports whether one more Failure may be shown and logged now. A Space that claims too many loses its sentences.
func (f *failures) accepts() bool { return f.rate.Allow() }

// report adds a Failure by its number.
func (f *failures) report(number int, one Failure) {
	f.mu.Lock()
	marked := f.marked[number]
	delete(f.marked, number)
	if !marked {
		if f.reported == nil {
			f.reported = map[int]Failure{}
		}
		if len(f.reported) < maxFailures {
			f.reported[number] = one
		}
	}
	f.mu.Unlock()
	if marked {
		f.show(one)
	}
}

// flush shows what has no mark: the output of its process has ended.
func (f *failures) flush() {
	if f == nil {
		return
	}
	f.mu.Lock()
	left := f.reported
	f.reported = nil
	f.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(left)) {
		f.show(left[number])
	}
}

// cutMark returns what a Space printed before a mark, and the number of its Failure. Without a mark, it returns the line.
func cutMark(line string) (before string, number int, found bool) {
	before, after, found := strings.Cut(line, failureMark)
	if !found {
		return line, 0, false
	}
	number, err := strconv.Atoi(after)
	if err != nil {
		return line, 0, false
	}
	return before, number, true
}

// mark handles a mark in the output.
func (f *failures) mark(number int) {
	f.mu.Lock()
	one, known := f.reported[number]
	delete(f.reported, number)
	if !known && len(f.marked) < maxFailures {
		if f.marked == nil {
			f.marked = map[int]bool{}
		}
		f.marked[number] = true
	}
	f.mu.Unlock()
	if known {
		f.show(one)
	}
}

func (s *Supervisor) showFailure(f Failure) {
	if s.config.ShowFailure != nil {
		s.config.ShowFailure(f)
	}
}

// stackTimeout limits the wait for the report about a hanging app: its main thread may hold Python's global lock.
const stackTimeout = time.Second

// awaitStack requests the place at which the app hangs, and waits until it is reported.
func (s *Supervisor) awaitStack(p Start) {
	_, h := s.process()
	if h == nil {
		return
	}
	select {
	case <-h.failures.shown: // an earlier one
	default:
	}
	p.Send(newFrame(stackOrder{"stack"}, nil))
	select {
	case <-h.failures.shown:
	case <-p.Done():
	case <-time.After(stackTimeout):
	}
}
