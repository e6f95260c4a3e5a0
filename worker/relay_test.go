package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"spacehost/queue"
)

// trace is a Reporter that writes down what it receives.
type trace struct {
	got []string
	err error // of Report
}

func (r *trace) Report(f Frame) error {
	r.got = append(r.got, strings.TrimSpace(string(f.Header)+" "+string(f.Payload)))
	return r.err
}

func (r *trace) Print(stream, line string) { r.got = append(r.got, stream+" "+line) }
func (r *trace) Mark(number int)           { r.got = append(r.got, fmt.Sprint("mark ", number)) }
func (r *trace) Note(text string)          { r.got = append(r.got, "note "+text) }

// text is the Frame of a report, as trace writes it down.
func text(op string, more string) string { return fmt.Sprintf(`{"op":%q%s}`, op, more) }

func report1(op, more string) Frame { return Frame{Header: json.RawMessage(text(op, more))} }

// startOf is the host's Frame that starts an Event.
func startOf(app int, event queue.EventID) Frame {
	return newFrame(map[string]any{"op": "start", "app": app, "events": []any{map[string]any{"id": event}}}, nil)
}

// TestRelay passes reports to one host after another.
func TestRelay(t *testing.T) {
	const a, b, c = `,"event":"a"`, `,"event":"b"`, `,"event":"c"`
	for name, row := range map[string]struct {
		before func(r *Relay, first *trace) // with the first host
		alone  func(r *Relay)
		cancel []string // Events that the next host does not know
		want   []string // what the next host receives
		after  func(r *Relay)
		then   []string // what it receives afterwards
	}{
		"state comes again, in order": {
			before: func(r *Relay, _ *trace) {
				for _, op := range []string{"manifest", "static", "changed", "fact", "alive", "calls", "server", "closed"} {
					_ = r.Report(report1(op, ""))
				}
			},
			alone: func(r *Relay) { _ = r.Report(report1("manifest", `,"app":1`)) },
			want:  []string{text("manifest", ""), text("static", ""), text("changed", ""), text("server", ""), text("closed", ""), text("manifest", `,"app":1`)},
		},
		"of some only the last one of each app": {
			before: func(r *Relay, _ *trace) {
				_ = r.Report(report1("static", `,"paths":["/a"]`))
				_ = r.Report(report1("changed", `,"app":0,"n":1`))
				_ = r.Report(report1("changed", `,"app":1,"n":2`))
				_ = r.Report(report1("changed", `,"app":0,"n":3`))
				_ = r.Report(report1("static", `,"paths":["/b"]`))
			},
			want: []string{text("changed", `,"app":1,"n":2`), text("changed", `,"app":0,"n":3`), text("static", `,"paths":["/b"]`)},
		},
		"calls of the first host are cancelled and forgotten": {
			before: func(r *Relay, _ *trace) {
				r.Order(startOf(1, "a"))
				r.Order(startOf(0, "b"))
				_ = r.Report(report1("done", b))
				_ = r.Report(report1("admitted", c+`,"cached":true`))
				_ = r.Report(report1("admitted", `,"event":"d"`)) // its "start" follows
			},
			alone:  func(r *Relay) { _ = r.Report(report1("message", a)) },
			cancel: []string{"a of app 1", "c of app 0"},
			after: func(r *Relay) {
				_ = r.Report(report1("message", a))
				_ = r.Report(report1("done", a))
				r.Order(startOf(0, "a")) // another Event, as far as the Relay knows
				_ = r.Report(report1("message", a))
				_ = r.Report(report1("done", a))
				_ = r.Report(report1("done", c))
			},
			then: []string{text("message", a), text("done", a)},
		},
		"lines of the time without a host": {
			before: func(r *Relay, _ *trace) { r.Print(Stdout, "early") },
			alone: func(r *Relay) {
				r.Print(Stdout, "one")
				r.Mark(7)
				r.Print(Stderr, "")
				r.Note("two")
			},
			want:  []string{Stdout + " one", "mark 7", Stderr + " ", HostStream + " two"},
			after: func(r *Relay) { r.Print(Stdout, "three"); r.Note("four"); r.Mark(8) },
			then:  []string{Stdout + " three", "note four", "mark 8"},
		},
		"what is no report is passed on": {
			alone: func(r *Relay) {
				_ = r.Report(report1("message", a))
				_ = r.Report(Frame{Header: json.RawMessage(`{"op":7}`)})
			},
			after: func(r *Relay) { _ = r.Report(Frame{Header: json.RawMessage(`{"op":7}`)}) },
			then:  []string{`{"op":7}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, first, next := NewRelay(), &trace{}, &trace{}
			r.Attach(first)
			if row.before != nil {
				row.before(r, first)
			}
			var cancel []string
			for _, f := range r.Detach() {
				var order cancelOrder
				if err := json.Unmarshal(f.Header, &order); err != nil || order.Op != "cancel" {
					t.Errorf("%s: %v", f.Header, err)
				}
				cancel = append(cancel, fmt.Sprintf("%s of app %d", order.Event, order.App))
			}
			if slices.Sort(cancel); !slices.Equal(cancel, row.cancel) {
				t.Errorf("cancelled %q, want %q", cancel, row.cancel)
			}
			if len(r.Detach()) != 0 {
				t.Error("a second Detach cancels again")
			}
			if row.alone != nil {
				row.alone(r)
			}
			r.Attach(next)
			if !slices.Equal(next.got, row.want) || !r.CanBeTaken() {
				t.Errorf("the next host receives\n%q, want\n%q", next.got, row.want)
			}
			next.got = nil
			if row.after != nil {
				row.after(r)
			}
			if !slices.Equal(next.got, row.then) {
				t.Errorf("afterwards\n%q, want\n%q", next.got, row.then)
			}
		})
	}
}

// TestRelayPassesErrors: the error of a host ends the start.
func TestRelayPassesErrors(t *testing.T) {
	r, refusal := NewRelay(), errors.New("it is refused")
	if err := r.Report(report1("manifest", "")); err != nil {
		t.Errorf("without a host: %v", err)
	}
	r.Attach(&trace{err: refusal})
	if err := r.Report(report1("manifest", "")); !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
}

// TestBoundsOfARelay: neither Frames nor lines grow without limit.
func TestBoundsOfARelay(t *testing.T) {
	large := make([]byte, maxKeptState/4)
	r := NewRelay()
	for range 100 { // of "changed" the last one counts
		_ = r.Report(Frame{Header: report1("changed", "").Header, Payload: large})
	}
	for app := range 2 {
		_ = r.Report(Frame{Header: report1("manifest", fmt.Sprintf(`,"app":%d`, app)).Header, Payload: large})
	}
	if !r.CanBeTaken() || r.size < 3*len(large) || r.size > 3*len(large)+1000 {
		t.Errorf("%d bytes are kept, want three Frames", r.size)
	}
	_ = r.Report(Frame{Header: report1("manifest", `,"app":2`).Header, Payload: large})
	to := &trace{}
	if r.Attach(to); r.CanBeTaken() || len(to.got) != 0 {
		t.Errorf("above the limit: it can be taken: %v, %d Frames", r.CanBeTaken(), len(to.got))
	}
	if err := r.Report(report1("manifest", `,"app":3`)); err != nil || len(to.got) != 1 || r.size != 0 {
		t.Errorf("the present host receives %q (%v), %d bytes are kept", to.got, err, r.size)
	}

	r = NewRelay()
	for n := range maxKeptLines + 5 {
		r.Print(Stdout, fmt.Sprint(n))
	}
	to = &trace{}
	r.Attach(to)
	if want := Stdout + " 5"; len(to.got) != maxKeptLines || to.got[0] != want {
		t.Errorf("%d lines from %q, want %d from %q", len(to.got), to.got[0], maxKeptLines, want)
	}
	r.Detach()
	to = &trace{}
	if r.Attach(to); len(to.got) != 0 {
		t.Errorf("lines are given twice: %q", to.got)
	}
}

// TestStartedBy: the Events of an order are the same, however they are read.
func TestStartedBy(t *testing.T) {
	headers := [][2]string{{"x-note", `{"id":"not an event"}`}, {"x-more", `"},{"id":"neither`}}
	event := func(id queue.EventID) queue.Event {
		return queue.Event{ID: id, Token: `{"id":"t"}`, Request: queue.Request{Headers: headers, Path: `/{"id":"p"}`}}
	}
	for what, row := range map[string]struct {
		order Frame
		app   int
		want  []queue.EventID
	}{
		"one":           {startFrame(queue.Job{App: 3, Events: []queue.Event{event("a")}}), 3, []queue.EventID{"a"}},
		"several":       {startFrame(queue.Job{App: 1, Events: []queue.Event{event("a"), event("b"), event("c")}}), 1, []queue.EventID{"a", "b", "c"}},
		"escapes":       {startFrame(queue.Job{Events: []queue.Event{event(`a"\`)}}), 0, []queue.EventID{`a"\`}},
		"another order": {startOf(2, "a"), 2, []queue.EventID{"a"}},
		"none":          {newFrame(goneOrder{Op: "gone", Events: []queue.EventID{"a"}}, nil), 0, nil},
		"no number":     {Frame{Header: json.RawMessage(`{"op":"start","app":"x","events":[{"id":"a"}]}`)}, 0, nil},
		"no JSON":       {Frame{Header: json.RawMessage(`{"op":"start"`)}, 0, nil},
	} {
		if app, got := startedBy(row.order.Header); app != row.app || !slices.Equal(got, row.want) {
			t.Errorf("%s: %q of app %d, want %q of %d", what, got, app, row.want, row.app)
		}
	}
}
