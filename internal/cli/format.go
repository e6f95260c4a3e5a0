package cli

import (
	"fmt"
	"strconv"
	"time"

	"spacehost/internal/clock"
	"spacehost/internal/lease"
)

// spoken is a duration as people read it: 90 s, 3 min 30 s, 2 h 5 min.
func spoken(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%g s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
}

// minute is a time as a person reads it in a list, or the word for none.
func minute(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.Local().Format("2006-01-02 15:04")
}

// secondsOf is a time as 90s, 10m or a number of seconds.
func secondsOf(text string) (float64, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return seconds, nil
	}
	d, err := time.ParseDuration(text)
	return d.Seconds(), err
}

func stamp(t time.Time) string { return t.Local().Format("Jan 2 15:04:05") }

// expects is what one who waits may expect, nothing for who waits no more.
func expects(f *lease.Forecast, now time.Time) string {
	if f == nil {
		return ""
	}
	text := fmt.Sprintf("number %d in line", f.Rank+1)
	switch f.Limit {
	case lease.OfSpace:
		text += ", after other calls of its Space"
	case lease.OfIdentity:
		text += ", after other calls of theirs"
	}
	switch {
	case f.Start == nil:
		text += "; no GPU is in sight"
	case f.Start.After(f.GivesUp):
		text += "; would start in " + clock.InSeconds(f.Start.Sub(now)) + ", but waits no longer than " + clock.InSeconds(f.GivesUp.Sub(now))
	default:
		text += "; starts in " + clock.InSeconds(f.Start.Sub(now))
	}
	return text
}

// ago is a time as a person reads it in a list, by the host's clock. What an earlier start has written under an
// advanced one lies ahead.
func ago(t, now time.Time) string {
	if passed := now.Sub(t).Round(time.Second); passed >= 0 {
		return passed.String() + " ago"
	}
	return "in " + t.Sub(now).Round(time.Second).String()
}
