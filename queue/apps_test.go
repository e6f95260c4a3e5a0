package queue

import "testing"

// at is the Manifest of one of several apps of a Space, with one function in its own group.
func at(mount string, number int) Manifest {
	m := app(Endpoint{ID: 1, Mount: mount, Group: mount + "g", Limit: 1})
	m.App, m.Mount = number, mount
	return m
}

func (b *fixture) joinsAt(mount string, ids ...EventID) {
	b.Helper()
	for _, id := range ids {
		if err := b.onSubmit(&Event{ID: id, Session: SessionHash(id), Endpoint: Endpoint{ID: 1, Mount: mount}}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAppsHaveSeparateQueues(t *testing.T) {
	b := newFixture(t, at("/a", 0))
	b.onAttach(at("/b", 1))
	b.joinsAt("/a", "a1", "a2")
	b.joinsAt("/b", "b1", "b2")
	b.wantEffects("start [a1]", "start [b1]")
	if a, b := b.running["a1"].app, b.running["b1"].app; a != 0 || b != 1 {
		t.Errorf("a1 and b1 run in apps %d and %d, want 0 and 1", a, b)
	}
	b.onAttach(at("/b", 2)) // launched again
	b.wantEffects("ended b1: The Space was restarted.", "start [b2]")
	if app := b.running["b2"].app; app != 2 {
		t.Errorf("b2 runs in app %d, want 2", app)
	}
	b.finish("a1")
	b.wantEffects("ended a1", "start [a2]")
	b.joinsAt("/b", "b3")
	b.onLost("killed")
	b.wantEffects("ended a2: killed", "ended b2: killed")
	b.onAttach(at("/a", 0))
	b.wantEffects() // the other app has not attached yet
	b.onAttach(at("/b", 1))
	b.wantEffects("start [b3]")
}

func TestManifestForLongestMount(t *testing.T) {
	b := newFixture(t, at("", 0))
	b.onAttach(at("/a", 1))
	b.onAttach(at("/a/b", 2))
	for path, want := range map[string]string{"/": "", "/config": "", "/ab": "", "/a": "/a", "/a/config": "/a", "/a/b/config": "/a/b", "/a/bc": "/a"} {
		if got := b.manifestFor(path).Mount; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
