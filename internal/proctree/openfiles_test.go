package proctree

import (
	"os"
	"syscall"
	"testing"
)

// TestDeletedBytes checks that a deleted file counts once while it is open, and a file with a name does not.
func TestDeletedBytes(t *testing.T) {
	dir := t.TempDir()
	self, _ := ReadStat(os.Getpid())
	tree := Tree{Root: self.Process}
	create := func(kib int) *os.File {
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		if _, err := file.Write(make([]byte, kib<<10)); err != nil {
			t.Fatal(err)
		}
		return file
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	device := info.Sys().(*syscall.Stat_t).Dev
	create(1 << 10)
	before := tree.DeletedBytes(device)
	deleted := create(2 << 10)
	if err := os.Remove(deleted.Name()); err != nil {
		t.Fatal(err)
	}
	again, err := syscall.Dup(int(deleted.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if got := tree.DeletedBytes(device) - before; got != 2<<20 {
		t.Errorf("got %d KiB, want 2 MiB", got>>10)
	}
	if got := tree.DeletedBytes(device + 1); got != 0 {
		t.Errorf("on another disk: %d bytes", got)
	}
	_, _ = syscall.Close(again), deleted.Close()
	if got := tree.DeletedBytes(device); got != before {
		t.Errorf("after it was closed: %d bytes, want %d", got, before)
	}
}
