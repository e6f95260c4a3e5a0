package lease

import (
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

// State is the state of a Lease; the package comment lists all edges between states.
type State string

// The States. The last six are final.
const (
	Waiting State = "waiting"
	Granted State = "granted"
	Active  State = "active"
	// Unreachable is an active Lease whose machine cannot be reached. It is active again if the machine joins with its worker.
	Unreachable State = "unreachable"
	Released    State = "released"
	Expired     State = "expired"
	Revoked     State = "revoked"
	Unclaimed   State = "unclaimed"
	TimedOut    State = "timed out"
	Withdrawn   State = "withdrawn" // the wait ended before a grant: visitor left, cancelled, Space ended or host stopped
)

// Request asks for a Slot.
type Request struct {
	Machine  string // where that start runs; "": the host's own machine
	Space    string
	Instance string // the start of the Space that sends the request
	Event    string // the Event that the call belongs to, "" outside of any
	Payer    identity.Identity
	Tier     quota.Tier
	Task     string
	Function string // the Task's name, "" if unknown
	Declared time.Duration
	Size     string // large or xlarge; "" lets the broker choose
}

// Lease is one Request and its outcome. Its fields belong to the scheduler; other code reads a Snapshot.
type Lease struct {
	Request
	ID    string // the allowToken on the wire: 128 bits, known only to its Space
	State State
	Held  time.Duration
	// Remaining is the fraction of the quota that is left beside all holds, this one included: between 0 and 1.
	Remaining float64
	Slot      *gpu.Slot
	Worker    Worker
	Admitted  time.Time
	Granted   time.Time
	Active    time.Time
	Ended     time.Time
	Charged   time.Duration
	Reason    string

	payer          string        // Payer.Key, cached because it is read often
	effectiveTime  time.Time     // its sort key among the waiting leases, see priority
	limit          Limit         // while it waits: the concurrency limit that blocks it
	allocation     allocation    // the Slots it holds; Slot is the first of them
	deviceFailed   bool          // its Device had a hardware error: it is charged 0
	hostEnded      bool          // the host or an operator ended it: it is charged 0, and counts as no run
	warmWorker     bool          // it reuses an idle worker, which makes no /allow
	watched        bool          // the exit of its worker is watched
	lastBeat       time.Time     // of the machine of a Lease that is or was unreachable when it ended: no charge goes past it
	counted        bool          // it is counted among the Leases on Slots
	regranted      bool          // it was granted before, and that grant was undone
	undelivered    bool          // its client never learned of the grant: it counts as no run
	overRuns       bool          // its payer's runs were used up, and the limit is advisory
	pendingWorker  *idleWorker   // the idle worker it reuses, until its client has its answer
	committing     bool          // a warm start: hold and activation are being committed
	armed          bool          // its Guard has its deadline
	armedAhead     time.Time     // the earliest time at which its Guard may have begun to count before it was active; zero: not armed ahead
	restored       bool          // it was read from the database, and has not been armed since
	warmStarted    chan error    // buffered: the result of a warm start
	endAfterCommit string        // of a warm start: the reason to end it as soon as it is committed
	revokeAt       time.Time     // its generator is being closed: when to revoke it; zero: never
	decided        chan decision // buffered: the one decision about a waiting Lease
	settled        chan struct{} // closed once its end is in the database
}

// Worker is the process that holds the Slot. The start time distinguishes it from a later process with the same
// pid.
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
	Idle   bool // the worker that the client keeps for this Task and Slot is still running
}

// Errors that a waiting Lease may end with.
var (
	ErrTimedOut = errors.New("no GPU was available in time")
	ErrLeft     = errors.New("the visitor has left")
	ErrGone     = errors.New("the Space has ended")
)

// ErrUnknown answers an /allow or /release of a Lease that is not open, or belongs to another Space.
var ErrUnknown = errors.New("no such lease")

// NotOwnedError refuses a pid that is not a running process of the Space that sent it.
type NotOwnedError struct{ PID int }

func (e *NotOwnedError) Error() string {
	return fmt.Sprintf("pid %d is not a running process of this Space", e.PID)
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

// charge is the cost of the Lease if it ends at end: from /allow on, never past its deadline, never above its
// hold.
func (l *Lease) charge(end time.Time) time.Duration {
	if l.Active.IsZero() || l.deviceFailed || l.hostEnded {
		return 0
	}
	if !l.lastBeat.IsZero() {
		end = earlier(end, l.lastBeat)
	}
	used := min(max(0, end.Sub(l.Active)), l.Declared)
	return min(l.Held, roundUp(used*time.Duration(l.factor())))
}

// ran is the time of the grant from which the Lease counts as a run, whatever became of the call. It is zero for a Lease that
// was granted no GPU, for an undelivered grant, and for a Lease that the host ended.
func (l *Lease) ran() time.Time {
	switch {
	case l.undelivered, l.hostEnded:
		return time.Time{}
	case !l.Active.IsZero():
		return l.Active
	}
	return l.Granted
}

func roundUp(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

// MarshalLogObject logs a Lease by the first digits of its ID, because the whole ID is a credential.
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
