package link

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// The ALPN names. The version of the link protocol is in them.
const (
	protocolLink = "spacehost-link/1"
	protocolJoin = "spacehost-join/1"
)

// kind states what a connection is for.
type kind string

const (
	kindControl kind = "control"
	kindStream  kind = "stream"
	kindSpare   kind = "spare"
)

// opening is the first line of a connection, by the agent.
type opening struct {
	Kind  kind            `json:"kind"`
	Link  string          `json:"link,omitempty"`  // stream, spare: that of the control connection
	Hello json.RawMessage `json:"hello,omitempty"` // stream
}

// reply is the front's line that follows.
type reply struct {
	Error *RemoteError `json:"error,omitempty"`
}

// wanted is the line by which the front takes a spare.
type wanted struct {
	Hello json.RawMessage `json:"hello"`
}

// message is one message on a control connection.
type message struct {
	Op     string          `json:"op,omitempty"`
	ID     uint64          `json:"id,omitempty"`     // of a call
	Answer uint64          `json:"answer,omitempty"` // the ID of the call that this message answers
	Body   json.RawMessage `json:"body,omitempty"`
	Error  *RemoteError    `json:"error,omitempty"`
}

// The ops of this package. The ops of Handlers do not begin with opPrefix.
const (
	opPrefix   = "link."
	opHello    = "link.hello"    // the agent's first message
	opWelcome  = "link.welcome"  // the front's first message
	opBeat     = "link.beat"     // beat
	opCancel   = "link.cancel"   // the number of a call that its caller has given up
	opKeep     = "link.keep"     // the number of spares that the agent wants; the front closes others
	opRenew    = "link.renew"    // call: a request for a certificate
	opFarewell = "link.farewell" // the reason, after which the sender closes the link
)

// welcome is the body of opWelcome.
type welcome struct {
	Link string          `json:"link"` // random; streams and spares name it
	Body json.RawMessage `json:"body,omitempty"`
}

// beat is the body of opBeat. The other end computes the round trip from Seen and Held.
type beat struct {
	Number uint64        `json:"n"`
	Seen   uint64        `json:"seen,omitempty"` // the latest number of the other end; 0: none
	Held   time.Duration `json:"held,omitempty"` // since that beat came
}

// headerSize is that of a message's length, big-endian.
const headerSize = 4

// errProtocol is in the error of a message that the peer must not send.
var errProtocol = errors.New("protocol violation")

var errTooLarge = fmt.Errorf("message of more than %d bytes", MaxMessage)

// encode returns a message with its length.
func encode(m message) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message %s: %w", m.Op, err)
	}
	if len(body) > MaxMessage {
		return nil, fmt.Errorf("%s: %w", m.Op, errTooLarge)
	}
	frame := make([]byte, headerSize, headerSize+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)))
	return append(frame, body...), nil
}

// readMessage reads one message.
func readMessage(r io.Reader) (m message, err error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return m, fmt.Errorf("%w: %w", errGone, err)
	}
	size := binary.BigEndian.Uint32(header[:])
	if size > MaxMessage {
		return m, fmt.Errorf("%w: %w", errProtocol, errTooLarge)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return m, fmt.Errorf("%w: %w", errGone, err)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fmt.Errorf("%w: decode a message: %w", errProtocol, err)
	}
	return m, nil
}

var errLongLine = fmt.Errorf("%w: first line of more than %d bytes", errProtocol, MaxLine)

// errGone is in the error of a connection that ends before it has made its request.
var errGone = errors.New("connection ended early")

// maxEncodedLine bounds a line with the JSON around the hello.
const maxEncodedLine = MaxLine + 1024

// writeLine writes a value as one line.
func writeLine(w io.Writer, value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode the first line: %w", err)
	}
	if len(line) > maxEncodedLine {
		return errLongLine
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// readLine reads one line and no byte after it, because those belong to the stream.
func readLine(r io.Reader, value any) error {
	line := make([]byte, 0, 256)
	for one := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, one); err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
		if one[0] == '\n' {
			break
		}
		if line = append(line, one[0]); len(line) > maxEncodedLine {
			return errLongLine
		}
	}
	if err := json.Unmarshal(line, value); err != nil {
		return fmt.Errorf("%w: decode the first line: %w", errProtocol, err)
	}
	return nil
}

// remote returns the error that the other end gets.
func remote(err error) *RemoteError {
	var e *RemoteError
	if errors.As(err, &e) {
		return e
	}
	return &RemoteError{Text: err.Error()}
}
