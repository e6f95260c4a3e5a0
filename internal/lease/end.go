package lease

import (
	"fmt"
	"slices"
	"strings"

	"spacehost/internal/space"
)

// OperatorReason is the beginning of the reason of a Lease that an operator has ended. It is stored, and EndOf reads it.
const OperatorReason = "ended by "

// AmbiguousLeaseError refuses digits that are the beginning of several open Leases.
type AmbiguousLeaseError struct {
	Digits  string
	Matches []string
}

func (e *AmbiguousLeaseError) Error() string {
	return fmt.Sprintf("%d open leases begin with %q: %s; give more digits", len(e.Matches), e.Digits, strings.Join(e.Matches, ", "))
}

// Ended is a Lease as an operator has ended it.
type Ended struct {
	Lease    string `json:"lease"`
	Space    string `json:"space"`
	Event    string `json:"-"`
	Identity string `json:"identity"`
	Was      State  `json:"was"` // waiting, granted or active
	Reason   string `json:"reason"`
}

// EndLease ends one open Lease, which is named by the first digits of its ID. Its payer is charged nothing, as at every end by the
// host. A waiting Lease is withdrawn. The worker of an active one is killed; EndLease does not wait for that. reason is in the ledger.
// ending is called before the end, so that its message reaches the visitor before the error of the call; the
// call may still end by itself then. Errors: ErrUnknown without
// such a Lease, and *AmbiguousLeaseError. Then nothing was done.
func (b *Broker) EndLease(digits, reason string, ending func(Ended)) (ended Ended, err error) {
	err = ErrUnknown
	b.do(func(all *schedulers) {
		var l *Lease
		if l, _, err = all.find(digits); err == nil {
			digits, ended = l.ID, l.endedBy(reason)
		}
	})
	if err != nil {
		return ended, err
	}
	ending(ended)
	err = ErrUnknown // unless it is still open
	b.do(func(all *schedulers) {
		var l *Lease
		var sc *scheduler
		if l, sc, err = all.find(digits); err == nil {
			ended = l.endedBy(reason)
			sc.endByOperator(l, reason)
		}
	})
	return ended, err
}

func (l *Lease) endedBy(reason string) Ended {
	return Ended{Lease: l.Short(), Space: l.Space, Event: l.Event, Identity: l.Payer.Key(), Was: l.State, Reason: reason}
}

// find returns the open Lease whose ID begins with these digits, and its scheduler. The caller changes them.
func (all *schedulers) find(digits string) (*Lease, *scheduler, error) {
	var matches []*Lease
	var found *scheduler
	for _, sc := range all.list {
		own := slices.DeleteFunc(append(sc.openLeases(func(*Lease) bool { return true }), sc.committing()...), func(l *Lease) bool { return digits == "" || !strings.HasPrefix(l.ID, digits) })
		if matches = append(matches, own...); len(own) > 0 {
			found = sc
		}
	}
	switch {
	case len(matches) == 0:
		return nil, nil, ErrUnknown
	case len(matches) > 1:
		e := &AmbiguousLeaseError{Digits: digits}
		for _, l := range matches {
			e.Matches = append(e.Matches, l.Short())
		}
		return nil, nil, e
	}
	found.touched = true
	return matches[0], found, nil
}

func (sc *scheduler) endByOperator(l *Lease, reason string) {
	l.hostEnded = true
	switch {
	case l.committing:
		l.endAfterCommit = reason
	case l.State == Waiting:
		sc.withdraw(l, Withdrawn, reason, ErrGone)
	default:
		sc.end(l, Revoked, reason, 0)
	}
	sc.fill()
}

// EndKind is what ended a Lease, as the console's timeline draws it.
type EndKind string

// The kinds of ends.
const (
	EndReleased  EndKind = "released"  // the call is done
	EndFailed    EndKind = "failed"    // the call has raised, or its worker exited
	EndDeadline  EndKind = "deadline"  // killed at its declared end
	EndOperator  EndKind = "operator"  // ended by an operator
	EndDrain     EndKind = "drain"     // ended with its Space, which an operator restarted, paused or removed, with the host, or with its node
	EndCrash     EndKind = "crash"     // the host crashed, or the Space: it exited, hung or used too much memory
	EndCancelled EndKind = "cancelled" // the visitor has cancelled or left
	EndUnclaimed EndKind = "unclaimed" // the call never used its grant
)

// EndKinds lists all kinds of ends. The timeline names a kind by its position.
var EndKinds = []EndKind{EndReleased, EndFailed, EndDeadline, EndOperator, EndDrain, EndCrash, EndCancelled, EndUnclaimed}

// EndOf returns the kind of the end of a Lease with that state and reason.
func EndOf(state State, reason string) EndKind {
	switch {
	case state == Expired:
		return EndDeadline
	case state == Unclaimed:
		return EndUnclaimed
	case strings.HasPrefix(reason, OperatorReason):
		return EndOperator
	case reason == "cancelled", reason == "connection lost", reason == "visitor left":
		return EndCancelled
	case state == Released && (reason == "failed" || reason == "worker died"):
		return EndFailed
	case state == Released:
		return EndReleased
	case reason == space.EndedByHost, reason == space.EndedByLeaving, isBegun(reason, space.EndedByRestart, space.EndedByRemoval, space.EndedByPause):
		return EndDrain
	}
	return EndCrash
}

func isBegun(reason string, by ...string) bool {
	return slices.ContainsFunc(by, func(begin string) bool { return strings.HasPrefix(reason, begin) })
}
