package checkrun

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"spacehost/internal/printable"
	"spacehost/worker"
)

// caller calls endpoints as Gradio's frontend does: POST queue/join, then the stream queue/data.
type caller struct {
	base string // the Space's address, with the prefix of Gradio's API
}

// ended is the end of one call.
type ended struct {
	success bool
	words   string // of an error that the app itself has chosen for the visitor
	late    bool
	err     error // the call could not be made
}

// maxEvent bounds one message of a stream. The host accepts results of 320 MiB, which a check does not keep.
const maxEvent = 64 << 20

// call makes one call in a session of its own.
func (c caller) call(ctx context.Context, endpoint worker.PlannedCall, timeout time.Duration) ended {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	end, err := c.join(ctx, endpoint)
	if err != nil && ctx.Err() != nil {
		return ended{late: true}
	}
	end.err = err
	return end
}

func (c caller) join(ctx context.Context, endpoint worker.PlannedCall) (end ended, err error) {
	session := strings.ToLower(rand.Text()[:12])
	body, err := json.Marshal(map[string]any{"data": endpoint.Data, "fn_index": endpoint.ID, "session_hash": session, "event_data": nil, "trigger_id": nil})
	if err != nil {
		return end, err
	}
	joined, err := c.request(ctx, http.MethodPost, "/queue/join", body)
	if err != nil {
		return end, err
	}
	defer joined.Body.Close()
	if joined.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(joined.Body, 1<<10))
		return end, fmt.Errorf("the Space answers %s: %s", joined.Status, printable.Reason(string(text)))
	}
	stream, err := c.request(ctx, http.MethodGet, "/queue/data?session_hash="+session, nil)
	if err != nil {
		return end, err
	}
	defer stream.Body.Close()
	return readStream(stream.Body)
}

func (c caller) request(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	return direct.Do(r)
}

// direct bypasses the operator's proxy: the Space is on this machine.
var direct = &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}

// message is what a check reads of Gradio's messages.
type message struct {
	Msg     string `json:"msg"`
	Success bool   `json:"success"`
	Message string `json:"message"`
	Output  struct {
		Error   *string `json:"error"`
		Title   string  `json:"title"`
		Visible *bool   `json:"visible"`
	} `json:"output"`
}

func readStream(stream io.Reader) (end ended, err error) {
	lines := bufio.NewReaderSize(stream, 64<<10)
	for {
		line, err := readLine(lines)
		if err != nil {
			return end, err
		}
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		var m message
		if err := json.Unmarshal(data, &m); err != nil {
			continue // the output of a result may have any shape; its message is a success
		}
		switch m.Msg {
		case "process_completed":
			end.success = m.Success
			if m.Output.Error != nil && m.Output.Title != "" { // of gr.Error (gradio 6.31.0, utils.py, error_payload)
				end.words = printable.Reason(strings.TrimSpace(m.Output.Title + ": " + *m.Output.Error))
			}
			return end, nil
		case "unexpected_error":
			return end, errors.New(printable.Reason(m.Message))
		case "close_stream":
			return end, errors.New("the stream ended without a result")
		}
	}
}

// readLine reads one line. Of a line above maxEvent it keeps the beginning.
func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) <= maxEvent {
			line = append(line, part...)
		}
		if err == nil {
			return bytes.TrimRight(line, "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}
