package gradioapi

import (
	"encoding/json"
	"fmt"

	"spacehost/internal/pytext"
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
		name, data = "error", pytext.JSON(message.Text)
	case queue.Completed, queue.Generating, queue.Streaming:
		name, data = simpleOutput(d, message.Kind, d.encode(message))
	default:
		return nil
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, pytext.Dumps(data))
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
