// Package queue decides which Event runs next and tells each Session what happens.
//
// Orders, ranks and estimates are Gradio's (gradio/queueing.py); execution is the Space's own.
package queue

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/identity"
)

// ErrNoRunner is returned by Join while no Space has ever attached: there is nobody to say what an Endpoint is.
var ErrNoRunner = errors.New("the Space has not started yet")

// ErrKnownEvent is returned by Join for an id that waits or runs already.
var ErrKnownEvent = errors.New("an event of this id waits or runs already")

// Runner executes Jobs in the Space's process. Its methods return at once and may be called from one
// goroutine only; what comes of a Job arrives through Queue.Message and Queue.Done.
type Runner interface {
	Start(job Job)
	// Cancel ends one running Event; Gone tells that the visitors of Events have left.
	Cancel(app int, event EventID)
	Gone(app int, events []EventID)
}

// Payments is told about Events whose GPU leases must end early. It must not block.
type Payments interface {
	// Left: the visitor has gone. Cancelled: they asked for the end of this Event.
	Left(event EventID)
	Cancelled(event EventID)
	// Closing: they asked for the end of this Event, and its function is a generator that is being closed. That ends
	// its lease by itself.
	Closing(event EventID)
}

// Config holds what a Queue needs; Sign and Runner are required, the rest defaults to the usual.
type Config struct {
	Runner   Runner
	Payments Payments
	// Sign makes the X-IP-Token of an Event that starts now.
	Sign func(event Event) string
	// Now is the wall clock; nil is the real one. After a leap of it, call LookAgain.
	Now func() time.Time
	// SessionsEach bounds the Sessions of one visitor, be it an address or a person; 0: 2,000. Whoever sits at this
	// machine, and Spaces, may have any number.
	SessionsEach int
	Logger       *zap.Logger
}

// Queue is one Space's queue. All methods may be called from any goroutine while Run runs; once Run
// has returned they answer as if the Space were gone.
type Queue struct {
	config Config
	line   *line
	done   chan struct{}

	submit   chan submission
	leave    chan *Session
	cancel   chan cancellation
	message  chan spoken
	finished chan finished
	attach   chan Manifest
	lost     chan string
	ask      chan func(*line)

	direct  directs
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

type spoken struct {
	event   EventID
	message Message
}

type finished struct {
	event   EventID
	reason  string
	average *float64
}

// New returns a Queue; nothing moves before Run.
func New(config Config) *Queue {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	q := &Queue{
		config: config, done: make(chan struct{}),
		submit: make(chan submission), leave: make(chan *Session), cancel: make(chan cancellation),
		message: make(chan spoken), finished: make(chan finished), attach: make(chan Manifest),
		lost: make(chan string), ask: make(chan func(*line)),
	}
	q.line = newLine(q)
	if config.Now != nil {
		q.line.now = config.Now
	}
	q.present.now, q.direct.now = q.line.now, q.line.now
	q.line.sessionsEach = cmp.Or(config.SessionsEach, sessionsEach)
	return q
}

// sessionSweep is how often Sessions that nobody needs are looked for.
const sessionSweep = 10 * time.Second

// Run owns the line until ctx ends. Nothing else touches it, so line needs no lock.
func (q *Queue) Run(ctx context.Context) error {
	defer close(q.done)
	sweep := time.NewTicker(sessionSweep)
	defer sweep.Stop()
	defer q.line.onStop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case s := <-q.submit:
			s.reply <- q.admit(s.event)
		case session := <-q.leave:
			q.line.onLeave(session)
		case c := <-q.cancel:
			q.line.onCancel(c.session, c.event)
			close(c.reply)
		case m := <-q.message:
			q.line.onMessage(m.event, m.message)
		case f := <-q.finished:
			q.line.onFinished(f)
		case manifest := <-q.attach:
			q.line.onAttach(manifest)
		case reason := <-q.lost:
			q.line.onLost(reason)
		case now := <-q.line.update:
			q.line.onUpdate(now)
		case <-q.line.ranks:
			q.line.onRanks()
		case <-sweep.C:
			now := q.line.now()
			q.line.onSweep(now)
			q.present.sweep(now)
			q.direct.sweep(now)
		case question := <-q.ask:
			question(q.line)
		}
	}
}

