package worker

import (
	"bufio"
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

	text []byte // the whole Frame, if it was read: Header and Payload are parts of it
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
	for _, part := range f.Parts() {
		n, err := w.Write(part)
		if written += int64(n); err != nil {
			return written, err
		}
	}
	return written, nil
}

// Parts returns the Frame as it goes over the channel, in pieces that follow each other. A small Frame is one part; a large payload is
// not copied, and neither is a Frame that was read.
func (f Frame) Parts() [][]byte {
	if f.text != nil {
		return [][]byte{f.text}
	}
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

// ReadFrame blocks for one Frame. It returns io.EOF if the other side closed the channel between Frames, and a
// *FrameError after a protocol violation. Memory is allocated as bytes arrive, so a false length costs nothing.
func ReadFrame(r io.Reader) (Frame, error) {
	var lengths [frameLengths]byte
	if _, err := io.ReadFull(r, lengths[:]); err != nil {
		return Frame{}, err
	}
	header, payload, err := parseLengths(lengths[:])
	if err != nil {
		return Frame{}, err
	}
	text, err := readAfter(lengths[:], r, header+payload)
	if err != nil {
		return Frame{}, err
	}
	f := frameOf(text, header)
	if !isObject(f.Header) {
		return Frame{}, &FrameError{"the header is not a JSON object"}
	}
	return f, nil
}

// ParseFrame returns the Frame that text contains, and nothing besides. The Frame refers to text. Its errors are those of ReadFrame,
// except that the header is not checked to be a JSON object: its decoder reports that.
func ParseFrame(text []byte) (Frame, error) {
	if len(text) < frameLengths {
		return Frame{}, io.ErrUnexpectedEOF
	}
	header, payload, err := parseLengths(text)
	if err == nil && len(text) != frameLengths+header+payload {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return Frame{}, err
	}
	return frameOf(text, header), nil
}

// frameLengths is the number of bytes before the header.
const frameLengths = 8

func parseLengths(text []byte) (header, payload int, err error) {
	header, payload = int(binary.BigEndian.Uint32(text)), int(binary.BigEndian.Uint32(text[4:]))
	if header > headerLimit || payload > payloadLimit {
		err = &FrameError{fmt.Sprintf("%d+%d bytes are above the limit of %d", header, payload, payloadLimit)}
	}
	return header, payload, err
}

func frameOf(text []byte, header int) Frame {
	end := frameLengths + header
	return Frame{Header: text[frameLengths:end:end], Payload: text[end:], text: text}
}

// isBuffered reports whether ReadFrame returns without reading more from the channel.
func isBuffered(r *bufio.Reader) bool {
	if r.Buffered() < frameLengths {
		return false
	}
	text, err := r.Peek(frameLengths)
	if err != nil {
		return false
	}
	header, payload, err := parseLengths(text)
	return err != nil || r.Buffered() >= frameLengths+header+payload
}

// smallFrame is the size of most Frames. Memory for a small Frame is allocated at once.
const smallFrame = 16 << 10

// ReadExactly reads size bytes. Its memory grows with the bytes that arrive: it is at most twice as large, and exact at
// the end.
func ReadExactly(r io.Reader, size int) ([]byte, error) { return readAfter(nil, r, size) }

// readAfter is ReadExactly for bytes that follow a copy of those that are given.
func readAfter(given []byte, r io.Reader, size int) ([]byte, error) {
	size += len(given)
	data := append(make([]byte, 0, min(size, smallFrame)), given...)
	for len(data) < size {
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
	return data, nil
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
