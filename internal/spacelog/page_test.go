package spacelog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// writeRotated writes a log of 3000 lines in three files, whose lines exceed a chunk together.
func writeRotated(t *testing.T, state string) (w *Writer) {
	t.Helper()
	w = NewWriter(state, "demo", Run, ticking())
	t.Cleanup(w.Close)
	for i := range 3000 {
		if i == 1000 || i == 2000 {
			if err := w.file.Rotate(); err != nil {
				t.Fatal(err)
			}
			for now := time.Now().UnixMilli(); time.Now().UnixMilli() == now; { // a rotation names the file by the millisecond
			}
		}
		stream := "stdout"
		if i%10 == 0 {
			stream = "stderr"
		}
		w.Print(stream, fmt.Sprintf("line %d %s", i, strings.Repeat("é", 40)))
	}
	return w
}

// TestPages reads a rotated log backwards in pages of every kind of size, then forwards, and compares both with Read.
func TestPages(t *testing.T) {
	state := t.TempDir()
	w := writeRotated(t, state)
	all, err := Read(state, "demo", Run, time.Time{}, 0)
	if err != nil || len(all) != 3000 {
		t.Fatalf("%d lines, %v", len(all), err)
	}
	for _, size := range []int{1, 999, 1000, 10000} {
		var back []string
		var first Page
		for q := (Query{Limit: size}); ; {
			page, err := ReadPage(state, "demo", Run, q)
			if err != nil {
				t.Fatal(err)
			}
			if q.Before == "" {
				first = page
			}
			back = append(pageTexts(page), back...)
			if q.Before = page.Before; q.Before == "" || len(back) > 3200 || size == 1 && len(back) == 50 {
				break
			}
		}
		if want := texts(all[3000-len(back):]); len(back) < 50 || !slices.Equal(back, want) {
			t.Errorf("pages of %d lines: %d lines, the first one %.40q", size, len(back), back[0])
		}
		if first.More || first.Gap {
			t.Errorf("the last page: %+v", first)
		}
	}

	newest, _ := ReadPage(state, "demo", Run, Query{Limit: 1})
	if empty, err := ReadPage(state, "demo", Run, Query{After: newest.After, Limit: 10}); err != nil || len(empty.Lines) != 0 || empty.After != newest.After || empty.More {
		t.Errorf("after the last line: %+v, %v", empty, err)
	}
	w.Print("stdout", "new one")
	if err := w.file.Rotate(); err != nil {
		t.Fatal(err)
	}
	w.Print("stdout", "new two")
	page, err := ReadPage(state, "demo", Run, Query{After: newest.After, Limit: 1})
	if err != nil || !slices.Equal(pageTexts(page), []string{"stdout new one"}) || !page.More {
		t.Errorf("the first new line: %+v, %v", page, err)
	}
	page, err = ReadPage(state, "demo", Run, Query{After: page.After, Limit: 10})
	if err != nil || !slices.Equal(pageTexts(page), []string{"stdout new two"}) || page.More || page.Gap {
		t.Errorf("the line after a rotation: %+v, %v", page, err)
	}

	oldest, err := ReadPage(state, "demo", Run, Query{Limit: 2990})
	if err != nil || oldest.Before == "" {
		t.Fatal(oldest.Before, err)
	}
	if err := os.Remove(files(state, "demo", Run)[0]); err != nil {
		t.Fatal(err)
	}
	if gone, err := ReadPage(state, "demo", Run, Query{Before: oldest.Before, Limit: 10}); err != nil || !gone.Gap || len(gone.Lines) != 0 {
		t.Errorf("before lines that were removed: %+v, %v", gone, err)
	}
	if gone, err := ReadPage(state, "demo", Run, Query{After: oldest.Before, Limit: 1}); err != nil || !gone.Gap || !strings.HasPrefix(pageTexts(gone)[0], "stdout line 1000") && !strings.HasPrefix(pageTexts(gone)[0], "stderr line 1000") {
		t.Errorf("after lines that were removed: %+v, %v", gone, err)
	}
}

// TestPageFilters selects lines by stream, level and text.
func TestPageFilters(t *testing.T) {
	state := t.TempDir()
	writeRotated(t, state)
	w := NewWriter(state, "other", Run, ticking())
	defer w.Close()
	for _, line := range []string{
		"INFO all is well, no error here", "Traceback (most recent call last):", "ValueError: bad", "gradio.exceptions.Error: 'no'", "12:00 ERROR worker", "app.py:3: UserWarning: old", "WARNING: slow", "an Exception in the text",
	} {
		w.Print("stderr", line)
	}
	w.Print(Host, "RUNTIME_ERROR: it ended")
	for _, row := range []struct {
		space string
		q     Query
		want  int
	}{
		{"demo", Query{Stream: []string{"stderr"}}, 300},
		{"demo", Query{Stream: []string{"stdout", "stderr"}}, 3000},
		{"demo", Query{Stream: []string{"host"}}, 0},
		{"demo", Query{Text: "LINE 29"}, 111}, // 29, 290 to 299, 2900 to 2999
		{"demo", Query{Text: "line 29", Stream: []string{"stderr"}}, 11},
		{"other", Query{}, 9},
		{"other", Query{Level: LevelError}, 5},
		{"other", Query{Level: LevelWarning}, 2},
		{"other", Query{Level: LevelError, Stream: []string{Host}}, 1},
	} {
		row.q.Limit = 5000
		page, err := ReadPage(state, row.space, Run, row.q)
		if err != nil || len(page.Lines) != row.want || page.Before != "" {
			t.Errorf("%s %+v: %d lines, want %d; %q, %v", row.space, row.q, len(page.Lines), row.want, page.Before, err)
		}
	}
	wrong, missing := (*PlaceError)(nil), (*NotFoundError)(nil)
	for _, text := range []string{"x", "1", "1-", "1--1", "1-1-1", "-1", strings.Repeat("9", 30) + "-1"} {
		if _, err := ReadPage(state, "demo", Run, Query{Before: text, Limit: 1}); !errors.As(err, &wrong) {
			t.Errorf("position %q: %v", text, err)
		}
	}
	if _, err := ReadPage(state, "demo", Build, Query{Limit: 1}); !errors.As(err, &missing) {
		t.Errorf("a log that does not exist: %v", err)
	}
}

func pageTexts(p Page) (all []string) {
	for _, l := range p.Lines {
		all = append(all, l.Stream+" "+l.Text)
	}
	return all
}
