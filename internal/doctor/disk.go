package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var lateDisk = Finding{
	Level: Problem, Text: "A disk did not answer within 5s: the disk of the state folder or of the environments hangs",
	Do: "If it is on a file server, check that the server is reachable; choose a folder on a disk of this machine with --state",
}

const (
	torchSize      = 5 << 30 // the size of an environment with torch
	minEnvironment = 1 << 30 // gradio alone needs half of it
	// minFree is the limit of internal/lease: below it no call is admitted.
	minFree = 64 << 20
)

// stateFlag is the option that selects another state folder.
const stateFlag = "--state DIR"

func (c Config) disk(context.Context) []Finding {
	return append(
		c.machine.folder("State", c.State, stateFlag, remoteState),
		c.machine.folder("Environments", c.Environments, "$SPACEHOST_ENVIRONMENTS or --state DIR", remoteEnvironments)...)
}

// folder checks a folder that spacehost will write to. other is the option that selects another folder.
func (m machine) folder(what, path, other string, remote func(where, kind, other string) Finding) []Finding {
	where := what + ": " + path
	refused := func(err error) []Finding {
		return []Finding{{Level: Problem, Text: fmt.Sprintf("%s cannot be used: %v", where, err), Do: "Choose another with " + other}}
	}
	nearest, err := existing(path)
	if err != nil {
		return refused(err)
	}
	if err := m.access(nearest, unix.W_OK|unix.X_OK); err != nil {
		return refused(fmt.Errorf("this user may not write to %s: %w", nearest, err))
	}
	disk, err := m.statfs(nearest)
	if err != nil {
		return refused(fmt.Errorf("read the disk of %s: %w", nearest, err))
	}
	free := freeSpace(where, disk, other)
	if kind, is := remotes[uint32(disk.Type)]; is {
		return []Finding{remote(where, kind, other), free}
	}
	return []Finding{free}
}

// existing returns path, or its nearest parent that exists.
func existing(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path):
		return existing(filepath.Dir(path))
	case err != nil:
		return "", err
	case !info.IsDir():
		return "", fmt.Errorf("%s is a file", path)
	}
	return path, nil
}

// remotes are file systems whose locks are unreliable, at least for SQLite's write-ahead log (sqlite.org/wal.html:
// "WAL does not work over a network filesystem").
var remotes = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "SMB",
	unix.V9FS_MAGIC: "9P (a folder of the machine outside)", unix.AFS_SUPER_MAGIC: "AFS",
}

func remoteState(where, kind, other string) Finding {
	return Finding{
		Level: Problem, Text: fmt.Sprintf("%s is on %s, where the database cannot be locked: the ledger could be damaged", where, kind),
		Do: "Choose a folder on a disk of this machine with " + other,
	}
}

func remoteEnvironments(where, kind, other string) Finding {
	return Finding{
		Level: Warning, Text: fmt.Sprintf("%s is on %s: an environment has about 20,000 files, so Spaces start slowly, and two hosts may build at the same time", where, kind),
		Do: "Choose a folder on a disk of this machine with " + other,
	}
}

func freeSpace(where string, disk unix.Statfs_t, other string) Finding {
	free := disk.Bavail * uint64(disk.Bsize)
	f := Finding{Do: "Free disk space there, or choose another disk with " + other}
	switch {
	case free < minFree && other == stateFlag:
		f.Level, f.Text = Problem, fmt.Sprintf("%s has %s free: below %s a host leases no GPU", where, size(free), size(minFree))
	case free < minEnvironment:
		f.Level, f.Text = Problem, fmt.Sprintf("%s has %s free: too little for an environment", where, size(free))
	case free < torchSize:
		f.Level, f.Text = Warning, fmt.Sprintf("%s has %s free: an environment with torch needs about %s", where, size(free), size(torchSize))
	default:
		return persistence(where, disk, free, other)
	}
	return f
}

// persistence checks whether the folder survives a reboot or the container.
func persistence(where string, disk unix.Statfs_t, free uint64, other string) Finding {
	switch uint32(disk.Type) {
	case unix.TMPFS_MAGIC:
		return Finding{Level: Warning, Text: where + " is in memory: it is lost at the next boot, with the ledger", Do: "Choose a folder on a disk with " + other}
	case unix.OVERLAYFS_SUPER_MAGIC:
		return Finding{Level: Note, Text: where + " is in the container's own layer: it is lost with the container, with the ledger", Do: "Mount a volume there, or choose one with " + other}
	case unix.FUSE_SUPER_MAGIC:
		return Finding{Level: Warning, Text: where + " is on FUSE: whether files can be locked depends on the program behind it", Do: "Choose a folder on a disk of this machine with " + other}
	}
	return ok("%s has %s free", where, size(free))
}
