package host

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/shelf"
)

// fakeDisk is a disk whose content the test sets.
type fakeDisk struct {
	mu    sync.Mutex
	left  uint64
	notes []string
	ends  []string
	total int64 // limit of all Spaces

	removed []string // names of uploads
}

// fakeDiskSpace is a Space on it. Its start is named after it.
type fakeDiskSpace struct {
	disk  *fakeDisk
	label string
	limit int64

	used    int64
	uploads []shelf.Upload
	err     error
	stopped bool
	onNode  bool
	waits   bool // for the limit of all Spaces
	walks   int
}

func (s *fakeDiskSpace) name() string     { return s.label }
func (s *fakeDiskSpace) isHere() bool     { return !s.onNode }
func (s *fakeDiskSpace) diskLimit() int64 { return s.limit }
func (s *fakeDiskSpace) start() string {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if s.stopped {
		return ""
	}
	return "start of " + s.label
}

func (s *fakeDiskSpace) diskUsage(context.Context) (int64, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.walks++
	return s.used, s.err
}

func (s *fakeDiskSpace) unreferenced() ([]shelf.Upload, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return slices.Clone(s.uploads), nil
}

// removeUpload removes an upload of 100 MiB.
func (s *fakeDiskSpace) removeUpload(one shelf.Upload) (int64, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if one.Name == "stuck" {
		return 0, errors.New("permission denied")
	}
	s.uploads = slices.DeleteFunc(s.uploads, func(other shelf.Upload) bool { return other == one })
	s.used -= 100 << 20
	s.disk.left += 100 << 20
	s.disk.removed = append(s.disk.removed, one.Name)
	return 100 << 20, nil
}

func (s *fakeDiskSpace) keepsUploads() time.Duration { return 24 * time.Hour }

func (s *fakeDiskSpace) endForDisk(start string, why diskShortage) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.ends = append(s.disk.ends, start+": "+why.reason)
	s.stopped, s.waits = true, why.total
}

func (s *fakeDiskSpace) waitsForTotal() bool {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.waits
}

// set changes the disk between two looks.
func (d *fakeDisk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// ended returns the ends since the last call.
func (d *fakeDisk) ended() (ends []string) {
	d.set(func() { ends, d.ends = d.ends, nil })
	return ends
}

func (d *fakeDisk) noted() (notes []string) {
	d.set(func() { notes, d.notes = d.notes, nil })
	return notes
}

// watchDisk runs a diskWatch over Spaces of these names until the test ends.
func watchDisk(t *testing.T, names ...string) (*fakeDisk, []*fakeDiskSpace) {
	d := &fakeDisk{left: 100 << 30}
	w := &diskWatch{
		free: func() (left uint64, err error) { d.set(func() { left = d.left }); return left, nil },
		note: func(text string) { d.set(func() { d.notes = append(d.notes, text) }) },
		log:  zap.NewNop(),

		total: func() (limit int64) { d.set(func() { limit = d.total }); return limit },
	}
	var spaces []*fakeDiskSpace
	var watched []diskSpace
	for _, name := range names {
		s := &fakeDiskSpace{disk: d, label: name, used: 5 << 30}
		spaces, watched = append(spaces, s), append(watched, s)
	}
	w.spaces = func() []diskSpace { return watched }
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return d, spaces
}

// TestSpaceThatFillsTheDiskIsEnded checks that the Space with the largest growth is ended, not the one with the largest
// folders, and that each further one gets ten seconds.
func TestSpaceThatFillsTheDiskIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "large", "growing", "growing less")
		d.set(func() { spaces[0].used = 50 << 30 })
		time.Sleep(1500 * time.Millisecond) // every start has its base
		d.set(func() {
			spaces[0].used += minGrowth - 1
			spaces[1].used, spaces[2].used = spaces[1].used+3<<30, spaces[2].used+2<<30
			d.left = minDisk
		})
		time.Sleep(5 * time.Second)
		if got := d.ended(); len(got) != 0 {
			t.Fatalf("ended with enough free space: %s", got)
		}
		d.set(func() { d.left = minDisk - 1 })
		time.Sleep(time.Second)
		want := "start of growing: The disk of the host was nearly full (1023 MiB free), and the Space has written 3 GiB since its start, more than any other."
		if got := d.ended(); !slices.Equal(got, []string{want}) {
			t.Errorf("ended %q, want %q", got, want)
		}
		time.Sleep(8 * time.Second)
		if got := d.ended(); len(got) != 0 {
			t.Errorf("ended too early: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := d.ended(); len(got) != 1 || !strings.Contains(got[0], "start of growing less") {
			t.Errorf("ended %q, want the next one", got)
		}
		time.Sleep(time.Minute)
		if got := d.ended(); len(got) != 0 {
			t.Errorf("ended a Space that has written little: %s", got)
		}
		if got := d.noted(); len(got) != 1 || !strings.Contains(got[0], "no Space has written much since its start. Make room") {
			t.Errorf("noted %q, want one sentence", got)
		}
	})
}

