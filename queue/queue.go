package queue

import (
	"cmp"
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/identity"
)

// ErrNoRunner is returned by Join until the first Attach: the Endpoints are not known before.
var ErrNoRunner = errors.New("the Space has not started yet")

// ErrKnownEvent is returned by Join for an id that is already waiting or running.
var ErrKnownEvent = errors.New("an event with this id is already waiting or running")

// Runner executes Jobs in the Space's process. Its methods return at once and are called from one goroutine only. The
// results of a Job arrive through Queue.Message and Queue.Done.
type Runner interface {
	Start(job Job)
	// Cancel ends one running Event.
	Cancel(app int, event EventID)
	// Gone reports that the visitors of these Events have left.
	Gone(app int, events []EventID)
}

// Payments receives Events whose GPU leases must end early. Its methods must not block.
type Payments interface {
	// Left reports that the Event's visitor has left.
	Left(event EventID)
	// Cancelled reports that the visitor has cancelled the Event.
	Cancelled(event EventID)
	// Closing: they asked for the end of this Event, and its function is a generator that is being closed. That ends
	// its lease by itself.
	Closing(event EventID)
}

// Config configures a Queue. Sign and Runner are required.
type Config struct {
	Runner   Runner
	Payments Payments
	// Sign returns the X-IP-Token of an Event that starts now.
	Sign func(event Event) string
	// Now is the wall clock; nil is the real one. Call LookAgain after the clock was set.
	Now func() time.Time
	// SessionsEach bounds the Sessions of one visitor, an address or a user; 0: 2,000. The local visitor and Spaces have
	// no bound.
	SessionsEach int
	Logger       *zap.Logger
}

// Queue is one Space's queue. All methods may be called from any goroutine while Run runs. After Run has returned they
// answer as if no Space had attached, except Session, SessionOf and ManifestAt.
type Queue struct {
	config    Config
	scheduler *scheduler
	done      chan struct{}

	submit   chan submission
	leave    chan *Session
	cancel   chan cancellation
	message  chan runnerMessage
	finished chan finished
	attach   chan Manifest
	lost     chan string
	query    chan func(*scheduler)

	direct  directCalls
	present presence
}

type submission struct {
	event *Event
	reply chan error
}

type cancellation struct {
	session SessionHash
	event   EventID
	reply   chan struct{}
}

type runnerMessage struct {
	event   EventID
	message Message
}

type finished struct {
	event   EventID
	reason  string
	average *float64
}

// New returns a Queue, which does nothing before Run.
func New(config Config) *Queue {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	q := &Queue{
		config: config, done: make(chan struct{}),
		submit: make(chan submission), leave: make(chan *Session), cancel: make(chan cancellation),
		message: make(chan runnerMessage), finished: make(chan finished), attach: make(chan Manifest),
		lost: make(chan string), query: make(chan func(*scheduler)),
	}
	q.scheduler = newScheduler(q)
	if config.Now != nil {
		q.scheduler.now = config.Now
	}
	q.present.now, q.direct.now = q.scheduler.now, q.scheduler.now
	q.scheduler.maxSessions = cmp.Or(config.SessionsEach, maxSessions)
	return q
}

// sessionSweep is the interval at which idle Sessions are removed.
const sessionSweep = 10 * time.Second

// Run owns the scheduler until ctx ends. No other goroutine uses it, so the scheduler needs no lock.
func (q *Queue) Run(ctx context.Context) error {
	defer close(q.done)
	sweep := time.NewTicker(sessionSweep)
	defer sweep.Stop()
	defer q.scheduler.onStop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case s := <-q.submit:
			s.reply <- q.admit(s.event)
		case session := <-q.leave:
			q.scheduler.onLeave(session)
		case c := <-q.cancel:
			q.scheduler.onCancel(c.session, c.event)
			close(c.reply)
		case m := <-q.message:
			q.scheduler.onMessage(m.event, m.message)
		case f := <-q.finished:
			q.scheduler.onFinished(f)
		case manifest := <-q.attach:
			q.scheduler.onAttach(manifest)
		case reason := <-q.lost:
			q.scheduler.onLost(reason)
		case now := <-q.scheduler.update:
			q.scheduler.onUpdate(now)
		case <-q.scheduler.announceTimer:
			q.scheduler.onAnnounce()
		case <-sweep.C:
			now := q.scheduler.now()
			q.scheduler.onSweep(now)
			q.present.sweep(now)
			q.direct.sweep(now)
		case read := <-q.query:
			read(q.scheduler)
		}
	}
}

