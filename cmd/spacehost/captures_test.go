package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const capturesDir = "../../gradioapi/testdata/captures"

// capture is recorded traffic of stock Gradio: the joins and the frames of the session's stream.
type capture struct {
	joins  []join
	frames []string
}

type join struct{ api, data, event string }

var joinLine = regexp.MustCompile(`POST queue/join (\w+) (\[.*\]) -> 200 \{"event_id":"([0-9a-f]{32})"\}`)

func readCapture(t *testing.T, line, name string) (c capture) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(capturesDir, line, name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if m := joinLine.FindStringSubmatch(line); m != nil {
			c.joins = append(c.joins, join{m[1], m[2], m[3]})
		}
		if _, frame, ok := strings.Cut(strings.TrimSpace(line), " data: "); ok {
			c.frames = append(c.frames, frame)
		}
	}
	if len(c.joins) == 0 || len(c.frames) == 0 {
		t.Fatalf("capture %s has %d joins and %d frames", name, len(c.joins), len(c.frames))
	}
	return c
}

// varying matches the fields that differ between runs: times. Estimates are null until a function has run once.
var varying = regexp.MustCompile(`"(duration|average_duration|cache_duration|avg_time|eta|rank_eta)":(null|-?[0-9.e-]+)`)

// fixed matches a duration that is not measured: the display time of a toast.
var fixed = regexp.MustCompile(`"duration":(3|10\.0),"visible"`)

// mask makes runs comparable: it numbers the events in the order of their joins and hides times.
func mask(frames []string, joins []join) []string {
	var out []string
	for _, frame := range frames {
		for i, j := range joins {
			frame = strings.ReplaceAll(frame, j.event, fmt.Sprintf("<event %d>", i))
		}
		frame = fixed.ReplaceAllString(frame, `"toast":$1,"visible"`)
		out = append(out, varying.ReplaceAllString(frame, `"$1":<time>`))
	}
	return out
}

// TestTrafficMatchesStockGradio sends the recorded requests to the host, with real Gradio behind it, and compares the
// responses with the recorded ones frame by frame.
func TestTrafficMatchesStockGradio(t *testing.T) {
	inParallel(t, testedLines, func(t *testing.T, line string) { compareWithStock(t, line) })
	t.Run("v6, admitted by the Space", func(t *testing.T) { compareWithStock(t, "v6", "--admission", "space") })
}

func compareWithStock(t *testing.T, line string, args ...string) {
	p := runOn(t, line, "testdata/spaces/captured", append([]string{"--gpus", "none"}, args...)...)
	compareTraffic(t, p, line)
	started, bySpace := 0, 0
	for entry := range strings.Lines(p.log()) {
		if strings.Contains(entry, `"event started"`) {
			started++
			bySpace += strings.Count(entry, `"bySpace":true`)
		}
	}
	if all := slices.Contains(args, "space"); started < 20 || bySpace == 0 || all != (bySpace == started) {
		t.Errorf("%d events started, the Space admitted %d of them; want all of them: %t", started, bySpace, all)
	}
}

func compareTraffic(t *testing.T, p *product, line string) {
	endpoints := apiNames(t, p)
	for _, name := range []string{"quick", "gen", "boom", "gerr", "logs", "prog", "two_same_session", "queue_rank_3slow", "batch"} {
		t.Run(name, func(t *testing.T) {
			want := readCapture(t, line, name)
			got := replay(t, p, endpoints, want, nil)
			gotFrames, wantFrames := mask(got.frames, got.joins), mask(want.frames, want.joins)
			if line != "v6" && name == "two_same_session" { // the order among groups is random there
				slices.SortStableFunc(gotFrames, byEvent)
				slices.SortStableFunc(wantFrames, byEvent)
			}
			if !slices.Equal(gotFrames, wantFrames) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(gotFrames, "\n  "), strings.Join(wantFrames, "\n  "))
			}
		})
	}
	t.Run("cancel_running", func(t *testing.T) { cancelRunning(t, p, line, endpoints) })
	t.Run("call", func(t *testing.T) { compareCalls(t, p, line) })
}

var maskedEvent = regexp.MustCompile(`<event \d+>`)

func byEvent(a, b string) int {
	return strings.Compare(maskedEvent.FindString(a), maskedEvent.FindString(b))
}

var (
	postedCall = regexp.MustCompile(`^POST call/(\w+) (\[.*\]) -> 200`)
	readCall   = regexp.MustCompile(`^GET call/(\w+)/<id> -> 200 text/event-stream; charset=utf-8 '(.*)' clean-EOF$`)
)

