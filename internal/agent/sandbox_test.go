package agent

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"spacehost/internal/feature/featuretest"
	"spacehost/internal/sandbox"
	"spacehost/worker"
)

// TestSocketsOfASandbox passes the sockets of a sandbox to each host, translates its pids and connects to a port inside.
func TestSocketsOfASandbox(t *testing.T) {
	r := begin(t)
	if probe, err := sandbox.Probe(filepath.Join(r.state, "probe")); err != nil {
		t.Fatal(err)
	} else if probe.Err != nil {
		featuretest.Missing(t, "this machine does not offer the level namespaces: %v", probe.Err)
	}
	c := r.connect()
	var opened []net.Addr
	open := func(sockets []*os.File) {
		for _, s := range sockets {
			if l, err := net.FileListener(s); err != nil {
				t.Error(err)
			} else {
				opened = append(opened, l.Addr())
				l.Close()
			}
			s.Close()
		}
	}
	p, to := r.launch(c, "one", func(c *worker.ProcessConfig) {
		c.Sandbox, c.Opened = &sandbox.Spec{Sockets: []sandbox.Socket{{Name: "a", Network: "tcp4", Address: "127.0.0.1:53"}, {Name: "b", Network: "tcp4", Address: "127.0.0.1:7860"}}}, open
		for _, path := range []string{"/usr", "/bin", "/lib", "/lib64", "/etc", filepath.Dir(c.Python)} {
			if _, err := os.Stat(path); err == nil {
				c.Sandbox.Mounts = append(c.Sandbox.Mounts, sandbox.Mount{Kind: sandbox.ReadOnly, Source: path, Target: path})
			}
		}
		c.Sandbox.Mounts = append(c.Sandbox.Mounts, sandbox.Mount{Kind: sandbox.ReadWrite, Source: r.state, Target: r.state})
	})
	tree := p.Tree()
	if tree.Interpreter() == tree.Root || tree.HostPID == nil {
		t.Fatalf("tree %+v, want a runner below process 1", tree)
	}
	order(p, "a", "worker")
	inside := to.next("worker").Number
	to.next("done")
	if pid, err := tree.HostPID(inside); err != nil || !processOf(t, pid).Alive() || pid == inside {
		t.Errorf("pid %d inside is %d, %v", inside, pid, err)
	}
	order(p, "b", "listen")
	conn, err := p.Dial(t.Context(), to.next("port").Number)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	p.Leave()
	c.Close()

	second := r.connect()
	kept := second.Kept("test")
	if len(kept) != 1 || kept[0].Facts.Runner == kept[0].Facts.PID || kept[0].Tree().Runner.PID != kept[0].Facts.Runner {
		t.Fatalf("kept %+v", kept)
	}
	again := newRecorder(t)
	taken, err := second.Take(kept[0], worker.ProcessConfig{Reporter: again, Confinement: worker.Confinement{Opened: open}})
	if err != nil {
		t.Fatal(err)
	}
	again.next("manifest")
	if pid, err := taken.Tree().HostPID(inside); err != nil || !processOf(t, pid).Alive() {
		t.Errorf("pid %d inside is %d, %v", inside, pid, err)
	}
	if len(opened) != 4 || opened[0].String() != "127.0.0.1:53" || opened[2].String() != opened[0].String() || opened[3].String() != "127.0.0.1:7860" {
		t.Errorf("sockets %v, want two for each host", opened)
	}
	taken.End(t.Context(), 0)
	r.awaitEnd(taken)
}
