package gradioapi

import (
	"encoding/json"
	"strings"
	"time"

	"spacehost/queue"
)

// dialect encodes the host's own Messages in the shape of one Gradio major version. Messages made by Gradio are
// spliced in unchanged.
type dialect interface {
	encode(m queue.Message) []byte
	// callError returns the data of a failed output on the stream of a /call. nil means null.
	callError(output json.RawMessage) json.RawMessage
	// notFoundText returns the error text for an unknown Session or Event.
	notFoundText() string
	// pollInterval returns the pause between two polls for Messages in Gradio's stream (gradio/routes.py, sse_stream,
	// check_rate).
	pollInterval() time.Duration
	// hasEmptyProgress reports whether the stream of an upload that does not arrive is empty, rather than refused.
	hasEmptyProgress() bool
}

// dialectOf selects the dialect by the version that the Space reports. An unknown version gets the newest: shapes
// have only gained fields since Gradio 4.
func dialectOf(m queue.Manifest) dialect {
	switch {
	case strings.HasPrefix(m.Gradio, "4."):
		return dialectV4{}
	case strings.HasPrefix(m.Gradio, "5."):
		return dialectV5{}
	}
	return dialectV6{}
}
