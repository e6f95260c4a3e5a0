package queue

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"go.uber.org/zap/zapcore"

	"spacehost/internal/identity"
)

// SessionHash names one client connection; the client chose it.
type SessionHash string

// EventID names one submitted call, 32 hex digits as Gradio makes them.
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
	// Mount is that of its app; ids count anew in each.
	Mount   string
	APIName string
	// Group is Gradio's concurrency_id, unique in the Space: Endpoints of one Group share its Limit (0: none).
	Group string
	Limit int
	// Batch is how many Events one Job takes at most; 0: the Endpoint takes no batches.
	Batch int
	// Stream marks a streaming input; its estimate is its TimeLimit.
	Stream    bool
	TimeLimit time.Duration
	// Generator marks a generator. A cancelled one is closed at its next step, and then runs its `finally`.
	Generator bool
	// Inputs is how many values a call takes, those that callers may leave out (gr.State) included.
	Inputs int
	// Free are the places of inputs whose values are the app's own JSON, in which a path need not be a file's.
	// Explores are those of a gr.FileExplorer's, which are steps below its root.
	Free, Explores []int
	// Native is false if only the Space can admit a call: a validator or a cache has to see it first.
	Native bool
}

// Manifest is what an app of a Space says of itself when it attaches. A Space may have several, each at a Mount;
// of two at the same, the one that attached last counts.
type Manifest struct {
	App    int
	Gradio string
	// Replaces is set if the same process served another app (other Blocks) at this Mount before. Waiting Events of
	// that app end.
	Replaces bool
	// Prefix stands before the API's paths ("/gradio_api", in 4.x empty), Mount before everything.
	Prefix, Mount string
	// Port is where the Space's own server listens on loopback.
	Port int
	// MaxSize bounds the waiting Events; nil: unbounded.
	MaxSize *int
	// LiveUpdates tells ranks after each start; else every UpdateEvery.
	LiveUpdates bool
	UpdateEvery time.Duration
	// MaxThreads bounds the Jobs that run at a time.
	MaxThreads int
	// Native is false if the app signs people in or has middleware: then each call is admitted by the Space.
	Native bool
	// PassThrough: the runner does not know this Gradio, which therefore queues by itself; Reason says why.
	PassThrough bool
	Reason      string
	Endpoints   map[int]Endpoint
	// Renders: the app makes Endpoints and components as it goes (gr.render), which are not listed here.
	Renders bool
	// Servers names, by a component's id, what its frontend may call past the queue.
	Servers map[int][]string
	// Explorers are the components that are a gr.FileExplorer.
	Explorers []int
	// Files is nil if the Space's own server alone can take uploads and serve files.
	Files *Files
	// Frontend is nil if the Space answers all pages itself.
	Frontend *Frontend
	// Tasks are the functions that want a GPU, by the taskId with which they ask for it; shown, and deciding nothing.
	Tasks map[string]Task
	// Revision is another at each attach, and when Gradio has made the app's config anew; the Queue counts it.
	Revision int
}

// Task is a @spaces.GPU function, as its decorator has it.
type Task struct {
	Name     string
	Declared time.Duration
	Varies   bool // each call says its own duration
	Size     string
}

// Frontend is what of an app's pages is Gradio's own, so that the host may answer it.
type Frontend struct {
	// Pages are paths at which all visitors of one address get the same, but for their query.
	Pages map[string]bool
	// Root is the folder of Gradio's frontend, as the Space claims. Folders are its parts, by the path that leads there.
	Root    string
	Folders map[string]string
	// Types are content types by suffix.
	Types map[string]string
}

// Request is the visitor's HTTP request, as the Space's code will see it.
type Request struct {
	Headers                     [][2]string
	Path, Query, Scheme, Client string
}

// Event is one submitted call, from join to complete.
type Event struct {
	ID       EventID
	Session  SessionHash
	Endpoint Endpoint
	// Body is the JSON of the join request, handed on as it came.
	Body    []byte
	Request Request
	Payer   identity.Identity
	// Token is signed when the Event starts.
	Token string
	// Release, if set, is called once when the Event has ended: its Body is not needed any more.
	Release func()
	// Admitted says that the Space admitted the Event and holds its body; Finished, that it has answered from its cache.
	Admitted, Finished bool

	serial    uint64 // tells the order of joining
	completed bool   // its end was told, or nobody is left to tell
	left      bool   // its visitor has gone while it ran
	app       int    // where it runs
}

// MarshalLogObject logs who, what and where, never the input.
func (e Event) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("id", string(e.ID))
	to.AddString("session", string(e.Session))
	to.AddString("endpoint", e.Endpoint.APIName)
	to.AddString("identity", e.Payer.Key())
	if e.Payer.Via != "" {
		to.AddString("via", e.Payer.Via)
	}
	if e.Admitted {
		to.AddBool("bySpace", true) // not by the host itself
	}
	return nil
}

// Job is what the runner receives: one Event, or a batch of Events of one Endpoint.
type Job struct {
	App    int
	Events []Event
}

// FullError refuses an Event because MaxSize Events wait already.
type FullError struct{ Max, Size int }

// Error speaks Gradio's words (gradio/queueing.py, push).
func (e *FullError) Error() string {
	return fmt.Sprintf("Queue is full. Max size is %d and size is %d.", e.Max, e.Size)
}

// CrowdedError refuses a further Session of a visitor who has Max of them.
type CrowdedError struct{ Max int }

func (e *CrowdedError) Error() string {
	return fmt.Sprintf("You have %d sessions open on this Space, and no more are kept for one visitor. Close some; what nobody reads ends after a minute.", e.Max)
}

// UnknownEndpointError says that the Space has no such Endpoint.
type UnknownEndpointError struct{ ID int }

func (e *UnknownEndpointError) Error() string {
	return fmt.Sprintf("no endpoint with fn_index %d", e.ID)
}
