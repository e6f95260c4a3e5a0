package link

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// FuzzMessage reads bytes of a peer. What can be read can be sent and read again.
func FuzzMessage(f *testing.F) {
	for _, m := range []message{{Op: "x", ID: 7, Body: []byte(`{"a":1}`)}, {Answer: 3, Error: &RemoteError{Code: "c", Text: "t"}}, {Op: opBeat}} {
		frame, err := encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(frame)
	}
	f.Add([]byte("\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := readMessage(bytes.NewReader(data))
		if err != nil {
			return
		}
		frame, err := encode(m)
		if err != nil {
			return // escaped, it is larger
		}
		again, err := readMessage(bytes.NewReader(frame))
		if err != nil {
			t.Fatalf("got %v for %q", err, frame)
		}
		if m.Body, again.Body = nil, nil; !reflect.DeepEqual(m, again) {
			t.Errorf("got %+v, want %+v", again, m)
		}
	})
}

// FuzzToken parses texts of users. A text that is accepted has one form only.
func FuzzToken(f *testing.F) {
	f.Add(Token{ID: "ab", Secret: "cd"}.String())
	f.Add("shj_a_b_" + strings.Repeat("0", 64))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		if again, err := ParseToken(token.String()); err != nil || again != token {
			t.Errorf("got %v, %v, want %v", again, err, token)
		}
	})
}
