package server

import (
	"strconv"
	"strings"
)

// targetFixer rewrites request lines before net/http parses them. net/http answers 400 to a path with a "%" that no
// two hexadecimal digits follow, as in "/file=/data/100%.txt". uvicorn, and with it stock Gradio, takes such a "%"
// literally (uvicorn/protocols/http/h11_impl.py, urllib.parse.unquote). The fixer writes it as "%25".
//
// It follows the requests of one connection by their Content-Length. After a request with another framing (chunked, an
// upgrade, a malformed or repeated length) it changes nothing more on that connection, so it never alters a body. It
// holds back at most the two bytes after which a "%" is decided. It is used by one goroutine at a time.
type targetFixer struct {
	part    part
	percent []byte // a "%" of the path and at most one digit, not passed on yet
	line    []byte // the beginning of a header line, passed on already
	body    int64  // bytes of the body that have not arrived
	length  string // the Content-Length of this head
	opaque  bool   // this head has another framing
}

// part is the part of a request to which the next byte belongs.
type part int

const (
	inMethod part = iota
	inPath
	afterPath // the rest of the request line
	inHeaders
	inBody
	unfollowed // no more changes
)

// maxLine bounds the memory for a header line. net/http refuses such a head (MaxHeaderBytes).
const maxLine = 64 << 10

// fix returns the bytes to pass on for the received ones. The result may share memory with received.
func (f *targetFixer) fix(received []byte) []byte {
	if f.part == unfollowed {
		return received
	}
	if f.part == inBody && int64(len(received)) < f.body {
		f.body -= int64(len(received))
		return received
	}
	out := make([]byte, 0, len(received)+16)
	for i := 0; i < len(received); i++ {
		switch f.part {
		case unfollowed:
			return append(out, received[i:]...)
		case inBody:
			n := int(min(f.body, int64(len(received)-i)))
			out = append(out, received[i:i+n]...)
			i, f.body = i+n-1, f.body-int64(n)
			if f.body == 0 {
				f.part = inMethod
			}
		case inHeaders:
			out = append(out, received[i])
			f.header(received[i])
		default:
			out = f.requestLine(out, received[i])
		}
	}
	return out
}

// requestLine appends to out what b of a request line decides.
func (f *targetFixer) requestLine(out []byte, b byte) []byte {
	if len(f.percent) > 0 {
		if isHex(b) {
			if f.percent = append(f.percent, b); len(f.percent) == 3 {
				out, f.percent = append(out, f.percent...), f.percent[:0]
			}
			return out
		}
		out = append(append(out, "%25"...), f.percent[1:]...)
		f.percent = f.percent[:0]
	}
	switch {
	case b == '\n':
		f.part, f.length, f.opaque = inHeaders, "", false
	case f.part == inMethod && b == ' ':
		f.part = inPath
	case f.part == inPath && (b == ' ' || b == '?' || b == '#' || b == '\r'):
		f.part = afterPath
	case f.part == inPath && b == '%':
		f.percent = append(f.percent, b)
		return out
	}
	return append(out, b)
}

// header takes a byte of the header lines.
func (f *targetFixer) header(b byte) {
	if f.line = append(f.line, b); b != '\n' {
		if len(f.line) > maxLine {
			f.part, f.line = unfollowed, nil
		}
		return
	}
	name, value, _ := strings.Cut(strings.TrimRight(string(f.line), "\r\n"), ":")
	f.line = f.line[:0]
	switch strings.ToLower(name) {
	case "":
		f.endHead()
	case "content-length":
		f.opaque = f.opaque || f.length != ""
		f.length = strings.Trim(value, " \t")
	case "transfer-encoding", "upgrade", "expect":
		f.opaque = true
	}
}

func (f *targetFixer) endHead() {
	length, err := strconv.ParseUint("0"+f.length, 10, 62)
	switch {
	case f.opaque || err != nil:
		f.part = unfollowed
	case length == 0:
		f.part = inMethod
	default:
		f.part, f.body = inBody, int64(length)
	}
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}
