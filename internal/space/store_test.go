package space

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"spacehost/migrations"
)

// TestReserveUIDs reserves uids over several starts of a host with changing Spaces and ranges.
func TestReserveUIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spacehost.db")
	for _, start := range []struct {
		name        string
		spaces      []string
		first, last uint32
		want        map[string]uint32
		absent      string // name of an *UIDsExhaustedError
	}{
		{"first start", []string{"b", "a"}, 2000, 2003, map[string]uint32{"b": 2000, "a": 2001}, ""},
		{"restart in another order", []string{"a", "b"}, 2000, 2003, map[string]uint32{"b": 2000, "a": 2001}, ""},
		{"b has gone, and c is new", []string{"c", "a"}, 2000, 2003, map[string]uint32{"c": 2002, "a": 2001}, ""},
		{"b returns", []string{"b", "d"}, 2000, 2003, map[string]uint32{"b": 2000, "d": 2003}, ""},
		{"no uid is left", []string{"b", "e"}, 2000, 2003, nil, "a"},
		{"the range moves", []string{"b", "e"}, 2002, 2006, map[string]uint32{"b": 2004, "e": 2005}, ""},
		{"nothing was reserved for e before", []string{"e"}, 2000, 2006, map[string]uint32{"e": 2005}, ""},
		{"one uid below the limit of 32 bits", []string{"f"}, 1<<32 - 3, 1<<32 - 3, map[string]uint32{"f": 1<<32 - 3}, ""},
	} {
		db, err := migrations.Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReserveUIDs(t.Context(), db, start.spaces, start.first, start.last, time.Unix(1, 0))
		exhausted, isExhausted := errors.AsType[*UIDsExhaustedError](err)
		if !maps.Equal(got, start.want) || isExhausted != (start.absent != "") || !isExhausted && err != nil {
			t.Errorf("%s: got %v, %v, want %v", start.name, got, err, start.want)
		}
		if isExhausted && (exhausted.Space != "e" || exhausted.Absent[0] != start.absent) {
			t.Errorf("%s: got %v", start.name, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
