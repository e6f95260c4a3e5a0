package queue

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder is a fake of effects that records the scheduler's requests.
type recorder struct {
	log     []string
	started []Job
	ends    map[EventID]int
}

func (r *recorder) start(job Job) {
	r.started = append(r.started, job)
	r.note("start", idsOf(job)...)
}

func (r *recorder) stop(_ int, event EventID) { r.note("stop", event) }

func (r *recorder) abandon(_ int, events []EventID) { r.note("abandon", events...) }

func (r *recorder) ended(event *Event, reason string) {
	if r.ends == nil {
		r.ends = map[EventID]int{}
	}
	r.ends[event.ID]++
	r.log = append(r.log, strings.TrimSuffix(fmt.Sprintf("ended %s: %s", event.ID, reason), ": "))
}

func (r *recorder) note(what string, events ...EventID) {
	r.log = append(r.log, fmt.Sprintf("%s %v", what, events))
}

func idsOf(job Job) []EventID {
	ids := make([]EventID, len(job.Events))
	for i, e := range job.Events {
		ids[i] = e.ID
	}
	return ids
}

// fixture is a scheduler under test with its recorder and a stopped clock.
type fixture struct {
	*testing.T
	*scheduler
	*recorder
	clock time.Time
}

func newFixture(t *testing.T, m Manifest) *fixture {
	t.Helper()
	b := &fixture{T: t, recorder: &recorder{}, clock: time.Unix(1_700_000_000, 0)}
	b.scheduler = newScheduler(b.recorder)
	b.now = func() time.Time { return b.clock }
	b.onAttach(m)
	return b
}

// app is the Manifest of a Space with these Endpoints, named by their ids, and Gradio's defaults.
func app(endpoints ...Endpoint) Manifest {
	m := Manifest{Gradio: "6.31.0", LiveUpdates: true, MaxThreads: 40, Native: true, Endpoints: map[int]Endpoint{}}
	for _, e := range endpoints {
		if e.APIName == "" {
			e.APIName = fmt.Sprintf("fn%d", e.ID)
		}
		e.Native = true
		m.Endpoints[e.ID] = e
	}
	return m
}

// submit joins an Event to the Session of its own name, or of the name before a slash: "s/a".
func (b *fixture) submit(name string, fn int) error {
	return b.onSubmit(eventNamed(name, fn))
}

func eventNamed(name string, fn int) *Event {
	session, id, shared := strings.Cut(name, "/")
	if !shared {
		id = name
	}
	return &Event{ID: EventID(id), Session: SessionHash(session), Endpoint: Endpoint{ID: fn}}
}

func (b *fixture) joins(fn int, names ...string) {
	b.Helper()
	for _, name := range names {
		if err := b.submit(name, fn); err != nil {
			b.Fatalf("submit %s: %v", name, err)
		}
	}
}

// admitted submits an Event that the Space itself has admitted, with its whole Endpoint.
func (b *fixture) admitted(name string, endpoint Endpoint, finished bool) {
	b.Helper()
	e := eventNamed(name, 0)
	e.Endpoint, e.Admitted, e.Finished = endpoint, true, finished
	if err := b.onSubmit(e); err != nil {
		b.Fatalf("submit %s: %v", name, err)
	}
}

func (b *fixture) finish(id EventID) { b.finishIn(id, nil) }

func (b *fixture) finishIn(id EventID, average *float64) {
	b.onMessage(id, Message{Kind: Completed, Event: id, Success: true, Raw: []byte(`{}`)})
	b.onFinished(finished{event: id, average: average})
}

func (b *fixture) leave(hash SessionHash) { b.onLeave(b.sessions[hash]) }

// wantEffects compares the requested effects since the last comparison.
func (b *fixture) wantEffects(want ...string) {
	b.Helper()
	if !slices.Equal(b.log, want) {
		b.Errorf("got effects\n  %s\nwant\n  %s", strings.Join(b.log, "\n  "), strings.Join(want, "\n  "))
	}
	b.log = nil
}

// wantMessages compares the Messages of a Session since the last comparison.
func (b *fixture) wantMessages(hash SessionHash, want ...string) {
	b.Helper()
	if got := drain(b.sessions[hash]); !slices.Equal(got, want) {
		b.Errorf("session %s got messages\n  %s\nwant\n  %s", hash, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// drain reads the pending Messages of a Session without waiting.
func drain(s *Session) []string {
	var messages []string
	for s != nil {
		m, wake, err := s.pop()
		if wake != nil {
			break
		}
		if err != nil && m.Kind == "" {
			return append(messages, err.Error())
		}
		messages = append(messages, describe(m))
		if err == io.EOF { // a reader ends here
			break
		}
	}
	return messages
}

func describe(m Message) string {
	switch {
	case m.Raw != nil:
		return fmt.Sprintf("%s %s from the Space", m.Event, m.Kind)
	case m.Kind == Estimation && m.ETA != nil:
		return fmt.Sprintf("%s is %d of %d, %gs", m.Event, m.Rank, m.Size, *m.ETA)
	case m.Kind == Estimation:
		return fmt.Sprintf("%s is %d of %d", m.Event, m.Rank, m.Size)
	case m.Kind == Completed && m.Success:
		return fmt.Sprintf("%s cancelled", m.Event)
	case m.Kind == Completed:
		return fmt.Sprintf("%s failed: %s: %s", m.Event, m.Failure.Title, m.Failure.Text)
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s", m.Kind, m.Text))
}

func seconds(s float64) *float64 { return &s }
