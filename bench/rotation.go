package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// rotation measures several Spaces in turn.
type rotation struct {
	spaces []*servedSpace
	turn   int
}

// servedSpace is a Space of a rotation. Its name is that of the column of the table.
type servedSpace struct {
	name   string
	url    string
	client *client
}

func (r *rotation) close() {
	for _, s := range r.spaces {
		if s.client != nil {
			s.client.close()
		}
	}
}

// inTurn returns the Spaces in another order at each call. After all orders, each Space has followed each other Space
// equally often, because the work that a call leaves behind slows the next one.
func (r *rotation) inTurn() []*servedSpace {
	n := len(r.spaces)
	first := r.turn % n
	order := slices.Concat(r.spaces[first:], r.spaces[:first])
	if r.turn/n%2 == 1 {
		slices.Reverse(order)
	}
	r.turn++
	return order
}

// timedCall is one call or request. n is its number.
type timedCall func(ctx context.Context, s *servedSpace, n int) (time.Duration, error)

// latency alternates between the Spaces, n times, and returns the median of each.
func (r *rotation) latency(ctx context.Context, n int, do timedCall) (map[string]values, error) {
	took, err := r.times(ctx, n, 1, do)
	if err != nil {
		return nil, err
	}
	all := map[string]values{}
	for name, times := range took {
		all[name] = values{"p50_ms": percentile(times[0], 50)}
	}
	return all, nil
}

// times alternates between the Spaces until each has had n calls of each kind, and returns the times of each kind,
// ascending. A Space has as many in a row as burst says: the threads of the host before it are awake for some
// milliseconds more, and they would run beside every call if each was to another host.
func (r *rotation) times(ctx context.Context, n, burst int, calls ...timedCall) (map[string][][]time.Duration, error) {
	took := map[string][][]time.Duration{}
	for i := 0; i < n; i += burst {
		for _, s := range r.inTurn() {
			if took[s.name] == nil {
				took[s.name] = make([][]time.Duration, len(calls))
			}
			for k := i; k < min(i+burst, n); k++ {
				for kind, do := range calls {
					one, err := do(ctx, s, k)
					if err != nil {
						return nil, fmt.Errorf("%s: %w", s.name, err)
					}
					took[s.name][kind] = append(took[s.name][kind], one)
				}
			}
		}
	}
	for _, all := range took {
		for _, times := range all {
			slices.Sort(times)
		}
	}
	return took, nil
}

func noopCall(ctx context.Context, s *servedSpace, n int) (time.Duration, error) {
	return s.echo(ctx, "noop", n)
}

func warmCall(ctx context.Context, s *servedSpace, n int) (time.Duration, error) {
	return s.echo(ctx, "on_gpu", n)
}

// echo calls a function that returns its input.
func (s *servedSpace) echo(ctx context.Context, api string, n int) (time.Duration, error) {
	text := fmt.Sprintf(`"%d"`, n)
	took, _, err := s.client.call(ctx, newHash(), api, "["+text+"]", text)
	return took, err
}

// rates alternates between the Spaces, n times, and returns the median rate of each.
func (r *rotation) rates(ctx context.Context, n int, do func(context.Context, *servedSpace) (float64, error)) (map[string]float64, error) {
	all := map[string][]float64{}
	for range n {
		for _, s := range r.inTurn() {
			rate, err := do(ctx, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if rate > 0 {
				all[s.name] = append(all[s.name], rate)
			}
		}
	}
	medians := map[string]float64{}
	for name, rates := range all {
		medians[name] = quantile(rates, 0.5)
	}
	return medians, nil
}

// uploads returns the rate of each Space in MB per second. The files are removed if they are below a folder.
func (r *rotation) uploads(ctx context.Context, n int, size int64, below string) (map[string]float64, error) {
	return r.rates(ctx, n, func(ctx context.Context, s *servedSpace) (float64, error) {
		began := time.Now()
		path, err := s.client.upload(ctx, size)
		took := time.Since(began)
		if inside, bad := filepath.Rel(below, path); bad == nil && filepath.IsLocal(inside) {
			_ = os.Remove(path) // the folder is removed at the end
		}
		return float64(size) / 1e6 / took.Seconds(), err
	})
}
