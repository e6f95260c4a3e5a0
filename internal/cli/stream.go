package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"spacehost/internal/control"
)

// stream sends a request, expects a stream of Server-Sent Events, and passes on the data of each. It returns when the stream
// or ctx ends, or with the first error of event. The end of the host is io.EOF.
func stream(ctx context.Context, state string, request control.Request, event func(data string) error) error {
	var body io.Reader
	if request.Body != nil {
		text, err := json.Marshal(request.Body)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	client := controlClient(state)
	defer client.CloseIdleConnections()
	r, err := controlRequest(ctx, state, request.Method, request.Path, body)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return unreachable(state, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // without it the error names the status
		return &refusedError{state, answer.StatusCode, text}
	}
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if data, isData := strings.CutPrefix(lines.Text(), "data: "); isData {
			if err := event(data); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("the host on %s has ended, or this command read too slowly: %w", state, errors.Join(lines.Err(), io.EOF))
}
