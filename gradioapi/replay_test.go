package gradioapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"spacehost/queue"
)

// lines returns a capture's lines without its header and without the leading seconds.
func lines(t *testing.T, major, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "captures", major, name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); !strings.HasPrefix(line, "#") {
			found = append(found, seconds.ReplaceAllString(line, ""))
		}
	}
	return found
}

var (
	seconds = regexp.MustCompile(`^\d+\.\d+ `)
	joinRE  = regexp.MustCompile(`^POST queue/join (\w+) (.*) -> 200 \{"event_id":"(\w+)"\}$`)
	etaRE   = regexp.MustCompile(`"rank_eta":[0-9][0-9.e+-]*`)
)

// replay plays a capture. It sends the captured joins and cancels to the host, and emits the Space's messages through
// the runner. The host must produce its own messages by itself.
type replay struct {
	*host
	lines   []string
	joins   [][]string // name, data, captured id; those not sent yet
	events  map[string]queue.EventID
	fns     map[string]int
	means   map[int]float64 // mean durations before the capture
	running map[queue.EventID]bool
	holders []queue.EventID // Events that keep Endpoints busy while the captured Events join
	held    bool            // whether there were any holders
	stream  *stream
}

// gradios are the captured versions.
var gradios = map[string]string{"v4": "4.44.1", "v5": "5.49.1", "v6": "6.31.0"}

// withGradio is a Space that reports the Gradio version of the captures of a major version.
func withGradio(major string) func(*setup) {
	return with(func(m *queue.Manifest) { m.Gradio = gradios[major] })
}

// frame is the content of a captured frame.
type frame struct {
	Msg     queue.Kind
	EventID string   `json:"event_id"`
	ETA     *float64 `json:"eta"`
	AvgTime *float64 `json:"avg_time"`
	Output  json.RawMessage
}

func frameOf(t *testing.T, line string) frame {
	t.Helper()
	var f frame
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &f); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return f
}

func TestReplayOfCaptures(t *testing.T) {
	for major := range gradios {
		for _, name := range []string{"quick", "gen", "boom", "gerr", "logs", "prog", "queue_rank_3slow", "two_same_session", "batch", "cancel_running"} {
			t.Run(major+"/"+name, func(t *testing.T) {
				p := &replay{host: newHost(t, withGradio(major)), lines: lines(t, major, name), events: map[string]queue.EventID{}, fns: map[string]int{}, means: map[int]float64{}, running: map[queue.EventID]bool{}}
				p.prepare()
				p.hold()
				for _, line := range p.lines {
					p.play(line)
				}
				p.compare()
			})
		}
	}
}

// hold keeps an Endpoint busy that the capture joins more than once before the first start. Gradio 5 polls its queue
// every 50 ms, while the host starts an Event at once.
func (p *replay) hold() {
	joined := map[int]int{}
	for _, line := range p.lines {
		if strings.HasPrefix(line, "data: ") && frameOf(p.T, line).Msg == "process_starts" {
			break
		}
		if strings.HasPrefix(line, "data: ") {
			joined[p.fns[frameOf(p.T, line).EventID]]++
		}
	}
	for fn, n := range joined {
		if n > 1 {
			p.holders = append(p.holders, p.join(fn, fmt.Sprint("hold", fn), `[null]`))
			p.started()
			p.held = true
		}
	}
}

func (p *replay) release() {
	for _, event := range p.holders {
		p.emit(event, completedMessage)
		p.queue.Done(event, "", nil)
	}
	p.holders = p.holders[:0:0]
}

// prepare collects the joins. It also gives the Queue the mean durations that the captured queue had from earlier
// calls.
func (p *replay) prepare() {
	for _, line := range p.lines {
		if j := joinRE.FindStringSubmatch(line); j != nil {
			p.joins = append(p.joins, j[1:])
			p.fns[j[3]] = fnNames[j[1]]
		}
	}
	ran := map[int]bool{}
	for _, line := range p.lines {
		if !strings.HasPrefix(line, "data: ") {
			continue
		}
		f := frameOf(p.T, line)
		if fn := p.fns[f.EventID]; f.Msg == "process_starts" && !ran[fn] {
			ran[fn] = true
			if f.ETA != nil {
				p.warm(fn, *f.ETA)
			}
		}
	}
}

