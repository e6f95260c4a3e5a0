package host

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spacehost/gradioapi"
	"spacehost/internal/config"
	"spacehost/internal/shelf"
	"spacehost/queue"
)

// removals returns the names of the uploads that were removed since the last call.
func (d *fakeDisk) removals() (names []string) {
	d.set(func() { names, d.removed = d.removed, nil })
	return names
}

func uploaded(name string, ago time.Duration) shelf.Upload {
	return shelf.Upload{Name: name, Used: time.Now().Add(-ago)}
}

// TestUploadsGoBeforeSpacesEnd checks that a nearly full disk removes the uploads that were used longest ago, whatever their Space,
// no more than needed, and none of the last minute; and that a Space is ended only after that.
func TestUploadsGoBeforeSpacesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "a", "b")
		time.Sleep(1500 * time.Millisecond)
		d.set(func() {
			spaces[0].uploads = []shelf.Upload{uploaded("stuck", 9*time.Hour), uploaded("third", 2*time.Hour), uploaded("new", -time.Hour)}
			spaces[1].uploads = []shelf.Upload{uploaded("first", 4*time.Hour), uploaded("second", 3*time.Hour)}
			spaces[0].used += 10 << 30
			d.left = minDisk - 150<<20
		})
		time.Sleep(time.Second)
		if got := d.removals(); !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("removed %q, want the two oldest", got)
		}
		const want = "Removed 2 uploads (200 MiB), because the disk of the host had 874 MiB free: those used longest ago, which no open session refers to."
		if got := d.noted(); !slices.Equal(got, []string{want}) {
			t.Errorf("noted %q, want %q", got, want)
		}
		d.set(func() { d.left = minDisk - 500<<20 })
		time.Sleep(time.Second)
		if got, ended := d.removals(), d.ended(); !slices.Equal(got, []string{"third"}) || len(ended) != 0 {
			t.Errorf("removed %q and ended %q, want the last old one first", got, ended)
		}
		time.Sleep(time.Second)
		if got, ended := d.removals(), d.ended(); len(got) != 0 || len(ended) != 1 || !strings.HasPrefix(ended[0], "start of a: The disk of the host was nearly full") {
			t.Errorf("removed %q and ended %q, want the Space that has written most", got, ended)
		}
	})
}

// TestUploadsOnNodesStay: files of a node are no room on the disk of the host.
func TestUploadsOnNodesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "a", "b")
		time.Sleep(1500 * time.Millisecond)
		d.set(func() {
			spaces[0].uploads = []shelf.Upload{uploaded("here", time.Hour)}
			spaces[1].onNode, spaces[1].uploads = true, []shelf.Upload{uploaded("on a node", 4*time.Hour)}
			d.left = minDisk - 150<<20
		})
		time.Sleep(time.Second)
		if got := d.removals(); !slices.Equal(got, []string{"here"}) {
			t.Errorf("removed %q", got)
		}
	})
}

// TestOldUploadsGo checks that an upload goes after the time of its Space, and that nothing else does.
func TestOldUploadsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "a")
		d.set(func() {
			spaces[0].uploads = []shelf.Upload{uploaded("old", 25*time.Hour), uploaded("young", 23*time.Hour)}
		})
		time.Sleep(2 * time.Minute)
		if got := d.removals(); !slices.Equal(got, []string{"old"}) {
			t.Errorf("removed %q", got)
		}
		time.Sleep(75 * time.Minute)
		if got := d.removals(); !slices.Equal(got, []string{"young"}) {
			t.Errorf("removed %q an hour later", got)
		}
		if got := d.noted(); len(got) != 0 {
			t.Errorf("noted %q", got)
		}
	})
}

