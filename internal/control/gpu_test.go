package control

import (
	"strings"
	"testing"
	"time"
)

// TestReadWindow covers the times of a drain, at Friday 2026-11-20 15:30 in a zone with summer time.
func TestReadWindow(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 20, 15, 30, 0, 0, berlin)
	day := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, berlin) }
	for _, tt := range []struct {
		from, until         string
		wantFrom, wantUntil time.Time
		err                 string
	}{
		{},
		{from: "16:00", until: "17:00", wantFrom: day(20, 16, 0), wantUntil: day(20, 17, 0)},
		{from: "14:00", until: "17:00", wantFrom: day(21, 14, 0), wantUntil: day(21, 17, 0)},
		{from: "23:00", until: "02:00", wantFrom: day(20, 23, 0), wantUntil: day(21, 2, 0)},
		{until: "15:30", wantUntil: day(21, 15, 30)}, // now is over
		{from: "2026-11-22 09:05", until: "2026-11-23T08:00:00+01:00", wantFrom: day(22, 9, 5), wantUntil: day(23, 8, 0)},
		{from: "2026-11-20T15:00:00Z", wantFrom: day(20, 16, 0)},
		{from: "2026-11-20T15:00:00Z", until: "16:30", wantFrom: day(20, 16, 0), wantUntil: day(20, 16, 30)}, // in the zone of now
		{from: "2026-11-19 09:00", until: "17:00", wantUntil: day(20, 17, 0)},                                // it has begun
		{from: "25:00", err: `the beginning of the drain: "25:00" is not a time; give one such as 14:00`},
		{until: "noon", err: `the end of the drain: "noon" is not a time`},
		{from: "16:00", until: "2026-11-20 16:00", err: "the drain would end at 2026-11-20 16:00, before it begins; give a later end"},
		{until: "2026-11-20 15:30", err: "before it begins"},
	} {
		from, until, err := readWindow(DrainRequest{From: tt.from, Until: tt.until}, now)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q to %q: error %v, want %q", tt.from, tt.until, err, tt.err)
			}
			continue
		}
		if err != nil || !from.Equal(tt.wantFrom) || !until.Equal(tt.wantUntil) {
			t.Errorf("%q to %q: %v to %v, %v; want %v to %v", tt.from, tt.until, from, until, err, tt.wantFrom, tt.wantUntil)
		}
	}
	// The night in which 02:30 does not exist: the next 02:30 is the day after at the latest.
	spring := time.Date(2026, 3, 28, 12, 0, 0, 0, berlin)
	if at, err := ParseTime("14:00", spring.Add(3*time.Hour)); err != nil || !at.Equal(time.Date(2026, 3, 29, 14, 0, 0, 0, berlin)) {
		t.Errorf("14:00 after the change to summer time: %v, %v", at, err)
	}
}
