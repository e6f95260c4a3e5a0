package worker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"
)

// protocol is the version that both sides of the channel speak; worker/runner/spacehost_runner/frames.py.
const protocol = 1

// Limits of one Frame, held by both sides.
const (
	headerLimit  = 1 << 20
	payloadLimit = 64 << 20
)

// Frame is one thing that host and runner say to each other: two big-endian uint32 (length of the header,
// length of the payload), a small JSON object and raw bytes. worker/testdata/frames holds examples that this
// file and the runner's tests both read.
type Frame struct {
	Header  json.RawMessage
	Payload []byte
}

// newFrame marshals header; it panics on a header that cannot be JSON, which is a mistake in this package.
func newFrame(header any, payload []byte) Frame {
	data, err := json.Marshal(header)
	if err != nil {
		panic(err)
	}
	return Frame{Header: data, Payload: payload}
}

func (f Frame) check() error {
	if len(f.Header) > headerLimit || len(f.Payload) > payloadLimit {
		return &FrameError{fmt.Sprintf("%d+%d bytes are above the limit of %d", len(f.Header), len(f.Payload), payloadLimit)}
	}
	return nil
}

// WriteTo writes the Frame in one Write.
func (f Frame) WriteTo(w io.Writer) (int64, error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	n, err := w.Write(f.bytes())
	return int64(n), err
}

// bytes is the Frame as it goes over the channel.
func (f Frame) bytes() []byte {
	data := make([]byte, 8, 8+len(f.Header)+len(f.Payload))
	binary.BigEndian.PutUint32(data, uint32(len(f.Header)))
	binary.BigEndian.PutUint32(data[4:], uint32(len(f.Payload)))
	return append(append(data, f.Header...), f.Payload...)
}

// readFrame blocks for one Frame. io.EOF: the other side closed between Frames. *FrameError: it broke the
// rules. Memory is taken as bytes arrive, so a lying length costs nothing.
func readFrame(r io.Reader) (Frame, error) {
	var lengths [8]byte
	if _, err := io.ReadFull(r, lengths[:]); err != nil {
		return Frame{}, err
	}
	header, payload := binary.BigEndian.Uint32(lengths[:]), binary.BigEndian.Uint32(lengths[4:])
	if header > headerLimit || payload > payloadLimit {
		return Frame{}, &FrameError{fmt.Sprintf("%d+%d bytes are above the limit of %d", header, payload, payloadLimit)}
	}
	data, err := readExactly(r, int(header)+int(payload))
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Header: data[:header:header], Payload: data[header:]}
	if !isObject(f.Header) {
		return Frame{}, &FrameError{"the header is not a JSON object"}
	}
	return f, nil
}

// smallFrame is what most Frames are within: memory for one is taken at once.
const smallFrame = 16 << 10

func readExactly(r io.Reader, size int) ([]byte, error) {
	var data []byte
	var err error
	if size <= smallFrame {
		data = make([]byte, size)
		_, err = io.ReadFull(r, data)
	} else if data, err = io.ReadAll(io.LimitReader(r, int64(size))); err == nil && len(data) < size {
		err = io.EOF
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}

// isObject also wants valid UTF-8, which Python's side insists on and json.Valid does not.
func isObject(header []byte) bool {
	return json.Valid(header) && utf8.Valid(header) && bytes.TrimLeft(header, " \t\r\n")[0] == '{'
}

// FrameError says how a runner broke the rules of the channel; its Space is ended for it.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "the Space broke the frame protocol: " + e.Reason }
