package worker

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spacehost/internal/proctree"
	"spacehost/internal/space"
	"spacehost/queue"
)

// testKeeper keeps processes like an agent, in this process.
type testKeeper struct {
	mu     sync.Mutex
	kept   []Kept // those that no host uses
	starts map[string]*keptStart
	ended  []string
	fails  error         // of Take
	cut    chan struct{} // closed: the starts cannot be reached; nil: they can
}

// keptStart is a process of a testKeeper, as the present host uses it.
type keptStart struct {
	*Process
	keeper *testKeeper
	relay  *Relay
	kept   Kept
	left   chan struct{} // closed by Leave
}

// leftReporter is the connection to a host: a report that the host has not taken when it leaves is lost.
type leftReporter struct {
	Reporter
	left <-chan struct{}
}

func (r leftReporter) Report(f Frame) error {
	taken := make(chan error, 1)
	go func() { taken <- r.Reporter.Report(f) }()
	select {
	case err := <-taken:
		return err
	case <-r.left:
		return nil
	}
}

var _ Keeper = (*testKeeper)(nil)

func (k *testKeeper) Launch(config ProcessConfig, kept Kept) (LocalProcess, error) {
	relay, left := NewRelay(), make(chan struct{})
	relay.Attach(leftReporter{config.Reporter, left})
	config.Reporter = relay
	p, err := StartProcess(config)
	if err != nil {
		return nil, err
	}
	kept.Facts = kept.Facts.Of(p.Tree())
	s := &keptStart{p, k, relay, kept, left}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.starts[kept.Facts.Instance] = s
	return s, nil
}

func (s *keptStart) Send(f Frame) { s.relay.Order(f); s.Process.Send(f) }

func (s *keptStart) Leave() {
	close(s.left)
	for _, f := range s.relay.Detach() {
		s.Process.Send(f)
	}
	s.keeper.mu.Lock()
	defer s.keeper.mu.Unlock()
	s.keeper.kept = append(s.keeper.kept, s.kept)
}

func (k *testKeeper) Kept(name string) (all []Kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, kept := range k.kept {
		if kept.Space == name {
			all = append(all, kept)
		}
	}
	return all
}

// forget returns a start that is kept no more.
func (k *testKeeper) forget(kept Kept) *keptStart {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = slices.DeleteFunc(k.kept, func(other Kept) bool { return other.Facts.Instance == kept.Facts.Instance })
	return k.starts[kept.Facts.Instance]
}

func (k *testKeeper) Take(kept Kept, config ProcessConfig) (LocalProcess, error) {
	s := k.forget(kept)
	if k.fails != nil {
		return nil, k.fails
	}
	config.Opened(nil)
	s.left = make(chan struct{})
	go s.relay.Attach(leftReporter{config.Reporter, s.left}) // the first report waits until Take has returned
	return s, nil
}

func (k *testKeeper) End(kept Kept) {
	k.forget(kept)
	k.starts[kept.Facts.Instance].End(context.Background(), endGrace) // also one whose Take has failed
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended = append(k.ended, kept.Facts.Instance)
}

// unreachable is a start whose connection can be cut.
type unreachable struct {
	Start
	cut chan struct{}
}

// Done implements Start.
func (u unreachable) Done() <-chan struct{} { return u.cut }

// Err implements Start.
func (unreachable) Err() error { return ErrUnreachable }

// cuttablePlace cuts the connections of its starts when cut is closed, but not those of the starts that are taken over.
type cuttablePlace struct {
	Place
	cut chan struct{}
}

// Start implements Place.
func (p cuttablePlace) Start(ctx context.Context, spec Spec, to Reporter) (Start, error) {
	start, err := p.Place.Start(ctx, spec, to)
	return unreachable{start, p.cut}, err
}

// newKeeper returns a Keeper whose processes end with the test.
func newKeeper(t *testing.T) *testKeeper {
	k := &testKeeper{starts: map[string]*keptStart{}}
	t.Cleanup(func() {
		for _, s := range k.starts {
			s.Process.End(context.Background(), 0)
		}
	})
	return k
}

