package host

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/config"
	"spacehost/worker"
)

// fakeTotalSpace is a Space whose use the test sets.
type fakeTotalSpace struct {
	label         string
	mu            *sync.Mutex
	exact, rough  int64
	processes     int
	ended         *[]string
	over, measure bool // ended; measured exactly
}

func (s *fakeTotalSpace) name() string { return s.label }

func (s *fakeTotalSpace) start() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return ""
	}
	return s.label
}

func (s *fakeTotalSpace) memory(exact bool) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if exact {
		s.measure = true
		return s.exact
	}
	return s.rough
}

func (s *fakeTotalSpace) threads(int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.processes
}

func (s *fakeTotalSpace) endForTotal(start string, why *worker.RefusedError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	*s.ended = append(*s.ended, start+": "+why.Reason)
}

// TestTotalLimits checks that the Space that uses most is ended, one at a time, and that shared pages end none.
func TestTotalLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ended []string
		limits := config.Limits{}
		spaces := []*fakeTotalSpace{{label: "a"}, {label: "b"}, {label: "c"}}
		w := &totalWatch{log: zap.NewNop(), limits: func() config.Limits { mu.Lock(); defer mu.Unlock(); return limits }}
		w.spaces = func() (all []totalSpace) {
			for _, s := range spaces {
				all = append(all, s)
			}
			return all
		}
		for _, s := range spaces {
			s.mu, s.ended, s.exact, s.rough, s.processes = &mu, &ended, 1<<30, 2<<30, 100
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.run(ctx) })
		defer running.Wait()
		defer cancel()
		// after changes the use, and returns the Spaces that were ended within that time
		after := func(wait time.Duration, change func()) (starts []string) {
			mu.Lock()
			change()
			ended = nil
			mu.Unlock()
			time.Sleep(wait)
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(ended)
		}
		if got := after(time.Minute, func() { spaces[1].exact, spaces[1].rough, spaces[1].processes = 1<<40, 1<<40, 1<<20 }); len(got) != 0 || spaces[0].measure {
			t.Errorf("without a limit: ended %q, measured exactly %v", got, spaces[0].measure)
		}
		if got := after(time.Minute, func() { limits.Memory, spaces[1].exact, spaces[1].rough = 5<<30, 2<<30, 3<<30 }); len(got) != 0 || !spaces[0].measure {
			t.Errorf("shared pages: ended %q, measured exactly %v", got, spaces[0].measure)
		}
		want := "b: All Spaces together used 6 GiB of memory, more than their limit of 5 GiB, and the Space used most of it (4 GiB)."
		if got := after(9*time.Second, func() { spaces[1].exact, spaces[1].rough, spaces[0].exact = 4<<30, 4<<30, 1<<30 }); !slices.Equal(got, []string{want}) {
			t.Errorf("ended %q, want %q", got, want)
		}
		if got := after(8*time.Second, func() { spaces[0].exact, spaces[0].rough = 9<<30, 9<<30 }); len(got) != 1 || !strings.HasPrefix(got[0], "a: ") {
			t.Errorf("ended %q, want a after ten seconds", got)
		}
		want = "c: All Spaces together had 600 processes and threads, more than their limit of 500, and the Space had most of them (600)."
		if got := after(20*time.Second, func() { limits, spaces[2].processes = config.Limits{Processes: 500}, 600 }); !slices.Equal(got, []string{want}) {
			t.Errorf("ended %q, want %q", got, want)
		}
	})
}