func (p *replay) warm(fn int, mean float64) {
	p.means[fn] = mean
	event := p.join(fn, fmt.Sprint("warm", fn), `[null]`)
	p.started()
	p.emit(event, completedMessage)
	p.queue.Done(event, "", &mean)
}

func (p *replay) play(line string) {
	switch {
	case strings.HasPrefix(line, "POST cancel"):
		p.cancelTheOne()
	case strings.HasPrefix(line, "data: "):
		p.playFrame(line, frameOf(p.T, line))
	}
}

func (p *replay) playFrame(line string, f frame) {
	p.Helper()
	event, joined := p.events[f.EventID]
	switch {
	case f.Msg == queue.Estimation && !joined:
		p.joinNext(f.EventID)
	case f.Msg == queue.Estimation && len(p.joins) == 0:
		p.release()
	case f.Msg == queue.Estimation, f.Msg == queue.CloseStream, string(f.Output) == "{}":
		// made by the host
	default:
		p.awaitStart(event)
		p.emit(event, strings.ReplaceAll(strings.TrimPrefix(line, "data: "), f.EventID, "$ID"))
		if f.Msg == queue.Completed {
			p.queue.Done(event, "", f.AvgTime)
		}
	}
}

func (p *replay) joinNext(id string) {
	p.Helper()
	if len(p.joins) == 0 || p.joins[0][2] != id {
		p.Fatalf("the capture has an estimation of %s, but the remaining joins are %v", id, p.joins)
	}
	p.events[id] = p.join(p.fns[id], "my-session", p.joins[0][1])
	if p.joins = p.joins[1:]; len(p.joins) == 0 { // the captured stream was opened after the last join
		p.stream = p.data("my-session")
	}
}

func (p *replay) awaitStart(event queue.EventID) {
	p.Helper()
	for !p.running[event] {
		for _, e := range receive(p.T, p.runner.jobs, "the start of "+string(event)).Events {
			p.running[e.ID] = true
		}
	}
}

func (p *replay) cancelTheOne() {
	p.Helper()
	for id, event := range p.events {
		p.cancel("my-session", p.fns[id], event)
		if got := receive(p.T, p.runner.cancelled, "the cancel"); got != event {
			p.Errorf("the runner cancelled %s, want %s", got, event)
		}
		p.queue.Done(event, "cancelled", nil)
	}
}

// compare compares each frame that a client reads with the capture, byte for byte. Only an estimate that depends on
// the clock may differ.
func (p *replay) compare() {
	p.Helper()
	got, err := p.stream.remaining()
	if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		p.Errorf("the stream ended with %v", err)
	}
	for _, line := range p.lines {
		if !strings.HasPrefix(line, "data: ") {
			continue
		}
		if len(got) == 0 {
			p.Fatalf("the stream ended, want %s", line)
		}
		p.compareFrame(got[0], line)
		got = got[1:]
	}
	if len(got) > 0 {
		p.Errorf("read more frames than captured: %q", got)
	}
}

func (p *replay) compareFrame(got, line string) {
	p.Helper()
	f := frameOf(p.T, line)
	want := strings.ReplaceAll(line, f.EventID, string(p.events[f.EventID])) + "\n\n"
	if f.EventID == "" {
		want = line + "\n\n"
	}
	if mean := fmt.Sprintf(`"rank_eta":%v}`, p.means[p.fns[f.EventID]]); p.held || !strings.Contains(want, mean) {
		got, want = etaRE.ReplaceAllString(got, `"rank_eta":~`), etaRE.ReplaceAllString(want, `"rank_eta":~`)
	}
	if got != want {
		p.Errorf("got  %s\nwant %s", got, want)
	}
}

