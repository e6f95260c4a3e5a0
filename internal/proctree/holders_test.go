package proctree

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHolders checks that an open descriptor and mapped memory of a node are found, in the runner and below it, and in no
// other Space.
func TestHolders(t *testing.T) {
	full, err := NodeAt("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	zero, err := NodeAt("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	self, _ := ReadStat(os.Getpid())
	p := &Processes{}
	p.Register("demo", "demo-1", Tree{Root: self.Process})
	p.Register("other", "other-1", Tree{})
	holders := func(space string) map[Node][]int { return p.Holders(space, []Node{full, zero}) }
	if got := holders("demo"); len(got) != 0 {
		t.Fatalf("before anything is open: %v", got)
	}

	file, err := os.OpenFile("/dev/zero", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "600")
	if cmd.Stdin, err = os.Open("/dev/full"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	cmd.Stdin.(*os.File).Close()
	want := map[Node][]int{zero: {os.Getpid()}, full: {cmd.Process.Pid}}
	if got := holders("demo"); !reflect.DeepEqual(got, want) {
		t.Errorf("with a descriptor in each process: %v, want %v", got, want)
	}
	file.Close()
	if got := holders("demo"); !reflect.DeepEqual(got, want) {
		t.Errorf("with memory alone: %v, want %v", got, want)
	}
	if got := holders("other"); len(got) != 0 {
		t.Errorf("a Space without processes: %v", got)
	}
	if err := unix.Munmap(memory); err != nil {
		t.Fatal(err)
	}
	if got := holders("demo")[zero]; slices.Contains(got, os.Getpid()) {
		t.Error("a node that is not in use any more is found")
	}
}

func TestNodeAt(t *testing.T) {
	for _, path := range []string{filepath.Join(t.TempDir(), "missing"), t.TempDir()} {
		if got, err := NodeAt(path); err == nil {
			t.Errorf("%s: %v", path, got)
		}
	}
}