// Join puts event in the line. Errors: ErrNoRunner, ErrKnownEvent, *FullError, *CrowdedError, *UnknownEndpointError.
// What the Space has admitted already is not refused so: it ends with the words of the *FullError, or unheard.
func (q *Queue) Join(event *Event) error {
	reply := make(chan error, 1)
	if !send(q, q.submit, submission{event, reply}) {
		return ErrNoRunner
	}
	return <-reply
}

// admit keeps the Session of an Event present until the Event has ended.
func (q *Queue) admit(event *Event) error {
	q.present.enter(event.Session)
	err := q.line.onSubmit(event)
	if err != nil {
		q.present.leave(event.Session)
	}
	return err
}

// Leave says that the Session's stream has been dropped: its waiting Events go, its running ones go on unheard.
func (q *Queue) Leave(session *Session) { send(q, q.leave, session) }

// Cancel ends exactly this Event, waiting or running, if it is the Session's; else it does nothing.
//
// A deliberate difference: Gradio 5 and 6 cancel every running Event of the same function and Session
// (gradio/routes.py cancel_event; captures/v6/cancel_queued.txt).
func (q *Queue) Cancel(session SessionHash, event EventID) {
	reply := make(chan struct{})
	if send(q, q.cancel, cancellation{session, event, reply}) {
		<-reply
	}
}

// Message is called by the runner's owner with what Gradio said about a running Event.
func (q *Queue) Message(event EventID, m Message) { send(q, q.message, spoken{event, m}) }

// Warn shows the visitor of a running Event a toast.
func (q *Queue) Warn(event EventID, title, text string) {
	send(q, q.message, spoken{event, Message{Kind: Log, Event: event, Level: Warning, Title: title, Text: text}})
}

// Inform is Warn without alarm.
func (q *Queue) Inform(event EventID, title, text string) {
	send(q, q.message, spoken{event, Message{Kind: Log, Event: event, Level: Info, Title: title, Text: text}})
}

// Done is called once per started Event, after its last Message. reason is empty if Gradio ended it by
// itself; average is Gradio's mean run time of the Endpoint in seconds, nil if unknown.
func (q *Queue) Done(event EventID, reason string, average *float64) {
	send(q, q.finished, finished{event, reason, average})
}

// Attach is called when a Space has started, or started again: waiting Events go on with it.
func (q *Queue) Attach(m Manifest) { send(q, q.attach, m) }

// Changed is called when an app's config is no longer that of its Manifest.
func (q *Queue) Changed(app int) {
	send(q, q.ask, func(l *line) { l.onChanged(app) })
}

// Lost is called when the Space's process has died: running Events end with reason, waiting ones stay.
func (q *Queue) Lost(reason string) { send(q, q.lost, reason) }

// Session returns the Session, or nil if it is unknown. The caller reads its stream and then calls Leave,
// unless the stream ended by itself.
func (q *Queue) Session(hash SessionHash) *Session {
	return answer(q, func(l *line) *Session { return l.find(hash) })
}

// SessionOf returns the Session that an Event belongs to, for callers who know only the Event.
func (q *Queue) SessionOf(event EventID) *Session {
	return answer(q, func(l *line) *Session { return l.sessionOf(event) })
}

// Size returns how many Events wait; running ones are not counted.
func (q *Queue) Size() int { return answer(q, (*line).size) }

// Refuses returns the *FullError or *CrowdedError with which another Event of this visitor would be refused by the
// app at mount; an empty session is a new one.
func (q *Queue) Refuses(payer identity.Identity, session SessionHash, mount string) error {
	return answer(q, func(l *line) error {
		return l.refuses(&Event{Payer: payer, Session: session, Endpoint: Endpoint{Mount: mount}})
	})
}

