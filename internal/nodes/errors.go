package nodes

import (
	"fmt"
	"time"
)

// UnknownError is returned for a name that no node has.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no node is named %.70q; `spacehost node` lists the nodes", e.Name)
}

// BadNameError refuses the name of a node, or the pattern of a join token.
type BadNameError struct{ err error }

func (e *BadNameError) Error() string { return e.err.Error() }

// BadTokenError refuses the uses or the life of a new join token.
type BadTokenError struct{ Why string }

func (e *BadTokenError) Error() string { return e.Why }

// JoinCode is why a join was refused. Agents of other versions read it.
type JoinCode string

// The codes.
const (
	TokenUnknown JoinCode = "token_unknown"
	TokenUsed    JoinCode = "token_used"
	TokenExpired JoinCode = "token_expired"
	NameRefused  JoinCode = "name_refused" // the token is for another name
	NameTaken    JoinCode = "name_taken"
	NameRevoked  JoinCode = "name_revoked"
)

// JoinError refuses a join. It is sent to the agent, and does not contain the token.
type JoinError struct {
	Code JoinCode
	Why  string
}

func (e *JoinError) Error() string { return e.Why }

func refuseJoin(code JoinCode, format string, args ...any) error {
	return &JoinError{code, fmt.Sprintf(format, args...)}
}

// newToken is the next step after a refused token.
const newToken = "create another on the front with `spacehost node token`"

// RefusedError refuses the connection of a node.
type RefusedError struct {
	Name    string
	Revoked time.Time // zero: not revoked, but unknown or with another key
}

func (e *RefusedError) Error() string {
	if !e.Revoked.IsZero() {
		return fmt.Sprintf("node %s was revoked at %s; to let this machine join again, run `spacehost node forget %s` on the front and join with a new token", e.Name, e.Revoked.UTC().Format(time.RFC3339), e.Name)
	}
	return fmt.Sprintf("the front knows no node %s with this key; it was forgotten, or joined again with another state folder; create a join token on the front with `spacehost node token --name %s`", e.Name, e.Name)
}

// BusyError refuses to forget a node.
type BusyError struct {
	Name   string
	Leases int // open ones
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("node %s has %d open leases; drain it with `spacehost node drain %s`, wait until they end (`spacehost lease`), and repeat the command", e.Name, e.Leases, e.Name)
}
