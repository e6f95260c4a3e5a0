package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode"
)

// claim returns what the session answers to a frame with that header, as the channel would deliver it.
func (s *session) claim(t *testing.T, header map[string]any) error {
	t.Helper()
	data, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseReport(Frame{Header: data})
	if err != nil {
		return err
	}
	return s.report(r, nil)
}

// largeManifest has 0.9 MB of the strings that Files keeps.
func largeManifest(app int) map[string]any {
	allowed := make([]string, 9)
	for i := range allowed {
		allowed[i] = strings.Repeat("x", 100_000)
	}
	return with(manifestHeader(app), map[string]any{"files": map[string]any{"allowed": allowed}})
}

// TestManifestFlood sends manifests of 0.9 MB. The host keeps the last one of each mount, and ends the Space when
// those of different mounts, or all together, exceed their bounds.
func TestManifestFlood(t *testing.T) {
	rows := map[string]struct {
		reason string
		header func(app int) map[string]any
		most   int // manifests that are accepted
	}{
		"relaunches": {"manifests of more than 64 MiB", largeManifest, 25},
		"mounts": {"manifests of 1", func(app int) map[string]any {
			return with(largeManifest(app), map[string]any{"mount": fmt.Sprint("/", app)})
		}, 20},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			s := newSession(t)
			s.received = maxManifestBytes - 20<<20 // of earlier launches
			before := heap()
			app := 0
			var err error
			for ; err == nil && app < 400; app++ {
				err = s.claim(t, row.header(app))
			}
			var breach *FrameError
			if !errors.As(err, &breach) || !strings.HasPrefix(breach.Reason, row.reason) || app > row.most {
				t.Errorf("after %d manifests: got %v, want %s... after at most %d", app, err, row.reason, row.most)
			}
			if grown := heap() - before; grown > 32<<20 {
				t.Errorf("the heap grew by %d MiB, want at most 32", grown>>20)
			}
			runtime.KeepAlive(s)
		})
	}
}

func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestManyRelaunches: an app with a manifest of the usual size may launch hundreds of times.
func TestManyRelaunches(t *testing.T) {
	s := newSession(t)
	types := map[string]string{}
	for i := range 1500 {
		types[fmt.Sprint(".type-", i)] = "application/x-something-longer"
	}
	for app := range 200 {
		if err := s.claim(t, with(manifestHeader(app), map[string]any{"files": map[string]any{"types": types}})); err != nil {
			t.Fatalf("launch %d: %v", app, err)
		}
	}
}

// TestSmallValuesInAHeader: empty objects take fifty times the memory of their text.
func TestSmallValuesInAHeader(t *testing.T) {
	s := newSession(t)
	for name, n := range map[string]int{"limit is 50000": maxValues + 2, "the limit is 5000": maxEndpoints + 1} {
		endpoints := make([]struct{}, n)
		var breach *FrameError
		if err := s.claim(t, with(manifestHeader(0), map[string]any{"endpoints": endpoints})); !errors.As(err, &breach) || !strings.Contains(breach.Reason, name) {
			t.Errorf("%d endpoints: got %v, want %s", n, err, name)
		}
	}
}

// TestEscapes: what a Space claims reaches the operator as one short line without control characters.
func TestEscapes(t *testing.T) {
	const escapes = "\x1b[2J\u009b2J\u0007\r\nspacehost: forged\u202e"
	long := escapes + strings.Repeat("x", 10_000)
	var shown []string
	s := newSession(t)
	s.supervisor.config.Unknown = func(gradio, reason string) { shown = append(shown, gradio, reason) }
	if err := s.claim(t, map[string]any{"op": "unknown", "gradio": long, "reason": long, "port": 1}); err != nil {
		t.Fatal(err)
	}
	m, _ := s.supervisor.queue.Manifest()
	shown = append(shown, m.Gradio, m.Reason, (&FrameError{long}).Error())
	failure, ok := report{Rule: "A206", File: escapes + "app.py", Values: map[string]string{"module": long}}.failureOf()
	if !ok {
		t.Error("a failure with a long value is dropped")
	}
	shown = append(shown, failure.File, failure.Values["module"])
	if err := s.claim(t, with(manifestHeader(0), map[string]any{"gradio": long})); err != nil {
		t.Fatal(err)
	}
	m, _ = s.supervisor.queue.Manifest()
	shown = append(shown, m.Gradio)
	for i, text := range shown {
		if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }) {
			t.Errorf("%d has control characters: %.100q", i, text)
		}
		if n := len([]rune(text)); n > 300 || n == 0 {
			t.Errorf("%d has %d runes, want at most 300: %.100q", i, n, text)
		}
	}
}
