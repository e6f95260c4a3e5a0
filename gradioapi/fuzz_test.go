package gradioapi

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"spacehost/internal/pytext/pytexttest"
	"spacehost/queue"
)

// FuzzParseJoin: Python must read a body that parseJoin accepts in the same way: exact names, and the last of two
// equal ones.
func FuzzParseJoin(f *testing.F) {
	f.Add([]byte(`{"data":["a"],"fn_index":0,"session_hash":"s"}`))
	f.Add([]byte(`{"data":["a"],"fn_index":0,"FN_INDEX":1,"session_hash":"s","Session_Hash":"t"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		body, ok := parseJoin(raw)
		if !ok {
			return
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(raw, &fields); err != nil || !utf8.Valid(raw) {
			t.Fatalf("parseJoin accepted %q: %v", raw, err)
		}
		var fn int
		var session string
		var data []json.RawMessage
		for name, to := range map[string]any{"fn_index": &fn, "session_hash": &session, "data": &data} {
			if err := json.Unmarshal(fields[name], to); err != nil || string(fields[name]) == "null" {
				t.Errorf("parseJoin accepted %q with %s %s: %v", raw, name, fields[name], err)
			}
		}
		if *body.FnIndex != fn || *body.SessionHash != session || session == "" || data == nil {
			t.Errorf("parseJoin read %q as function %d of session %q", raw, *body.FnIndex, *body.SessionHash)
		}
	})
}

// FuzzFrames: a frame stays one frame for any output of a Space.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(`{"msg":"process_completed","output":{"data":["a"]},"success":true}`), "text", true)
	f.Fuzz(func(t *testing.T, raw []byte, text string, completed bool) {
		m := queue.Message{Kind: queue.Generating, Event: "e", Raw: raw}
		if completed {
			m.Kind = queue.Completed
		}
		expectFrame(t, dataFrame(dialectV6{}, m), "data: ", false)
		expectFrame(t, simpleFrame(dialectV6{}, m), "event: ", true)
		for _, own := range []queue.Message{
			{Kind: queue.UnexpectedError, Text: text}, {Kind: queue.Log, Event: "e", Title: text, Text: text},
			{Kind: queue.Completed, Event: "e", Failure: &queue.Failure{Title: text, Text: text}}, {Kind: queue.Estimation, Event: queue.EventID(text)},
		} {
			expectFrame(t, dataFrame(dialectV6{}, own), "data: ", true)
			if frame := simpleFrame(dialectV6{}, own); frame != nil {
				expectFrame(t, frame, "event: ", true)
			}
		}
	})
}

// readers are the stream parsers of the clients. Each returns the data of every message.
var readers = map[string]func(stream []byte) []string{
	"gradio_client 1.13 and 2": func(stream []byte) (all []string) { // client.py, stream_messages
		for frame := range bytes.SplitSeq(stream, []byte("\n\n")) {
			if data, ok := bytes.CutPrefix(frame, []byte("data:")); ok {
				all = append(all, string(data))
			}
		}
		return all
	},
	"gradio_client 1.3": func(stream []byte) (all []string) { // httpx/_decoders.py, LineDecoder: Python's splitlines
		lines := strings.FieldsFunc(string(stream), func(r rune) bool {
			return strings.ContainsRune("\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029", r)
		})
		for _, line := range lines {
			if data, ok := strings.CutPrefix(line, "data:"); ok {
				all = append(all, data)
			} else {
				all = append(all, "no message: "+line)
			}
		}
		return all
	},
	"@gradio/client": func(stream []byte) (all []string) { // fetch-event-stream: lines, an empty one ends an event
		data, begun := "", false
		for line := range strings.SplitSeq(strings.ToValidUTF8(string(stream), "\ufffd"), "\n") {
			for line := range strings.SplitSeq(strings.TrimSuffix(line, "\r"), "\r") {
				field, value, _ := strings.Cut(line, ":")
				switch {
				case line == "" && begun:
					all, data, begun = append(all, data), "", false
				case field == "data" && begun:
					data += "\n" + strings.TrimSpace(value)
				case field == "data":
					data, begun = strings.TrimSpace(value), true
				}
			}
		}
		return all
	},
}

// FuzzStream: each client reads as many messages as were sent, and the texts of the host unchanged. A line separator
// of Unicode in a Space's JSON breaks the oldest client with stock Gradio too.
func FuzzStream(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte, text string) {
		if !utf8.Valid(raw) {
			raw = bytes.ToValidUTF8(raw, nil)
		}
		text = strings.ToValidUTF8(text, "\ufffd")
		own := []queue.Message{
			{Kind: queue.Log, Event: "e", Title: text, Text: text}, {Kind: queue.UnexpectedError, Text: text},
			{Kind: queue.Completed, Event: "e", Failure: &queue.Failure{Title: text, Text: text}},
		}
		for _, d := range []dialect{dialectV4{}, dialectV5{}, dialectV6{}} {
			var stream []byte
			for _, m := range own {
				stream = append(stream, dataFrame(d, m)...)
			}
			for name, read := range readers {
				expectTexts(t, name, read(stream), own, text)
			}
			all := append(dataFrame(d, queue.Message{Kind: queue.Generating, Event: "e", Raw: raw}), stream...)
			for name, read := range readers {
				got := read(all)
				if name == "gradio_client 1.3" && bytes.ContainsAny(raw, "\v\f\x1c\x1d\x1e\u0085\u2028\u2029") || len(raw) == 0 {
					continue
				}
				var want, back any
				if len(got) != len(own)+1 || pytexttest.Decode(raw, &want) == nil && (pytexttest.Decode([]byte(got[0]), &back) != nil || !reflect.DeepEqual(back, want)) {
					t.Errorf("%s reads %q as %q", name, raw, got)
				}
			}
		}
	})
}

// expectTexts checks that each message is JSON and contains text.
func expectTexts(t *testing.T, reader string, got []string, own []queue.Message, text string) {
	t.Helper()
	if len(got) != len(own) {
		t.Errorf("%s reads %d messages of %d: %q", reader, len(got), len(own), got)
		return
	}
	for i, data := range got {
		var value any
		if err := json.Unmarshal([]byte(data), &value); err != nil || !contains(value, text) {
			t.Errorf("%s reads %s as %q, which does not contain %q: %v", reader, own[i].Kind, data, text, err)
		}
	}
}

func contains(value any, text string) bool {
	switch v := value.(type) {
	case string:
		return v == text
	case map[string]any:
		for _, inner := range v {
			if contains(inner, text) {
				return true
			}
		}
	}
	return false
}

// expectFrame checks that data is one frame. With isJSON, its data must be JSON.
func expectFrame(t *testing.T, frame []byte, prefix string, isJSON bool) {
	t.Helper()
	body, ended := bytes.CutSuffix(frame, []byte("\n\n"))
	name, data, named := bytes.Cut(body, []byte("\ndata: "))
	if prefix == "data: " {
		name, data, named = nil, bytes.TrimPrefix(body, []byte(prefix)), true
	}
	if !ended || !named || !bytes.HasPrefix(frame, []byte(prefix)) || bytes.ContainsAny(name, "\r\n") || bytes.ContainsAny(data, "\r\n") {
		t.Errorf("not one frame: %q", frame)
	}
	if isJSON && !json.Valid(data) {
		t.Errorf("not JSON: %q", frame)
	}
}
