package lease

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap/zapcore"

	"spacehost/gpu"
	"spacehost/internal/identity"
	"spacehost/quota"
)

// State of a Lease; doc.go draws them.
type State string

// The States. The last six are final.
const (
	Waiting   State = "waiting"
	Granted   State = "granted"
	Active    State = "active"
	Released  State = "released"
	Expired   State = "expired"
	Revoked   State = "revoked"
	Unclaimed State = "unclaimed"
	TimedOut  State = "timed out"
	Withdrawn State = "withdrawn" // its visitor left, or its Space died, while it waited
)

// Request asks for a Slot.
type Request struct {
	Space    string
	Instance string // the start of the Space that asks
	Event    string // whose work it is, "" outside of any
	Payer    identity.Identity
	Tier     quota.Tier
	Task     string
	Function string // the Task's name, "" if it is not known
	Declared time.Duration
	Size     string // large or xlarge; "" lets the broker choose
}

// Lease is one Request and what became of it. Its fields belong to the line; outside, see Snapshot.
type Lease struct {
	Request
	ID    string // the allowToken on the wire: 128 bits, known to its Space alone
	State State
	Held  time.Duration
	// Remaining is what part of the quota is left beside all holds, this one included: between 0 and 1.
	Remaining float64
	Slot      *gpu.Slot
	Worker    Worker
	Admitted  time.Time
	Granted   time.Time
	Active    time.Time
	Ended     time.Time
	Charged   time.Duration
	Reason    string

	payer          string        // Payer.Key, which is asked for often
	effectiveTime  time.Time     // its place in the line, see order
	limit          Limit         // while it waits: why it may have no place yet
	allocation     allocation    // what it holds; Slot is the first of it
	deviceFailed   bool          // its Device failed under it: it costs nothing
	warmWorker     bool          // its worker was warm, and makes no /allow
	watched        bool          // its worker is, until it dies
	regranted      bool          // it was granted before, and that came to nothing
	pendingWorker  *idleWorker   // whose worker it gets, until its client is told so
	committing     bool          // its warm worker was idle when it came: hold and start are being committed
	warmStarted    chan error    // buffered: what became of an arrival
	endAfterCommit string        // of an arrival: why it is to end as soon as it has begun
	decided        chan decision // buffered: the one decision about a waiting Lease
	settled        chan struct{} // closed once its end is in the database
}

// Worker is the process that holds the Slot; the start time makes its pid unmistakable.
type Worker struct {
	PID   int
	Start uint64
}

type decision struct {
	grant *Grant
	err   error
}

// Grant answers a Request.
type Grant struct {
	Lease  string
	Slot   int
	Device gpu.DeviceUUID
	Idle   bool // the worker that the client keeps for this Task and Slot is still there
}

// Errors that a waiting Lease may end with.
var (
	ErrTimedOut = errors.New("no GPU was available in time")
	ErrLeft     = errors.New("the visitor has left")
	ErrGone     = errors.New("the Space has gone")
)

// ErrUnknown answers an /allow or /release of a Lease that is not open, or not this Space's.
var ErrUnknown = errors.New("no such lease")

// NotOwnedError refuses a pid that is not a living process of the Space that named it.
type NotOwnedError struct{ PID int }

func (e *NotOwnedError) Error() string {
	return fmt.Sprintf("pid %d is no process of this Space", e.PID)
}

func newLease(r Request, now time.Time) *Lease {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand, Go 1.24)
	return &Lease{
		Request: r, ID: hex.EncodeToString(id[:]), State: Waiting, Admitted: now, payer: r.Payer.Key(),
		decided: make(chan decision, 1), warmStarted: make(chan error, 1), settled: make(chan struct{}),
	}
}

func (l *Lease) factor() int { return quota.Factor(l.Size) }

func (l *Lease) deadline() time.Time { return l.Active.Add(l.Declared) }

// charge is what the Lease costs if it ends at end: from /allow on, never past its deadline, never above its hold.
func (l *Lease) charge(end time.Time) time.Duration {
	if l.Active.IsZero() || l.deviceFailed {
		return 0
	}
	used := min(max(0, end.Sub(l.Active)), l.Declared)
	return min(l.Held, roundUp(used*time.Duration(l.factor())))
}

func roundUp(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

// MarshalLogObject logs a Lease by the first digits of its ID: the whole is a credential.
func (l *Lease) MarshalLogObject(to zapcore.ObjectEncoder) error {
	to.AddString("id", l.Short())
	to.AddString("space", l.Space)
	to.AddString("identity", l.Payer.Key())
	if l.Payer.Via != "" {
		to.AddString("via", l.Payer.Via)
	}
	to.AddString("state", string(l.State))
	if l.Slot != nil {
		to.AddInt("slot", l.Slot.Index)
	}
	return nil
}

// Short is the part of the ID that may be shown.
func (l *Lease) Short() string { return l.ID[:8] }

// Processes is what the broker asks of the Spaces' processes; package worker implements it. Every method may
// be called from any goroutine.
type Processes interface {
	// Owns reports whether pid is a living process of that Space, its runner excepted. It does not block.
	Owns(space string, pid int) (start uint64, ok bool)
	// Confine is called once a process is a worker, before it goes on: End must find whatever it starts. It does not block.
	Confine(space string, pid int, start uint64)
	// Wait blocks until that process has died or ctx ends.
	Wait(ctx context.Context, pid int, start uint64)
	// End ends a worker and what it started, and nothing else; SIGTERM first if grace is above 0. It blocks
	// and reports whether all are gone. It may be called twice.
	End(pid int, start uint64, grace time.Duration) bool
	// SpaceOf returns whose a process is, its runner included, and when it began; "" if it is no Space's. It does not block.
	SpaceOf(pid int) (space string, start uint64)
	// Within reports whether pid is that worker or one that it started. It does not block.
	Within(pid, worker int, start uint64) bool
}
