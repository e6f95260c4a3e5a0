package check

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
	Level: Problem, Text: "A disk did not answer within 5s: that of the state folder or of the environments hangs",
	Do: "If it is on a file server, see whether that is there; choose a folder on a disk of this machine with --state",
}

const (
	roomy  = 5 << 30 // an environment with torch takes that much
	scarce = 1 << 30 // gradio alone takes half of it
	// leastRoom is internal/lease's: below it nobody is admitted.
	leastRoom = 64 << 20
)

// stateFlag is how to choose another state folder.
const stateFlag = "--state DIR"

func (c Config) disk(context.Context) []Finding {
	return append(
		c.machine.folder("State", c.State, stateFlag, remoteState),
		c.machine.folder("Environments", c.Environments, "$SPACEHOST_ENVIRONMENTS or --state DIR", remoteEnvironments)...)
}

// folder judges the place where spacehost will write. other is how to choose another.
func (m machine) folder(what, path, other string, remote func(where, kind, other string) Finding) []Finding {
	where := what + ": " + path
	refused := func(err error) []Finding {
		return []Finding{{Level: Problem, Text: fmt.Sprintf("%s cannot be used: %v", where, err), Do: "Choose another by " + other}}
	}
	there, err := existing(path)
	if err != nil {
		return refused(err)
	}
	if err := m.access(there, unix.W_OK|unix.X_OK); err != nil {
		return refused(fmt.Errorf("this user may not write in %s: %w", there, err))
	}
	disk, err := m.statfs(there)
	if err != nil {
		return refused(fmt.Errorf("read the disk of %s: %w", there, err))
	}
	room := roomIn(where, disk, other)
	if kind, is := remotes[uint32(disk.Type)]; is {
		return []Finding{remote(where, kind, other), room}
	}
	return []Finding{room}
}

// existing is path or the nearest folder above it that is there.
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

// remotes are file systems whose locks cannot be relied on, or not by SQLite's log of writes (sqlite.org/wal.html: "WAL does not work over a
// network filesystem").
var remotes = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "SMB",
	unix.V9FS_MAGIC: "9P (a folder of the machine outside)", unix.AFS_SUPER_MAGIC: "AFS",
}

func remoteState(where, kind, other string) Finding {
	return Finding{
		Level: Problem, Text: fmt.Sprintf("%s is on %s, where the database cannot lock: the ledger could be damaged", where, kind),
		Do: "Choose a folder on a disk of this machine by " + other,
	}
}

func remoteEnvironments(where, kind, other string) Finding {
	return Finding{
		Level: Warning, Text: fmt.Sprintf("%s is on %s: an environment has some 20,000 files, so Spaces start slowly, and two hosts may build at once", where, kind),
		Do: "Choose a folder on a disk of this machine by " + other,
	}
}

func roomIn(where string, disk unix.Statfs_t, other string) Finding {
	free := disk.Bavail * uint64(disk.Bsize)
	f := Finding{Do: "Make room there, or choose another disk by " + other}
	switch {
	case free < leastRoom && other == stateFlag:
		f.Level, f.Text = Problem, fmt.Sprintf("%s has %s free: a host lends no GPU below %s", where, size(free), size(leastRoom))
	case free < scarce:
		f.Level, f.Text = Problem, fmt.Sprintf("%s has %s free: too little for an environment", where, size(free))
	case free < roomy:
		f.Level, f.Text = Warning, fmt.Sprintf("%s has %s free: an environment with torch takes about %s", where, size(free), size(roomy))
	default:
		return lasting(where, disk, free, other)
	}
	return f
}

// lasting looks at what a folder outlives.
func lasting(where string, disk unix.Statfs_t, free uint64, other string) Finding {
	switch uint32(disk.Type) {
	case unix.TMPFS_MAGIC:
		return Finding{Level: Warning, Text: where + " is in memory: it is gone at the next boot, the ledger with it", Do: "Choose a folder on a disk by " + other}
	case unix.OVERLAYFS_SUPER_MAGIC:
		return Finding{Level: Note, Text: where + " is in the container's own layer: it is gone with the container, the ledger with it", Do: "Mount a volume there, or choose one by " + other}
	case unix.FUSE_SUPER_MAGIC:
		return Finding{Level: Warning, Text: where + " is on FUSE: whether files can be locked depends on the program behind it", Do: "Choose a folder on a disk of this machine by " + other}
	}
	return ok("%s has %s free", where, size(free))
}
