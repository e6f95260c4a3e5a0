package host

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"spacehost/internal/build"
	"spacehost/internal/config"
	"spacehost/internal/lease"
	"spacehost/internal/removal"
	"spacehost/worker"
)

// Observe is what `spacehost check` learns about the start of a Space. Its functions may be called from several goroutines,
// and must not block.
type Observe struct {
	// Fact receives what the host and the runner observe. The runner's part is a claim of the Space.
	Fact func(worker.Observation)
	// Calls receives how the endpoints can be called; nil: the runner does not list them.
	Calls func(worker.CallList)
	// Progress receives one line per step of the build and of the start; nil: none.
	Progress func(text string)
}

// RunObserved builds and starts the Space of s once, calls running while it answers, and ends it. url is its address. The
// error is that of the start, or of running. No process and no folder of the start remains: environments, and the logs of
// builds, are those of the state folder, which another host may use at the same time.
func RunObserved(ctx context.Context, s config.Settings, o Observe, running func(ctx context.Context, url string) error) error {
	h, err := open(s, newScreen(false, io.Discard, io.Discard), &o)
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	select {
	case err := <-ended:
		if err == nil {
			err = context.Cause(ctx)
		}
		return err
	case <-h.all()[0].supervisor.Ready():
	}
	o.progress("The Space answers.")
	err = running(ctx, h.all()[0].localURL())
	cancel()
	if stopped := <-ended; err == nil {
		err = stopped
	}
	return err
}

// openScratch makes a state folder for one observed start inside the state folder, and removes those of crashed checks.
func (h *Host) openScratch() error {
	if err := os.MkdirAll(h.kept, 0o700); err != nil {
		return fmt.Errorf("make state folder: %w; choose another with --state", err)
	}
	old, _ := filepath.Glob(filepath.Join(h.kept, scratchPrefix+"*")) // the pattern is well formed
	for _, dir := range old {
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // another check may be about to lock it
		}
		if state, err := OpenState(dir); err == nil { // no check uses it
			_ = removal.Tree(dir) // the next check removes what remains
			state.Close()
		}
	}
	dir, err := os.MkdirTemp(h.kept, scratchPrefix)
	if err != nil {
		return fmt.Errorf("make a folder for the check: %w; choose another with --state", err)
	}
	h.onClose(func() { _ = removal.Tree(dir) })
	if h.state, err = OpenState(dir); err == nil {
		h.onClose(h.state.Close)
	}
	return err
}

const scratchPrefix = "check-"

// buildProgress returns the function that shows the steps of a build.
func (h *Host) buildProgress() func(build.Step) {
	if h.observe == nil {
		return h.screen.step
	}
	return func(step build.Step) {
		if step.State == build.Started {
			h.observe.progress(fmt.Sprintf("[%d/%d] %s ...", step.Index, step.Total, step.Text))
		}
	}
}

func (o *Observe) progress(text string) {
	if o.Progress != nil {
		o.Progress(text)
	}
}

// ofWorker returns what the runner shall observe; nil without an Observe.
func (o *Observe) ofWorker() *worker.Observe {
	if o == nil {
		return nil
	}
	return &worker.Observe{Fact: o.Fact, Calls: o.Calls}
}

// noReport observes an app that sends no /startup-report.
func (o *Observe) noReport(tasks []string) {
	fact := worker.Observation{Rule: "A305"}
	if len(tasks) > 0 {
		fact = worker.Observation{Rule: "A311", Values: map[string]string{"call": "another server than that of launch()"}}
	}
	o.Fact(fact)
}

// expired observes a call that was ended at its deadline.
func (o *Observe) expired(end lease.End) {
	if o == nil {
		return
	}
	seconds := func(s float64) string { return strconv.FormatFloat(s, 'f', 1, 64) }
	o.Fact(worker.Observation{Rule: "G802", Values: map[string]string{"declared": seconds(end.Declared.Seconds()), "used": seconds(end.Used.Seconds())}})
}
