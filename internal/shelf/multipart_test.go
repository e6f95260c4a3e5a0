package shelf

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"mime/multipart"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

// read is one part's disposition and content.
type read struct{ disposition, content string }

// readParts reads a whole body in three ways in which a connection may deliver it: at once, in halves, byte by byte.
func readParts(t *testing.T, body []byte, boundary string) (all []read, err error) {
	t.Helper()
	for i, from := range []io.Reader{bytes.NewReader(body), iotest.HalfReader(bytes.NewReader(body)), iotest.OneByteReader(bytes.NewReader(body))} {
		got, failed := readFrom(from, boundary)
		if i == 0 {
			all, err = got, failed
		}
		if !reflect.DeepEqual(got, all) || (failed == nil) != (err == nil) {
			t.Fatalf("%.300q: at once %d parts (%v), but %d parts (%v) with reader %d", body, len(all), err, len(got), failed, i)
		}
	}
	return all, err
}

func readFrom(from io.Reader, boundary string) (all []read, err error) {
	p := newPartReader(from, boundary)
	defer p.close()
	for {
		header, err := p.next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		part := read{disposition: header.Get("Content-Disposition")}
		for last := false; !last; {
			var piece chunkPiece
			if piece, last, err = p.piece(); err != nil {
				return all, err
			}
			part.content += string(piece.bytes())
			piece.release()
		}
		all = append(all, part)
	}
}

// TestPartsMatchPythonMultipart: the rows state the behavior of python_multipart 0.0.34 (multipart.py,
// MultipartParser).
func TestPartsMatchPythonMultipart(t *testing.T) {
	head := "--B\r\nContent-Disposition: x\r\n\r\n"
	for name, row := range map[string]struct {
		body string
		want []read
		bad  bool
	}{
		"one":                    {head + "hello\r\n--B--\r\n", []read{{"x", "hello"}}, false},
		"nothing after the end":  {head + "hello\r\n--B--", []read{{"x", "hello"}}, false},
		"an epilogue":            {head + "hello\r\n--B--and \r\n--B\r\nmore", []read{{"x", "hello"}}, false},
		"empty lines before":     {"\r\n\n\r\n" + head + "hello\r\n--B--", []read{{"x", "hello"}}, false},
		"a preamble":             {"preamble\r\n" + head + "hello\r\n--B--", nil, true},
		"empty":                  {head + "\r\n--B--", []read{{"x", ""}}, false},
		"no header":              {"--B\r\n\r\nhello\r\n--B--", []read{{"", "hello"}}, false},
		"two":                    {head + "1\r\n" + head + "2\r\n--B--", []read{{"x", "1"}, {"x", "2"}}, false},
		"none":                   {"--B--\r\n", nil, false},
		"spaces after":           {head + "1\r\n--B \t\r\n\r\n2\r\n--B--", []read{{"x", "1"}, {"", "2"}}, false},
		"spaces before the end":  {head + "1\r\n--B --\r\n", []read{{"x", "1"}}, true},
		"words after":            {head + "1\r\n--B word\r\n\r\n2\r\n--B--", []read{{"x", "1"}}, true},
		"a longer boundary":      {head + "1\r\n--BC\r\n2\r\n--B--", []read{{"x", "1\r\n--BC\r\n2"}}, false},
		"a hyphen":               {head + "1\r\n--B-\r\n2\r\n--B--", []read{{"x", "1\r\n--B-\r\n2"}}, false},
		"a CR":                   {head + "1\r\n--B\r2\r\n--B--", []read{{"x", "1\r\n--B\r2"}}, false},
		"LF alone":               {"--B\nContent-Disposition: x\n\nhello\n--B--\n", nil, true},
		"LF alone in it":         {head + "1\n--B--\n\r\n--B--", []read{{"x", "1\n--B--\n"}}, false},
		"no line before the end": {head + "--B--\r\n--B--", []read{{"x", "--B--"}}, false},
		"two line ends":          {head + "\r\n\r\n--B--", []read{{"x", "\r\n"}}, false},
		"half a delimiter":       {head + "\r\n-\r\n--\r\n--B--", []read{{"x", "\r\n-\r\n--"}}, false},
	} {
		got, err := readParts(t, []byte(row.body), "B")
		if (err != nil) != row.bad || !row.bad && !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, row.want)
		}
	}
}

// TestTruncatedParts: a body that ends anywhere before its last boundary is refused, and an error of the connection
// is returned.
func TestTruncatedParts(t *testing.T) {
	whole := []byte("--B\r\nContent-Disposition: x\r\n\r\nhello\r\n--B \r\n\r\nyou\r\n--B--")
	for n := range len(whole) {
		if got, err := readParts(t, whole[:n], "B"); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %q, %v", whole[:n], got, err)
		}
	}
	broken := errors.New("broken")
	if _, err := readFrom(io.MultiReader(bytes.NewReader(whole[:40]), iotest.ErrReader(broken)), "B"); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the connection", err)
	}
}

