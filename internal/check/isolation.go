package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

func (c Config) isolation(ctx context.Context) []Finding {
	found := []Finding{c.machine.userNamespaces(ctx), c.machine.landlocks(), c.machine.seccomp()}
	if c.SpacesAreRoot {
		found = append(found, Finding{Level: Warning, Text: "This user is root: a spacehost that root starts runs the code of every Space as root",
			Do: "Run spacehost as an ordinary user"})
	}
	return found
}

const trustOnly = "Run only Spaces whose code you trust"

func (m machine) userNamespaces(ctx context.Context) Finding {
	err := m.userNamespace(ctx)
	var none *exec.Error
	switch {
	case err == nil:
		return ok("User namespaces work: a Space could get its own view of files and processes (%s)", unused)
	case errors.As(err, &none):
		return Finding{Level: Note, Text: "Unknown whether user namespaces work: the program `true`, needed for the test, was not found", Do: trustOnly}
	}
	return Finding{
		Level: Note, Text: fmt.Sprintf("No user namespaces (%v): a Space cannot get its own view of files and processes", err),
		Do: trustOnly + m.howToAllow(),
	}
}

// howToAllow names the setting that forbids user namespaces, if one does.
func (m machine) howToAllow() string {
	switch {
	case m.read("proc/sys/user/max_user_namespaces") == "0":
		return "; `sudo sysctl user.max_user_namespaces=10000` allows them"
	case m.read("proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "; `sudo sysctl kernel.unprivileged_userns_clone=1` allows them"
	case m.read("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "; Ubuntu allows them by an AppArmor profile for spacehost, or `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
	case m.containerSign() != "":
		return "; a container's seccomp filter usually refuses them (Docker: --security-opt seccomp=FILE)"
	}
	return ""
}

// tryUserNamespace makes what a sandbox needs, since kernels refuse at different steps (Ubuntu allows the namespace
// and then removes the rights in it): a user namespace, a mount namespace in it, and a mount. os/exec makes the mount
// for CLONE_NEWNS.
func tryUserNamespace(ctx context.Context) error {
	path, err := exec.LookPath("true")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Unshareflags: syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
	}
	err = cmd.Run()
	var refused *os.PathError
	if errors.As(err, &refused) {
		return refused.Err
	}
	return err
}

func (m machine) landlocks() Finding {
	abi, err := m.landlock()
	switch {
	case err == nil:
		return ok("Landlock is available, version %d of its ABI: a Space could be restricted to its own files (%s)", abi, unused)
	case errors.Is(err, unix.EOPNOTSUPP):
		return Finding{Level: Note, Text: "Landlock is in this kernel but disabled: it cannot restrict a Space to its own files",
			Do: trustOnly + "; booting with lsm=landlock,... enables it"}
	}
	return Finding{Level: Note, Text: fmt.Sprintf("No Landlock (%v): it cannot restrict a Space to its own files", err),
		Do: trustOnly + "; kernels from 5.13 on have it"}
}

// landlockABI reads the ABI version as described in landlock(7).
func landlockABI() (int, error) {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		return 0, errno
	}
	return int(abi), nil
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
