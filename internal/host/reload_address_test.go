package host

import (
	"net/http"
	"strings"
	"testing"

	"spacehost/internal/config"
)

// TestSharedAddressIsGivenBack: the address is free once its last Space has been removed or has moved, and another one can be
// taken.
func TestSharedAddressIsGivenBack(t *testing.T) {
	free := freePorts(t, 3)
	shared := "- {folder: SAMPLE, name: four, host: four.example, python: /bin/false}\n"
	r := startReloadHost(t, labOf("address: '"+free[0]+"'", spaceOne+shared))
	if got := r.getAt(free[0], "four.example", ""); got != http.StatusServiceUnavailable {
		t.Fatalf("the Space at the shared address answers %d, want 503 until its start", got)
	}
	r.reload(labOf("address: '"+free[0]+"'", spaceOne))
	r.await("the end of the last Space", func() bool { return isFree(free[0]) })

	r.reload(labOf("address: '"+free[1]+"'", spaceOne+shared))
	if got := r.getAt(free[1], "four.example", ""); got != http.StatusServiceUnavailable {
		t.Errorf("the Space at another shared address answers %d, want 503 until its start", got)
	}
	r.reload(labOf("", spaceOne+strings.Replace(shared, "host: four.example", "address: '"+free[2]+"'", 1)))
	r.await("the move of the last Space", func() bool { return isFree(free[1]) })
	if got := r.getAt(free[2], "", ""); got != http.StatusServiceUnavailable {
		t.Errorf("the moved Space answers %d, want 503 until its start", got)
	}
}

// TestAddressIsTakenBack: the change of an address can be undone while the Space drains at the former one.
func TestAddressIsTakenBack(t *testing.T) {
	free := freePorts(t, 2)
	at := func(addr string) string { return strings.Replace(spaceOne, "127.0.0.1:0", addr, 1) }
	r := startReloadHost(t, labOf("", at(free[0])))
	one := r.find("one")
	r.await("the first try", func() bool { return stageIsFinal(one) })
	one.nextMu.Lock()
	end := one.cancelAttempt
	one.cancelAttempt = func(error) {} // like a drain: the current start goes on
	one.nextMu.Unlock()

	r.reload(labOf("", at(free[1])))
	if isFree(free[0]) || isFree(free[1]) || one.url() != "http://"+free[0] {
		t.Fatal("the Space does not have both addresses")
	}
	r.reload(labOf("", at(free[0])))
	r.await("the end of the mistaken address", func() bool { return isFree(free[1]) })
	end(restartCause("test"))
	r.await("the next start", func() bool { return one.latest() == one.state.Load() && stageIsFinal(one) })
	if got := r.getAt(free[0], "", ""); got != http.StatusServiceUnavailable || one.url() != "http://"+free[0] {
		t.Errorf("the Space answers %d at %s, want 503 at its first address", got, one.url())
	}
}

// TestFirstTryDoesNotReadAgain: README.md is read once for the first try of a start, and again for each later one.
func TestFirstTryDoesNotReadAgain(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	one := r.find("one")
	s := newSpaceRun(r.Host, config.SpaceSettings{Dir: t.TempDir()}, one.space()) // the folder has no app.py
	s.isFresh.Store(true)
	if err := s.reread(); err != nil {
		t.Errorf("the first try has read the folder again: %v", err)
	}
	if err := s.reread(); CauseOf(err) != CauseConfig {
		t.Errorf("the second try: %v, want the error of the folder", err)
	}
	r.await("the first try", func() bool { return stageIsFinal(one) })
	if one.isFresh.Load() {
		t.Error("the first try of the host did not use what the host has read")
	}
}
