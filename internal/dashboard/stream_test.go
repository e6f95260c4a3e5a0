package dashboard

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
)

// sentEvents are the topics and ids of the events that one batch of a stream sends after a revision.
func sentEvents(t *testing.T, c *Changes, after int64) (topics []string, ids []int64) {
	t.Helper()
	w := httptest.NewRecorder()
	s := &stream{
		api: New(Config{Changes: c}), w: echo.NewResponse(w, echo.New()), r: httptest.NewRequest(http.MethodGet, "/", nil),
		sent: after, read: time.Now(), later: time.NewTimer(time.Hour), // the account is not read
	}
	if _, err := s.sendChanges(caller{role: Admin}); err != nil {
		t.Fatal(err)
	}
	for block := range bytes.SplitSeq(bytes.TrimSpace(w.Body.Bytes()), []byte("\n\n")) {
		lines := strings.Split(string(block), "\n")
		id, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "id: "), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		topics, ids = append(topics, strings.TrimPrefix(lines[0], "event: ")), append(ids, id)
	}
	return topics, ids
}

// TestResumeAtEachCut breaks the connection after each event of a batch: a new stream sends all topics that the page has not received.
func TestResumeAtEachCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{ended: make(chan struct{})}
		c := NewChanges(host.sources())
		closeStream, _ := c.open("ada")
		synctest.Wait()
		all, _ := sentEvents(t, c, 0)
		if len(all) != 7 { // me, five topics, stale
			t.Fatalf("a new stream sends %v", all)
		}
		_, before, _ := c.since(0, nil)
		host.spaces.Add(1)
		host.leases.Add(1)
		host.gpus.Add(1)
		host.version.Add(1)
		time.Sleep(gpusEvery + 2*lookEvery)
		synctest.Wait()
		for start, want := range map[int64][]string{0: all, before: {"me", "spaces", "leases", "gpus", "stale"}} {
			topics, ids := sentEvents(t, c, start)
			if !slices.Equal(topics, want) {
				t.Fatalf("after %d: %v, want %v", start, topics, want)
			}
			for cut := 1; cut <= len(topics); cut++ {
				again, _ := sentEvents(t, c, ids[cut-1])
				for _, topic := range topics[cut:] {
					if !slices.Contains(again, topic) {
						t.Errorf("%v breaks after %s: the new stream sends %v", topics, topics[cut-1], again)
					}
				}
				if cut == len(topics) && !slices.Equal(again, []string{"me", "stale"}) {
					t.Errorf("after the whole batch, the new stream sends %v", again)
				}
			}
		}
		closeStream()
		<-host.ended
	})
}