// TestUploadsOverLimit checks the limits of one Space and of all: uploads go first, then a Space is ended.
func TestUploadsOverLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "a", "b")
		spaces[0].limit = 6 << 30
		time.Sleep(1500 * time.Millisecond)
		d.set(func() {
			spaces[0].used = 6<<30 + 50<<20
			spaces[0].uploads = []shelf.Upload{uploaded("a1", 2*time.Hour), uploaded("a2", time.Hour)}
			spaces[1].uploads = []shelf.Upload{uploaded("b1", 3*time.Hour)}
		})
		time.Sleep(time.Minute)
		if got, ended := d.removals(), d.ended(); !slices.Equal(got, []string{"a1"}) || len(ended) != 0 {
			t.Errorf("own limit: removed %q, ended %q", got, ended)
		}
		d.set(func() { d.total, spaces[1].used = 11<<30, 5<<30+200<<20 })
		time.Sleep(time.Minute)
		if got, ended := d.removals(), d.ended(); !slices.Equal(got, []string{"b1", "a2"}) || len(ended) != 0 {
			t.Errorf("total: removed %q, ended %q", got, ended)
		}
		d.set(func() { spaces[1].used = 6 << 30 })
		time.Sleep(time.Minute)
		got := d.ended()
		if len(got) != 1 || !strings.HasPrefix(got[0], "start of b: All Spaces together used 11.9 GiB of disk, more than their limit of 11 GiB, and the Space has written") {
			t.Errorf("ended %q, want b", got)
		}
	})
}

// TestOneSpaceAboveTheTotal checks that the other Spaces stay up while the one that was ended holds the excess, and that the operator
// is warned once per state.
func TestOneSpaceAboveTheTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "a", "b", "c")
		d.set(func() { d.total = 20 << 30 })
		time.Sleep(1500 * time.Millisecond)
		d.set(func() {
			spaces[0].used, spaces[1].used = 15<<30, 5<<30+500<<20
			spaces[2].uploads = []shelf.Upload{uploaded("new", 0)}
		})
		time.Sleep(time.Minute)
		if got := d.ended(); len(got) != 1 || !strings.HasPrefix(got[0], "start of a: All Spaces together") {
			t.Fatalf("ended %q, want a", got)
		}
		time.Sleep(10 * time.Minute)
		const want = "WARNING: all Spaces together use 5.5 GiB more disk than total_limits.disk=20 GiB. Ended for it, and not started before there is room: a. Delete files of ended Spaces, or raise the limit."
		if got, noted, removed := d.ended(), d.noted(), d.removals(); len(got)+len(removed) != 0 || !slices.Equal(noted, []string{want}) {
			t.Errorf("ended %q, removed %q, noted %q; want only %q", got, removed, noted, want)
		}
		d.set(func() { spaces[1].used = 18 << 30 })
		time.Sleep(10 * time.Minute)
		if got := d.ended(); len(got) != 1 || !strings.HasPrefix(got[0], "start of b: All Spaces together") {
			t.Errorf("ended %q, want b, because the files of a are not enough", got)
		}
		if noted := d.noted(); len(noted) != 2 || !strings.Contains(noted[1], "there is room: a, b. Delete") {
			t.Errorf("noted %q, want the removal of an upload and one new state", noted)
		}
	})
}

// TestUnmeasurableSpaceAndTheTotal checks that a Space that cannot be measured is ended alone, and that no Space loses uploads for it.
func TestUnmeasurableSpaceAndTheTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "hiding", "other")
		d.set(func() { d.total = 100 << 30 })
		time.Sleep(1500 * time.Millisecond)
		d.set(func() {
			spaces[0].err = &unmeasurableError{"its folders are nested deeper than 200 levels"}
			spaces[1].uploads = []shelf.Upload{uploaded("kept", 2*time.Hour)}
		})
		time.Sleep(10 * time.Minute)
		want := "start of hiding: All Spaces together have a limit of 100 GiB of disk, and its folders are nested deeper than 200 levels, so their size cannot be measured."
		if got, removed := d.ended(), d.removals(); !slices.Equal(got, []string{want}) || len(removed) != 0 {
			t.Errorf("ended %q, removed %q; want %q", got, removed, want)
		}
	})
}

// upload receives and stores an upload.
func (s *spaceRun) upload(size int64) error {
	room, err := s.reserveUpload(size)
	if err == nil {
		err = room.Received(size)
		room.End(true)
	}
	return err
}

