package nodes

import "testing"

// TestPlace replaces the node of a Space, and forgets a node with the places on it.
func TestPlace(t *testing.T) {
	f := newFixture(t)
	want := func(space, want string) {
		t.Helper()
		if node, err := f.PlaceOf(t.Context(), space); err != nil || node != want {
			t.Errorf("%s has started on %q (%v), want %q", space, node, err, want)
		}
	}
	want("demo", "")
	f.join(t, "gpu2", Fingerprint{2})
	for _, place := range [][2]string{{"demo", "host"}, {"other", "gpu2"}, {"demo", "gpu2"}, {"third", "gpu3"}} {
		if err := f.Place(t.Context(), place[0], place[1]); err != nil {
			t.Fatal(err)
		}
	}
	want("demo", "gpu2")
	if _, err := f.Forget(t.Context(), "gpu2"); err != nil {
		t.Fatal(err)
	}
	want("demo", "")
	want("other", "")
	want("third", "gpu3")
}
