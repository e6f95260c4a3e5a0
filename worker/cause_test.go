package worker

import (
	"context"
	"slices"
	"syscall"
	"testing"

	"spacehost/internal/space"
)

// TestStageChanges follows the stages of a Space over a restart by command, a crash and a pause.
func TestStageChanges(t *testing.T) {
	changes := make(chan StageChange, 100)
	w := newWorld(t, "good", "", func(c *SupervisorConfig) { c.Staged = func(to StageChange) { changes <- to } })
	next := func(stage space.Stage, cause Cause, by string) {
		t.Helper()
		if got := within(t, patient, string(stage), changes); got.Stage != stage || got.Cause != cause || got.By != by {
			t.Fatalf("got %+v, want %s for %q by %q", got, stage, cause, by)
		}
	}
	next(space.AppStarting, "", "")
	next(space.Running, "", "")
	w.Restart(Restart{By: "ada"})
	next(space.AppStarting, CauseOperator, "ada")
	next(space.Running, "", "")
	if err := syscall.Kill(w.Status().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next(space.RuntimeFailed, CauseCrash, "")
	next(space.AppStarting, "", "")
	next(space.Running, "", "")
	w.stopFor(&StopCause{Reason: "Paused.", Stage: space.Paused, Cause: CausePause, By: "ben", Now: true})
	next(space.Paused, CausePause, "ben")
	restarting := slices.DeleteFunc([]Cause{CauseCrash, CauseMemory, CauseLimit, CauseHung, CauseTimeout, CauseStart, CauseRefused, CauseOperator, CauseSettings, CauseNode, CausePause, CauseHost, ""}, Cause.Restarts)
	if !slices.Equal(restarting, []Cause{CausePause, CauseHost, ""}) {
		t.Errorf("causes without a restart: %q", restarting)
	}
}

// TestRestartDuringAnotherEnd: the request that hurries a pause is no restart, whichever of both the Supervisor receives first.
func TestRestartDuringAnotherEnd(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	hurry := Restart{Now: true}
	if _, _, ends := hurry.hurries(ctx); ends {
		t.Error("a restart without another end is none")
	}
	end(&StopCause{Reason: "Paused.", Stage: space.Paused, Cause: CausePause, By: "ben"})
	for _, row := range []struct {
		request Restart
		now     bool
	}{{hurry, true}, {Restart{}, false}} {
		if cause, now, ends := row.request.hurries(ctx); !ends || now != row.now || cause.Cause != CausePause || cause.By != "ben" {
			t.Errorf("%+v: %+v, at once: %v, ends: %v", row.request, cause, now, ends)
		}
	}
}