// pythonString parses a captured body, which is printed as a Python str.
func pythonString(t *testing.T, printed string) string {
	t.Helper()
	text, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.Trim(printed, "'"), `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("%s: %v", printed, err)
	}
	return text
}

var callRE = regexp.MustCompile(`^GET call/(\w+)/<id> -> 200 (text/event-stream; charset=utf-8) ('.*') clean-EOF$`)

func TestReplayOfCalls(t *testing.T) {
	for major := range gradios {
		t.Run(major, func(t *testing.T) { replayCalls(t, major) })
	}
}

func replayCalls(t *testing.T, major string) {
	replayed := 0
	for _, line := range lines(t, major, "call") {
		call := callRE.FindStringSubmatch(line)
		if call == nil {
			continue
		}
		replayed++
		h, want := newHost(t, withGradio(major)), pythonString(t, call[3])
		event := h.admittedCall("")
		h.emit(event, `{"msg":"process_starts","event_id":"$ID","eta":null}`)
		for frame := range strings.SplitSeq(strings.TrimSuffix(want, "\n\n"), "\n\n") {
			h.emitForFrame(event, frame)
		}
		got := h.get(api + "/call/" + call[1] + "/" + string(event))
		if got.body != want || got.status != 200 || got.err != nil || got.header.Get("Content-Type") != call[2] {
			t.Errorf("%s: got %d %q (%v)\nwant %q", call[1], got.status, got.body, got.err, want)
		}
	}
	if replayed < 6 {
		t.Errorf("replayed %d calls, want at least 6", replayed)
	}
}

// emitForFrame emits the Message, compact as orjson writes it, that Gradio turns into this frame of a /call.
func (h *host) emitForFrame(event queue.EventID, frame string) {
	h.Helper()
	name, data, _ := strings.Cut(strings.TrimPrefix(frame, "event: "), "\ndata: ")
	data = strings.NewReplacer(`", "`, `","`, `": `, `":`, `, "`, `,"`, `, null`, `,null`).Replace(data)
	switch name {
	case "generating":
		h.emit(event, fmt.Sprintf(`{"msg":"process_generating","event_id":"$ID","output":{"data":%s,"is_generating":true},"success":true,"time_limit":null}`, data))
	case "complete":
		h.emit(event, fmt.Sprintf(`{"msg":"process_completed","event_id":"$ID","output":{"data":%s,"is_generating":false},"success":true,"title":null}`, data))
	case "error":
		if data == "null" { // Gradio 5 omits the content of {"error": ...}
			data = `{"error":null}`
		}
		h.emit(event, fmt.Sprintf(`{"msg":"process_completed","event_id":"$ID","output":%s,"success":false,"title":"Error"}`, data))
	default:
		h.Fatalf("unknown frame: %s", frame)
	}
}

func TestReplayOfBrokenStreams(t *testing.T) {
	for major := range gradios {
		t.Run(major, func(t *testing.T) { replayBrokenStreams(t, major) })
	}
}

func replayBrokenStreams(t *testing.T, major string) {
	h := newHost(t, withGradio(major))
	for _, row := range []struct{ capture, line, path string }{
		{"misc", "queue/data unknown session -> 200 ", "/queue/data?session_hash=nosuch"},
		{"call", "GET call unknown event -> 200 ", "/call/quick/nosuch"},
	} {
		want := ""
		for _, line := range lines(t, major, row.capture) {
			if printed, ok := strings.CutPrefix(line, row.line); ok {
				want = pythonString(t, strings.TrimSuffix(printed, " ABORT"))
			}
		}
		if got := h.get(api + row.path); got.status != 200 || got.body != want || !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %d %q (%v)\nwant %q, broken off", row.path, got.status, got.body, got.err, want)
		}
	}
}

func TestReplayOfStatus(t *testing.T) {
	for major := range gradios {
		h, want := newHost(t, withGradio(major)), lines(t, major, "misc")[1]
		if got := "queue/status -> 200 " + h.get(api+"/queue/status").body; got != want {
			t.Errorf("%s: got  %s\nwant %s", major, got, want)
		}
	}
}

func TestReplayOfOrigins(t *testing.T) {
	for major := range gradios {
		t.Run(major, func(t *testing.T) { replayOrigins(t, major) })
	}
}

// replayOrigins: Gradio 4 grants access to every sandboxed frame (origin null). The host behaves like 5 and 6 in all
// dialects.
func replayOrigins(t *testing.T, major string) {
	h := newHost(t, withGradio(major))
	for _, line := range lines(t, major, "cors") {
		origin, granted, _ := strings.Cut(strings.TrimPrefix(line, "origin "), " -> ")
		want := "-"
		if strings.Contains(granted, "'access-control-allow-origin', '"+origin+"'") && origin != "null" {
			want = origin
		}
		expectCORS(t, origin, h.get(api+"/queue/status", "Host: 127.0.0.1:7901", "Origin: "+origin).header, want)
	}
}