// Manifest returns what the app that attached last said of itself, false before any has.
func (q *Queue) Manifest() (Manifest, bool) {
	return orNone(answer(q, func(l *line) *Manifest { return l.manifest }))
}

// ManifestAt returns that of the app which serves a path: the one whose Mount is the longest part of it, else
// the one that attached last.
func (q *Queue) ManifestAt(path string) (Manifest, bool) {
	return orNone(answer(q, func(l *line) *Manifest { return l.at(path) }))
}

func orNone(m *Manifest) (Manifest, bool) {
	if m == nil {
		return Manifest{}, false
	}
	return *m, true
}

// Alive reports whether an Event is running, or a direct call under way, so that a token which names it may pay.
func (q *Queue) Alive(event EventID) bool {
	if _, ok := q.direct.get(event); ok {
		return true
	}
	return answer(q, func(l *line) bool { return l.isRunning(event) })
}

// Direct registers a call that goes past the queue for as long as it lasts, so that its token may pay.
// end may be called twice.
func (q *Queue) Direct(payer identity.Identity) (event EventID, end func()) {
	event = NewEventID()
	q.direct.add(event, payer)
	return event, sync.OnceFunc(func() { q.direct.remove(event) })
}

// Payer returns who pays for a direct call that is under way. The runner's owner asks when the Space has
// admitted the call; its Event joins next.
func (q *Queue) Payer(event EventID) (identity.Identity, bool) {
	d, ok := q.direct.get(event)
	if ok {
		d.admit()
	}
	return d.payer, ok
}

// Admitted waits until the Space has admitted a direct call, which Payer hears of, or ctx ends.
// The Space's own answer comes on another road and may be faster: its reader would not find their Session.
func (q *Queue) Admitted(ctx context.Context, event EventID) {
	d, ok := q.direct.get(event)
	if !ok {
		return
	}
	select {
	case <-d.admitted:
	case <-ctx.Done():
	}
}

func send[T any](q *Queue, to chan<- T, value T) bool {
	select {
	case to <- value:
		return true
	case <-q.done:
		return false
	}
}

func answer[T any](q *Queue, question func(*line) T) T {
	reply := make(chan T, 1)
	var none T
	if !send(q, q.ask, func(l *line) { reply <- question(l) }) {
		return none
	}
	return <-reply
}

// LookAgain lets go of Sessions that have become old by a clock that has leapt. It returns when that is done.
func (q *Queue) LookAgain() {
	send(q, q.ask, func(l *line) { l.onSweep(l.now()) })
}

// The line's effects.

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
	if running := q.line.running[event]; running != nil && running.Endpoint.Generator {
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

// directs are the direct calls under way, and the ends of those that took long.
type directs struct {
	now   func() time.Time
	mu    sync.Mutex
	live  map[EventID]direct
	ended map[EventID]time.Time
}

type direct struct {
	payer    identity.Identity
	began    time.Time
	admitted chan struct{} // closed once the Space has made it an Event
	admit    func()
}

func (d *directs) add(event EventID, payer identity.Identity) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live == nil {
		d.live, d.ended = map[EventID]direct{}, map[EventID]time.Time{}
	}
	admitted := make(chan struct{})
	d.live[event] = direct{payer, d.now(), admitted, sync.OnceFunc(func() { close(admitted) })}
}

// longCall is from when on the end of a direct call is remembered: there are many short ones.
const longCall = time.Minute

func (d *directs) remove(event EventID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); now.Sub(d.live[event].began) >= longCall {
		d.ended[event] = now
	}
	delete(d.live, event)
}

func (d *directs) get(event EventID) (direct, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, ok := d.live[event]
	return found, ok
}

func (d *directs) isRecent(event EventID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, live := d.live[event]
	end, ended := d.ended[event]
	return live || ended && d.now().Sub(end) < lingers
}

func (d *directs) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for event, end := range d.ended {
		if now.Sub(end) >= lingers {
			delete(d.ended, event)
		}
	}
}
