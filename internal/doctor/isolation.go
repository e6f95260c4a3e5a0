package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"spacehost/internal/sandbox"
)

// Demand is a level of isolation that a configuration file demands.
type Demand struct {
	Where string // FILE:LINE: KEY
	Level string // none, files, namespaces or users
}

// levels is what this machine offers.
type levels struct {
	namespaces sandbox.NamespacesProbe
	files      sandbox.FilesProbe
	knowsDisk  bool // namespaces.Overlay is about the disk of the state folder
}

// isolation tries each level in a process of its own. Nothing is inferred from versions or settings: these only explain a
// refusal.
func (c Config) isolation(context.Context) []Finding {
	l := c.tryLevels()
	found := []Finding{c.machine.namespacesLevel(l), filesLevel(l)}
	if l.namespaces.Err == nil && l.knowsDisk && !l.namespaces.Overlay {
		found = append(found, Finding{
			Level: Warning, Do: "Choose a folder on ext4, XFS or btrfs with " + stateFlag,
			Text: fmt.Sprintf("The file system of %s cannot hold the layers of Spaces: environments and the folders of Spaces are read-only for them, and no model of this user is shared", c.State),
		})
	}
	found = append(found, c.machine.spaceLimits(), c.machine.seccomp())
	if c.SpacesAreRoot {
		found = append(found, rootWarning)
	}
	return append(found, l.demands(c.Demands)...)
}

// tryLevels tries the levels on the disk of the state folder, or of temporary files if that is not possible.
func (c Config) tryLevels() (l levels) {
	l.files = c.machine.files()
	dir, err := existing(c.State)
	if err == nil {
		l.namespaces, err = c.machine.namespaces(dir)
	}
	if l.knowsDisk = err == nil; !l.knowsDisk { // the check of the disk reports why
		if l.namespaces, err = c.machine.namespaces(os.TempDir()); err != nil {
			l.namespaces.Err = err
		}
	}
	return l
}

// best returns the highest level that the machine offers.
func (l levels) best() string {
	switch {
	case l.namespaces.Err == nil:
		return "namespaces"
	case l.files.Err == nil:
		return "files"
	}
	return "none"
}

func (m machine) namespacesLevel(l levels) Finding {
	if l.namespaces.Err == nil {
		return ok("Level namespaces works: Spaces get files, processes and a network of their own (user namespaces, seccomp)")
	}
	why := m.refusal(l.namespaces.Err)
	return Finding{
		Level: Warning, Do: why.remedy,
		Text: fmt.Sprintf("Level namespaces is refused: %s (%s). `run` uses level %s; `serve` needs another `isolation` in its file", why.text, stepText(l.namespaces.Err), l.best()),
	}
}

// stepText returns the step that failed and the kernel's words.
func stepText(err error) string {
	if step, is := errors.AsType[*sandbox.StepError](err); is {
		return fmt.Sprintf("%s: %v", step.Step, step.Err)
	}
	return err.Error()
}

func filesLevel(l levels) Finding {
	switch {
	case l.files.Err == nil && len(l.files.Left) == 0:
		return ok("Level files works: Spaces can be restricted to their own files (Landlock %d, seccomp)", l.files.ABI)
	case l.files.Err == nil:
		return Finding{
			Level: Note, Do: "Nothing for Spaces at level namespaces; else use a newer kernel",
			Text: fmt.Sprintf("Level files works with Landlock %d, which does not restrict: %s", l.files.ABI, strings.Join(l.files.Left, ", ")),
		}
	case l.namespaces.Err == nil:
		return Finding{Level: Note, Text: fmt.Sprintf("Level files is refused (%v)", l.files.Err), Do: "Nothing: level namespaces does not need it"}
	}
	return Finding{
		Level: Warning, Text: fmt.Sprintf("Level files is refused too (%v): Spaces have all rights of this user", l.files.Err),
		Do: "Run only Spaces whose code you trust. Landlock is in kernels from 5.13 on; booting with lsm=landlock,... enables it",
	}
}

// rootWarning is about a root host. At level namespaces, process 1 of a Space maps the uid 0 of the host, so the kernel's
// checks of ownership are those of root.
var rootWarning = Finding{
	Level: Warning, Do: "Run spacehost as an ordinary user",
	Text: "This user is root. At level namespaces the code of a Space has no capability and sees only its own files; for these and for device nodes the kernel still treats it as root. " +
		"At level files it also passes the permissions of the files that it may reach, and at level none it is root on this machine",
}

func (m machine) seccomp() Finding {
	switch m.field("proc/self/status", "Seccomp") {
	case "0":
		return ok("No seccomp filter confines spacehost")
	case "1", "2":
		return Finding{Level: Note, Text: "A seccomp filter confines spacehost and its Spaces, as in containers: a system call that it refuses fails in the Space with \"Operation not permitted\"",
			Do: "Nothing, unless a Space fails with that error; then give the container a wider filter (Docker: --security-opt seccomp=FILE)"}
	}
	return ok("This kernel has no seccomp filters")
}

// demands compares what a file demands with what the machine offers.
func (l levels) demands(all []Demand) (found []Finding) {
	ranks := map[string]int{"none": 0, "files": 1, "namespaces": 2, "users": 3}
	offered := l.best()
	for _, d := range all {
		if d.Level == "files" && l.files.Err != nil || ranks[d.Level] > ranks[offered] {
			found = append(found, Finding{Level: Problem, Text: fmt.Sprintf("%s: demands the level %s, and this machine offers %s", d.Where, d.Level, offered), Do: otherLevel(d.Level, offered)})
		}
	}
	if len(all) > 0 && len(found) == 0 {
		return []Finding{ok("This machine offers every level of isolation that the file demands")}
	}
	return found
}

func otherLevel(demanded, offered string) string {
	switch {
	case demanded == "users":
		return "Set `isolation: " + offered + "` there: this version does not have the level users"
	case offered == "none":
		return "Follow the steps above, or set `isolation: none` and serve only code that you would run yourself"
	}
	return "Follow the steps above, or set `isolation: " + offered + "` there"
}
