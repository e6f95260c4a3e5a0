package shelf

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

// frameKind is the kind of a frame of an upload between front and node. docs/design/0043-shelf.md shows their order.
type frameKind byte

// The kinds of frames. The node sends the first group, and the front the second.
const (
	frameGo       frameKind = 'g' // send the body
	framePass     frameKind = 'p' // the Space's own server decides: passOrder
	frameResponse frameKind = 'r' // the whole response: uploadResponse
	frameRefusal  frameKind = 'x' // no more of a passed body: bodyError
	frameTaken    frameKind = 'k' // the whole of a passed body was accepted
	frameMarked   frameKind = 'm' // the answer of the Space's own server was read

	frameBody      frameKind = 'b' // bytes of the body
	frameCount     frameKind = 'c' // a number of bytes that have passed
	frameEnd       frameKind = 'e' // the end of the body
	frameBodyError frameKind = 'f' // the body has failed: bodyError
	frameAnswered  frameKind = 'a' // the Space's own server has answered with 200
	frameText      frameKind = 't' // the body of its answer
)

const (
	frameHeader = 5       // the kind, and the length of the content in four bytes, big-endian
	maxFrame    = 8 << 20 // a response with the paths of maxParts files
)

// framed is a connection that carries frames. One goroutine reads; any goroutine may write.
type framed struct {
	in   *bufio.Reader
	conn io.ReadWriteCloser
	mu   sync.Mutex // for writing
}

func newFramed(conn io.ReadWriteCloser, in *bufio.Reader) *framed {
	if in == nil {
		in = bufio.NewReader(conn)
	}
	return &framed{in: in, conn: conn}
}

// write writes a frame. content may be nil.
func (f *framed) write(kind frameKind, content []byte) error {
	return f.writeReserved(kind, append(make([]byte, frameHeader, frameHeader+len(content)), content...))
}

// writeReserved writes a frame. Its first frameHeader bytes are reserved for the header.
func (f *framed) writeReserved(kind frameKind, frame []byte) error {
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-frameHeader))
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.conn.Write(frame)
	return err
}

func (f *framed) writeJSON(kind frameKind, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return f.write(kind, content)
}

// begin reads the header of the next frame.
func (f *framed) begin() (kind frameKind, size int, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(f.in, header[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // every exchange has a last frame
		}
		return 0, 0, err
	}
	size = int(binary.BigEndian.Uint32(header[1:]))
	if size > maxFrame {
		return 0, 0, fmt.Errorf("read a frame of %d bytes: the limit is %d", size, maxFrame)
	}
	return frameKind(header[0]), size, nil
}

// next reads a whole frame.
func (f *framed) next() (kind frameKind, content []byte, err error) {
	kind, size, err := f.begin()
	if err != nil {
		return 0, nil, err
	}
	content = make([]byte, size)
	_, err = io.ReadFull(f.in, content)
	return kind, content, err
}

// passOrder lets the Space's own server answer.
type passOrder struct {
	Drop []string // headers of the request that it must not receive
}

// uploadResponse is the response to an upload. Bodies of refusals and lists of paths are small.
type uploadResponse struct {
	Status      int
	Header      http.Header
	AllowOrigin bool // Call.AllowOrigin applies
	Body        []byte
}

// bodyError is an error of an upload's body on the way to the other end. The visitor may read its text.
type bodyError struct {
	Text  string
	Slow  bool  // os.ErrDeadlineExceeded
	Full  bool  // RoomError
	Large int64 // limit of an http.MaxBytesError; 0: another error
}

func newBodyError(err error) bodyError {
	out := bodyError{Text: err.Error(), Slow: errors.Is(err, os.ErrDeadlineExceeded), Full: errors.As(err, &RoomError{})}
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		out.Large = large.Limit
	}
	return out
}

// slowError is an os.ErrDeadlineExceeded of the other end.
type slowError struct{ text string }

func (e slowError) Error() string { return e.text }
func (e slowError) Unwrap() error { return os.ErrDeadlineExceeded }

// err returns an error that this end treats as the other end would treat its own.
func (e bodyError) err() error {
	switch {
	case e.Full:
		return RoomError{errors.New(e.Text)}
	case e.Large > 0:
		return &http.MaxBytesError{Limit: e.Large}
	case e.Slow:
		return slowError{e.Text}
	}
	return errors.New(e.Text)
}

// decodeBodyError reads the content of a frameBodyError or a frameRefusal.
func decodeBodyError(content []byte) error {
	e, err := decodeJSON[bodyError](content)
	if err != nil {
		return err
	}
	return e.err()
}

// decodeJSON reads the content of a frame.
func decodeJSON[T any](content []byte) (value T, err error) {
	if err = json.Unmarshal(content, &value); err != nil {
		err = fmt.Errorf("read a frame: %w", err)
	}
	return value, err
}
