package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Liveness is when a running Space that does not answer counts as UNRESPONSIVE, and when it starts again.
type Liveness struct {
	After        time.Duration // without an answer; 0: never
	RestartAfter time.Duration // UNRESPONSIVE; 0: never
}

// DefaultLiveness bears calls that hold Python's interpreter lock for half a minute, as extensions in C do.
var DefaultLiveness = Liveness{After: 30 * time.Second, RestartAfter: 2 * time.Minute}

// livenessEntry holds the keys of `liveness` that are set, in a Space or at the top level.
type livenessEntry struct{ after, restartAfter *time.Duration }

// The bounds of both times. never is 0.
const (
	minLiveness = time.Second
	maxLiveness = 24 * time.Hour
)

func (e *livenessEntry) keys() map[string]**time.Duration {
	return map[string]**time.Duration{"after": &e.after, "restart_after": &e.restartAfter}
}

// LivenessKeys returns the keys of `liveness`, sorted.
func LivenessKeys() []string { return slices.Sorted(maps.Keys((&livenessEntry{}).keys())) }

// set parses the value of one key.
func (e *livenessEntry) set(key, text string) error {
	into, ok := e.keys()[key]
	if !ok {
		return fmt.Errorf("unknown key %.40q; %s", key, suggest(key, LivenessKeys(), "use one of "))
	}
	if text == "never" {
		*into = new(time.Duration)
		return nil
	}
	d, err := parseDuration(text)
	if err != nil || d < minLiveness || d > maxLiveness {
		return fmt.Errorf("must be from %s to %s, such as 90s, or never, not %.40q", durationText(minLiveness), durationText(maxLiveness), text)
	}
	*into = &d
	return nil
}

// read reads the mapping of a file.
func (e *livenessEntry) read(n node) {
	known := map[string]func(node){}
	for _, key := range LivenessKeys() {
		known[key] = func(at node) {
			if text, ok := at.scalar(); ok {
				if err := e.set(key, text); err != nil {
					at.fail("%v", err)
				}
			}
		}
	}
	n.fields("a mapping with the keys "+strings.Join(LivenessKeys(), " and "), known)
}

// or returns the values that are set, and those of defaults.
func (e *livenessEntry) or(defaults Liveness) Liveness {
	l := defaults
	if e.after != nil {
		l.After = *e.after
	}
	if e.restartAfter != nil {
		l.RestartAfter = *e.restartAfter
	}
	return l
}

// ParseLiveness parses the values of --liveness: KEY=VALUE, such as after=30s or restart_after=never.
func ParseLiveness(all []string) (Liveness, error) {
	var e livenessEntry
	for _, text := range all {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return Liveness{}, fmt.Errorf("--liveness %.40q is not KEY=VALUE; give one such as restart_after=5m", text)
		}
		if err := e.set(key, value); err != nil {
			return Liveness{}, fmt.Errorf("--liveness %s: %w", key, err)
		}
	}
	return e.or(DefaultLiveness), nil
}

// String returns the notation of the file.
func (l Liveness) String() string {
	text := func(d time.Duration) string {
		if d == 0 {
			return "never"
		}
		return durationText(d)
	}
	return "after=" + text(l.After) + ",restart_after=" + text(l.RestartAfter)
}
