package doctor

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDisk(t *testing.T) {
	rows := []struct {
		name  string
		magic uint32
		free  uint64
		want  []string // for the state folder, then for the environments
	}{
		{"good", unix.EXT4_SUPER_MAGIC, 100 << 30, []string{"ok | State: /a/b/state has 100 GiB free", "ok | Environments: /a/b/environments has 100 GiB free"}},
		{"enough", unix.XFS_SUPER_MAGIC, 5 << 30, []string{"ok | 5 GiB free", "ok | 5 GiB free"}},
		{"little", unix.EXT4_SUPER_MAGIC, 5<<30 - 4096, []string{"warning | torch needs about 5 GiB | --state DIR", "warning | Environments: | $SPACEHOST_ENVIRONMENTS"}},
		{"full", unix.EXT4_SUPER_MAGIC, 1<<30 - 4096, []string{"problem | State: /a/b/state has 1023 MiB free: too little | Free disk space", "problem | too little | Free disk space"}},
		{"no room for the ledger", unix.EXT4_SUPER_MAGIC, 64<<20 - 4096, []string{"problem | 63 MiB free: below 64 MiB a host leases no GPU | Free disk space", "problem | too little for an environment | Free disk space"}},
		{"NFS", unix.NFS_SUPER_MAGIC, 100 << 30, []string{"problem | is on NFS, where the database cannot be locked | --state DIR", "ok | 100 GiB", "warning | is on NFS: | a disk of this machine", "ok | 100 GiB"}},
		{"full NFS", unix.NFS_SUPER_MAGIC, 1 << 20, []string{"problem | NFS", "problem | 1 MiB free", "warning | NFS", "problem | 1 MiB free"}},
		{"share of Windows", unix.SMB2_SUPER_MAGIC, 100 << 30, []string{"problem | SMB", "ok | 100 GiB", "warning | SMB", "ok | 100 GiB"}},
		{"drive of Windows in WSL", unix.V9FS_MAGIC, 100 << 30, []string{"problem | 9P", "ok | 100 GiB", "warning | 9P", "ok | 100 GiB"}},
		{"memory", unix.TMPFS_MAGIC, 100 << 30, []string{"warning | in memory | on a disk", "warning | in memory | on a disk"}},
		{"container's layer", unix.OVERLAYFS_SUPER_MAGIC, 100 << 30, []string{"note | container's own layer | volume", "note | container's own layer | volume"}},
		{"FUSE", unix.FUSE_SUPER_MAGIC, 100 << 30, []string{"warning | on FUSE | --state", "warning | on FUSE | --state"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			root, m := tree(t, map[string]string{"a/x": ""}), fake(t, nil)
			m.statfs = func(path string) (disk unix.Statfs_t, err error) {
				if path != filepath.Join(root, "a") {
					t.Errorf("statfs of %s, want the nearest existing folder", path)
				}
				disk.Type, disk.Bsize, disk.Bavail, disk.Bfree = int64(row.magic), 4096, row.free/4096, row.free // Bfree includes root's reserve
				return disk, nil
			}
			got := Config{State: filepath.Join(root, "a/b/state"), Environments: filepath.Join(root, "a/b/environments"), machine: m}.disk(t.Context())
			for i := range got {
				got[i].Text = strings.ReplaceAll(got[i].Text, root, "")
			}
			expect(t, got, row.want...)
		})
	}
}

func TestUnusableFolders(t *testing.T) {
	root, m := tree(t, map[string]string{"file": ""}), fake(t, nil)
	c := Config{State: filepath.Join(root, "file"), Environments: filepath.Join(root, "file/environments"), machine: m}
	expect(t, c.disk(t.Context()), "problem | /file is a file | --state", "problem | not a directory | $SPACEHOST_ENVIRONMENTS")

	m.access = func(string, uint32) error { return fs.ErrPermission }
	c = Config{State: root, Environments: root, machine: m}
	expect(t, c.disk(t.Context()), "problem | this user may not write to "+root+" | --state", "problem | may not write | --state")

	m = fake(t, nil)
	m.statfs = func(string) (d unix.Statfs_t, err error) { return d, unix.EIO }
	c.machine = m
	expect(t, c.disk(t.Context()), "problem | input/output error | --state", "problem | input/output error | --state")
}
