package worker

import (
	"context"
	"errors"
	"net"
	"time"

	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
)

// Place is where the processes of one Space run. A Supervisor decides when, and a Place starts them with what belongs to its
// machine: folders, ports, environment, cgroup and sandbox. Local implements it for the machine of the host.
type Place interface {
	// Start starts the runner. It may return before the runner has sent hello. The Reporter may be called before it returns.
	// An error leaves nothing of the start behind.
	Start(ctx context.Context, spec Spec, to Reporter) (Start, error)
	// Adopt takes over the start of the Space that an earlier host has left, if Start with the same Spec would begin one like it.
	// Otherwise it returns nil. The instance is that of Facts: spec names none. It ends the other starts of the Space that the earlier
	// host has left, and returns their instances.
	Adopt(ctx context.Context, spec Spec, to Reporter) (adopted Start, ended []string)
}

// Spec is what the host demands of one start. It contains no path, no port and no address of the Place's machine.
type Spec struct {
	Space    string // name of the Space
	Instance string // unique name of the start
	AppFile  string // relative to the folder of the Space
	// Variables are those of the environment that do not depend on the machine. They have precedence over those that do.
	Variables map[string]string
	Secrets   map[string]string // put into os.environ by the runner; never in /proc/*/environ
	PublicURL string            // where browsers reach the Space
	LocalURL  string            // where the Space itself reaches it; empty: PublicURL
	Simulated bool              // there is no GPU
	Strict    bool              // what ZeroGPU refuses fails in the Space, instead of printing a warning
	Storage   bool              // the Space has a folder of its own at /data
	Standby   bool              // the process executes the first imports of its app, and then waits for Start.Begin
	// Observe makes the runner observe the start (package check); ObserveCalls lets it report a CallList, too.
	Observe, ObserveCalls bool
	StartupTimeout        time.Duration
	OutputRate            int64 // bytes per second that the Reporter receives of the output; 0: the default
	Limits                proctree.Limits
}

// Facts are what only the Place of a start knows at its beginning.
type Facts struct {
	Instance string
	Marker   string // identifies the processes of the start after a crash of the host (package proctree)
	PID      int    // of the first process: the runner, or process 1 of its sandbox
	Start    uint64 // identifies the first process together with PID
	Runner   int    // pid of the runner
	Dir      string // folder of the Space, as tracebacks name it
	Port     int    // of the Space's own server
	Key      string // that requests to this port must carry
}

// Start is one start of a Space on its Place. Its methods are safe for concurrent use.
type Start interface {
	// Facts do not change.
	Facts() Facts
	// Close frees what the Place holds for the start. It is called once, after Done.
	Close()
	Running
}

// ErrUnreachable is the reason of the end of a start whose machine cannot be reached any more. Its processes may still run there, and
// the next start takes them over (Place.Adopt).
var ErrUnreachable = errors.New("its machine cannot be reached")

// Running is the process of a start. *Process is one whose parent is this program. Its methods are safe for concurrent use.
type Running interface {
	// Send queues a Frame for the runner and returns at once. A Frame for a start that has ended is dropped.
	Send(f Frame)
	// Begin lets the app of a standby begin. It returns at once.
	Begin()
	// Fail ends the start for a reason of the host, which Err then returns. It does not wait for the end.
	Fail(reason error)
	// End sends SIGTERM to the runner, and kills every process of the start after grace, or when ctx ends. It returns when all
	// have exited. It may be called twice.
	End(ctx context.Context, grace time.Duration)
	// Leave ends the use of the start by this host, and lets it run for the next one (Place.Adopt). A Place that does not outlast the
	// host ends it. Nothing else is called afterwards.
	Leave()
	// Done is closed when every process of the start has exited, or cannot be reached any more.
	Done() <-chan struct{}
	// Err returns the reason of the end as a sentence for the operator: a *RefusedError, *FrameError, *proctree.KilledError,
	// ErrUnreachable, or another error. It is valid after Done.
	Err() error
	// Exit is valid after Done.
	Exit() Exit
	// Tail returns the last lines that the start has printed.
	Tail() []string

	// Dial connects to a port on which a process of the start listens. Its error wraps ECONNREFUSED while none does, and is a
	// *proctree.ForeignPortError for the port of another program.
	Dial(ctx context.Context, port int) (net.Conn, error)
	// Status returns the state of the runner; false if it has exited.
	Status() (proctree.Status, bool)
	// Inspect finds out why the runner does not answer. Its code still runs if canRun is set. It may take seconds.
	Inspect(ctx context.Context, canRun bool) Inspection
}

// Exit is how the runner of a start has ended.
type Exit struct {
	sandbox.Exit
	Stacks  string // of all threads of a runner whose descriptors the app has closed; "": it has not
	Dropped bool   // lines of the output were left out
	Hint    string // the next step for an app that ended because of its machine; "": none
}

// Inspection is the state of a runner that does not answer.
type Inspection struct {
	State  string // why its threads cannot run: "stopped (SIGSTOP)"; "": they can
	Traced bool   // by a debugger, whose user decides what becomes of it
	Stacks string // as faulthandler writes them; "": none
	Why    string // there are no stacks
}

// Reporter receives what a start reports. Package worker implements it. Everything is a claim of the Space.
type Reporter interface {
	// Report receives each Frame of the runner after hello, in order, from one goroutine. An error ends the start: it is a
	// *FrameError after a breach, or a *RefusedError.
	Report(f Frame) error
	// Print receives each line that the start has printed, below the rate limit (output.go). stream is Stdout, Stderr or
	// HostStream.
	Print(stream, line string)
	// Mark receives the number of a Failure at the place in the output at which it is shown.
	Mark(number int)
	// Note receives a sentence of the Place for the operator.
	Note(text string)
}

// Flusher is a Reporter that holds reports back. Flush is called after each Report that is followed by no other one yet, from the same
// goroutine. It passes the reports on.
type Flusher interface{ Flush() }