// keptWorld starts a Space on a Keeper, as the next host does.
func keptWorld(t *testing.T, k *testKeeper, dir, settings string, change ...func(*SupervisorConfig)) (w *world, reopened *[]string) {
	t.Helper()
	reopened = &[]string{}
	w = prepareWorld(t, append([]func(*SupervisorConfig){func(c *SupervisorConfig) {
		c.Outlasts = true
		l := local(c)
		l.Keeper, l.Dir = k, dir
		l.Settings = func() string { return settings }
		l.Reopen = func(kept Kept, _ []*os.File) error {
			*reopened = append(*reopened, kept.Facts.Instance+" "+kept.Door)
			return nil
		}
	}}, change...)...)
	w.unchecked = true // a start that is left is not closed
	w.Prepare(self(t), "/nowhere", fakeEnv("good", ""))
	if k.cut != nil {
		w.config.Place = cuttablePlace{w.config.Place, k.cut}
	}
	w.run(t)
	w.ready(t)
	return w, reopened
}

var leaving = &StopCause{Reason: "The host restarts.", Ledger: space.EndedByHost, Leave: true}

// TestStartIsAdopted leaves a start during a call, and lets the next Supervisor take it over.
func TestStartIsAdopted(t *testing.T) {
	k, dir := newKeeper(t), t.TempDir()
	first, _ := keptWorld(t, k, dir, "same")
	pid, instance := first.Status().PID, first.Instance()
	first.join(t, "running", "hang")
	first.receive(t, "running", "process_starts")
	first.stopFor(leaving)
	if err := within(t, patient, "Run returns", first.ended); err != nil {
		t.Error(err)
	}
	if got := first.Status(); got.Stage != space.AppStarting || got.Reason != leaving.Reason || got.PID != 0 {
		t.Errorf("after it was left: %+v", got)
	}
	messages := first.receive(t, "running", queue.Completed)
	if last := messages[len(messages)-1]; last.Failure == nil || last.Failure.Text != leaving.Reason {
		t.Errorf("the visitor reads %+v", last)
	}
	if !(proctree.Process{PID: pid, Start: k.kept[0].Facts.Start}).Alive() || len(first.over)+len(first.shut)+len(first.closed) != 0 {
		t.Errorf("the start has ended: %v, %v, %v", first.over, first.shut, first.closed)
	}

	next, reopened := keptWorld(t, k, dir, "same")
	if got := next.Status(); got.Stage != space.Running || got.PID != pid || next.Instance() != instance {
		t.Errorf("the next host has %+v, want pid %d", got, pid)
	}
	if want := []string{instance + " http://127.0.0.1:1/d/secret"}; !slices.Equal(*reopened, want) || len(next.doors) != 0 || len(k.ended) != 0 {
		t.Errorf("doors reopened %q, opened %q, starts ended %q", *reopened, next.doors, k.ended)
	}
	next.note(func() {
		if len(next.starts) != 1 || next.starts[0].Instance != instance || next.starts[0].PID != pid {
			t.Errorf("started %+v", next.starts)
		}
	})
	next.join(t, "next", "echo")
	if messages := next.receive(t, "next", queue.Completed); messages[len(messages)-1].Failure != nil {
		t.Errorf("got %+v", messages)
	}
	next.stop()
	within(t, patient, "Run returns", next.ended)
	if (proctree.Process{PID: pid, Start: k.starts[instance].kept.Facts.Start}).Alive() || !slices.Equal(next.over, []string{instance}) || !slices.Equal(next.closed, []string{instance}) {
		t.Errorf("after the end: over %v, closed %v, pid %d", next.over, next.closed, pid)
	}
}

