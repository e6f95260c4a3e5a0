package worker

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"spacehost/queue"
)

func (a *app) cancel(id queue.EventID) { a.p.Send(newFrame(cancelOrder{"cancel", a.number, id}, nil)) }

func (a *app) gone(ids ...queue.EventID) { a.p.Send(newFrame(goneOrder{"gone", a.number, ids}, nil)) }

func (a *app) testCancel(t *testing.T) {
	t.Run("generator", func(t *testing.T) {
		id := a.start(a.body(t, "endless", "s", "one"))[0]
		other := a.start(a.body(t, "endless", "s", "two"))[0] // same function, same session: Gradio would cancel it too
		a.awaitMessage(t, id, queue.Generating)
		a.awaitMessage(t, other, queue.Generating)
		a.cancel(id)
		messages, end := a.finish(t, id)
		if end.Error != "cancelled" || strings.Contains(kindsOf(messages), "process_completed") {
			t.Errorf("got %s, done with %q", kindsOf(messages), end.Error)
		}
		if facts := a.printedFacts(t, "closed"); facts["mark"] != "one" {
			t.Errorf("closed %v", facts)
		}
		seen := len(a.messages(other))
		eventually(t, "the other continues", func() bool { return len(a.messages(other)) > seen })
		a.cancel(other)
		a.finish(t, other)
	})
	t.Run("async function", func(t *testing.T) {
		id := a.start(a.body(t, "hang", "s", "three"))[0]
		a.awaitMessage(t, id, "process_starts")
		a.cancel(id)
		if _, end := a.finish(t, id); end.Error != "cancelled" {
			t.Errorf("done with %q", end.Error)
		}
		if facts := a.printedFacts(t, "cancelled"); facts["mark"] != "three" {
			t.Errorf("cancelled %v", facts)
		}
	})
	t.Run("sync function", func(t *testing.T) {
		id := a.start(a.body(t, "stuck", "s", "four"))[0]
		a.awaitMessage(t, id, "process_starts")
		a.cancel(id)
		if messages, end := a.finish(t, id); end.Error != "cancelled" || kindsOf(messages) != "process_starts" {
			t.Errorf("got %s, done with %q", kindsOf(messages), end.Error)
		}
		a.call(t, "release")
	})
	t.Run("at once", func(t *testing.T) { // before the task's first step: still one end, and nothing is left
		for range 20 {
			id := a.start(a.body(t, "hang", "s", "five"))[0]
			a.cancel(id)
			if _, end := a.finish(t, id); end.Error != "cancelled" {
				t.Errorf("done with %q", end.Error)
			}
		}
	})
	t.Run("one of a batch", func(t *testing.T) {
		ids := a.start(a.body(t, "batch", "s", "a"), a.body(t, "batch", "s", "b"))
		a.cancel(ids[0])
		messages, end := a.finish(t, ids[1])
		if got := datum(t, messages, end); got != "2 b" && got != "1 b" {
			t.Errorf("got %v", got)
		}
		a.finish(t, ids[0])
	})
	t.Run("unknown events", func(t *testing.T) {
		a.cancel("0123456789abcdef0123456789abcdef")
		a.gone("0123456789abcdef0123456789abcdef")
		if got := a.result(t, "quick", "still here"); got != "you said still here" {
			t.Errorf("got %v", got)
		}
	})
}

func (a *app) testGone(t *testing.T) {
	id := a.start(a.body(t, "endless", "leaver", "gone"))[0]
	a.awaitMessage(t, id, queue.Generating)
	a.gone(id)
	if messages, end := a.finish(t, id); end.Error != "" || strings.Contains(kindsOf(messages), "process_completed") {
		t.Errorf("got %s, done with %q", kindsOf(messages), end.Error)
	}
	eventually(t, "its generator is closed", func() bool {
		return slices.Contains(a.r.printed(), `closed {"mark": "gone"}`)
	})
}

// A message after process_completed or done is a breach, which would end the Space.
func (a *app) testNothingFollows(t *testing.T) {
	for _, name := range []string{"late_progress", "late_toast"} {
		for range 5 {
			id := a.start(a.body(t, name, "s", "late"))[0]
			a.finish(t, id)
		}
	}
	a.result(t, "quick", "afterwards")
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	ended := map[queue.EventID]string{}
	for _, one := range a.r.reports {
		if how := ended[one.Event]; how == "done" || how != "" && one.Op != "done" {
			t.Errorf("%s %s after %s of %s: %s", one.Op, one.Msg, how, one.Event, one.Payload)
		}
		if one.Msg == queue.Completed || one.Op == "done" {
			ended[one.Event] = one.Op
		}
	}
}

// join posts to the Space's own route, as the host does for events that only the Space can admit.
func (a *app) join(t *testing.T, name, session string, data ...any) (status int, answer map[string]any) {
	t.Helper()
	call := queue.NewEventID()
	status, text := a.ask(t, "POST", a.manifest.Prefix+"/queue/join", "key", a.body(t, name, session, data...),
		"X-Spacehost-Call: "+string(call), "X-Ip-Token: of-the-host", "X-Forwarded-For: 203.0.113.9")
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%d %s: %v", status, text, err)
	}
	answer["call"] = string(call)
	return status, answer
}

