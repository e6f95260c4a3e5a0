package spacelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// ticking returns a clock that advances by a second at each look.
func ticking() func() time.Time {
	now := noon
	return func() time.Time { now = now.Add(time.Second); return now }
}

func texts(lines []Line) (all []string) {
	for _, l := range lines {
		all = append(all, l.Stream+" "+l.Text)
	}
	return all
}

func TestWriteAndRead(t *testing.T) {
	state := t.TempDir()
	w := NewWriter(state, "demo", Run, ticking())
	w.Print("stdout", "  indented")
	w.Print("stderr", "a\x1b[31mb\r")
	w.Print(Host, "one\ntwo\n")
	w.Print("stdout", "")
	w.Close()
	text, err := os.ReadFile(Path(state, "demo", Run))
	if want := "2026-11-30T12:00:01.000Z stdout   indented\n2026-11-30T12:00:02.000Z stderr ab\n2026-11-30T12:00:03.000Z host one\n2026-11-30T12:00:04.000Z host two\n2026-11-30T12:00:05.000Z stdout \n"; err != nil || string(text) != want {
		t.Fatalf("got %q, %v\nwant %q", text, err, want)
	}
	w.Print("stdout", "after Close")
	w.Close()
	for _, c := range []struct {
		since time.Time
		most  int
		want  []string
	}{
		{time.Time{}, 0, []string{"stdout   indented", "stderr ab", "host one", "host two", "stdout ", "stdout after Close"}},
		{time.Time{}, 2, []string{"stdout ", "stdout after Close"}},
		{noon.Add(4 * time.Second), 0, []string{"host two", "stdout ", "stdout after Close"}},
		{noon.Add(time.Hour), 5, nil},
	} {
		got, err := Read(state, "demo", Run, c.since, c.most)
		if err != nil || !slices.Equal(texts(got), c.want) {
			t.Errorf("since %s, at most %d: got %q, %v, want %q", c.since, c.most, texts(got), err, c.want)
		}
	}
	_, err = Read(state, "demo", Build, time.Time{}, 0)
	if missing := (*NotFoundError)(nil); !errors.As(err, &missing) || missing.Space != "demo" {
		t.Errorf("no build log: %v", err)
	}
}

func TestWriteOfATool(t *testing.T) {
	state := t.TempDir()
	w := NewWriter(state, "demo", Build, ticking())
	for _, piece := range []string{"# ins", "talling\n$ uv", " pip\n", strings.Repeat("x", maxPartial+10), "\nlast"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.Close()
	got, err := Read(state, "demo", Build, time.Time{}, 0)
	if err != nil || len(got) != 5 || got[0].Text != "# installing" || got[1].Text != "$ uv pip" || len(got[2].Text)+len(got[3].Text) != maxPartial+10 || got[4].Text != "last" {
		t.Errorf("got %d lines, %.200q, %v", len(got), texts(got), err)
	}
}

// TestRotation reads a log in several files, beside that of a Space whose name begins alike.
func TestRotation(t *testing.T) {
	state := t.TempDir()
	clock := ticking()
	w := NewWriter(state, "demo", Run, clock)
	other := NewWriter(state, "demo-2", Run, clock)
	other.Print("stdout", "other")
	other.Close()
	w.Print("stdout", "first")
	if err := w.file.Rotate(); err != nil {
		t.Fatal(err)
	}
	w.Print("stdout", "second")
	w.Close()
	got, err := Read(state, "demo", Run, time.Time{}, 0)
	if want := []string{"stdout first", "stdout second"}; err != nil || !slices.Equal(texts(got), want) {
		t.Errorf("got %q, %v", texts(got), err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(Path(state, "demo-2", Run), old, old); err != nil {
		t.Fatal(err)
	}
	found, err := List(state, Run)
	if err != nil || len(found) != 2 || found[0].Space != "demo" || found[1].Space != "demo-2" {
		t.Errorf("got %+v, %v", found, err)
	}
	if _, err := List(filepath.Join(state, "gone"), Run); err == nil {
		t.Error("a state folder that does not exist has logs")
	}
}

// TestFollow follows a log from before its first line, over a line in two parts and a rotation.
func TestFollow(t *testing.T) {
	state := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lines, ended := make(chan Line), make(chan error, 1)
	go func() {
		ended <- Follow(ctx, state, "demo", Run, time.Time{}, 10, func(l Line) error {
			select {
			case lines <- l:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	next := func(want string) {
		t.Helper()
		select {
		case l := <-lines:
			if l.Text != want {
				t.Fatalf("got %q, want %q", l.Text, want)
			}
		case <-ctx.Done():
			t.Fatalf("no line %q", want)
		}
	}
	w := NewWriter(state, "demo", Run, nil)
	defer w.Close()
	w.Print("stdout", "one")
	next("one")
	w.Close() // the next line opens the file behind what follows
	file, err := os.OpenFile(Path(state, "demo", Run), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{Line{noon, "stdout", "half"}.String(), " line\nnot a line of a Writer\n"} {
		if _, err := fmt.Fprint(file, part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * followInterval) // a look between both parts
	}
	file.Close()
	next("half line")
	w.Print("stdout", "two")
	if err := w.file.Rotate(); err != nil {
		t.Fatal(err)
	}
	w.Print("stdout", "three")
	next("two")
	next("three")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
