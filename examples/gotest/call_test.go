package gotest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

var visitor = http.Client{Timeout: time.Minute} // for a whole call, including its stream

// event is one event of a call's stream.
type event struct{ name, data string }

// call makes a call as with curl (https://www.gradio.app/guides/querying-gradio-apps-with-curl): POST the arguments,
// GET the stream. It returns the last event: complete with the values, or error with the reason.
func (s *Space) call(t *testing.T, name string, args ...any) event {
	t.Helper()
	body, err := json.Marshal(map[string]any{"data": args})
	if err != nil {
		t.Fatal(err)
	}
	url := s.URL + "/gradio_api/call/" + name
	var joined struct {
		ID string `json:"event_id"`
	}
	answer, err := visitor.Post(url, "application/json", bytes.NewReader(body))
	if err == nil {
		defer answer.Body.Close()
		err = json.NewDecoder(answer.Body).Decode(&joined)
	}
	if err != nil || joined.ID == "" {
		t.Fatalf("POST %s: event %q, %v", url, joined.ID, err)
	}
	stream, err := visitor.Get(url + "/" + joined.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	last, err := end(stream.Body)
	if err != nil {
		t.Fatalf("GET %s/%s: %v", url, joined.ID, err)
	}
	return last
}

// end reads Server-Sent Events up to the last one.
func end(stream io.Reader) (e event, err error) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 16<<20) // one line holds all values
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			e.name = name
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			e.data = data
			if e.name == "complete" || e.name == "error" {
				return e, nil
			}
		}
	}
	return e, fmt.Errorf("the stream ends after %+v: %w", e, cmp.Or(lines.Err(), io.ErrUnexpectedEOF))
}

// values returns the values of a successful call.
func (e event) values(t *testing.T) (values []any) {
	t.Helper()
	if err := json.Unmarshal([]byte(e.data), &values); e.name != "complete" || err != nil {
		t.Fatalf("the call ended with %+v; want values", e)
	}
	return values
}

func TestSpaceAnswersOverHTTP(t *testing.T) {
	space := StartSpace(t, "../hello-zerogpu")

	t.Run("a GPU function's value", func(t *testing.T) {
		got := space.call(t, "greet", "Go").values(t)
		if len(got) != 1 || !strings.HasPrefix(fmt.Sprint(got[0]), "Hello Go, from GPU-") {
			t.Errorf("greet returned %q; want a greeting from a leased GPU", got)
		}
	})
	t.Run("a generator's last step", func(t *testing.T) {
		got := space.call(t, "count", 3).values(t)
		if len(got) != 1 || got[0] != "1 2 3 " {
			t.Errorf("count returned %q; want all numbers", got)
		}
	})
	t.Run("a function that exceeds its duration is killed", func(t *testing.T) {
		got := space.call(t, "overstay", 60)
		if got.name != "error" || !strings.Contains(got.data, "GPU task aborted") {
			t.Errorf("overstay ended with %+v; want ZeroGPU's error", got)
		}
		space.call(t, "greet", "again").values(t) // the Space keeps running
	})
}
