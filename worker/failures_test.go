package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/internal/proctree/proctreetest"
	"spacehost/internal/space"
	"spacehost/queue"
)

// TestFailuresAreRecognized makes calls fail in a real Space, on each line of Gradio. Each is printed once, folded, and reported
// before the message that completes it.
func TestFailuresAreRecognized(t *testing.T) {
	for line := range gradios {
		t.Run(line, func(t *testing.T) { testFailures(t, line) })
	}
}

func testFailures(t *testing.T, line string) {
	gpus := newDevices(t)
	a := &app{gradio: gradios[line]}
	a.p, a.r = startAppOn(t, testPythonOf(t, line), "failures", gpus.serve)
	a.attached(t, 0)
	for _, row := range []struct {
		call, rule, place string
		values            map[string]string
		last              string // line of the traceback
	}{
		{"locked", "G312", "return model.run(text)", map[string]string{"function": "run", "position": "1", "argument": "self", "class": "Model", "path": "self.lock", "kind": "_thread.lock"}, "cannot pickle"},
		{"with_lambda", "G312", "return called(text, lambda", map[string]string{"function": "called", "argument": "callback", "path": "callback", "kind": "a lambda"}, "pickle"},
		{"unpicklable", "G701", "def unpicklable(text)", map[string]string{"function": "unpicklable", "path": "result['all'][1]", "kind": "_thread.lock"}, "cannot pickle"},
		{"unpicklable_yield", "G701", "def unpicklable_yield(text)", map[string]string{"path": "result", "kind": "generator"}, "cannot pickle"},
		{"texted", "H402", "def texted(text)", map[string]string{"function": "texted", "value": "'120s'"}, "TypeError: unsupported type for timedelta"},
		{"wrong_signature", "H403", "def wrong_signature(text)", map[string]string{"duration": "seconds"}, "TypeError: seconds() missing 1 required positional argument: 'steps'"},
		{"wrong_result", "H404", "def wrong_result(text)", map[string]string{"duration": "words", "value": "'sixty'"}, "TypeError: unsupported type for timedelta"},
		{"secret", "B601", `return os.environ["NO_SUCH_SECRET"]`, map[string]string{"name": "NO_SUCH_SECRET"}, "KeyError: 'NO_SUCH_SECRET'"},
		{"secret_inside", "B601", `return os.environ["NO_SUCH_SECRET"]`, map[string]string{"name": "NO_SUCH_SECRET"}, "KeyError: 'NO_SUCH_SECRET'"},
		{"removed", "B801", "return gr.Textbox(", map[string]string{"name": "Textbox", "argument": "no_such_argument", "version": gradios[line]}, "got an unexpected keyword argument"},
		{"unknown", "", "", nil, "ValueError: only this app knows why"},
		{"unknown_inside", "", "", nil, "ValueError: only this app knows why"},
	} {
		t.Run(row.call, func(t *testing.T) {
			before := len(a.r.printed())
			id := a.start(a.body(t, row.call, "session-"+row.call, "text"))[0]
			if _, end := a.finish(t, id); end.Error != "" {
				t.Errorf("done with %q", end.Error)
			}
			a.wantPrinted(t, before, row.last)
			failure, at := a.failure(id)
			if row.rule == "" {
				if failure.Rule != "" {
					t.Errorf("recognized as %+v", failure)
				}
				return
			}
			a.wantPlace(t, failure, row.place)
			if failure.Rule != row.rule {
				t.Errorf("rule %s, want %s", failure.Rule, row.rule)
			}
			for name, want := range row.values {
				if failure.Values[name] != want {
					t.Errorf("%s is %q, want %q (%+v)", name, failure.Values[name], want, failure.Values)
				}
			}
			if completed := a.completed(id); at > completed {
				t.Errorf("report %d completes the event, and report %d is about its failure", completed, at)
			}
		})
	}
	t.Run("no worker waits for arguments", func(t *testing.T) {
		eventually(t, "the workers that got no arguments have ended", func() bool {
			gpus.mu.Lock()
			defer gpus.mu.Unlock()
			for _, pid := range childrenOf(t, a.p.PID) {
				if _, allowed := gpus.allowed[pid]; !allowed {
					return false
				}
			}
			return true
		})
		if text := strings.Join(a.r.printed(), "\n"); strings.Contains(text, "A GPU worker did not start within") {
			t.Errorf("they ended when their time was over:\n%s", text)
		}
	})
	t.Run("the event data of Gradio", func(t *testing.T) { a.testEventData(t) })
	t.Run("a file that is none", func(t *testing.T) { a.testFileValue(t) })
}

