package migrations

import (
	"bytes"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/internal/feature/featuretest"
)

// fullDiskVariable makes this test binary run TestReserve in namespaces of its own, in which it may mount a small disk.
const fullDiskVariable = "SPACEHOST_FULL_DISK"

// TestReserve checks that commits succeed on a full disk with the reserve, and fail without it.
func TestReserve(t *testing.T) {
	if os.Getenv(fullDiskVariable) == "" {
		runInNamespaces(t)
		return
	}
	for name, reserve := range map[string]bool{"with the reserve": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			disk := t.TempDir()
			if err := unix.Mount("none", disk, "tmpfs", 0, "size=32m"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }) // the namespace ends anyway
			db := mustOpen(t, filepath.Join(disk, "spacehost.db"))
			insert := func(from, to int) (err error) {
				for i := from; i < to && err == nil; i++ {
					_, err = db.Exec("INSERT INTO windows (identity) VALUES (?)", strings.Repeat("x", 40<<10)+strconv.Itoa(i))
				}
				return err
			}
			if err := insert(0, 1); err != nil {
				t.Fatal(err)
			}
			if reserve {
				for range 2 { // the second time there is nothing to do
					if err := Reserve(filepath.Join(disk, "spacehost.db")); err != nil {
						t.Fatal(err)
					}
				}
			}
			fill(t, filepath.Join(disk, "filler"))
			if err := insert(1, 100); (err == nil) != reserve { // so many that a checkpoint finds no space either
				t.Errorf("commits on a full disk: %v", err)
			}
			if got := count(t, db, "SELECT count(*) FROM windows"); reserve && got != 100 {
				t.Errorf("%d rows, want 100", got)
			}
			if err := os.Remove(filepath.Join(disk, "filler")); err != nil { // or the cleanup finds no space to close the database
				t.Fatal(err)
			}
		})
	}
}

func runInNamespaces(t *testing.T) {
	cmd := osexec.Command(os.Args[0], "-test.run=^TestReserve$", "-test.v")
	cmd.Env = append(os.Environ(), fullDiskVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) {
		featuretest.Missing(t, "no user namespace on this machine: %v", err)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestReserve/without")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// TestReserveWithoutALog checks that a database that was never written needs no reserve.
func TestReserveWithoutALog(t *testing.T) {
	if err := Reserve(filepath.Join(t.TempDir(), "spacehost.db")); err != nil {
		t.Error(err)
	}
}
