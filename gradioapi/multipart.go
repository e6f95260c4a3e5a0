package gradioapi

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/textproto"
	"sync"
)

// chunks are buffers of uploadChunk, of which an upload has seven at most: one for each of its three steps, and two that
// wait before the second and the third.
var chunks = sync.Pool{New: func() any { return new([uploadChunk]byte) }}

func newChunk() *[uploadChunk]byte { return chunks.Get().(*[uploadChunk]byte) }

// block is what file systems write at once: files grow by whole ones.
const block = 4 << 10

// parts reads a multipart body (RFC 2046, section 5.1) as strictly as python_multipart does: lines end with CRLF, and only
// empty ones come before the first boundary. A part's content is given out in the buffers that it was received into;
// mime/multipart would copy it twice, 4 kB at a time, which takes half as long as to hash it.
type parts struct {
	from      io.Reader
	delimiter *sample // CRLF, two hyphens, the boundary
	chunk     *[uploadChunk]byte
	at, end   int   // of the chunk: what is read and not given out
	failed    error // of from, which is not asked again
	begun     bool  // the first boundary is behind
	given     int   // of this part, so far
}

func newParts(from io.Reader, boundary string) *parts {
	return &parts{from: from, delimiter: newSample("\r\n--" + boundary), chunk: newChunk()}
}

// close gives the last buffer back.
func (p *parts) close() { chunks.Put(p.chunk) }

// filled is a piece of a part's content: n bytes of the chunk, which is its taker's from then on.
type filled struct {
	chunk *[uploadChunk]byte
	at, n int
}

func (f filled) bytes() []byte { return f.chunk[f.at : f.at+f.n] }
func (f filled) free()         { chunks.Put(f.chunk) }

var (
	errNoBoundary = errors.New("it does not begin with its boundary")
	errNoLine     = errors.New("no end of line after a boundary")
	errHeaderLine = errors.New("a line of a header ends without CR")
)

// next reads the header of the next part, once all pieces of the one before are taken. io.EOF is the end of all parts.
func (p *parts) next() (textproto.MIMEHeader, error) {
	if !p.begun {
		if err := p.begin(); err != nil {
			return nil, err
		}
	}
	p.begun, p.given = true, 0
	after, err := p.peek(2)
	if err == nil && string(after) == "--" {
		return nil, io.EOF
	}
	for err == nil && (after[0] == ' ' || after[0] == '\t') {
		p.at++
		after, err = p.peek(2)
	}
	switch {
	case err != nil:
		return nil, err
	case string(after) != "\r\n":
		return nil, errNoLine
	}
	return p.header()
}

// begin goes to the end of the first boundary.
func (p *parts) begin() error {
	for {
		first, err := p.peek(1)
		if err != nil {
			return err
		}
		if first[0] != '\r' && first[0] != '\n' {
			break
		}
		p.at++
	}
	boundary := p.delimiter.text[2:]
	start, err := p.peek(len(boundary))
	if err != nil {
		return err
	}
	if !bytes.Equal(start, boundary) {
		return errNoBoundary
	}
	p.at += len(boundary)
	return nil
}

// header reads from the end of a boundary's line to where the content begins.
func (p *parts) header() (textproto.MIMEHeader, error) {
	const end = "\r\n\r\n"
	for seen := 0; ; {
		rest := p.chunk[p.at:p.end]
		i := bytes.Index(rest[seen:], []byte(end))
		if i += seen; i >= seen {
			p.at += i + len(end)
			lines := rest[2 : i+len(end)]
			if bytes.Count(lines, []byte("\n")) != bytes.Count(lines, []byte("\r\n")) { // which textproto would take
				return nil, errHeaderLine
			}
			return textproto.NewReader(bufio.NewReader(bytes.NewReader(lines))).ReadMIMEHeader()
		}
		if len(rest) > maxHeaders*maxHeader {
			return nil, errHeaderSize
		}
		seen = max(0, len(rest)-len(end)+1)
		if err := p.more(); err != nil {
			return nil, err
		}
	}
}

// piece gives out what comes next of a part's content; last says that the part ends with it.
func (p *parts) piece() (piece filled, last bool, err error) {
	for seen := 0; ; {
		var ends bool
		if seen, ends = p.find(seen); ends {
			return p.give(seen, len(p.delimiter.text)), true, nil
		}
		if p.end == len(p.chunk) && p.at < len(p.chunk)/2 {
			return p.give(seen-(p.given+seen)%block, 0), false, nil
		}
		if err := p.more(); err != nil {
			return filled{}, false, err
		}
	}
}

// find looks from seen on for the delimiter: where it is, or else where it could begin in what is not read yet.
func (p *parts) find(seen int) (at int, ends bool) {
	rest := p.chunk[p.at:p.end]
	for {
		i := p.delimiter.index(rest[seen:])
		if i < 0 {
			return max(seen, len(rest)-len(p.delimiter.text)+1), false
		}
		seen += i
		after := rest[seen+len(p.delimiter.text):]
		if len(after) < 2 {
			return seen, false
		}
		if after[0] == ' ' || after[0] == '\t' || string(after[:2]) == "\r\n" || string(after[:2]) == "--" {
			return seen, true
		}
		seen++
	}
}

// give gives n bytes out, and leaves skip more behind. It copies what is shorter, they or the rest.
func (p *parts) give(n, skip int) filled {
	p.given += n
	rest, other := p.chunk[p.at+n+skip:p.end], newChunk()
	if n < len(rest) {
		copy(other[:], p.chunk[p.at:p.at+n])
		p.at += n + skip
		return filled{other, 0, n}
	}
	piece := filled{p.chunk, p.at, n}
	p.chunk, p.at, p.end = other, 0, copy(other[:], rest)
	return piece
}

// peek shows the next n bytes.
func (p *parts) peek(n int) ([]byte, error) {
	for p.end-p.at < n {
		if err := p.more(); err != nil {
			return nil, err
		}
	}
	return p.chunk[p.at : p.at+n], nil
}

// more reads what there is. The end of the body is always one too early.
func (p *parts) more() error {
	if p.failed != nil {
		return p.failed
	}
	if p.end == len(p.chunk) {
		p.at, p.end = 0, copy(p.chunk[:], p.chunk[p.at:p.end])
	}
	n, err := p.from.Read(p.chunk[p.end:])
	p.end += n
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if p.failed = err; n > 0 {
		return nil
	}
	return err
}

// sample finds a text by its pairs of bytes: wherever it stands, one of them stands at each multiple of their number. So
// most of a file need not be looked at, where bytes.Index stops at every CR of it.
type sample struct {
	text  []byte
	pairs [1 << 16 / 64]uint64 // a bit for each that occurs
}

func newSample(text string) *sample {
	s := &sample{text: []byte(text)}
	for i := range len(text) - 1 {
		pair := binary.LittleEndian.Uint16(s.text[i:])
		s.pairs[pair/64] |= 1 << (pair % 64)
	}
	return s
}

// index is where the text is first in data, or -1.
func (s *sample) index(data []byte) int {
	step := len(s.text) - 1
	for i := step - 1; i+1 < len(data); i += step {
		pair := binary.LittleEndian.Uint16(data[i:])
		if s.pairs[pair/64]>>(pair%64)&1 == 0 {
			continue
		}
		from := i - step + 1
		if found := bytes.Index(data[from:min(len(data), i+len(s.text))], s.text); found >= 0 {
			return from + found
		}
	}
	return -1
}
