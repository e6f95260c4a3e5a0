package queue

import "testing"

// at is an app of a Space that has several, with one function in a group of its own.
func at(mount string, number int) Manifest {
	m := app(Endpoint{ID: 1, Mount: mount, Group: mount + "g", Limit: 1})
	m.App, m.Mount = number, mount
	return m
}

func (b *bench) joinsAt(mount string, ids ...EventID) {
	b.Helper()
	for _, id := range ids {
		if err := b.onSubmit(&Event{ID: id, Session: SessionHash(id), Endpoint: Endpoint{ID: 1, Mount: mount}}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAppsOfASpaceHaveQueuesOfTheirOwn(t *testing.T) {
	b := newBench(t, at("/a", 0))
	b.onAttach(at("/b", 1))
	b.joinsAt("/a", "a1", "a2")
	b.joinsAt("/b", "b1", "b2")
	b.asked("start [a1]", "start [b1]")
	if a, b := b.running["a1"].app, b.running["b1"].app; a != 0 || b != 1 {
		t.Errorf("they run in %d and %d", a, b)
	}
	b.onAttach(at("/b", 2)) // launched again
	b.asked("ended b1: The Space was started again.", "start [b2]")
	if app := b.running["b2"].app; app != 2 {
		t.Errorf("b2 runs in %d", app)
	}
	b.finish("a1")
	b.asked("ended a1", "start [a2]")
	b.joinsAt("/b", "b3")
	b.onLost("killed")
	b.asked("ended a2: killed", "ended b2: killed")
	b.onAttach(at("/a", 0))
	b.asked() // the other is not up yet
	b.onAttach(at("/b", 1))
	b.asked("start [b3]")
}

func TestAnAppIsFoundByItsMount(t *testing.T) {
	b := newBench(t, at("", 0))
	b.onAttach(at("/a", 1))
	b.onAttach(at("/a/b", 2))
	for path, want := range map[string]string{"/": "", "/config": "", "/ab": "", "/a": "/a", "/a/config": "/a", "/a/b/config": "/a/b", "/a/bc": "/a"} {
		if got := b.at(path).Mount; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