// Join submits event. Errors: ErrNoRunner, ErrKnownEvent, *FullError, *CrowdedError, *UnknownEndpointError. An Event
// that the Space has already admitted is never refused by *FullError or *CrowdedError. It ends with the text of the
// *FullError as its result, or without a result for a *CrowdedError.
func (q *Queue) Join(event *Event) error {
	reply := make(chan error, 1)
	if !send(q, q.submit, submission{event, reply}) {
		return ErrNoRunner
	}
	return <-reply
}

// admit submits an Event and marks its Session as open until the Event has ended.
func (q *Queue) admit(event *Event) error {
	q.present.enter(event.Session)
	err := q.scheduler.onSubmit(event)
	if err != nil {
		q.present.leave(event.Session)
	}
	return err
}

// Leave reports that the Session's stream was dropped. Its waiting Events end. Its running Events continue, and their
// Messages are dropped.
func (q *Queue) Leave(session *Session) { send(q, q.leave, session) }

// Dismiss ends all Events of a Session with a reason for its visitor: its access to the Space has ended. It returns when the
// ends are in the Session's stream.
func (q *Queue) Dismiss(session *Session, reason string) {
	query(q, func(s *scheduler) struct{} { s.onDismiss(session, reason); return struct{}{} })
}

// DismissEvent is Dismiss for one Event, whether its Session has a stream or not. It does not wait for the end.
func (q *Queue) DismissEvent(event EventID, reason string) {
	send(q, q.query, func(s *scheduler) { s.onDismissEvent(event, reason) })
}

// Cancel ends exactly this Event, waiting or running, if it belongs to the Session. Otherwise it does nothing.
//
// A deliberate difference: Gradio 5 and 6 cancel every running Event of the same function and Session
// (gradio/routes.py cancel_event; captures/v6/cancel_queued.txt).
func (q *Queue) Cancel(session SessionHash, event EventID) {
	reply := make(chan struct{})
	if send(q, q.cancel, cancellation{session, event, reply}) {
		<-reply
	}
}

// Message delivers a message that Gradio produced for a running Event. The owner of the runner calls it.
func (q *Queue) Message(event EventID, m Message) { send(q, q.message, runnerMessage{event, m}) }

// Warn shows the visitor of a running Event a toast.
func (q *Queue) Warn(event EventID, title, text string) {
	send(q, q.message, runnerMessage{event, Message{Kind: Log, Event: event, Level: Warning, Title: title, Text: text}})
}

// Inform shows the visitor of a running Event a toast of level info.
func (q *Queue) Inform(event EventID, title, text string) {
	send(q, q.message, runnerMessage{event, Message{Kind: Log, Event: event, Level: Info, Title: title, Text: text}})
}

// Done is called once per started Event, after its last Message. reason is empty if Gradio ended the Event by itself.
// average is Gradio's mean run time of the Endpoint in seconds, nil if unknown.
func (q *Queue) Done(event EventID, reason string, average *float64) {
	send(q, q.finished, finished{event, reason, average})
}

// Attach is called when a Space has started or restarted. Waiting Events continue on it.
func (q *Queue) Attach(m Manifest) { send(q, q.attach, m) }

// Changed is called when an app's config no longer matches its Manifest.
func (q *Queue) Changed(app int) {
	send(q, q.query, func(s *scheduler) { s.onChanged(app) })
}

// Lost is called when the Space's process has exited. Running Events end with reason, waiting ones stay.
func (q *Queue) Lost(reason string) { send(q, q.lost, reason) }

// Session returns the Session, or nil if it is unknown. The caller reads its stream and then calls Leave,
// unless the stream ended by itself. It works after Run, too: a client that opens its stream late reads why its call ended.
func (q *Queue) Session(hash SessionHash) *Session {
	return lookup(q, func(s *scheduler) *Session { return s.find(hash) })
}

