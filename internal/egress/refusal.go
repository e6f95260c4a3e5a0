package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Reason is the cause of a refusal, as a phrase for logs and people.
type Reason string

// The reasons of refusals.
const (
	ReasonNone      Reason = "egress is none"
	ReasonPrivate   Reason = "a private address"
	ReasonLinkLocal Reason = "a link-local address or metadata service"
	ReasonLoopback  Reason = "a loopback address, at which the Space itself does not listen"
	ReasonReserved  Reason = "not a public address"
	ReasonOwn       Reason = "an address of this machine"
	ReasonPort      Reason = "the port is not open"
	ReasonName      Reason = "not a name of the list, or not resolved within the last minute"
	ReasonLimit     Reason = "too many open connections"
)

// remedies are the next steps for the operator or the author, by reason.
var remedies = map[Reason]string{
	ReasonNone:      "set egress to hub or to a list of names",
	ReasonPrivate:   "add address and port to reach",
	ReasonLinkLocal: "use a public service",
	ReasonLoopback:  "start the service inside the Space, or add its network address to reach",
	ReasonReserved:  "use a public address",
	ReasonOwn:       "add address and port to reach",
	ReasonPort:      "use a port that the egress of the Space names",
	ReasonName:      "add the name to egress, and connect by name",
	ReasonLimit:     "close connections that are no longer needed",
}

// RefusedError is the answer to a destination or a name that the Policy denies.
type RefusedError struct {
	// Destination is the address and port. A lookup has port 0, or the zero value if its name was refused.
	Destination netip.AddrPort
	// Name is the remembered name of the destination or the name of the lookup, or "".
	Name string
	// Reason is the cause.
	Reason Reason
}

// Error says what was tried, why it was refused, and the next step.
func (e *RefusedError) Error() string {
	tried := "look up " + e.Name
	switch {
	case e.Destination.IsValid() && e.Destination.Port() == 0:
		tried += " (" + e.Destination.Addr().String() + ")"
	case e.Destination.IsValid() && e.Name != "":
		tried = fmt.Sprintf("connect to %s (%s)", e.Destination, e.Name)
	case e.Destination.IsValid():
		tried = "connect to " + e.Destination.String()
	}
	return fmt.Sprintf("%s: %s; %s", tried, e.Reason, remedies[e.Reason])
}

// Refusal is one refused destination or lookup.
type Refusal struct {
	// Time is the wall-clock time of the refusal.
	Time time.Time
	// RefusedError says what was refused and why.
	RefusedError
}

// A destination is logged once per logPause. At most logLines destinations are logged per logPause, so a port scan
// cannot fill the log.
const (
	logPause = time.Minute
	logLines = 60
)

// journal logs refusals and failed dials, and keeps the latest refusal. It may be used by many goroutines.
type journal struct {
	log *zap.Logger
	now func() time.Time

	mu      sync.Mutex
	last    Refusal
	refused bool
	logged  map[string]time.Time
	omitted int
}

// refuse records a refusal.
func (j *journal) refuse(err error) {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return
	}
	now := j.now()
	j.mu.Lock()
	j.last, j.refused = Refusal{now, *refused}, true
	j.mu.Unlock()
	j.write("egress refused", refused.Destination, refused.Name, zap.String("reason", string(refused.Reason)))
}

// fail records a dial that failed.
func (j *journal) fail(to Destination, err error) {
	j.write("egress connection failed", to.Addr, to.Name, zap.Error(err))
}

func (j *journal) write(message string, to netip.AddrPort, name string, why zap.Field) {
	var fields []zap.Field
	key := message + " " + name
	switch {
	case to.IsValid() && to.Port() == 0:
		fields = append(fields, zap.Stringer("destination", to.Addr()))
	case to.IsValid():
		fields = append(fields, zap.Stringer("destination", to))
		key = message + " " + to.String()
	}
	if name != "" {
		fields = append(fields, zap.String("name", name))
	}
	if omitted, ok := j.admit(key); ok {
		if omitted > 0 {
			fields = append(fields, zap.Int("omitted", omitted))
		}
		j.log.Info(message, append(fields, why)...)
	}
}

// admit reports whether a line is due, and how many lines were omitted since the last one.
func (j *journal) admit(key string) (omitted int, ok bool) {
	now := j.now()
	j.mu.Lock()
	defer j.mu.Unlock()
	for key, at := range j.logged {
		if age := now.Sub(at); age >= logPause || age < 0 { // negative: the clock has stepped back
			delete(j.logged, key)
		}
	}
	if _, recent := j.logged[key]; recent || len(j.logged) >= logLines {
		j.omitted++
		return 0, false
	}
	j.logged[key] = now
	omitted, j.omitted = j.omitted, 0
	return omitted, true
}

func (j *journal) lastRefusal() (Refusal, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last, j.refused
}
