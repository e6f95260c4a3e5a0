package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is the position of this process in one tree of cgroups.
type hierarchy struct {
	mount string // path of its file system
	dir   string // path of our cgroup in it
}

// hierarchy returns the cgroup v2 hierarchy for an empty controller, else the v1 hierarchy of that controller.
func (m machine) hierarchy(controller string) (hierarchy, bool) {
	own, found := m.ownCgroup(controller)
	if !found {
		return hierarchy{}, false
	}
	for line := range strings.Lines(m.read("proc/self/mountinfo")) {
		left, right, _ := strings.Cut(line, " - ") // proc_pid_mountinfo(5)
		before, after := strings.Fields(left), strings.Fields(right)
		if len(before) < 5 || len(after) < 3 || !mounts(after, controller) {
			continue
		}
		root, mount := before[3], m.path(before[4])
		if below, err := filepath.Rel(root, own); err == nil && filepath.IsLocal(below) {
			return hierarchy{mount, filepath.Join(mount, below)}, true
		}
	}
	return hierarchy{}, false
}

func mounts(after []string, controller string) bool {
	if controller == "" {
		return after[0] == "cgroup2"
	}
	return after[0] == "cgroup" && slices.Contains(strings.Split(after[2], ","), controller)
}

// ownCgroup reads lines like "0::/user.slice" (version 2) and "8:pids:/" (version 1).
func (m machine) ownCgroup(controller string) (string, bool) {
	for line := range strings.Lines(m.read("proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if controller == "" && parts[0] == "0" || controller != "" && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2], true
		}
	}
	return "", false
}

// lowest returns the smallest number that file contains in our cgroup and its ancestors, and the path.
func (m machine) lowest(controller, file string) (value uint64, where string) {
	value = unlimited
	h, found := m.hierarchy(controller)
	for dir := h.dir; found && len(dir) >= len(h.mount); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, file)
		text, _ := os.ReadFile(path) // the root has none
		n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err == nil && n < value {
			value, where = n, m.shown(path)
		}
	}
	return value, where
}

const unlimited = ^uint64(0)

func (c Config) cgroup(context.Context) []Finding {
	h, found := c.machine.hierarchy("")
	if !found {
		return []Finding{{
			Level: Note, Text: "This process is in no cgroup of version 2: " + byTree,
			Do: "Nothing for your own code; else " + unified,
		}}
	}
	child := filepath.Join(h.dir, fmt.Sprintf("spacehost-doctor-%d", c.machine.pid))
	if err := os.Mkdir(child, 0o755); err != nil {
		return []Finding{c.machine.notDelegated(h, err)}
	}
	defer os.Remove(child) // an empty cgroup is removed by rmdir
	if m := c.machine; m.canKill(child) != nil {
		return []Finding{{
			Level: Note, Text: fmt.Sprintf("Cgroups can be created in %s, but not killed as a whole (cgroup.kill needs Linux 5.14): %s", m.shown(h.dir), byTree),
			Do: "Nothing for your own code; else use a newer kernel",
		}}
	}
	return []Finding{ok("Cgroup v2 is delegated in %s: %s", c.machine.shown(h.dir), byCgroup)}
}

const (
	scope   = "`systemd-run --user --scope -p Delegate=yes spacehost run ...`"
	unified = "boot with only cgroup v2 (systemd.unified_cgroup_hierarchy=1)"

	// byCgroup and byTree describe the two ways to find and kill the descendants of Spaces and GPU workers.
	byCgroup = "cgroup.kill ends the descendants of a Space or a GPU worker"
	byTree   = "descendants of a GPU worker are found by the process tree, with the worker as child subreaper; a malicious process can escape"
)

func (m machine) notDelegated(h hierarchy, err error) Finding {
	f := Finding{Level: Note, Do: "Nothing for your own code; else start spacehost with " + scope + ", or as a service with Delegate=yes"}
	why := err
	var path *os.PathError
	if errors.As(err, &path) {
		why = path.Err
	}
	if errors.Is(err, unix.EROFS) {
		f.Do = "Nothing: this is usual in a container. Limit memory and processes of the whole container"
	}
	f.Text = fmt.Sprintf("No cgroup can be created in %s (%v): %s", m.shown(h.dir), why, byTree)
	return f
}

// spaceLimits checks whether the kernel can limit what each Space uses.
func (m machine) spaceLimits() Finding {
	h, found := m.hierarchy("")
	if !found {
		return Finding{Level: Note, Text: "The kernel limits neither memory nor CPU of a Space: this process is in no cgroup of version 2. " + m.watched([]string{"memory", "pids", "cpu"}),
			Do: "Nothing for your own code; else " + unified}
	}
	missing := m.missingControllers(h)
	if len(missing) == 0 {
		return ok("The kernel can limit memory, processes and CPU of each Space (cgroup v2)")
	}
	f := Finding{
		Level: Note, Text: fmt.Sprintf("The kernel does not limit %s of a Space: cgroup v2 is not delegated in %s. %s", strings.Join(missing, ", "), m.shown(h.dir), m.watched(missing)),
		Do: "Nothing for your own code; else start spacehost with " + scope + ", or as a service with Delegate=yes",
	}
	if _, old := m.hierarchy(missing[0]); old { // a controller is in one hierarchy only
		f.Do = "Nothing for your own code; else " + unified
	} else if m.containerSign() != "" {
		f.Do = "Limit memory and CPU of the whole container (Docker: --memory and --cpus)"
	}
	return f
}

// watched describes what the host does where controllers are missing.
func (m machine) watched(missing []string) string {
	var parts []string
	if slices.Contains(missing, "memory") || slices.Contains(missing, "pids") {
		parts = append(parts, "the host measures memory and processes instead, and ends a Space above a limit")
	}
	if slices.Contains(missing, "cpu") {
		share := "a Space with more processes gets more of the CPUs (sysctl kernel.sched_autogroup_enabled=1 gives each the same share)"
		if strings.TrimSpace(m.read("proc/sys/kernel/sched_autogroup_enabled")) == "1" {
			share = "each Space gets the same share of the CPUs (autogroup)"
		}
		parts = append(parts, share)
	}
	text := strings.Join(parts, "; ")
	return strings.ToUpper(text[:1]) + text[1:]
}

// missingControllers lists the controllers that our child cgroups could not get.
func (m machine) missingControllers(h hierarchy) (missing []string) {
	text, _ := os.ReadFile(filepath.Join(h.dir, "cgroup.controllers"))
	available := strings.Fields(string(text))
	if m.access(filepath.Join(h.dir, "cgroup.subtree_control"), unix.W_OK) != nil {
		available = nil
	}
	for _, name := range []string{"memory", "pids", "cpu"} {
		if !slices.Contains(available, name) {
			missing = append(missing, name)
		}
	}
	return missing
}
