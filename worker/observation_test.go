package worker

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestObservations covers what a hostile Space may claim: unrequested and endless observations, foreign paths, controls.
func TestObservations(t *testing.T) {
	fact := func(values map[string]any) map[string]any {
		return map[string]any{"op": "fact", "fact": with(map[string]any{"rule": "G801", "file": "app.py", "line": 3}, values)}
	}
	t.Run("unrequested", func(t *testing.T) {
		s := newSession(t)
		var breach *FrameError
		if err := s.claim(t, fact(nil)); !errors.As(err, &breach) {
			t.Errorf("fact: error %v, want a breach", err)
		}
		if err := s.report(report{Op: "calls"}, []byte("{}")); !errors.As(err, &breach) {
			t.Errorf("calls: error %v, want a breach", err)
		}
	})
	var facts []Observation
	var lists []CallList
	observed := func(t *testing.T) *session {
		s := newSession(t)
		facts, lists = nil, nil
		s.supervisor.config.Observe = &Observe{Fact: func(o Observation) { facts = append(facts, o) }, Calls: func(p CallList) { lists = append(lists, p) }}
		return s
	}
	t.Run("bounded", func(t *testing.T) {
		s := observed(t)
		var err error
		for err == nil && len(facts) <= 2*maxObservations {
			err = s.claim(t, fact(nil))
		}
		var breach *FrameError
		if !errors.As(err, &breach) || len(facts) != maxObservations {
			t.Errorf("after %d observations: %v, want a breach after %d", len(facts), err, maxObservations)
		}
	})
	t.Run("printable", func(t *testing.T) {
		s := observed(t)
		many := map[string]any{}
		for i := range 3 * maxValueNames {
			many[strings.Repeat("n", i+1)] = "v"
		}
		for _, values := range []map[string]any{
			{"file": "../etc/passwd"}, {"file": "/etc/passwd"}, {"file": "lib/x.py", "line": -1}, {"file": "lib/x.py", "values": map[string]any{"message": "\x1b[2Ja\nb" + strings.Repeat("x", 999)}}, {"values": many},
		} {
			if err := s.claim(t, fact(values)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			if facts[i].File != "" || facts[i].Line != 0 {
				t.Errorf("place %s:%d, want none", facts[i].File, facts[i].Line)
			}
		}
		message := facts[3].Values["message"]
		if facts[3].File != "lib/x.py" || !strings.HasPrefix(message, "[2Ja bxx") || len([]rune(message)) > 200 {
			t.Errorf("%+v, want a place and a short line without controls", facts[3])
		}
		if len(facts[4].Values) != maxValueNames {
			t.Errorf("%d values, want %d", len(facts[4].Values), maxValueNames)
		}
	})
	t.Run("calls", func(t *testing.T) {
		s := observed(t)
		for _, payload := range []string{"{", strings.Repeat(" ", maxCallList+1)} {
			var breach *FrameError
			if err := s.report(report{Op: "calls"}, []byte(payload)); !errors.As(err, &breach) {
				t.Errorf("%.10q: error %v, want a breach", payload, err)
			}
		}
		for path, want := range map[string]string{"/gradio_api": "/gradio_api", "/sub/gradio_api": "/sub/gradio_api", "": "", "@example.com/": "", "//example.com": "", "/a?b": "", "/a\n": ""} {
			lists = nil
			payload := `{"path":` + string(newFrame(path, nil).Header) + `,"endpoints":[{"id":1,"name":"x\u001b","data":["a"]}],"durations":[{"function":"f","longest":3,"inputs":{"n":"1"}}]}`
			if err := s.report(report{Op: "calls"}, []byte(payload)); err != nil {
				t.Fatalf("%q: %v", path, err)
			}
			p := lists[0]
			if p.Path != want || p.Endpoints[0].Name != "x" || p.Durations[0].Longest != 3 || !reflect.DeepEqual(p.Durations[0].Inputs, map[string]string{"n": "1"}) {
				t.Errorf("%q: %+v, want path %q", path, p, want)
			}
		}
	})
}
