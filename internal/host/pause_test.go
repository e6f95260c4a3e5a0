package host

import (
	"errors"
	"strings"
	"testing"

	"spacehost/internal/control"
	"spacehost/internal/space"
	"spacehost/queue"
	"spacehost/worker"
)

// TestPauseSpace pauses a Space whose start fails: nothing tries it again, also not after a reload, until it is resumed.
func TestPauseSpace(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	one := r.find("one")
	stage := func() space.Stage { return one.supervisor.Status().Stage }
	r.await("the first start has failed", func() bool { return stage().IsFailed() })
	pause := func(reason string) control.PauseAnswer {
		t.Helper()
		answer, err := r.PauseSpace(t.Context(), "one", reason, "ada", false)
		if err != nil || answer.Pause.By != "ada" || answer.DrainSeconds != 0 {
			t.Fatalf("%+v, %v", answer, err)
		}
		return answer
	}
	resume := func() {
		t.Helper()
		if err := r.ResumeSpace(t.Context(), "one", "ben"); err != nil {
			t.Fatal(err)
		}
	}
	isPaused := func(text string) func() bool {
		return func() bool {
			status := one.supervisor.Status()
			return status.Stage == space.Paused && status.Reason == text
		}
	}
	pause("\x1b[31mnew\nmodel.")
	r.await("it is paused", isPaused("The operator has paused this Space: [31mnew model."))
	pause("")
	r.await("it is paused without a reason", isPaused("The operator has paused this Space."))
	if public, all := r.PublicSpaceViews()[0], r.SpaceViews()[0]; public.Paused == nil || public.Paused.By != "" || all.Paused.By != "ada" {
		t.Errorf("who has paused it: everyone sees %+v, operators %+v", public.Paused, all.Paused)
	}
	if err := one.queue.Join(&queue.Event{ID: "e", Session: "s"}); !errors.Is(err, queue.ErrNoRunner) {
		t.Errorf("a call of a Space that has never run: %v", err)
	}
	r.reload(labOf("", strings.Replace(spaceOne, "python:", "visibility: private, members: [], python:", 1)))
	r.await("it is still paused after a reload", isPaused("The operator has paused this Space."))
	if _, err := r.RebuildSpace(t.Context(), "one", "ada", false, nil); err == nil || !strings.Contains(err.Error(), "is paused by ada") {
		t.Errorf("a rebuild of a paused Space: %v", err)
	}

	for range 20 { // the command may come at any moment of a start
		resume()
		pause("again")
	}
	r.await("it is paused again", isPaused("The operator has paused this Space: again."))
	resume()
	resume() // does nothing
	r.await("it is tried again", func() bool { return stage().IsFailed() })
	if s := r.SpaceViews()[0]; s.Paused != nil {
		t.Errorf("after the end of the pause: %+v", s.Paused)
	}
	var paused, failed, resumed int
	var detail control.SpaceDetail
	r.await("the last failure is in the history", func() bool { // it is written after the stage has changed
		var err error
		if detail, err = r.SpaceDetail(t.Context(), "one", 1000); err != nil {
			t.Fatal(err)
		}
		return len(detail.Stages) > 0 && space.Stage(detail.Stages[0].Stage).IsFailed()
	})
	for _, change := range detail.Stages {
		switch {
		case change.Stage == string(space.Paused):
			paused++
			if change.By != "ada" || change.Cause != string(worker.CausePause) {
				t.Errorf("a pause without its operator: %+v", change)
			}
		case space.Stage(change.Stage).IsFailed():
			failed++
		case change.Stage == string(space.Building) && change.By == "ben":
			resumed++
		}
	}
	if paused < 2 || resumed < 1 || failed < 2 || detail.Space.Name != "one" {
		t.Errorf("the history has %d pauses, %d resumes and %d failures: %+v", paused, resumed, failed, detail.Stages)
	}
	if _, err := r.PauseSpace(t.Context(), "none", "", "ada", false); err == nil {
		t.Error("a Space that does not exist is paused")
	}
}
