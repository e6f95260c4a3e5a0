package proctree

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInstancesOfASpace runs two instances of one Space at a time, of which the second waits at first.
func TestInstancesOfASpace(t *testing.T) {
	current := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}}})
	next := plant(t, node{Name: "runner", Children: []node{{Name: "worker"}}})
	p := &Processes{}
	owns := func(instance string, f *forest) bool {
		_, start, ok := p.FromInside(instance, f.pids["worker"].PID)
		return ok && start == f.pids["worker"].Start
	}
	p.Register("test", "first", current.tree)
	p.RegisterStandby("test", "second", next.tree)
	if !owns("first", current) || owns("first", next) || owns("second", next) {
		t.Error("a standby owns a worker, or the first instance owns that of the standby")
	}
	for _, f := range []*forest{current, next} {
		if space, _ := p.SpaceOf(f.pids["worker"].PID); space != "test" {
			t.Errorf("the worker belongs to the Space %q", space)
		}
	}
	p.Register("test", "second", next.tree)
	if !owns("first", current) || !owns("second", next) || owns("first", next) || owns("second", current) {
		t.Error("an instance owns no worker, or that of the other instance")
	}
	if got := p.Tree("second").Root; got != next.tree.Root {
		t.Errorf("the root of the second instance is %v, want %v", got, next.tree.Root)
	}

	if err := current.tree.Root.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, patient, "the runner is reaped", current.reaped)
	known := func() (all []string) {
		for instance := range p.trees {
			all = append(all, instance)
		}
		slices.Sort(all)
		return all
	}
	p.Register("other", "of another Space", Tree{})
	if got := known(); !slices.Equal(got, []string{"first", "of another Space", "second"}) {
		t.Errorf("after the end of the first instance, %q are registered", got)
	}
	if !p.hasAnyMarker(current.pids["worker"].PID) {
		t.Error("a process that outlives its instance is not found by its marker")
	}
	p.Register("test", "third", Tree{Root: next.tree.Root})
	if got := known(); !slices.Equal(got, []string{"of another Space", "second", "third"}) {
		t.Errorf("after the start of the third instance, %q are registered", got)
	}
}
