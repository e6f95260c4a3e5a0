package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"spacehost/internal/control"
)

// TestPruneLetsTheHostContinue: a prune that took minutes held reloads, restarts and the end of the host up.
func TestPruneLetsTheHostContinue(t *testing.T) {
	r := startReloadHost(t, labOf("", spaceOne))
	tools := t.TempDir()
	began := filepath.Join(tools, "began")
	script := "#!/bin/sh\n: > " + began + "\nexec sleep 300\n" // what prune waits for
	if err := os.WriteFile(filepath.Join(tools, "git"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", tools+":"+os.Getenv("PATH"))
	for _, folder := range []string{"clones/.repositories/owner/demo.git", "clones/owner/demo", "spaces/gone/home"} {
		if err := os.MkdirAll(r.state.path(filepath.FromSlash(folder)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() {
		answer, err := r.Prune(t.Context(), control.PruneRequest{})
		if len(answer.Items) != 1 || answer.Items[0].Path != r.state.path("spaces/gone") {
			t.Errorf("got %+v, want the folder that was removed before the end", answer)
		}
		ended <- err
	}()
	r.await("git", func() bool { _, err := os.Stat(began); return err == nil })

	r.write(labOf("", spaceOne+spaceTwo))
	reloaded := make(chan error, 1)
	go func() { _, err := r.ReloadBy(t.Context(), "test"); reloaded <- err }()
	select {
	case err := <-reloaded:
		if err != nil {
			t.Fatal(err)
		}
	case err := <-ended:
		t.Fatalf("the prune ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the reload waits for the prune")
	}
	r.end()
	select {
	case err := <-ended:
		if !errors.Is(err, errStopping) {
			t.Errorf("got %v, want %v", err, errStopping)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the prune does not end with the host")
	}
}
