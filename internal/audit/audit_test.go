package audit

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"spacehost/migrations"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// openLog returns an empty Log and the path of its database. The test closes the Log, if it has queued Records.
func openLog(t *testing.T) (log *Log, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "spacehost.db")
	db, err := migrations.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	reads, err := migrations.OpenReads(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reads.Close() })
	return New(db, reads), path
}

func TestLog(t *testing.T) {
	log, _ := openLog(t)
	if id, err := log.Latest(t.Context()); err != nil || id != 0 {
		t.Errorf("Latest of an empty log: %d (%v)", id, err)
	}
	entries := []Record{
		{ID: 1, At: noon, Actor: "root", Origin: CLI, Action: "person.add", Object: "ada", Fields: map[string]any{"tier": "pro"}, Status: 201},
		{ID: 2, At: noon.Add(time.Hour), Actor: "user:ada", Origin: Console, Action: "grant", Object: "user:ben", Fields: map[string]any{"seconds": 5.0}, Status: 400, Detail: "no", Token: "abc"},
		{ID: 3, At: noon.Add(2 * time.Hour), Actor: "SIGHUP", Origin: Host, Action: "reload", Fields: map[string]any{}, Status: 200},
	}
	for _, e := range entries {
		if err := log.Add(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		since time.Time
		limit int
		want  []Record
	}{
		{time.Time{}, 10, []Record{entries[2], entries[1], entries[0]}},
		{time.Time{}, 1, entries[2:]},
		{noon.Add(time.Hour), 10, []Record{entries[2], entries[1]}},
		{noon.Add(3 * time.Hour), 10, nil},
	} {
		if got, err := log.List(t.Context(), row.since, row.limit); err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("since %v: got  %+v (%v)\nwant %+v", row.since, got, err, row.want)
		}
	}
	if _, err := log.db.ExecContext(t.Context(), `UPDATE audit SET actor = 'nobody'`); err == nil || !strings.Contains(err.Error(), "append only") {
		t.Errorf("an entry was changed: %v", err)
	}
	for _, row := range []struct {
		before time.Time
		gone   int64
	}{{time.Time{}, 0}, {noon.Add(2 * time.Hour), 2}, {noon.Add(3 * time.Hour), 1}} {
		if gone, err := log.Forget(t.Context(), row.before); err != nil || gone != row.gone {
			t.Errorf("Forget before %v: %d (%v), want %d", row.before, gone, err, row.gone)
		}
	}
	long := Record{At: noon, Actor: strings.Repeat("x", 2*maxText)}
	if err := log.Add(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	got, err := log.List(t.Context(), time.Time{}, 10)
	if err != nil || len(got) != 1 || got[0].ID != 4 || len(got[0].Actor) != maxText {
		t.Errorf("an ID is used again, or a text is not cut: %+v (%v)", got, err)
	}
}

// TestCutKeepsCharacters cuts texts whose last character crosses the bound.
func TestCutKeepsCharacters(t *testing.T) {
	for _, row := range []struct {
		text string
		want int // bytes
	}{
		{"", 0},
		{strings.Repeat("x", maxText), maxText},
		{strings.Repeat("x", maxText-1) + "é", maxText - 1},
		{strings.Repeat("x", maxText-2) + "é", maxText},
		{strings.Repeat("x", maxText-3) + "🚀", maxText - 3},
		{strings.Repeat("é", maxText), maxText},
	} {
		if got := cut(row.text); len(got) != row.want || !utf8.ValidString(got) || !strings.HasPrefix(row.text, got) {
			t.Errorf("%d bytes are cut to %d, want %d: it ends with %q", len(row.text), len(got), row.want, got[max(0, len(got)-4):])
		}
	}
}
