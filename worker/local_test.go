package worker

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spacehost/internal/proctree"
)

// TestLocal starts two processes at a time on one Place. Each has its own door, port, key and slot, and what belongs to it is freed
// once, also after an error.
func TestLocal(t *testing.T) {
	var opened, shut, closed []string
	var infos []StartInfo
	refusal := error(nil)
	processes := &proctree.Processes{}
	l := NewLocal(LocalConfig{
		Dir: t.TempDir(), RunDir: filepath.Join(tempDir(t), "run"), Processes: processes,
		OpenDoor: func(instance string) (string, int) {
			opened = append(opened, instance)
			return "http://127.0.0.1:1/d/x", 1
		},
		CloseDoor: func(instance string) { shut = append(shut, instance) },
		Closed:    func(instance string) { closed = append(closed, instance) },
		Confine:   func(i StartInfo) (Confinement, error) { infos = append(infos, i); return Confinement{}, refusal },
	})
	l.Install(Installation{Python: self(t), Runner: "/nowhere", Environ: func(vars map[string]string) []string {
		return append(fakeEnv("good", ""), "OF_HOST="+vars["OF_HOST"])
	}})
	begin := func(instance string) (Start, *recorder, error) {
		r := &recorder{}
		s, err := l.Start(t.Context(), Spec{Space: "test", Instance: instance, AppFile: "app.py", Variables: map[string]string{"OF_HOST": "1"}}, r)
		if err == nil {
			t.Cleanup(func() { s.End(context.Background(), 0) })
			r.awaitOp(t, "manifest")
		}
		return s, r, err
	}
	a, _, err := begin("a")
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := begin("b")
	if err != nil {
		t.Fatal(err)
	}
	if one, two := a.Facts(), b.Facts(); one.Port == two.Port || one.Key == two.Key || one.Marker == two.Marker || one.PID == two.PID || infos[0].Slot != 0 || infos[1].Slot != 1 {
		t.Errorf("facts %+v and %+v, in slots %d and %d", one, two, infos[0].Slot, infos[1].Slot)
	}
	if got := a.Facts(); got.Instance != "a" || got.Runner != got.PID || infos[0].Port != got.Port || processes.Tree("a").Root != (proctree.Process{PID: got.PID, Start: got.Start}) {
		t.Errorf("facts %+v, tree %+v", got, processes.Tree("a"))
	}
	if _, _, err := begin("a"); err == nil || !strings.Contains(err.Error(), "exists already") || len(opened) != 2 {
		t.Errorf("a second start with the name of the first: %v, doors %v", err, opened)
	}
	a.End(t.Context(), time.Minute)
	if !slices.Equal(shut, []string{"a"}) || len(closed) != 0 {
		t.Errorf("after the end: doors closed %v, closed %v", shut, closed)
	}
	a.Close()
	refusal = errors.New("no room for a sandbox")
	if _, _, err := begin("c"); !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
	l.Install(Installation{Python: "/no/such/python", Environ: func(map[string]string) []string { return nil }})
	refusal = nil
	if _, _, err := begin("d"); err == nil || !strings.Contains(err.Error(), "/no/such/python") {
		t.Errorf("got %v", err)
	}
	if got := infos[3].Slot; got != 0 {
		t.Errorf("the slot of the ended start is not used again, but %d", got)
	}
	if want := []string{"a", "c", "d"}; !slices.Equal(shut, want) || !slices.Equal(closed, want) || len(l.slots) != 1 {
		t.Errorf("doors closed %v, closed %v, slots %v; want %v, and only b left", shut, closed, l.slots, want)
	}
}
