package gradioapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A body is counted until its request and the Event that holds it have ended.
func TestLargeBodiesShareTheirRoom(t *testing.T) {
	var b bodies
	first, second := new(http.Request), new(http.Request)
	if !b.reserve(first, largeBodies-10) || b.reserve(second, 11) || !b.reserve(second, 5) || !b.reserve(first, 5) || b.reserve(second, 1) {
		t.Fatalf("%d bytes are counted of %d", b.used, largeBodies)
	}
	release := b.keep(first)
	b.end(first)
	if b.used != largeBodies {
		t.Errorf("%d bytes are counted while an event holds them, want all", b.used)
	}
	release()
	release()
	if b.used != 5 {
		t.Errorf("%d bytes are counted, want those of the second request", b.used)
	}
	b.end(second)
	b.end(second)
	b.keep(second)()
	if b.used != 0 || len(b.held) != 0 {
		t.Errorf("%d bytes of %d requests are left", b.used, len(b.held))
	}
}

// Room is reserved as bytes arrive: a length that was only announced takes none.
func TestRoomIsReservedAsBytesArrive(t *testing.T) {
	const size = 100 << 20
	var reserved int64
	take := func(n int64) bool { reserved += n; return true }
	data, err := readSized(strings.NewReader("short"), size, take)
	if string(data) != "short" || err != io.ErrUnexpectedEOF || reserved != 0 {
		t.Errorf("got %q, %v, %d bytes reserved", data, err, reserved)
	}
	data, err = readSized(io.LimitReader(zeros{}, size), size, take)
	if len(data) != size || cap(data) != size || err != nil || reserved != size-smallBody {
		t.Errorf("got %d bytes with memory for %d, %v, %d bytes reserved, want %d", len(data), cap(data), err, reserved, size-smallBody)
	}
	if _, err = readSized(io.LimitReader(zeros{}, size), size, func(int64) bool { return false }); !errors.Is(err, errNoRoom) {
		t.Errorf("without room: %v", err)
	}
}

// zeros is a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func FuzzTopLevel(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { } `, `null`, `[]`, `7`, `"{}"`, `{"a":1}`, `{"a" : 1 , "b":"x\"}{,:" ,"a":[{"c":"]"},2]}`, `{"\u0061":{"":{}},"a":null}`,
		`{"\ud800":"\\","x":"\\\""}`, "{\n\t\"data\": [\"y\"],\r\n\"fn_index\":-1.5e3 }", `{"a":true,"A":false}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		var want map[string]json.RawMessage
		wantOK := json.Unmarshal(raw, &want) == nil
		got, ok := topLevel(raw)
		if ok != wantOK || ok && len(got) != len(want) {
			t.Fatalf("%q: got %q, %v; want %q, %v", raw, got, ok, want, wantOK)
		}
		for name, value := range want {
			if !bytes.Equal(got[name], value) {
				t.Errorf("%q: %q is %q, want %q", raw, name, got[name], value)
			}
		}
	})
}
