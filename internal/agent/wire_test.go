package agent

import (
	"bytes"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"spacehost/internal/proctree"
	"spacehost/worker"
)

// FuzzRead reads arbitrary bytes as a message. What is read has the length that it names, and can be written again.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{"", "q", "q\x00\x00\x00\x02{}", "a\x00\x00\x00\x10{\"PID\":7}", "q\xff\xff\xff\xff{}", "f\x18\x00\x00\x00", "q\x00\x00\x00\x04null"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var a answer
		_ = readAs(bytes.NewReader(data), kindAnswer, &a)
		var q request
		_ = readAs(bytes.NewReader(data), kindRequest, &q)
		_ = a.Error.error()
		k, body, err := read(bytes.NewReader(data))
		if err != nil {
			return
		}
		if got := bytes.Join(message(k, body), nil); !bytes.HasPrefix(data, got) {
			t.Errorf("%q was read as %q", data, got)
		}
	})
}

// TestRead rejects messages that are too long, cut off, or of another kind.
func TestRead(t *testing.T) {
	for data, want := range map[string]string{
		"":                             "EOF",
		"q\x00":                        "unexpected EOF",
		"q\x00\x00\x00\x05{}":          "unexpected EOF",
		"q\xff\xff\xff\xff":            "a message of 4294967295 bytes is above the limit of 402653184",
		"a\x00\x00\x00\x02{}":          `message 'a', want 'q'`,
		"q\x00\x00\x00\x02{]":          "invalid character",
		"q\x00\x00\x00\x09{\"Op\": 7}": "cannot unmarshal number",
	} {
		var q request
		if err := readAs(strings.NewReader(data), kindRequest, &q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", data, err, want)
		}
	}
}

// TestErrorsKeepTheirType passes each error from one side to the other.
func TestErrorsKeepTheirType(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("text"), &worker.RefusedError{Reason: "large", Next: "Shrink it.", Cause: worker.CauseStart}, &worker.FrameError{Reason: "broken"},
		&proctree.KilledError{Memory: true}, &proctree.ForeignPortError{Port: 7}, syscall.ECONNREFUSED,
	} {
		var got error
		w := &wireError{}
		if toWire(err) == nil {
			w = nil
		} else if e := unmarshal(encode(toWire(err)), w); e != nil {
			t.Fatal(e)
		}
		got = w.error()
		if errors.Is(err, syscall.ECONNREFUSED) {
			if !errors.Is(got, err) || got.Error() != err.Error() {
				t.Errorf("got %#v, want %v", got, err)
			}
			continue
		}
		if !reflect.DeepEqual(got, err) {
			t.Errorf("got %#v, want %#v", got, err)
		}
	}
}

// TestFrameOfTheLargestSize: a message holds the largest Frame.
func TestFrameOfTheLargestSize(t *testing.T) {
	head := []byte{byte(kindFrame), 0x14, 0x10, 0, 8} // 1 MiB of header, 320 MiB of payload and two lengths
	if _, _, err := read(bytes.NewReader(head)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want only the end of the data", err)
	}
}

// writes is a connection that writes down what is written, and how.
type writes struct {
	net.Conn
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.all = append(w.all, string(p))
	return len(p), nil
}

// TestReportsTogether checks that reports wait for Flush, that nothing overtakes them, and that their size is bounded.
func TestReportsTogether(t *testing.T) {
	conn := &writes{}
	h := &toHost{conn: conn}
	report := func(size int) string {
		f := worker.Frame{Header: []byte("{}"), Payload: bytes.Repeat([]byte("x"), size)}
		if err := h.Report(f); err != nil {
			t.Fatal(err)
		}
		return string(bytes.Join(message(kindFrame, f.Parts()...), nil))
	}
	want := func(when string, want ...string) {
		t.Helper()
		if got := strings.Join(conn.all, "|"); got != strings.Join(want, "|") {
			t.Errorf("%s: %d writes of %d bytes, want %d of %d", when, len(conn.all), len(got), len(want), len(strings.Join(want, "|")))
		}
		conn.all = nil
	}
	h.Flush()
	want("nothing")
	first, second := report(1), report(2)
	want("before Flush")
	h.Flush()
	want("after Flush", first+second)
	h.Flush()
	want("after Flush again")
	third := report(3)
	h.Note("n")
	want("a note", third+string(message(kindNote, []byte(`"n"`))[0]))
	fourth := report(4)
	large := report(smallMessage + 1)
	if got := strings.Join(conn.all, ""); got != fourth+large || conn.all[0] != fourth {
		t.Errorf("a large report: %d writes of %d bytes, want the small one first, %d together", len(conn.all), len(got), len(fourth+large))
	}
	conn.all = nil
	for range 2 * maxUnsent / smallMessage {
		report(smallMessage - 100)
		if len(h.unsent) > maxUnsent {
			t.Fatalf("%d bytes wait, more than %d", len(h.unsent), maxUnsent)
		}
	}
	if len(conn.all) == 0 {
		t.Error("reports wait without end")
	}
}
