package queue

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"go.uber.org/zap/zapcore"

	"spacehost/internal/identity"
)

// SessionHash identifies one client connection. The client chooses it.
type SessionHash string

// EventID identifies one submitted call by 32 hexadecimal digits, as in Gradio.
type EventID string

// NewEventID returns a fresh, unguessable EventID.
func NewEventID() EventID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return EventID(hex.EncodeToString(b[:]))
}

// Endpoint is one callable of a Space, as its runner reported it.
type Endpoint struct {
	ID int
	// Mount is the path of its app. IDs are unique only within one app.
	Mount   string
	APIName string
	// Group is Gradio's concurrency_id, unique in the Space. Endpoints of one Group share its Limit (0: none).
	Group string
	Limit int
	// Batch is the maximum number of Events in one Job; 0: the Endpoint does not batch.
	Batch int
	// Stream marks a streaming input; its estimate is its TimeLimit.
	Stream    bool
	TimeLimit time.Duration
	// Generator marks a generator. A cancelled one is closed at its next step, and then runs its `finally`.
	Generator bool
	// Inputs is the number of values of a call, including those that callers may omit (gr.State).
	Inputs int
	// Free are the positions of inputs whose values are the app's own JSON, where a path may be something other than a
	// file. Explores are the positions of gr.FileExplorer inputs, whose values are path segments below a root.
	Free, Explores []int
	// Native is false if only the Space can admit a call, because a validator or a cache must see the call first.
	Native bool
}

// Manifest describes one app of a Space, as reported when the app attaches. A Space may have several apps, each at its
// own Mount. Of two apps at the same Mount the one that attached last is used.
type Manifest struct {
	App    int
	Gradio string
	// Replaces is set if the same process served another app (other Blocks) at this Mount before. Waiting Events of
	// that app end.
	Replaces bool
	// Prefix precedes the API's paths ("/gradio_api", empty in 4.x). Mount precedes all paths.
	Prefix, Mount string
	// Port is the loopback port of the Space's own server.
	Port int
	// MaxSize bounds the waiting Events; nil: unbounded.
	MaxSize *int
	// LiveUpdates sends ranks after each start. Without it they are sent every UpdateEvery.
	LiveUpdates bool
	UpdateEvery time.Duration
	// MaxThreads bounds the concurrent Jobs.
	MaxThreads int
	// Native is false if the app has a login or middleware. Then the Space admits each call.
	Native bool
	// PassThrough is set if the runner does not support this version of Gradio. Then Gradio queues the calls itself, and
	// Reason holds the cause.
	PassThrough bool
	Reason      string
	Endpoints   map[int]Endpoint
	// Renders is set if the app creates Endpoints and components at run time (gr.render), which are not listed here.
	Renders bool
	// Servers lists, by a component's id, the functions that its frontend may call without the queue.
	Servers map[int][]string
	// Explorers are the ids of gr.FileExplorer components.
	Explorers []int
	// Files is nil if only the Space's own server can accept uploads and serve files.
	Files *Files
	// Frontend is nil if the Space serves all pages itself.
	Frontend *Frontend
	// Tasks are the functions that use a GPU, by the taskId of their requests. They are for display only.
	Tasks map[string]Task
	// Revision changes at each attach and when Gradio has rebuilt the app's config. The Queue maintains it.
	Revision int
}

// Task is a @spaces.GPU function, as declared by its decorator.
type Task struct {
	Name     string
	Declared time.Duration
	Varies   bool // the duration is computed per call
	Size     string
}

// Frontend describes the pages of an app that are Gradio's own, so that the host may serve them.
type Frontend struct {
	// Pages are paths whose response is the same for all visitors of one host name, apart from the query.
	Pages map[string]bool
	// Root is the folder of Gradio's frontend, as claimed by the Space. Folders are its subfolders by URL path.
	Root    string
	Folders map[string]string
	// Types are content types by suffix.
	Types map[string]string
}

// Request is the visitor's HTTP request as presented to the Space's code.
type Request struct {
	Headers                     [][2]string
	Path, Query, Scheme, Client string
}

// Event is one submitted call, from join to complete.
type Event struct {
	ID       EventID
	Session  SessionHash
	Endpoint Endpoint
	// Body is the unmodified JSON of the join request.
	Body    []byte
	Request Request
	Payer   identity.Identity
	// Token is signed when the Event starts.
	Token string
	// Release, if set, is called once when the Event has ended: its Body is not needed any more.
	Release func()
	// Admitted is set if the Space admitted the Event and holds its body. Finished is set if the Space has answered from
	// its cache.
	Admitted, Finished bool

	serial    uint64 // order of joining
	completed bool   // its end was sent, or the visitor is gone
	abandoned bool   // its visitor left while it ran
	app       int    // the app that runs it
}

// MarshalLogObject logs the payer and the Endpoint, never the input.
func (e Event) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("id", string(e.ID))
	to.AddString("session", string(e.Session))
	to.AddString("endpoint", e.Endpoint.APIName)
	to.AddString("identity", e.Payer.Key())
	if e.Payer.Via != "" {
		to.AddString("via", e.Payer.Via)
	}
	if e.Admitted {
		to.AddBool("bySpace", true) // admitted by the Space instead of the host
	}
	return nil
}

// Job is what the runner receives: one Event, or a batch of Events of one Endpoint.
type Job struct {
	App    int
	Events []Event
}

// FullError refuses an Event because MaxSize Events are already waiting.
type FullError struct{ Max, Size int }

// Error returns Gradio's text (gradio/queueing.py, push).
func (e *FullError) Error() string {
	return fmt.Sprintf("Queue is full. Max size is %d and size is %d.", e.Max, e.Size)
}

// CrowdedError refuses another Session of a visitor with Max open Sessions.
type CrowdedError struct{ Max int }

func (e *CrowdedError) Error() string {
	return fmt.Sprintf("You have %d open sessions on this Space, which is the maximum per visitor. Close some of them, or wait: unread sessions end after a minute.", e.Max)
}

// UnknownEndpointError refuses an Event of an Endpoint that the Space does not have.
type UnknownEndpointError struct{ ID int }

func (e *UnknownEndpointError) Error() string {
	return fmt.Sprintf("no endpoint with fn_index %d", e.ID)
}
