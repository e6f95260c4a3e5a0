package link

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"time"
)

// The times and limits of a link.
const (
	BeatInterval = time.Second      // between two beats of one end
	SuspectAfter = 3 * time.Second  // without a message: Handler.Suspect
	LostAfter    = 15 * time.Second // without a message: the link is down

	MaxMessage = 1 << 20  // bytes of one control message, with its JSON around the body
	MaxLine    = 64 << 10 // bytes of the hello of a stream

	maxQueued      = 16 << 20 // bytes of messages that wait for a slow peer
	maxCalls       = 1024     // calls of the peer that are being answered
	maxConnections = 256      // of one node
	maxMessageRate = 5000     // messages of one node in a second; more wait in its socket
	minSpares      = 4
	maxSpares      = 64
	sparesWindow   = time.Minute // as many spares are kept as were used in this time
	// sparesDelay bounds the random delay of all spares of a new link but one: when all nodes of a front connect anew, the control
	// connections go first.
	sparesDelay      = 3 * time.Second
	sparesRetry      = time.Second // after a failed dial
	handshakeTimeout = 10 * time.Second
	farewellTimeout  = time.Second // for the message with the reason of a Close
)

// Handler answers the other end of a link. Its methods are called concurrently, also those of one Link, except as noted.
type Handler interface {
	// Call answers a call. The messages that were sent before it have been handled when it begins; later ones are handled while it
	// runs. ctx ends with the link, and when the caller gives up. The answer is encoded as JSON. The caller gets an error as
	// *RemoteError: with its code and detail if it is one, otherwise with its text alone.
	Call(ctx context.Context, l *Link, op string, body json.RawMessage) (any, error)
	// Tell handles a one-way message. The messages of a link are handled one after another, so it must return soon.
	Tell(l *Link, op string, body json.RawMessage)
	// Stream serves a stream that the other end has opened, and closes conn. It may take as long as the stream.
	Stream(l *Link, hello json.RawMessage, conn net.Conn)
	// Suspect reports that no message has come for SuspectAfter, or that messages come again. The calls of one link are in order. It
	// is not called for a link that is down.
	Suspect(l *Link, suspect bool)
}

// RemoteError is an error of the other end.
type RemoteError struct {
	Code   string          `json:"code,omitempty"`   // one of the Code constants, or of a Handler; "": none
	Text   string          `json:"text"`             // for people
	Detail json.RawMessage `json:"detail,omitempty"` // facts of this code; nil: none
}

func (e *RemoteError) Error() string { return e.Text }

// Codes of the errors of this package.
const (
	CodeRefused  = "refused"  // Authorize, Redeem or Hello has refused the node
	CodeInternal = "internal" // the front has failed; its log has the cause
	CodeRevoked  = "revoked"  // Server.Revoke
	CodeReplaced = "replaced" // the node has a newer link
	CodeStopping = "stopping" // the front ends
	CodeLimit    = "limit"    // too many connections or calls
	CodeProtocol = "protocol" // a message that this version does not have
	CodeNoLink   = "no link"  // a stream of a link that is down
	CodeLost     = "lost"     // the other end has got no message for 15 s
)

// ErrNoHandshake reports that the front has closed a new connection before the end of its handshake. It has received nothing else of it.
var ErrNoHandshake = errors.New("the front has closed the connection before its handshake; it limits connections of unknown addresses, try again")

// ErrDown is in the error of each call on a link that is down, together with Link.Err.
var ErrDown = errors.New("link is down")

// The causes of the end of a link, besides a *RemoteError of the other end and errors of the network.
var (
	ErrClosed   = errors.New("closed by this end")
	ErrLost     = errors.New("no message for 15 s")
	ErrSlow     = errors.New("the other end reads too slowly")
	ErrReplaced = errors.New("the node has connected anew")
	ErrRevoked  = errors.New("the node is revoked")
)