// TestPartsAcrossBuffers: contents end, or contain almost a boundary, at any position of a buffer.
func TestPartsAcrossBuffers(t *testing.T) {
	const boundary = "----WebKitFormBoundary0123456789"
	near := []string{"\r", "\r\n", "\r\n--", "\r\n--" + boundary[:len(boundary)-1], "\r\n--" + boundary + "\r", "\r\n--" + boundary + "-", strings.Repeat("-", 200)}
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 3*uploadChunk)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for size := 0; size < 3*uploadChunk; size += 1 + r.IntN(uploadChunk/8) {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		_ = form.SetBoundary(boundary)
		var want []string
		for _, n := range []int{size, r.IntN(100), max(0, uploadChunk-body.Len()-r.IntN(300)), 2*uploadChunk - r.IntN(600)} {
			content := slicesOf(noise[:n], near[r.IntN(len(near))], r.IntN(n+1))
			want = append(want, content)
			part, _ := form.CreateFormFile("files", "x")
			_, _ = io.WriteString(part, content)
		}
		_ = form.Close()
		got, err := readFrom(bytes.NewReader(body.Bytes()), boundary)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d bytes: %d parts, %v, want %d", size, len(got), err, len(want))
		}
		for i := range want {
			if got[i].content != want[i] {
				t.Fatalf("%d bytes: part %d differs: %d bytes, want %d", size, i, len(got[i].content), len(want[i]))
			}
		}
	}
}

// slicesOf returns data with text inserted.
func slicesOf(data []byte, text string, at int) string {
	return string(data[:at]) + text + string(data[at:])
}

// TestPiecesEndAtBlocks: every piece but the last of a part ends at a block boundary of the file system.
func TestPiecesEndAtBlocks(t *testing.T) {
	p := newPartReader(strings.NewReader("--B\r\n\r\n"+strings.Repeat("x", 5*uploadChunk)+"\r\n--B--"), "B")
	defer p.close()
	if _, err := p.next(); err != nil {
		t.Fatal(err)
	}
	pieces, size := 0, 0
	for last := false; !last; pieces++ {
		var piece chunkPiece
		var err error
		if piece, last, err = p.piece(); err != nil {
			t.Fatal(err)
		}
		if size += piece.n; !last && size%block != 0 {
			t.Errorf("piece %d ends at %d", pieces, size)
		}
		piece.release()
	}
	if size != 5*uploadChunk || pieces > 7 {
		t.Errorf("got %d bytes in %d pieces, want %d in at most 7", size, pieces, 5*uploadChunk)
	}
}

func FuzzPairSearch(f *testing.F) {
	f.Add([]byte("abcabcabd--\r\n--B"), "\r\n--B")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if len(text) < 2 {
			t.Skip("shorter than any delimiter")
		}
		if got, want := newPairSearch(text).index(data), bytes.Index(data, []byte(text)); got != want {
			t.Errorf("%q in %q: got %d, want %d", text, data, got, want)
		}
	})
}

func TestPairSearchMatchesIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		data, text := make([]byte, r.IntN(60)), make([]byte, 2+r.IntN(9))
		for _, b := range [][]byte{data, text} {
			for i := range b {
				b[i] = "ab"[r.IntN(2)]
			}
		}
		if got, want := newPairSearch(string(text)).index(data), bytes.Index(data, text); got != want {
			t.Fatalf("%q in %q: got %d, want %d", text, data, got, want)
		}
	}
}

// FuzzParts: a body has the same parts however it is delivered. A split of the whole body yields the same parts.
func FuzzParts(f *testing.F) {
	f.Add([]byte("--B\r\nContent-Disposition: x\r\n\r\nhello\r\n--B--\r\n"))
	f.Add([]byte("\r\n--B\r\n\r\n\r\n--B \r\nA: b\r\n\r\n--B\r\n--B--"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readParts(t, body, "B")
		if err != nil {
			return
		}
		if want, ok := splitParts(string(body)); !ok || len(got) != len(want) {
			t.Errorf("%q: got %q, want %q, %v", body, got, want, ok)
		} else {
			for i := range want {
				if got[i].content != want[i] {
					t.Errorf("%q: part %d: got %q, want %q", body, i, got[i].content, want[i])
				}
			}
		}
	})
}

var anyDelimiter = regexp.MustCompile("\r\n--B(--|[ \t]|\r\n)")

// splitParts returns the contents of the parts of a whole body with the boundary B.
func splitParts(body string) (contents []string, ok bool) {
	_, rest, ok := strings.Cut("\r\n"+strings.TrimLeft(body, "\r\n"), "\r\n--B")
	for ok && !strings.HasPrefix(rest, "--") {
		if _, rest, ok = strings.Cut(rest, "\r\n"); !ok {
			break
		}
		if _, rest, ok = strings.Cut("\r\n"+rest, "\r\n\r\n"); !ok {
			break
		}
		end := anyDelimiter.FindStringIndex(rest)
		if end == nil {
			return contents, false
		}
		contents, rest = append(contents, rest[:end[0]]), rest[end[0]+len("\r\n--B"):]
	}
	return contents, ok
}
