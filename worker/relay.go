package worker

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"sync"

	"spacehost/queue"
)

// Relay passes the reports of a start to one host after another. It keeps the Frames that tell the state of the start, and the last
// lines of the output while there is no host. Reports about calls are dropped then: their visitors are gone. It is safe for
// concurrent use. Between Attach and Detach, a report waits until the host has taken it.
type Relay struct {
	mu    sync.Mutex
	to    Reporter // nil: no host
	state []keptFrame
	size  int // bytes of state
	full  bool
	lines []keptLine
	// events are those that the present host has started and that have not ended, with the number of their app. ended are
	// those of an earlier host, which the Space has not ended yet.
	events map[queue.EventID]int
	ended  map[queue.EventID]bool
}

var (
	_ Reporter = (*Relay)(nil)
	_ Flusher  = (*Relay)(nil)
)

// keptFrame is a Frame that tells the state of a start.
type keptFrame struct {
	op    string
	app   int
	frame Frame
}

// keptLine is something that a start has printed without a host.
type keptLine struct {
	stream, line string
	number       int // of a Failure (Reporter.Mark), if there is no stream
}

// Bounds of what a Relay keeps.
const (
	maxKeptState = 16 << 20 // bytes of Frames
	maxKeptLines = 1000
)

// NewRelay returns a Relay without a host.
func NewRelay() *Relay {
	return &Relay{events: map[queue.EventID]int{}, ended: map[queue.EventID]bool{}}
}

// Attach gives all reports to a host, beginning with those that were kept.
func (r *Relay) Attach(to Reporter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, kept := range r.state {
		_ = to.Report(kept.frame) // a host whose connection has ended is detached soon
	}
	flush(to)
	for _, kept := range r.lines {
		if kept.stream == "" {
			to.Mark(kept.number)
		} else {
			to.Print(kept.stream, kept.line)
		}
	}
	r.to, r.lines = to, nil
}

// Detach ends the use by the host. It returns the Frames that cancel the calls that the host has left behind.
func (r *Relay) Detach() (cancel []Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = nil
	for event, app := range r.events {
		cancel = append(cancel, newFrame(cancelOrder{"cancel", app, event}, nil))
		r.ended[event] = true
	}
	clear(r.events)
	return cancel
}

// CanBeTaken reports whether another host can take the start over: all Frames about its state are kept.
func (r *Relay) CanBeTaken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.full
}

// Order is called for each Frame of the host before it is sent to the runner.
func (r *Relay) Order(f Frame) {
	app, started := startedBy(f.Header)
	if len(started) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, event := range started {
		r.events[event] = app
	}
}

// startedBy returns the Events that an order starts, and their app. Nearly all orders start one Event: its id is then read without the
// rest, which is long. An object of another Event would show: the quotes of its key cannot be part of a JSON string.
func startedBy(header []byte) (app int, started []queue.EventID) {
	if after, ok := bytes.CutPrefix(header, []byte(`{"op":"start","app":`)); ok {
		number, after, _ := bytes.Cut(after, []byte(`,"events":[{"id":"`))
		id, rest, ok := bytes.Cut(after, []byte{'"'})
		app, err := strconv.Atoi(string(number))
		if ok && err == nil && !bytes.ContainsRune(id, '\\') && !bytes.Contains(rest, []byte(`{"id":`)) {
			return app, []queue.EventID{queue.EventID(id)}
		}
	}
	var order struct {
		Op     string `json:"op"`
		App    int    `json:"app"`
		Events []struct {
			ID queue.EventID `json:"id"`
		} `json:"events"`
	}
	if json.Unmarshal(header, &order) != nil || order.Op != "start" { // "gone" has names in its events
		return 0, nil
	}
	for _, e := range order.Events {
		started = append(started, e.ID)
	}
	return order.App, started
}

// Report implements Reporter. A Frame that is not a report is passed on: the host refuses it.
func (r *Relay) Report(f Frame) error {
	var report struct {
		Op     string        `json:"op"`
		App    int           `json:"app"`
		Event  queue.EventID `json:"event"`
		Cached bool          `json:"cached"`
	}
	known := json.Unmarshal(f.Header, &report) == nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if known && r.isOver(report.Op, report.Event) {
		return nil
	}
	switch {
	case !known:
	case report.Op == "admitted" && report.Cached && r.to != nil:
		r.events[report.Event] = report.App
	case report.Op == "done":
		delete(r.events, report.Event)
	default:
		r.keep(keptFrame{report.Op, report.App, f})
	}
	if r.to == nil {
		return nil
	}
	return r.to.Report(f)
}

// Flush implements Flusher.
func (r *Relay) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		flush(r.to)
	}
}

func flush(to Reporter) {
	if flusher, holds := to.(Flusher); holds {
		flusher.Flush()
	}
}

// isOver reports whether a report is about an Event of an earlier host.
func (r *Relay) isOver(op string, event queue.EventID) bool {
	if !r.ended[event] || op != "message" && op != "done" {
		return false
	}
	if op == "done" {
		delete(r.ended, event)
	}
	return true
}

// keep remembers a Frame if it tells the state of the start. Of some only the last one counts.
func (r *Relay) keep(kept keptFrame) {
	switch kept.op {
	case "manifest", "unknown", "server", "closed":
	case "static", "changed":
		r.state = slices.DeleteFunc(r.state, func(old keptFrame) bool {
			same := old.op == kept.op && old.app == kept.app
			if same {
				r.size -= len(old.frame.Header) + len(old.frame.Payload)
			}
			return same
		})
	default:
		return
	}
	r.size += len(kept.frame.Header) + len(kept.frame.Payload)
	if r.full = r.full || r.size > maxKeptState; r.full {
		r.state, r.size = nil, 0
		return
	}
	r.state = append(r.state, kept)
}

// Print implements Reporter.
func (r *Relay) Print(stream, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		r.to.Print(stream, line)
		return
	}
	r.keepLine(keptLine{stream: stream, line: line})
}

// Mark implements Reporter.
func (r *Relay) Mark(number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		r.to.Mark(number)
		return
	}
	r.keepLine(keptLine{number: number})
}

// Note implements Reporter.
func (r *Relay) Note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		r.to.Note(text)
	} else {
		r.keepLine(keptLine{stream: HostStream, line: text})
	}
}

func (r *Relay) keepLine(kept keptLine) {
	if r.lines = append(r.lines, kept); len(r.lines) > maxKeptLines {
		r.lines = r.lines[1:]
	}
}
