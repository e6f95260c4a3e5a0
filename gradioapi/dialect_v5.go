package gradioapi

import (
	"encoding/json"
	"time"

	"spacehost/internal/pytext"
	"spacehost/queue"
)

// dialectV5 is Gradio 5 (gradio/server_messages.py of 5.49; captures/v5). It differs from 6 in the fields of
// process_completed.
type dialectV5 struct{ dialectV6 }

type completedV5 struct {
	Msg     queue.Kind    `json:"msg"`
	EventID queue.EventID `json:"event_id"`
	Output  any           `json:"output"`
	Success bool          `json:"success"`
	Title   *string       `json:"title"`
}

func (d dialectV5) encode(m queue.Message) []byte {
	if m.Raw != nil || m.Kind != queue.Completed {
		return d.dialectV6.encode(m)
	}
	c := completedOfV6(m)
	return pytext.JSON(completedV5{c.Msg, c.EventID, c.Output, c.Success, c.Title})
}

// callError is null for every failure: Gradio 5 also looks for `data` in a failed output (gradio/routes.py,
// simple_predict_get).
func (dialectV5) callError(json.RawMessage) json.RawMessage { return nil }

func (dialectV5) pollInterval() time.Duration { return 50 * time.Millisecond }