// TestStartIsNotAdopted: a start that differs from what the next host would begin is ended, and reported as ended.
func TestStartIsNotAdopted(t *testing.T) {
	for name, row := range map[string]struct {
		settings string
		change   func(*SupervisorConfig)
		between  func(k *testKeeper)
	}{
		"other settings":   {settings: "other"},
		"another Secret":   {change: func(c *SupervisorConfig) { c.Secrets = map[string]string{"TOKEN": "changed"} }},
		"another URL":      {change: func(c *SupervisorConfig) { c.PublicURL = "http://127.0.0.1:7861/" }},
		"another folder":   {change: func(c *SupervisorConfig) { local(c).Dir = os.TempDir() }},
		"another timeout":  {change: func(c *SupervisorConfig) { c.StartupTimeout = time.Hour }},
		"it was a standby": {between: func(k *testKeeper) { k.kept[0].Standby = true }},
		"not all was kept": {between: func(k *testKeeper) { k.kept[0].Likeness = "" }},
		"it cannot be had": {between: func(k *testKeeper) { k.fails = errors.New("it has ended") }},
		"no door is opened": {change: func(c *SupervisorConfig) {
			local(c).Reopen = func(Kept, []*os.File) error { return errors.New("no door") }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k, dir := newKeeper(t), t.TempDir()
			first, _ := keptWorld(t, k, dir, "same")
			pid, instance := first.Status().PID, first.Instance()
			first.stopFor(leaving)
			within(t, patient, "Run returns", first.ended)
			if row.between != nil {
				row.between(k)
			}
			settings, change := "same", func(*SupervisorConfig) {}
			if row.settings != "" {
				settings = row.settings
			}
			if row.change != nil {
				change = row.change
			}
			next, _ := keptWorld(t, k, dir, settings, change)
			if got := next.Status(); got.Stage != space.Running || got.PID == pid || next.Instance() == instance {
				t.Errorf("the next host has %+v, want another process than %d", got, pid)
			}
			if alone := []string{instance}; !slices.Equal(k.ended, alone) || !slices.Equal(next.over, alone) || !slices.Equal(next.closed, alone) || !slices.Equal(next.shut, alone) {
				t.Errorf("ended %v, reported %v, closed %v, doors closed %v; want %v", k.ended, next.over, next.closed, next.shut, alone)
			}
		})
	}
}

// TestOneOfTwoIsAdopted: of the starts of a Space the first is adopted that is like the next one. Slots of the others are free.
func TestOneOfTwoIsAdopted(t *testing.T) {
	k, dir := newKeeper(t), t.TempDir()
	for range 2 {
		first, _ := keptWorld(t, k, dir, "same")
		first.stopFor(leaving)
		within(t, patient, "Run returns", first.ended)
		if len(k.starts) == 1 { // the second host starts another
			k.mu.Lock()
			k.kept[0].Space = "hidden"
			k.mu.Unlock()
		}
	}
	k.mu.Lock()
	k.kept[0].Space = "test"
	k.mu.Unlock()
	var names []string
	for _, kept := range k.kept {
		names = append(names, kept.Facts.Instance)
	}
	if len(names) != 2 {
		t.Fatalf("kept %v", names)
	}
	next, _ := keptWorld(t, k, dir, "same")
	if next.Instance() != names[0] || !slices.Equal(k.ended, names[1:]) || !slices.Equal(next.over, names[1:]) {
		t.Errorf("adopted %s of %v, ended %v", next.Instance(), names, k.ended)
	}
	next.Restart(Restart{})
	eventually(t, "it starts again", func() bool { return next.Status().Stage == space.Running && next.Instance() != names[0] })
	if strings.Join(k.ended, " ") != names[1] {
		t.Errorf("ended %v", k.ended)
	}
}

// TestAbandonedReports: the manifest of a start that was not taken over, which arrives late, attaches no app.
func TestAbandonedReports(t *testing.T) {
	s := &session{opened: make(chan struct{}), abandoned: true}
	close(s.opened)
	if err := s.Report(Frame{Header: []byte(`{"op":"manifest"}`)}); err != nil {
		t.Error(err)
	}
}

// TestUnreachableStartIsTakenOver cuts the connection to a start during a call. The Supervisor takes the start over, and does not report
// it as ended: its leases are open.
func TestUnreachableStartIsTakenOver(t *testing.T) {
	k := newKeeper(t)
	k.cut = make(chan struct{})
	w, _ := keptWorld(t, k, t.TempDir(), "same")
	pid, instance := w.Status().PID, w.Instance()
	w.join(t, "running", "hang")
	w.receive(t, "running", "process_starts")
	close(k.cut)
	messages := w.receive(t, "running", queue.Completed)
	if last := messages[len(messages)-1]; last.Failure == nil || last.Failure.Text != Unreachable().Reason {
		t.Errorf("the visitor reads %+v", last)
	}
	eventually(t, "the start is taken over", func() bool {
		taken := 0
		w.note(func() { taken = len(w.starts) })
		return taken == 2 && w.Status().Stage == space.Running
	})
	if got := w.Status(); got.PID != pid || w.Instance() != instance || len(w.over)+len(w.shut)+len(w.closed) != 0 {
		t.Errorf("got %+v, want pid %d; over %v, shut %v, closed %v", got, pid, w.over, w.shut, w.closed)
	}
	w.join(t, "next", "echo")
	if messages := w.receive(t, "next", queue.Completed); messages[len(messages)-1].Failure != nil {
		t.Errorf("got %+v", messages)
	}
}
