package spacelog

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Read returns the lines of a log that are not older than since, at most the last most; 0: all. Its error is a *NotFoundError, or
// that of a file.
func Read(state, space string, kind Kind, since time.Time, most int) ([]Line, error) {
	lines, _, err := read(state, space, kind, since, most)
	return lines, err
}

// read also returns the place behind the last line.
func read(state, space string, kind Kind, since time.Time, most int) (lines []Line, end place, err error) {
	l, err := openLog(state, space, kind)
	if err != nil {
		return nil, place{}, err
	}
	defer l.close()
	end = l.end()
	_, err = l.backward(end, func(line Line, _ place) bool {
		if line.Time.Before(since) { // lines are in the order of time, unless the clock was set
			return true
		}
		lines = append(lines, line)
		return most == 0 || len(lines) < most
	})
	slices.Reverse(lines)
	return lines, end, err
}

// followInterval is the interval of the looks for further lines.
const followInterval = 200 * time.Millisecond

// Follow passes what Read returns to each, then every further line, until ctx ends or each returns an error. A log that does not
// exist yet is awaited.
func Follow(ctx context.Context, state, space string, kind Kind, since time.Time, most int, each func(Line) error) error {
	lines, at, err := read(state, space, kind, since, most)
	if missing := (*NotFoundError)(nil); err != nil && !errors.As(err, &missing) {
		return err
	}
	for _, l := range lines {
		if err := each(l); err != nil {
			return err
		}
	}
	again := time.NewTicker(followInterval)
	defer again.Stop()
	for {
		if at, err = more(state, space, kind, at, each); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// more passes on the lines behind a place, and returns the place behind them.
func more(state, space string, kind Kind, at place, each func(Line) error) (place, error) {
	l, err := openLog(state, space, kind)
	if missing := (*NotFoundError)(nil); errors.As(err, &missing) {
		return at, nil
	} else if err != nil {
		return at, err
	}
	defer l.close()
	from, _ := l.find(at)
	var failed error
	to, err := l.forward(from, func(line Line, _ place) bool {
		failed = each(line)
		return failed == nil
	})
	return to, errors.Join(failed, err)
}
