package gradioapi

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"

	"spacehost/queue"
)

// dialect writes the Messages that the host makes itself, in the shape of one Gradio major version; what
// Gradio made is spliced in as it came.
type dialect interface {
	encode(m queue.Message) []byte
	// callError is what the stream of a /call says of a failed output; nil: null.
	callError(output json.RawMessage) json.RawMessage
	// notFound is what a stream says of a Session or an Event that there is not.
	notFound() string
	// rests is how long a stream rests between two looks for Messages (gradio/routes.py, sse_stream, check_rate).
	rests() time.Duration
	// noUpload answers whoever asks how far an upload is that does not come.
	noUpload(c call) error
}

// dialectOf chooses by the version that the Space reported. An unknown one speaks the newest: shapes have
// only grown since 4.
func dialectOf(m queue.Manifest) dialect {
	switch {
	case strings.HasPrefix(m.Gradio, "4."):
		return dialectV4{}
	case strings.HasPrefix(m.Gradio, "5."):
		return dialectV5{}
	}
	return dialectV6{}
}

// mustJSON writes as orjson does: compact, "<" as itself.
func mustJSON(v any) []byte {
	var out bytes.Buffer
	to := json.NewEncoder(&out)
	to.SetEscapeHTML(false)
	if err := to.Encode(v); err != nil {
		panic(err) // our own structs
	}
	return bytes.ReplaceAll(bytes.TrimSuffix(out.Bytes(), []byte("\n")), nextLine, []byte(`\u0085`))
}

// nextLine ends a line for the Python client of Gradio 4; the other such characters encoding/json has escaped.
var nextLine = []byte("\u0085")