// admit joins, and returns the report of the Space.
func (a *app) admit(t *testing.T, name, session string, data ...any) recorded {
	t.Helper()
	status, answer := a.join(t, name, session, data...)
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	admitted := a.r.await(t, "the event is admitted", func(one recorded) bool { return one.Op == "admitted" && string(one.Event) == answer["event_id"] })
	if want := a.endpoint(t, name); admitted.App != a.number || string(admitted.Session) != session || string(admitted.Call) != answer["call"] ||
		admitted.Endpoint.ID != want.ID || admitted.Endpoint.Group != want.Group {
		t.Errorf("%s: got %+v", name, admitted.report)
	}
	return admitted
}

func (a *app) startAdmitted(id queue.EventID) {
	a.p.Send(startFrame(queue.Job{App: a.number, Events: []queue.Event{{ID: id, Admitted: true, Token: "token-" + string(id)}}}))
}

func (a *app) testAdmission(t *testing.T) {
	t.Run("a validator", func(t *testing.T) {
		if !a.hasValidators() {
			t.Skip("Gradio 4 has no validators")
		}
		status, answer := a.join(t, "validated", "s", -1)
		if text := fmt.Sprint(answer["detail"]); status != 422 || !strings.Contains(text, "not positive") {
			t.Errorf("%d %v", status, answer)
		}
		admitted := a.admit(t, "validated", "s", 21)
		if admitted.Cached || admitted.Endpoint.Limit == nil || *admitted.Endpoint.Limit != 5 || admitted.Endpoint.Native {
			t.Errorf("got %+v of %+v", admitted.Endpoint, admitted.report)
		}
		if early := a.messages(admitted.Event); len(early) != 0 {
			t.Errorf("it sent %s before its start", kindsOf(early))
		}
		a.startAdmitted(admitted.Event)
		messages, end := a.finish(t, admitted.Event)
		if got := datum(t, messages, end); got != 42.0 || kindsOf(messages) != "process_starts process_completed" {
			t.Errorf("got %v of %s", got, kindsOf(messages))
		}
	})
	t.Run("no header of the host", func(t *testing.T) {
		id := a.admit(t, "whoami", "the-session").Event
		a.startAdmitted(id)
		messages, end := a.finish(t, id)
		seen := datum(t, messages, end).(map[string]any)
		headers := fmt.Sprint(seen["headers"])
		if strings.Contains(headers, "spacehost") || strings.Count(headers, "x-ip-token") != 1 || !strings.Contains(headers, "[x-ip-token token-"+string(id)+"]") {
			t.Errorf("it sees %s", headers)
		}
		if !reflect.DeepEqual(seen["client"], []any{"203.0.113.9", 0.0}) {
			t.Errorf("its client is %v", seen["client"])
		}
	})
	t.Run("a cache", func(t *testing.T) {
		a.needsCache(t)
		for n, wantCached := range []bool{false, true, true} {
			admitted := a.admit(t, "cached", "s", 7)
			if admitted.Cached != wantCached {
				t.Fatalf("call %d: cached %v", n, admitted.Cached)
			}
			if !admitted.Cached {
				a.startAdmitted(admitted.Event)
			}
			messages, end := a.finish(t, admitted.Event)
			if got := datum(t, messages, end); got != 21.0 {
				t.Errorf("call %d: got %v", n, got)
			}
			if used := field(t, messages[len(messages)-1], "used_cache"); wantCached != (used == "full") {
				t.Errorf("call %d: used_cache %v", n, used)
			}
		}
		if calls := a.result(t, "calls"); !reflect.DeepEqual(calls, []any{7.0}) {
			t.Errorf("it ran for %v", calls)
		}
	})
	t.Run("a cached generator", func(t *testing.T) {
		a.needsCache(t)
		for n, want := range []string{"process_starts process_generating process_generating process_completed", "process_generating process_generating process_completed"} {
			admitted := a.admit(t, "cached_gen", "s", 5)
			if !admitted.Cached {
				a.startAdmitted(admitted.Event)
			}
			if messages, _ := a.finish(t, admitted.Event); kindsOf(messages) != want || admitted.Cached != (n == 1) {
				t.Errorf("call %d: got %s, cached %v", n, kindsOf(messages), admitted.Cached)
			}
		}
	})
	t.Run("cancelled while it waits", func(t *testing.T) {
		for n, end := range []func(queue.EventID){a.cancel, func(id queue.EventID) { a.gone(id) }} {
			id := a.admit(t, "quick", "waiter", "x").Event
			end(id)
			a.startAdmitted(id) // too late: the event is unknown
			if messages, end := a.finish(t, id); len(messages) != 0 || !strings.Contains(end.Error, "no longer has this call") {
				t.Errorf("%d: got %s, done with %q", n, kindsOf(messages), end.Error)
			}
		}
	})
}
