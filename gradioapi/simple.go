package gradioapi

import (
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"spacehost/queue"
)

// simpleFrame encodes a Message as a frame of a /call stream: generating, complete, error or heartbeat
// (gradio/routes.py, simple_predict_get). It returns nil for all other Messages, which the stream omits.
func simpleFrame(d dialect, message queue.Message) []byte {
	name, data := "", []byte("null")
	switch message.Kind {
	case queue.Heartbeat:
		name = "heartbeat"
	case queue.UnexpectedError:
		name, data = "error", mustJSON(message.Text)
	case queue.Completed, queue.Generating, queue.Streaming:
		name, data = simpleOutput(d, message.Kind, d.encode(message))
	default:
		return nil
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, pythonJSON(data))
}

func simpleOutput(d dialect, kind queue.Kind, raw []byte) (name string, data []byte) {
	var m struct {
		Success bool            `json:"success"`
		Output  json.RawMessage `json:"output"`
	}
	var output struct {
		Data json.RawMessage `json:"data"`
	}
	if json.Unmarshal(raw, &m) != nil || m.Output == nil {
		return "error", []byte("null")
	}
	if !m.Success {
		if data = d.callError(m.Output); data == nil {
			data = []byte("null")
		}
		return "error", data
	}
	name = "generating"
	if kind == queue.Completed {
		name = "complete"
	}
	if json.Unmarshal(m.Output, &output) != nil || output.Data == nil {
		return name, []byte("null")
	}
	return name, output.Data
}

// pythonJSON writes valid JSON as Python's json.dumps does: a space after comma and colon, printable ASCII only.
// Numbers keep their original text (orjson's 1e-7 is 1e-07 in Python).
func pythonJSON(valid []byte) []byte {
	out := make([]byte, 0, len(valid)+len(valid)/8)
	inString := false
	for i := 0; i < len(valid); i++ {
		switch b := valid[i]; {
		case b >= 0x7f: // DEL and non-ASCII bytes
			r, size := utf8.DecodeRune(valid[i:])
			out = appendEscaped(out, r)
			i += size - 1
		case inString && b == '\\':
			out = append(out, b, valid[i+1])
			i++
		case !inString && (b == ' ' || b == '\t' || b == '\r' || b == '\n'):
		case b == '"':
			inString = !inString
			out = append(out, b)
		case !inString && (b == ',' || b == ':'):
			out = append(out, b, ' ')
		default:
			out = append(out, b)
		}
	}
	return out
}

func appendEscaped(out []byte, r rune) []byte {
	if r >= 0x10000 { // two surrogates
		r -= 0x10000
		return fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
	}
	return fmt.Appendf(out, `\u%04x`, r)
}
