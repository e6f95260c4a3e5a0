package shelf

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/textproto"
	"sync"
)

// chunks pools buffers of uploadChunk bytes. An upload uses seven at most: one for each of its three steps, and two
// that wait before the second and the third step.
var chunks = sync.Pool{New: func() any { return new([uploadChunk]byte) }}

func newChunk() *[uploadChunk]byte { return chunks.Get().(*[uploadChunk]byte) }

// block is the usual block size of file systems. Files grow by whole blocks.
const block = 4 << 10

// partReader reads a multipart body (RFC 2046, section 5.1) as strictly as python_multipart does: lines end with CRLF,
// and only empty lines may precede the first boundary. A part's content is handed out in the buffers that received it.
// mime/multipart would copy it twice, 4 kB at a time, which takes half as long as hashing it.
type partReader struct {
	from      io.Reader
	delimiter *pairSearch // CRLF, two hyphens, the boundary
	chunk     *[uploadChunk]byte
	at, end   int   // range of the chunk that is read and not handed out
	failed    error // sticky error of from
	begun     bool  // the first boundary has been read
	handedOut int   // bytes of this part so far
}

func newPartReader(from io.Reader, boundary string) *partReader {
	return &partReader{from: from, delimiter: newPairSearch("\r\n--" + boundary), chunk: newChunk()}
}

// close returns the last buffer to the pool.
func (p *partReader) close() { chunks.Put(p.chunk) }

// chunkPiece is n bytes of a part's content. The receiver owns the chunk.
type chunkPiece struct {
	chunk *[uploadChunk]byte
	at, n int
}

func (f chunkPiece) bytes() []byte { return f.chunk[f.at : f.at+f.n] }
func (f chunkPiece) release()      { chunks.Put(f.chunk) }

var (
	errNoBoundary = errors.New("it does not begin with its boundary")
	errNoLineEnd  = errors.New("no end of line after a boundary")
	errHeaderLine = errors.New("a line of a header ends without CR")
)

// next reads the header of the next part. All pieces of the previous part must have been read. io.EOF is the end of
// the body.
func (p *partReader) next() (textproto.MIMEHeader, error) {
	if !p.begun {
		if err := p.begin(); err != nil {
			return nil, err
		}
	}
	p.begun, p.handedOut = true, 0
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
		return nil, errNoLineEnd
	}
	return p.header()
}

// begin skips to the end of the first boundary.
func (p *partReader) begin() error {
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

// header reads from the end of a boundary line to the start of the content.
func (p *partReader) header() (textproto.MIMEHeader, error) {
	const end = "\r\n\r\n"
	for seen := 0; ; {
		rest := p.chunk[p.at:p.end]
		i := bytes.Index(rest[seen:], []byte(end))
		if i += seen; i >= seen {
			p.at += i + len(end)
			lines := rest[2 : i+len(end)]
			if bytes.Count(lines, []byte("\n")) != bytes.Count(lines, []byte("\r\n")) { // textproto would accept a bare LF
				return nil, errHeaderLine
			}
			return textproto.NewReader(bufio.NewReader(bytes.NewReader(lines))).ReadMIMEHeader()
		}
		if len(rest) > maxHeaders*maxHeader {
			return nil, errHeaderSize
		}
		seen = max(0, len(rest)-len(end)+1)
		if err := p.fill(); err != nil {
			return nil, err
		}
	}
}

// piece returns the next piece of a part's content. last is set on the final one.
func (p *partReader) piece() (piece chunkPiece, last bool, err error) {
	for seen := 0; ; {
		var ends bool
		if seen, ends = p.find(seen); ends {
			return p.handOut(seen, len(p.delimiter.text)), true, nil
		}
		if p.end == len(p.chunk) && p.at < len(p.chunk)/2 {
			return p.handOut(seen-(p.handedOut+seen)%block, 0), false, nil
		}
		if err := p.fill(); err != nil {
			return chunkPiece{}, false, err
		}
	}
}

// find searches for the delimiter from seen on. It returns the delimiter's position, or else the first position where
// it could start in data that is not read yet.
func (p *partReader) find(seen int) (at int, ends bool) {
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

// handOut returns n bytes and skips the next skip bytes. It copies the shorter of the two parts of the chunk: the
// piece or the rest.
func (p *partReader) handOut(n, skip int) chunkPiece {
	p.handedOut += n
	rest, other := p.chunk[p.at+n+skip:p.end], newChunk()
	if n < len(rest) {
		copy(other[:], p.chunk[p.at:p.at+n])
		p.at += n + skip
		return chunkPiece{other, 0, n}
	}
	piece := chunkPiece{p.chunk, p.at, n}
	p.chunk, p.at, p.end = other, 0, copy(other[:], rest)
	return piece
}

// peek returns the next n bytes without consuming them.
func (p *partReader) peek(n int) ([]byte, error) {
	for p.end-p.at < n {
		if err := p.fill(); err != nil {
			return nil, err
		}
	}
	return p.chunk[p.at : p.at+n], nil
}

// fill reads available data. The end of the body is always an error here: it comes before the last boundary.
func (p *partReader) fill() error {
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

// pairSearch finds a text by its pairs of adjacent bytes. Wherever the text is, one of its pairs is at a multiple of
// their number. Most bytes of a file need no comparison, while bytes.Index stops at every CR.
type pairSearch struct {
	text  []byte
	pairs [1 << 16 / 64]uint64 // one bit per pair; set if it occurs
}

func newPairSearch(text string) *pairSearch {
	s := &pairSearch{text: []byte(text)}
	for i := range len(text) - 1 {
		pair := binary.LittleEndian.Uint16(s.text[i:])
		s.pairs[pair/64] |= 1 << (pair % 64)
	}
	return s
}

// index returns the first position of the text in data, or -1.
func (s *pairSearch) index(data []byte) int {
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