// compareCalls makes the recorded calls of /call. The host admits most of them; Gradio admits the call of st, which omits its
// state.
func compareCalls(t *testing.T, p *product, line string) {
	text, err := os.ReadFile(filepath.Join(capturesDir, line, "call.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var event string
	compared := 0
	for text := range strings.Lines(string(text)) {
		text = strings.TrimSpace(text)
		if m := postedCall.FindStringSubmatch(text); m != nil {
			event = eventOf(t, post(t, p.api()+"/call/"+m[1], `{"data":`+m[2]+`}`))
		}
		if m := readCall.FindStringSubmatch(text); m != nil {
			compared++
			want := strings.ReplaceAll(m[2], `\n`, "\n")
			if got := get(t, p.api()+"/call/"+m[1]+"/"+event); got != want {
				t.Errorf("%s: got %q, want %q", m[1], got, want)
			}
		}
	}
	if compared < 6 {
		t.Errorf("compared %d calls, want at least 6", compared)
	}
}

// cancelRunning compares the frames before and after the generator's steps. The number of steps before the cancel is random.
func cancelRunning(t *testing.T, p *product, line string, endpoints map[string]int) {
	want := readCapture(t, line, "cancel_running")
	steps := 0
	got := replay(t, p, endpoints, want, func(session string, joins []join, frame string) {
		if strings.Contains(frame, "process_generating") {
			if steps++; steps == 2 {
				cancelEvent(t, p, session, endpoints["forever"], joins[0].event)
			}
		}
	})
	without := func(frames []string) []string {
		return slices.DeleteFunc(frames, func(f string) bool { return strings.Contains(f, "process_generating") })
	}
	if got, want := without(mask(got.frames, got.joins)), without(mask(want.frames, want.joins)); !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func cancelEvent(t *testing.T, p *product, session string, endpoint int, event string) {
	t.Helper()
	body := fmt.Sprintf(`{"session_hash":%q,"fn_index":%d,"event_id":%q}`, session, endpoint, event)
	if answer := post(t, p.api()+"/cancel", body); answer != `{"success":true}` {
		t.Errorf("cancel returned %s", answer)
	}
}

// apiNames maps names to ids as the JavaScript client does, from the config.
func apiNames(t *testing.T, p *product) map[string]int {
	t.Helper()
	config := getJSON[struct {
		Dependencies []struct {
			ID      int    `json:"id"`
			APIName string `json:"api_name"`
		} `json:"dependencies"`
	}](t, p.URL+"/config")
	names := map[string]int{}
	for _, d := range config.Dependencies {
		names[d.APIName] = d.ID
	}
	return names
}

// replay joins in the order of the capture: the joins before the first start at once, the others after it. The milliseconds
// between the recorded joins caused this order. replay calls see, if not nil, with each frame.
func replay(t *testing.T, p *product, endpoints map[string]int, want capture, see func(session string, joins []join, frame string)) (got capture) {
	t.Helper()
	session := fmt.Sprintf("replay%d", time.Now().UnixNano())
	joinNext := func() {
		j := want.joins[len(got.joins)]
		j.event = joinQueue(t, p, session, endpoints[j.api], j.data)
		got.joins = append(got.joins, j)
	}
	first := want.early()
	release := hold(t, p, endpoints, want.joins[:first])
	for range first {
		joinNext()
	}
	release()
	stream(t, p.api()+"/queue/data?session_hash="+session, func(frame string) {
		got.frames = append(got.frames, frame)
		for strings.Contains(frame, `"process_starts"`) && len(got.joins) < len(want.joins) {
			joinNext()
		}
		if see != nil {
			see(session, got.joins, frame)
		}
	})
	return got
}

// early counts the joins before the first start.
func (c capture) early() (n int) {
	for _, frame := range c.frames {
		if !strings.Contains(frame, `"estimation"`) {
			break
		}
		if n < len(c.joins) && strings.Contains(frame, c.joins[n].event) {
			n++
		}
	}
	return n
}

// hold keeps a concurrency group busy that several of the joins share, until release is called. Gradio 5 polls its queue every
// 50 ms and finds all joins there; the host would start the first at once.
func hold(t *testing.T, p *product, endpoints map[string]int, joins []join) (release func()) {
	t.Helper()
	if len(joins) < 2 || joins[0].api != joins[1].api {
		return func() {}
	}
	session := fmt.Sprintf("hold%d", time.Now().UnixNano())
	joinQueue(t, p, session, endpoints["hold_"+joins[0].api], "[]")
	started, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		stream(t, p.api()+"/queue/data?session_hash="+session, func(frame string) {
			if strings.Contains(frame, `"process_starts"`) {
				close(started)
			}
		})
	}()
	select {
	case <-started: // the event that ran before may need a moment to end
	case <-time.After(patience):
		t.Fatalf("the event that holds the group did not start within %s", patience)
	}
	return func() {
		joinQueue(t, p, session+"release", endpoints["release"], "[]")
		<-ended
	}
}

func joinQueue(t *testing.T, p *product, session string, endpoint int, data string) (event string) {
	t.Helper()
	body := fmt.Sprintf(`{"data":%s,"fn_index":%d,"session_hash":%q}`, data, endpoint, session)
	return eventOf(t, post(t, p.api()+"/queue/join", body))
}

func eventOf(t *testing.T, text string) string {
	t.Helper()
	var answer struct {
		EventID string `json:"event_id"`
	}
	if json.Unmarshal([]byte(text), &answer) != nil || len(answer.EventID) != 32 {
		t.Fatalf("response without event_id: %s", text)
	}
	return answer.EventID
}

// stream reads `data:` frames until the server ends the stream; any other line is an error.
func stream(t *testing.T, url string, see func(frame string)) {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if kind := answer.Header.Get("Content-Type"); kind != "text/event-stream; charset=utf-8" {
		t.Errorf("content type %q", kind)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if frame, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			see(frame)
		} else if lines.Text() != "" {
			t.Errorf("stream line %q is not a data: frame", lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream was cut off: %v", err)
	}
}

func post(t *testing.T, url, body string) string {
	t.Helper()
	answer, err := http.Post(url, "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
