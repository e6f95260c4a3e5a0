package dashboard

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fakeHost is a source whose views are counters.
type fakeHost struct {
	spaces, leases, gpus, version atomic.Int64
	looks                         atomic.Int64
	broken                        atomic.Bool
	ended                         chan struct{}
}

func (f *fakeHost) sources() Sources {
	view := func(n *atomic.Int64) func(context.Context) (any, error) {
		return func(context.Context) (any, error) {
			f.looks.Add(1)
			if f.broken.Load() {
				return nil, errors.New("broken")
			}
			return n.Load(), nil
		}
	}
	return Sources{
		Views: map[Topic]func(context.Context) (any, error){Spaces: view(&f.spaces), Leases: view(&f.leases), GPUs: view(&f.gpus), People: view(new(atomic.Int64)), Audit: view(new(atomic.Int64))},
		Leases: func(ctx context.Context) <-chan struct{} {
			context.AfterFunc(ctx, func() { close(f.ended) })
			return make(chan struct{})
		},
		Version: func(context.Context) (int64, error) { return f.version.Load(), nil },
	}
}

// TestChanges changes a host while a stream is open.
func TestChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{ended: make(chan struct{})}
		c := NewChanges(host.sources())
		if host.looks.Load() != 0 {
			t.Error("it looks without a stream")
		}
		closeStream, _ := c.open("ada")
		synctest.Wait()
		all := []Topic{Spaces, Leases, GPUs, People, Audit}
		topics := func(revision int64) ([]Topic, int64) {
			changed, now, _ := c.since(revision, all)
			return slices.Sorted(maps.Keys(changed)), now
		}
		got, revision := topics(0)
		if !slices.Equal(got, []Topic{Audit, GPUs, Leases, People, Spaces}) {
			t.Errorf("a new stream gets %v", got)
		}
		for _, row := range []struct {
			name   string
			change func()
			after  time.Duration
			want   []Topic
		}{
			{"nothing", func() {}, time.Minute, nil},
			{"a Space", func() { host.spaces.Add(1) }, lookEvery, []Topic{Spaces}},
			{"a lease without a commit", func() { host.leases.Add(1) }, lookEvery, nil},
			{"a commit", func() { host.version.Add(1) }, lookEvery, []Topic{Leases}},
			{"the memory of a GPU", func() { host.gpus.Add(1) }, gpusEvery + lookEvery, []Topic{GPUs}},
			{"a view that fails", func() { host.broken.Store(true); host.spaces.Add(1) }, lookEvery, nil},
			{"and works again", func() { host.broken.Store(false) }, lookEvery, []Topic{Spaces}},
		} {
			_, _, wake := c.since(revision, all)
			row.change()
			time.Sleep(row.after)
			synctest.Wait()
			if got, revision = topics(revision); !slices.Equal(got, row.want) {
				t.Errorf("after %s: %v, want %v", row.name, got, row.want)
			}
			if stale := c.staleOf(all); (len(stale) > 0) != host.broken.Load() || host.broken.Load() && stale[Spaces].Error != "broken" {
				t.Errorf("after %s: stale are %v", row.name, stale)
			}
			if len(row.want) > 0 || host.broken.Load() {
				<-wake // closed, otherwise the test would not end
			}
		}
		closeStream()
		closeStream() // may be called twice
		<-host.ended
		before := host.looks.Load()
		time.Sleep(time.Hour)
		if now := host.looks.Load(); now != before {
			t.Errorf("it looked %d times without a stream", now-before)
		}
	})
}

// TestStreamsOfOneBearer opens one stream too many, and another one after a stream has closed.
func TestStreamsOfOneBearer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{ended: make(chan struct{})}
		c := NewChanges(host.sources())
		var closers []func()
		open := func(credential string) bool {
			done, ok := c.open(credential)
			if ok {
				closers = append(closers, done)
			}
			return ok
		}
		for range MostStreams {
			if !open("one") {
				t.Fatalf("stream %d is refused", len(closers))
			}
		}
		if open("one") {
			t.Error("one stream too many is accepted")
		}
		if !open("two") {
			t.Error("another bearer is refused")
		}
		closers[0]()
		closers[0]() // may be called twice
		if !open("one") || open("one") {
			t.Error("a closed stream counts, or counts twice")
		}
		for _, done := range closers {
			done()
		}
		<-host.ended
	})
}

// TestHangingView lets the view of the GPUs hang, as a driver does. The other topics go on, and the GPUs are marked as stale.
func TestHangingView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &fakeHost{ended: make(chan struct{})}
		sources, hang := host.sources(), make(chan struct{})
		usual := sources.Views[GPUs]
		var hangs atomic.Bool
		var during atomic.Int64
		sources.Views[GPUs] = func(ctx context.Context) (any, error) {
			if hangs.Load() {
				during.Add(1)
				<-hang // a driver ignores the context
			}
			return usual(ctx)
		}
		c := NewChanges(sources)
		closeStream, _ := c.open("one")
		defer closeStream()
		synctest.Wait()
		both := []Topic{Leases, GPUs}
		_, revision, _ := c.since(0, both)
		began := time.Now()
		hangs.Store(true)
		host.gpus.Add(1)
		for range 8 {
			host.leases.Add(1)
			host.version.Add(1)
			time.Sleep(2 * lookEvery)
			synctest.Wait()
			var changed map[Topic][]byte
			if changed, revision, _ = c.since(revision, both); len(changed) != 1 || changed[Leases] == nil {
				t.Fatalf("while the GPUs hang: %v, want a change of the leases", changed)
			}
		}
		stale := c.staleOf(both)
		if s := stale[GPUs]; len(stale) != 1 || s.Error != errHangs.Error() || s.Since.Sub(began) > hangsAfter+2*lookEvery {
			t.Errorf("stale are %v; want the GPUs within %s of %s", stale, hangsAfter, began)
		}
		if n := during.Load(); n != 1 {
			t.Errorf("%d goroutines wait for the driver, want 1", n)
		}
		hangs.Store(false)
		close(hang)
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		if changed, _, _ := c.since(revision, both); string(changed[GPUs]) != "1" || len(c.staleOf(both)) != 0 {
			t.Errorf("after the hang: %s, stale are %v", changed, c.staleOf(both))
		}
	})
}

// TestWake wakes streams of a host on which nothing has changed.
func TestWake(t *testing.T) {
	c := NewChanges((&fakeHost{}).sources())
	_, before, wake := c.since(0, nil)
	c.Wake()
	<-wake // closed, otherwise the test would not end
	if _, now, again := c.since(0, nil); now != before || again == wake {
		t.Errorf("revision %d after Wake, want %d and another channel", now, before)
	}
}

// TestSignIns: an admin's pages are one sign-in, until the pause has passed.
func TestSignIns(t *testing.T) {
	var s signIns
	at := time.Now()
	for _, row := range []struct {
		credential, address string
		after               time.Duration
		want                bool
	}{{"a", "1", 0, true}, {"a", "1", time.Hour, false}, {"b", "1", 0, true}, {"a", "2", 0, true}, {"a", "1", signInPause, true}} {
		if got := s.isNew(row.credential, row.address, at.Add(row.after)); got != row.want {
			t.Errorf("%+v: %v", row, got)
		}
	}
	for i := range 3 * maxSignIns {
		s.isNew("many", strconv.Itoa(i), at)
	}
	if len(s.seen) > maxSignIns {
		t.Errorf("%d sign-ins are remembered, want at most %d", len(s.seen), maxSignIns)
	}
}
