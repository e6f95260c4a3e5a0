package cli

import (
	"fmt"
	"strconv"
	"time"

	"spacehost/internal/clock"
	"spacehost/internal/lease"
)

// The formats of times and durations in tables and sentences.

// formatDuration formats seconds for a sentence: 90 s, 3 min 30 s, 2 h 5 min.
func formatDuration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%g s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
}

// formatMinute formats a time to the minute, with its date; none stands for a missing time.
func formatMinute(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.Local().Format("2006-01-02 15:04")
}

// formatTime formats a time within the year, to the second.
func formatTime(t time.Time) string { return t.Local().Format("Jan 2 15:04:05") }

// formatAgo formats the age of t by the host's clock. A time in the future was recorded under an advanced clock.
func formatAgo(t, now time.Time) string {
	if passed := now.Sub(t).Round(time.Second); passed >= 0 {
		return passed.String() + " ago"
	}
	return "in " + t.Sub(now).Round(time.Second).String()
}

// formatForecast formats the position and the expected start of a waiting lease; "" for a lease that does not wait.
func formatForecast(f *lease.Forecast, now time.Time) string {
	if f == nil {
		return ""
	}
	text := fmt.Sprintf("number %d in line", f.Rank+1)
	switch f.Limit {
	case lease.OfSpace:
		text += ", after other calls of its Space"
	case lease.OfIdentity:
		text += ", after other calls of this account"
	}
	switch {
	case f.Start == nil:
		text += "; its start cannot be predicted"
	case f.Start.After(f.GivesUp):
		text += "; would start in " + clock.InSeconds(f.Start.Sub(now)) + ", but gives up in " + clock.InSeconds(f.GivesUp.Sub(now))
	default:
		text += "; starts in " + clock.InSeconds(f.Start.Sub(now))
	}
	return text
}

// parseSeconds parses a duration such as 90s or 10m, or a number of seconds.
func parseSeconds(text string) (float64, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return seconds, nil
	}
	d, err := time.ParseDuration(text)
	return d.Seconds(), err
}

// formatBytes formats a size on the disk: 812 KiB, 43.5 MiB, 1.2 GiB.
func formatBytes(n int64) string {
	switch {
	case n < 1<<20:
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