// TestUploadIsRefusedForItsSpace checks the words for a visitor and the operator, and that old uploads make room first.
func TestUploadIsRefusedForItsSpace(t *testing.T) {
	s := limitedSpace(t, config.Limits{Disk: 4 << 20})
	s.openLogs()
	t.Cleanup(s.closeLogs)
	s.queue = queue.New(queue.Config{})
	storage := s.storage()
	s.api = gradioapi.New(gradioapi.Config{Space: "demo", Queue: s.queue, Upstream: s.supervisor, Shelf: shelf.New(shelf.Config{Storage: storage})})
	t.Cleanup(s.api.Close)
	old := time.Now().Add(-time.Hour)
	folder := filepath.Join(storage.Uploads, strings.Repeat("a", 64))
	writeKiB(t, filepath.Join(folder, "old.bin"), 3<<10)
	if err := os.Chtimes(folder, old, old); err != nil {
		t.Fatal(err)
	}
	if _, at, _ := s.watchedDisk(); !at.IsZero() {
		t.Errorf("it was measured at %v before it was measured", at)
	}
	usage, err := s.diskUsage(t.Context())
	if err != nil || usage < 3<<20 {
		t.Fatal(usage, err)
	}
	if bytes, at, err := s.watchedDisk(); bytes != usage || time.Since(at) > time.Minute || err != nil {
		t.Errorf("the last measurement is %d bytes at %v (%v), want %d now", bytes, at, err, usage)
	}
	if err := s.upload(500 << 10); err != nil {
		t.Errorf("an upload with room: %v", err)
	}
	if err := s.upload(2 << 20); err != nil {
		t.Errorf("an upload in the place of an old one: %v", err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the old upload: %v", err)
	}
	const want = "This Space has no room for this upload: its limit is 4 MiB of disk, and 2 MiB are used."
	if err := s.upload(3 << 20); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	log, err := os.ReadFile(s.host.state.path("logs", "run-demo.log"))
	if err != nil || strings.Count(string(log), "An upload was refused: "+want) != 1 {
		t.Errorf("the operator reads %s, %v", log, err)
	}
	for _, size := range []int64{1 << 60, math.MaxInt64} {
		if err := s.upload(size); err == nil || !strings.HasPrefix(err.Error(), "The disk of this host is nearly full") {
			t.Errorf("got %v", err)
		}
	}
	s.onNodes = &nodePlace{s: s}
	s.location.set("gpu2", "", time.Now())
	for _, size := range []int64{3 << 20, 1 << 60} {
		if err := s.upload(size); err != nil {
			t.Errorf("an upload to a Space on a node: %v", err)
		}
	}
	if s.diskLimit() != 0 {
		t.Errorf("the limit of a Space on a node is %d", s.diskLimit())
	}
}

// TestUploadsAtTheSameTime checks that uploads in flight count each other until they end, and that one of unknown size is refused
// when it reaches the limit.
func TestUploadsAtTheSameTime(t *testing.T) {
	s := limitedSpace(t, config.Limits{Disk: 4 << 20})
	s.openLogs()
	t.Cleanup(s.closeLogs)
	s.queue = queue.New(queue.Config{})
	s.api = gradioapi.New(gradioapi.Config{Space: "demo", Queue: s.queue, Upstream: s.supervisor, Shelf: shelf.New(shelf.Config{Storage: s.storage()})})
	t.Cleanup(s.api.Close)
	first, err := s.reserveUpload(3 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.reserveUpload(2 << 20); err == nil {
		t.Error("two uploads in flight exceed the limit")
	}
	if err := first.Received(1 << 20); err != nil { // it breaks off
		t.Error(err)
	}
	first.End(false)
	second, err := s.reserveUpload(3 << 20)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	unknown, err := s.reserveUpload(-1)
	if err != nil {
		t.Fatal(err)
	}
	if err := unknown.Received(1<<20 - 64<<10); err != nil { // the Space's folders use some
		t.Errorf("within the limit: %v", err)
	}
	if err := unknown.Received(64<<10 + 1); err == nil {
		t.Error("an upload of unknown size exceeds the limit")
	}
	unknown.End(false)
	second.End(false)
	if err := s.upload(2 << 20); err != nil {
		t.Errorf("after refused ones: %v", err)
	}
	if used, err := s.diskUsage(t.Context()); err != nil || s.room.expected() != used {
		t.Errorf("%d bytes are expected after a measurement of %d, %v", s.room.expected(), used, err)
	}
}
