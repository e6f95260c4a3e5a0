package gradioapi

import (
	"encoding/json"
	"time"

	"spacehost/internal/pytext"
	"spacehost/queue"
)

// dialectV6 is Gradio 6 (gradio/server_messages.py of 6.31; captures/v6). Fields are in the order in which Gradio
// sends them.
type dialectV6 struct{}

type estimationV6 struct {
	Msg       queue.Kind    `json:"msg"`
	EventID   queue.EventID `json:"event_id"`
	Rank      int           `json:"rank"`
	QueueSize int           `json:"queue_size"`
	RankETA   *float64      `json:"rank_eta"`
}

type completedV6 struct {
	Msg           queue.Kind    `json:"msg"`
	EventID       queue.EventID `json:"event_id"`
	Output        any           `json:"output"`
	Success       bool          `json:"success"`
	Title         *string       `json:"title"`
	UsedCache     *string       `json:"used_cache"`
	CacheDuration *float64      `json:"cache_duration"`
	AvgTime       *float64      `json:"avg_time"`
}

// failureV6 is the payload of a gr.Error (gradio/utils.py, error_payload).
type failureV6 struct {
	Error    string  `json:"error"`
	Duration float64 `json:"duration"`
	Visible  bool    `json:"visible"`
	Title    string  `json:"title"`
}

type logV6 struct {
	Msg      queue.Kind    `json:"msg"`
	EventID  queue.EventID `json:"event_id"`
	Log      string        `json:"log"`
	Level    queue.Level   `json:"level"`
	Duration float64       `json:"duration"`
	Visible  bool          `json:"visible"`
	Title    string        `json:"title"`
}

type unexpectedV6 struct {
	Msg             queue.Kind     `json:"msg"`
	EventID         *queue.EventID `json:"event_id"`
	Message         string         `json:"message"`
	SessionNotFound bool           `json:"session_not_found"`
	Success         bool           `json:"success"`
}

type bareV6 struct {
	Msg     queue.Kind     `json:"msg"`
	EventID *queue.EventID `json:"event_id"`
}

// toastSeconds is the time that Gradio shows an error or a log (gradio/exceptions.py, Error).
const toastSeconds = 10

func (dialectV6) encode(m queue.Message) []byte {
	switch {
	case m.Raw != nil:
		return m.Raw
	case m.Kind == queue.Estimation:
		return pytext.JSON(estimationV6{m.Kind, m.Event, m.Rank, m.Size, m.ETA})
	case m.Kind == queue.Completed:
		return pytext.JSON(completedOfV6(m))
	case m.Kind == queue.Log:
		return pytext.JSON(logV6{m.Kind, m.Event, m.Text, m.Level, toastSeconds, true, m.Title})
	case m.Kind == queue.UnexpectedError:
		return pytext.JSON(unexpectedV6{Msg: m.Kind, Message: m.Text, SessionNotFound: m.Text == notFoundV6})
	}
	return pytext.JSON(bareV6{Msg: m.Kind}) // close_stream, heartbeat
}

func (dialectV6) callError(output json.RawMessage) json.RawMessage { return output }

const notFoundV6 = "404: Not Found"

func (dialectV6) notFoundText() string { return notFoundV6 }

func (dialectV6) pollInterval() time.Duration { return 0 }

func (dialectV6) hasEmptyProgress() bool { return false }

func completedOfV6(m queue.Message) completedV6 {
	if m.Failure == nil { // cancelled
		return completedV6{Msg: m.Kind, EventID: m.Event, Output: struct{}{}, Success: true}
	}
	title := m.Failure.Title
	output := failureV6{m.Failure.Text, toastSeconds, true, title}
	return completedV6{Msg: m.Kind, EventID: m.Event, Output: output, Title: &title}
}
