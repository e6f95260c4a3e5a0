package proctree

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestCPU compares the CPU time of this process before and after a loop, and reads that of a cgroup.
func TestCPU(t *testing.T) {
	self, ok := ReadStat(os.Getpid())
	if !ok {
		t.Fatal("this process cannot be read")
	}
	tree := Tree{Root: self.Process}
	before := tree.CPU()
	for began := time.Now(); tree.CPU() < before+50*time.Millisecond; {
		if time.Since(began) > time.Minute {
			t.Fatalf("a busy loop of a minute used %s", tree.CPU()-before)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cpu.stat"), []byte("usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := (Tree{Root: self.Process, Cgroup: dir}).CPU(); got != 2500*time.Millisecond {
		t.Errorf("a cgroup has used %s, want 2.5s", got)
	}
	if got := (Tree{Root: Process{PID: 1 << 30}}).CPU(); got != 0 {
		t.Errorf("a process that does not exist has used %s", got)
	}
}
