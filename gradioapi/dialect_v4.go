package gradioapi

import (
	"spacehost/internal/pytext"
	"spacehost/queue"
)

// dialectV4 is Gradio 4 (gradio/server_messages.py of 4.44; captures/v4). It differs from 5 in having no titles.
type dialectV4 struct{ dialectV5 }

type completedV4 struct {
	Msg     queue.Kind    `json:"msg"`
	EventID queue.EventID `json:"event_id"`
	Output  any           `json:"output"`
	Success bool          `json:"success"`
}

type failureV4 struct {
	Error    string  `json:"error"`
	Duration float64 `json:"duration"`
	Visible  bool    `json:"visible"`
}

type logV4 struct {
	Msg      queue.Kind    `json:"msg"`
	EventID  queue.EventID `json:"event_id"`
	Log      string        `json:"log"`
	Level    queue.Level   `json:"level"`
	Duration float64       `json:"duration"`
	Visible  bool          `json:"visible"`
}

type unexpectedV4 struct {
	Msg     queue.Kind     `json:"msg"`
	EventID *queue.EventID `json:"event_id"`
	Message string         `json:"message"`
	Success bool           `json:"success"`
}

func (d dialectV4) encode(m queue.Message) []byte {
	switch {
	case m.Raw != nil:
		return m.Raw
	case m.Kind == queue.Completed && m.Failure == nil: // cancelled
		return pytext.JSON(completedV4{m.Kind, m.Event, struct{}{}, true})
	case m.Kind == queue.Completed:
		return pytext.JSON(completedV4{m.Kind, m.Event, failureV4{m.Failure.Text, toastSeconds, true}, false})
	case m.Kind == queue.Log:
		return pytext.JSON(logV4{m.Kind, m.Event, m.Text, m.Level, toastSeconds, true})
	case m.Kind == queue.UnexpectedError:
		return pytext.JSON(unexpectedV4{Msg: m.Kind, Message: m.Text})
	}
	return d.dialectV5.encode(m)
}

func (dialectV4) notFoundText() string { return "404: Session not found." }

func (dialectV4) hasEmptyProgress() bool { return true }
