package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/gradioapi"
	"spacehost/internal/config"
	"spacehost/internal/feature"
	"spacehost/internal/shelf"
	"spacehost/internal/space"
	"spacehost/queue"
	"spacehost/worker"
)

// limitedSpace is a Space with limits under a host that does not run.
func limitedSpace(t *testing.T, limits config.Limits) *spaceRun {
	t.Helper()
	s := newSpaceRun(serveTestHost(t), config.SpaceSettings{IsolationSettings: config.IsolationSettings{Limits: limits}}, &space.Space{Name: "demo"})
	s.supervisor = worker.NewSupervisor(worker.SupervisorConfig{})
	return s
}

// TestLimitsAreNamed checks that each limit that the kernel does not enforce is named once, with what happens instead.
func TestLimitsAreNamed(t *testing.T) {
	t.Setenv(feature.Variable, feature.Cgroup)
	all := config.Limits{Memory: 8 << 30, Processes: 2000, CPU: 1.5, Disk: 50 << 30}
	s := limitedSpace(t, all)
	got := s.limitNotes(false)
	want := []string{
		"memory=8GiB is checked every 2 s: this machine does not allow cgroups (spacehost doctor).",
		"processes=2000 is counted every 2 s: this machine does not allow cgroups (spacehost doctor).",
		"cpu=1.5 only lowers the priority of the Space to nice 5: this machine does not allow cgroups (spacehost doctor).",
		"disk=50GiB is checked every 60 s.",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := s.limitNotes(true); !slices.Equal(got, slices.Delete(want, 1, 2)) {
		t.Errorf("in a user namespace: %q", got)
	}
	if got := limitedSpace(t, config.Limits{Connections: 1}).limitNotes(false); len(got) != 0 {
		t.Errorf("without limits of the kernel: %q", got)
	}
}

// TestSpaceThatWasEndedForItsDisk checks that its temporary files are removed, and that it starts again only once it is
// within its limit.
func TestSpaceThatWasEndedForItsDisk(t *testing.T) {
	s := limitedSpace(t, config.Limits{Disk: 4 << 20})
	root := s.host.state.path("spaces", "demo")
	s.queue = queue.New(queue.Config{})
	s.api = gradioapi.New(gradioapi.Config{Space: "demo", Queue: s.queue, Upstream: s.supervisor, Shelf: shelf.New(shelf.Config{Storage: s.storage()})})
	t.Cleanup(s.api.Close)
	writeKiB(t, filepath.Join(root, "tmp", "large"), 8<<10)
	writeKiB(t, filepath.Join(root, "home", "kept"), 5<<10)
	s.emptyTmp()
	if _, err := os.Stat(filepath.Join(root, "tmp", "large")); err != nil {
		t.Errorf("an ordinary end: %v", err)
	}
	if err := s.mayStart(); err != nil {
		t.Errorf("an ordinary start: %v", err)
	}
	why := overLimit(t.Context(), s)
	if why == nil || why.reason != "The Space used 13 MiB of disk, more than its limit of 4 MiB." {
		t.Fatalf("got %+v", why)
	}
	s.endForDisk("start", *why)
	s.emptyTmp()
	if _, err := os.Stat(filepath.Join(root, "tmp")); !os.IsNotExist(err) {
		t.Errorf("its temporary files: %v", err)
	}
	if err := s.mayStart(); err == nil || !strings.HasPrefix(err.Error(), "The Space used 5 MiB of disk, more than its limit of 4 MiB. Delete files") {
		t.Errorf("a start above the limit: %v", err)
	}
	if err := os.Remove(filepath.Join(root, "home", "kept")); err != nil {
		t.Fatal(err)
	}
	cached := filepath.Join(s.storage().Uploads, strings.Repeat("c", 64)) // by an earlier start of the app
	writeKiB(t, filepath.Join(cached, "old.bin"), 5<<10)
	if old := time.Now().Add(-time.Hour); os.Chtimes(cached, old, old) != nil {
		t.Fatal(cached)
	}
	for range 2 {
		if err := s.mayStart(); err != nil {
			t.Errorf("a start within the limit: %v", err)
		}
	}
}