// childrenOf returns the processes that the main thread, or another one of a process, has forked.
func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // a thread may have ended
		for field := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

// failure returns the report about an event, and its number.
func (a *app) failure(id queue.EventID) (found recorded, at int) {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	at = slices.IndexFunc(a.r.reports, func(one recorded) bool { return one.Op == "failure" && slices.Contains(one.Events, id) })
	if at < 0 {
		return recorded{}, at
	}
	return a.r.reports[at], at
}

func (a *app) completed(id queue.EventID) int {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	return slices.IndexFunc(a.r.reports, func(one recorded) bool { return one.Op == "message" && one.Event == id && one.Msg == queue.Completed })
}

// wantPrinted checks the output since a line: the end of the traceback is there once, and no frame of a folded package.
func (a *app) wantPrinted(t *testing.T, since int, last string) {
	t.Helper()
	var text string
	eventually(t, "the traceback ends with "+last, func() bool {
		text = strings.Join(a.r.printed()[since:], "\n")
		return strings.Contains(text, last)
	})
	// The exception and, for a pickler of Python, its cause.
	if n := strings.Count(text, "Traceback (most recent call last):"); n > 1+strings.Count(text, "During handling of the above exception")+strings.Count(text, "The above exception was the direct cause") {
		t.Errorf("%d tracebacks:\n%s", n, text)
	}
	for _, frame := range regexp.MustCompile(`(?m)^  File "[^"]*"`).FindAllString(text, -1) {
		if !strings.HasSuffix(frame, `/failures/app.py"`) {
			t.Errorf("a frame is shown: %s in\n%s", frame, text)
		}
	}
	if !regexp.MustCompile(`(?m)^  \.\.\. \d+ lines of .*(gradio|spaces)`).MatchString(text) {
		t.Errorf("nothing is folded:\n%s", text)
	}
}

