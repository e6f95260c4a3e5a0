package host

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"spacehost/internal/agent"
	"spacehost/internal/bundle"
	"spacehost/internal/config"
)

// TestOldBundlesGo: a node keeps the folder that it has received last for a Space, until it forgets the Space.
func TestOldBundlesGo(t *testing.T) {
	n := &node{host: newHost(config.Settings{}, newScreen(true, io.Discard, io.Discard), nil), starts: agent.NewStarts(zap.NewNop()), received: map[string]string{}}
	n.host.log = zap.NewNop()
	var err error
	if n.store, err = bundle.OpenStore(filepath.Join(t.TempDir(), "bundles")); err != nil {
		t.Fatal(err)
	}
	defer n.store.Close()
	source := t.TempDir()
	send := func(text string) (digest bundle.Sum) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, "app.py"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := bundle.Scan(t.Context(), source, nil)
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		defer here.Close()
		received := make(chan struct{})
		go func() { defer close(received); n.receive("demo", there) }()
		if err := bundle.Send(t.Context(), here, m, source, nil); err != nil {
			t.Fatal(err)
		}
		<-received
		return m.Digest()
	}
	has := func(digest bundle.Sum) bool {
		dir, ok := n.store.Has(digest)
		if ok {
			n.store.Release(dir)
		}
		return ok
	}
	first := send("1")
	n.pruneBundles()
	if !has(first) {
		t.Fatal("the folder of the Space was removed")
	}
	second := send("2")
	n.pruneBundles()
	if has(first) || !has(second) {
		t.Errorf("after a change: the old folder is there: %v, the new one: %v", has(first), has(second))
	}
	send("2") // on another link
	n.hold("demo", "")
	n.pruneBundles()
	if has(second) {
		t.Error("the folder of a forgotten Space is there")
	}
}
