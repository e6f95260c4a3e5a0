package worker

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"spacehost/internal/printable"
)

// protocol is the version of the channel's protocol; see also worker/runner/spacehost_runner/frames.py.
const protocol = 1

// Limits of one Frame. Both sides enforce them. Stock Gradio was seen to return 280 MB of text; a Frame holds more
// (docs/design/0021-large-payloads.md).
const (
	headerLimit  = 1 << 20
	payloadLimit = 320 << 20
)

// Frame is one unit on the channel between host and runner: two big-endian uint32 (length of the header, length of
// the payload), a small JSON object and raw bytes. worker/testdata/frames contains examples that the tests of this
// package and of the runner read.
type Frame struct {
	Header  json.RawMessage
	Payload []byte
}

// newFrame marshals header. It panics if header is not valid JSON, which is a bug in this package.
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

// WriteTo writes the Frame.
func (f Frame) WriteTo(w io.Writer) (written int64, err error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	for _, part := range f.parts() {
		n, err := w.Write(part)
		if written += int64(n); err != nil {
			return written, err
		}
	}
	return written, nil
}

// parts returns the Frame as it goes over the channel. A small Frame is one part; a large payload is not copied.
func (f Frame) parts() [][]byte {
	large := len(f.Payload) > smallFrame
	size := 8 + len(f.Header)
	if !large {
		size += len(f.Payload)
	}
	data := make([]byte, 8, size)
	binary.BigEndian.PutUint32(data, uint32(len(f.Header)))
	binary.BigEndian.PutUint32(data[4:], uint32(len(f.Payload)))
	data = append(data, f.Header...)
	if large {
		return [][]byte{data, f.Payload}
	}
	return [][]byte{append(data, f.Payload...)}
}

// readFrame blocks for one Frame. It returns io.EOF if the other side closed the channel between Frames, and a
// *FrameError after a protocol violation. Memory is allocated as bytes arrive, so a false length costs nothing.
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

// smallFrame is the size of most Frames. Memory for a small Frame is allocated at once.
const smallFrame = 16 << 10

// readExactly reads size bytes. Its memory grows with the bytes that arrive: it is at most twice as large, and exact at
// the end.
func readExactly(r io.Reader, size int) ([]byte, error) {
	data := make([]byte, 0, min(size, smallFrame))
	for {
		n, err := io.ReadFull(r, data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil || len(data) == size {
			return data, err
		}
		grown := make([]byte, len(data), min(size, 2*cap(data)))
		copy(grown, data)
		data = grown
	}
}

// isObject also requires valid UTF-8. Python's side requires it and json.Valid does not.
func isObject(header []byte) bool {
	return json.Valid(header) && utf8.Valid(header) && bytes.TrimLeft(header, " \t\r\n")[0] == '{'
}

// FrameError describes a protocol violation by a runner. The Space is ended for it. Reason may quote the runner.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string {
	return "the Space violated the frame protocol: " + printable.Reason(e.Reason)
}