// wantPlace checks that a failure points at a line of app.py. That of a decorated function is the line of its decorator.
func (a *app) wantPlace(t *testing.T, failure recorded, source string) {
	t.Helper()
	app, err := os.ReadFile(filepath.Join(appDir(t, "failures"), "app.py"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(app), "\n")
	if failure.File != "app.py" || failure.Line < 1 || failure.Line >= len(lines) {
		t.Fatalf("place %s:%d of %+v", failure.File, failure.Line, failure)
	}
	if at := lines[failure.Line-1] + "\n" + lines[failure.Line]; !strings.Contains(at, source) {
		t.Errorf("app.py:%d is %q, want %q", failure.Line, at, source)
	}
}

// testEventData: with gradio 6 the worker cannot unpickle it, and exits without an answer. EventData of 4.44 and 5.49 has no
// __getattr__, so there the call succeeds.
func (a *app) testEventData(t *testing.T) {
	before := len(a.r.printed())
	body := a.body(t, "picked", "session-picked", "text")
	body = []byte(strings.Replace(string(body), `"event_data":null`, `"event_data":{"index":0,"value":"a","selected":true}`, 1))
	id := a.start(body)[0]
	messages, _ := a.finish(t, id)
	if last := messages[len(messages)-1]; !strings.HasPrefix(a.gradio, "6.") {
		if last.Success == nil || !*last.Success {
			t.Errorf("the call ends with %s", last.Payload)
		}
		return
	}
	a.wantPrinted(t, before, "RecursionError: maximum recursion depth exceeded")
	failure, _ := a.failure(id)
	a.wantPlace(t, failure, "def picked(text")
	if failure.Rule != "G311" || failure.Values["function"] != "picked" || failure.Values["class"] != "SelectData" {
		t.Errorf("recognized as %+v", failure)
	}
}

// testFileValue: gradio 4.44 takes a plain path, so there is no failure to recognize.
func (a *app) testFileValue(t *testing.T) {
	id := a.start(a.body(t, "size", "session-size", "/etc/hostname"))[0]
	messages, _ := a.finish(t, id)
	failure, _ := a.failure(id)
	last := messages[len(messages)-1]
	if last.Success != nil && *last.Success {
		return
	}
	if failure.Rule != "D701" && strings.Contains(strings.Join(a.r.printed(), "\n"), "The 'meta' field must be") {
		t.Errorf("recognized as %+v", failure)
	}
}

// TestAFailureOfTheProcess: what ends the app is printed once and reported before it exits.
func TestAFailureOfTheProcess(t *testing.T) {
	p, r := startApp(t, "failures", func(c *ProcessConfig) { c.Env = append(c.Env, "THEN=fail") })
	within(t, patient, "the app ends", p.Done())
	text := strings.Join(r.printed(), "\n")
	if strings.Count(text, "KeyError: 'NO_SUCH_SECRET'") != 1 {
		t.Errorf("it printed %s", text)
	}
	failure := r.awaitOp(t, "failure")
	if failure.Rule != "B601" || failure.File != "app.py" || failure.Number != 1 || len(failure.Events) != 0 {
		t.Errorf("recognized as %+v", failure)
	}
}

// TestAFailureIsShownOnceAfterItsTraceback: the report and the mark take different ways.
func TestAFailureIsShownOnceAfterItsTraceback(t *testing.T) {
	var shown []string
	f := newFailures(func(one Failure) { shown = append(shown, one.Rule) })
	for line, want := range map[string]string{"as always": "as always", failureMark + "x": failureMark + "x"} {
		if before, _, found := cutMark(line); before != want || found {
			t.Errorf("a line without a mark: %q, %v", before, found)
		}
	}
	f.report(1, Failure{Rule: "F301"})
	if len(shown) != 0 {
		t.Errorf("shown before the mark: %v", shown)
	}
	before, number, found := cutMark("no line break" + failureMark + "1")
	if f.mark(number); before != "no line break" || !found || len(shown) != 1 {
		t.Errorf("after both: %q, %v, %v", before, found, shown)
	}
	if f.mark(2); len(shown) != 1 {
		t.Errorf("a mark alone: %v", shown)
	}
	f.report(2, Failure{Rule: "F302"})
	f.report(3, Failure{Rule: "F303"})
	f.flush()
	f.mark(1)
	if want := []string{"F301", "F302", "F303"}; !slices.Equal(shown, want) {
		t.Errorf("shown %v, want %v", shown, want)
	}
}

func TestAFailureIsBounded(t *testing.T) {
	good := report{Rule: "F308", File: "app.py", Line: 3, Values: map[string]string{"function": "a\x1b[2J\nb"}}
	if f, ok := good.failureOf(); !ok || f.Values["function"] != "a[2J b" {
		t.Errorf("got %+v, %v", f, ok)
	}
	many := map[string]string{}
	for i := range maxValueNames + 1 {
		many[fmt.Sprint(i)] = ""
	}
	for name, bad := range map[string]report{
		"rule": {Rule: "f308"}, "line": {Rule: "F308", Line: -1}, "file": {Rule: "F308", File: strings.Repeat("x", maxFailureFile+1)},
		"values": {Rule: "F308", Values: many}, "events": {Rule: "F308", Events: make([]queue.EventID, maxFailureEvents+1)},
	} {
		if f, ok := bad.failureOf(); ok {
			t.Errorf("%s: %+v is accepted", name, f)
		}
	}
}

// TestTooManyFailures: a Space that claims failures without end cannot fill the memory or the log of the host.
func TestTooManyFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailures(func(Failure) {})
		accepted := 0
		for n := range 10_000 {
			if f.accepts() {
				accepted++
				f.report(n, Failure{Rule: "F308"})
			}
		}
		if accepted != maxFailures || len(f.reported) != maxFailures {
			t.Errorf("%d of a burst are accepted, %d wait for their mark; want %d", accepted, len(f.reported), maxFailures)
		}
		time.Sleep(time.Minute)
		if !f.accepts() {
			t.Error("a minute later none is accepted")
		}
	})
}

func TestTheSameOutputIsShownOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shown []string
		var r repeats
		start := func(end func(c *comparison) int, lines ...string) (c *comparison, times int) {
			c = r.begin()
			for i, line := range lines {
				c.add(i%2, line, func() { shown = append(shown, line) })
			}
			if end == nil {
				return c, 0
			}
			return c, end(c)
		}
		failed := func(c *comparison) int { return r.failed(c, "exit code 1") }
		want := func(what string, times, wantTimes int, lines ...string) {
			t.Helper()
			if times != wantTimes || !slices.Equal(shown, lines) {
				t.Errorf("%s: %d times, shown %q, want %d, %q", what, times, shown, wantTimes, lines)
			}
			shown = nil
		}
		_, times := start(failed, "a", "b", "c")
		want("the first", times, 1, "a", "b", "c")
		for n := 2; n < 4; n++ {
			_, times = start(failed, "a", "b", "c")
			want("the same", times, n)
		}
		_, times = start(failed, "a", "b", "d")
		want("another end", times, 1, "a", "b", "d")
		_, times = start(failed, "a", "b")
		want("less", times, 1, "a", "b")
		_, times = start(failed, "a", "b", "c")
		want("more", times, 1, "a", "b", "c")
		_, times = start(func(c *comparison) int { return r.failed(c, "exit code 2") }, "a", "b", "c")
		want("another reason", times, 1)
		c, _ := start(nil, "a", "b")
		want("so far the same", 0, 0)
		c.release() // it runs
		c.add(0, "c", func() { shown = append(shown, "c") })
		want("it runs", 0, 0, "a", "b", "c")
		r.forget()
		_, times = start(failed, "a", "b")
		want("after it ran", times, 1, "a", "b")
		c, _ = start(nil, "a")
		time.Sleep(maxHeld)
		synctest.Wait()
		want("it takes longer", 0, 0, "a")
		c.add(1, "b", func() { shown = append(shown, "b") })
		want("and goes on", failed(c), 1, "b")
		_, times = start(failed)
		want("it prints nothing", times, 1)
		_, times = start(failed)
		want("it prints nothing again", times, 1)
	})
}

// TestAStartThatFailsAgain: after it has run once, the Space prints the same at each try, and waits longer and longer. With
// AwaitChange it waits for Restart.
func TestAStartThatFailsAgain(t *testing.T) {
	for _, awaits := range []bool{false, true} {
		t.Run(fmt.Sprint(awaits), func(t *testing.T) {
			w := newWorld(t, "good-once", filepath.Join(tempDir(t), "started"), func(c *SupervisorConfig) { c.AwaitChange = awaits })
			w.ready(t)
			w.Restart(Restart{})
			if awaits {
				eventually(t, "it waits", func() bool { return strings.Contains(w.printed(), "It starts again when its code changes.") })
				starts := len(w.instances())
				w.Restart(Restart{})
				eventually(t, "it tries again", func() bool { return strings.Count(w.printed(), "It starts again when its code changes.") == 2 })
				if got := len(w.instances()); got != starts+1 {
					t.Errorf("%d starts after a change, want 1", got-starts)
				}
				if n := strings.Count(w.printed(), "SyntaxError: invalid syntax"); n != 1 || !strings.Contains(w.printed(), "same error as before (2 times)") {
					t.Errorf("after a change, the error is shown %d times, want once:\n%s", n, w.printed())
				}
				return
			}
			eventually(t, "three tries", func() bool {
				return strings.Contains(w.printed(), "same error as before (3 times). The next try is in ")
			})
			if n := strings.Count(w.printed(), "SyntaxError: invalid syntax"); n != 1 {
				t.Errorf("the error is shown %d times, want 1:\n%s", n, w.printed())
			}
		})
	}
}

func (w *world) instances() (all []Facts) {
	w.note(func() { all = slices.Clone(w.starts) })
	return all
}

// TestAHangingStartShowsWhere: the interpreter reports the place of its main thread before it is ended.
func TestAHangingStartShowsWhere(t *testing.T) {
	var failures []Failure
	var w *world
	w = prepareWorld(t, func(c *SupervisorConfig) {
		c.StartupTimeout, local(c).Dir = 3*time.Second, appDir(t, "hangs")
		c.ShowFailure = func(f Failure) {
			w.note(func() { failures = append(failures, f); w.lines = append(w.lines, "failure "+f.Rule) })
		}
	})
	runner, err := InstallRunner(filepath.Join(proctreetest.Root, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	python := testPython(t)
	w.Prepare(python, runner, pythonEnv(t, python))
	w.run(t)
	err = within(t, patient, "Run returns", w.ended)
	var start *StartError
	if !errors.As(err, &start) || start.Stage != space.RuntimeFailed || !strings.Contains(start.Reason, "did not launch within 3s") {
		t.Errorf("got %#v", err)
	}
	if len(failures) != 1 || failures[0].Rule != "A802" || failures[0].File != "app.py" || failures[0].Values["function"] != "load" {
		t.Fatalf("failures %+v", failures)
	}
	data, _ := json.Marshal(w.printed())
	if !strings.Contains(string(data), `time.sleep(60)`) || !strings.HasSuffix(w.printed(), "failure A802") {
		t.Errorf("printed %s", data)
	}
}