// PayerOf returns the payer of a running Event. It must not be called by the effects of the scheduler.
func (q *Queue) PayerOf(event EventID) (payer identity.Identity, ok bool) {
	found := query(q, func(s *scheduler) *Event { return s.running[event] })
	if found == nil {
		return identity.Identity{}, false
	}
	return found.Payer, true
}

// SessionOf returns the Session that an Event belongs to, for callers that know only the Event. It works after Run, too.
func (q *Queue) SessionOf(event EventID) *Session {
	return lookup(q, func(s *scheduler) *Session { return s.sessionOf(event) })
}

// Size returns the number of waiting Events, without running ones.
func (q *Queue) Size() int { return query(q, (*scheduler).size) }

// Refuses returns the *FullError or *CrowdedError that would refuse another Event of this visitor at the app of mount,
// or nil. An empty session stands for a new one.
func (q *Queue) Refuses(payer identity.Identity, session SessionHash, mount string) error {
	return query(q, func(s *scheduler) error {
		return s.checkAdmission(&Event{Payer: payer, Session: session, Endpoint: Endpoint{Mount: mount}})
	})
}

// Manifest returns the Manifest of the app that attached last, or false before the first Attach.
func (q *Queue) Manifest() (Manifest, bool) {
	return deref(query(q, func(s *scheduler) *Manifest { return s.manifest }))
}

// ManifestAt returns the Manifest of the app that serves a path: the app with the longest Mount that is a prefix of
// the path, otherwise the app that attached last. It works after Run, too.
func (q *Queue) ManifestAt(path string) (Manifest, bool) {
	return deref(lookup(q, func(s *scheduler) *Manifest { return s.manifestFor(path) }))
}

func deref(m *Manifest) (Manifest, bool) {
	if m == nil {
		return Manifest{}, false
	}
	return *m, true
}

// Alive reports whether an Event or a direct call is running, so that a token which names it may pay.
func (q *Queue) Alive(event EventID) bool {
	if _, ok := q.direct.get(event); ok {
		return true
	}
	return query(q, func(s *scheduler) bool { return s.isRunning(event) })
}

func send[T any](q *Queue, to chan<- T, value T) bool {
	select {
	case to <- value:
		return true
	case <-q.done:
		return false
	}
}

// query reads the scheduler, or returns the zero value after Run.
func query[T any](q *Queue, read func(*scheduler) T) T {
	value, _ := ask(q, read)
	return value
}

// lookup is query for a read that changes nothing. After Run, whose goroutine owned the scheduler, it reads the last state.
func lookup[T any](q *Queue, read func(*scheduler) T) T {
	if value, ok := ask(q, read); ok {
		return value
	}
	return read(q.scheduler)
}

// ask runs read on the scheduler's goroutine. ok is false after Run.
func ask[T any](q *Queue, read func(*scheduler) T) (value T, ok bool) {
	reply := make(chan T, 1)
	if !send(q, q.query, func(s *scheduler) { reply <- read(s) }) {
		return value, false
	}
	return <-reply, true
}

// LookAgain removes Sessions that are expired after the clock was set. It returns when that is done.
func (q *Queue) LookAgain() {
	send(q, q.query, func(s *scheduler) { s.onSweep(s.now()) })
}

// These methods implement effects.

func (q *Queue) start(job Job) {
	for i := range job.Events {
		q.present.name(job.Events[i].Session)
		job.Events[i].Token = q.config.Sign(job.Events[i])
	}
	q.config.Runner.Start(job)
	for i := range job.Events {
		q.config.Logger.Info("event started", zap.Object("event", job.Events[i]))
	}
}

func (q *Queue) stop(app int, event EventID) {
	q.config.Runner.Cancel(app, event)
	if q.config.Payments == nil {
		return
	}
	if running := q.scheduler.running[event]; running != nil && running.Endpoint.Generator {
		q.config.Payments.Closing(event)
	} else {
		q.config.Payments.Cancelled(event)
	}
}

func (q *Queue) abandon(app int, events []EventID) {
	q.config.Runner.Gone(app, events)
	for _, event := range events {
		if q.config.Payments != nil {
			q.config.Payments.Left(event)
		}
	}
}

func (q *Queue) ended(event *Event, reason string) {
	q.present.leave(event.Session)
	if event.Release != nil {
		event.Release()
	}
	q.config.Logger.Info("event ended", zap.Object("event", *event), zap.String("reason", reason))
}
