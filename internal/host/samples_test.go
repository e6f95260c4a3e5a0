package host

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// fakeSampled is a Space that uses half a core.
type fakeSampled struct {
	mu       sync.Mutex
	instance string
	began    time.Time
	disk     int64
	walks    int
	watched  bool // by diskWatch, every minute
}

func (f *fakeSampled) name() string      { return "one" }
func (f *fakeSampled) start() string     { f.mu.Lock(); defer f.mu.Unlock(); return f.instance }
func (f *fakeSampled) memory(bool) int64 { return 100 << 20 }
func (f *fakeSampled) threads(int) int   { return 7 }
func (f *fakeSampled) cpu() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.began) / 2
}
func (f *fakeSampled) measureDisk(context.Context) (int64, error) {
	time.Sleep(2 * time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.walks++
	if f.disk < 0 {
		return 0, errors.New("not readable")
	}
	return f.disk, nil
}

func (f *fakeSampled) watchedDisk() (bytes int64, at time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.watched {
		return 0, time.Time{}, nil
	}
	return 7 << 20, time.Now().Add(-usageInterval), nil
}

// TestSamplerDoesNotWalkTwice takes the measurements of diskWatch, and walks again after they have stopped.
func TestSamplerDoesNotWalkTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &fakeSampled{instance: "a", began: time.Now(), disk: 5 << 20, watched: true}
		m := newSampler(func() []sampledSpace { return []sampledSpace{one} }, zap.NewNop())
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.run(ctx); close(ended) }()
		h := &Host{sampler: m}
		for _, row := range []struct {
			watched bool
			disk    int64
			walks   int // at most
		}{{true, 7 << 20, 0}, {false, 5 << 20, 6}} {
			one.mu.Lock()
			one.watched = row.watched
			one.mu.Unlock()
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if used := h.UsageStats()["one"]; used.Disk != row.disk || one.walks > row.walks || !row.watched && one.walks == 0 {
				t.Errorf("watched %v: %d bytes after %d walks, want %d bytes after %d walks at most", row.watched, used.Disk, one.walks, row.disk, row.walks)
			}
		}
		stop()
		<-ended
	})
}

// TestSampler measures a Space for two hours, across a restart.
func TestSampler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &fakeSampled{instance: "a", began: time.Now(), disk: 5 << 20}
		spaces := []sampledSpace{one}
		m := newSampler(func() []sampledSpace { one.mu.Lock(); defer one.mu.Unlock(); return spaces }, zap.NewNop())
		change := func(edit func()) { one.mu.Lock(); defer one.mu.Unlock(); edit() }
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { m.run(ctx); close(ended) }()
		time.Sleep(2*time.Hour + time.Second)
		synctest.Wait()
		all := m.samplesOf("one")
		if n := len(all); n != 361 {
			t.Errorf("%d samples of an hour, want 361", n)
		}
		last := all[len(all)-1]
		if last.Memory != 100<<20 || last.Processes != 7 || last.Cores < 0.49 || last.Cores > 0.51 || last.Disk != 5<<20 {
			t.Errorf("the last sample: %+v", last)
		}
		if one.walks > 80 {
			t.Errorf("%d walks of 2 s in two hours: they take more than a fiftieth of the time", one.walks)
		}
		h := &Host{sampler: m}
		if used := h.UsageStats()["one"]; used.CPUSeconds < 3595 || used.CPUSeconds > 3605 {
			t.Errorf("after two hours with half a core: %+v", used)
		}
		change(func() { one.instance, one.began, one.disk = "b", time.Now(), -1 }) // a restart
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if used := h.UsageStats()["one"]; used.CPUSeconds < 3680 || used.CPUSeconds > 3700 || used.Disk != -1 {
			t.Errorf("three minutes after the restart: %+v", used)
		}
		change(func() { one.instance = "" })
		time.Sleep(sampleInterval)
		synctest.Wait()
		if all = m.samplesOf("one"); all[len(all)-1].Memory != 0 || all[len(all)-1].Cores != 0 {
			t.Errorf("a Space without a process: %+v", all[len(all)-1])
		}
		change(func() { spaces = nil })
		time.Sleep(sampleInterval)
		synctest.Wait()
		if left := h.UsageStats(); len(left) != 0 {
			t.Errorf("a removed Space is still measured: %+v", left)
		}
		stop()
		<-ended
	})
}