// TestDiskLimit checks a limit once a minute, without a walk for a Space that has none.
func TestDiskLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "limited", "within", "unlimited", "hiding")
		spaces[0].limit, spaces[1].limit, spaces[3].limit = 6<<30, 6<<30, 6<<30
		time.Sleep(1500 * time.Millisecond)
		d.set(func() {
			spaces[0].used, spaces[2].used = 7<<30, 70<<30
			spaces[3].err = &unmeasurableError{"its folders are nested deeper than 200 levels"}
		})
		time.Sleep(50 * time.Second)
		if got := d.ended(); len(got) != 0 {
			t.Fatalf("ended before a minute: %s", got)
		}
		time.Sleep(10 * time.Second)
		want := []string{
			"start of limited: The Space used 7 GiB of disk, more than its limit of 6 GiB.",
			"start of hiding: The Space has a limit of 6 GiB of disk, and its folders are nested deeper than 200 levels, so their size cannot be measured.",
		}
		if got := d.ended(); !slices.Equal(got, want) {
			t.Errorf("ended %q, want %q", got, want)
		}
		time.Sleep(time.Hour)
		d.set(func() {
			if spaces[2].walks != 1 || spaces[1].walks < 60 || spaces[1].walks > 62 {
				t.Errorf("%d walks without a limit and %d with one in an hour; want 1 and 61", spaces[2].walks, spaces[1].walks)
			}
		})
		if got := d.ended(); len(got) != 0 {
			t.Errorf("ended %s", got)
		}
	})
}

// TestUnmeasurableSpaceIsEndedFirst checks that a Space cannot hide what it has written.
func TestUnmeasurableSpaceIsEndedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, spaces := watchDisk(t, "growing", "hiding")
		time.Sleep(1500 * time.Millisecond)
		d.set(func() {
			spaces[0].used = 50 << 30
			spaces[1].err = &unmeasurableError{"its folders contain more than 5000000 files"}
			d.left = 0
		})
		time.Sleep(time.Second)
		if got := d.ended(); len(got) != 1 || !strings.Contains(got[0], "the Space has folders whose size cannot be measured") {
			t.Errorf("ended %q", got)
		}
	})
}

// TestNearlyFullDiskIsReportedOnce until there is clearly more than the limit.
func TestNearlyFullDiskIsReportedOnce(t *testing.T) {
	var reported []int64
	w := &diskWatch{nearlyFull: func(free int64) { reported = append(reported, free) }}
	for _, free := range []uint64{minDisk, minDisk - 1, minDisk - 2, minDisk, minDisk - 3, 2 * minDisk, minDisk - 4} {
		w.reportFree(free)
	}
	if !slices.Equal(reported, []int64{minDisk - 1, minDisk - 4}) {
		t.Errorf("reported: %v", reported)
	}
}
