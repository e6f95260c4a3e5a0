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
	return []Finding{c.machine.userNamespaces(ctx), c.machine.landlocks(), c.machine.seccomp()}
}

const trustOnly = "Run only Spaces whose code you would run by hand"

func (m machine) userNamespaces(ctx context.Context) Finding {
	err := m.userNamespace(ctx)
	var none *exec.Error
	switch {
	case err == nil:
		return ok("User namespaces work: a Space could have a view of its own of files and processes (%s)", unused)
	case errors.As(err, &none):
		return Finding{Level: Note, Text: "Not known whether user namespaces work: there is no program `true` to try it with", Do: trustOnly}
	}
	return Finding{
		Level: Note, Text: fmt.Sprintf("No user namespaces (%v): a Space cannot have a view of its own of files and processes", err),
		Do: trustOnly + m.howToAllow(),
	}
}

// howToAllow names the switch that is off, if one is.
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

// tryUserNamespace does what a sandbox needs, since each kernel refuses in its own place (Ubuntu lets the namespace be made and then takes
// the rights in it away): a user namespace, a mount namespace in it, and a mount. os/exec makes the mount for CLONE_NEWNS.
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
		return ok("Landlock is there, version %d of its ABI: a Space could be kept to files of its own (%s)", abi, unused)
	case errors.Is(err, unix.EOPNOTSUPP):
		return Finding{Level: Note, Text: "Landlock is in this kernel and switched off: a Space cannot be kept to files of its own by it",
			Do: trustOnly + "; booting with lsm=landlock,... switches it on"}
	}
	return Finding{Level: Note, Text: fmt.Sprintf("No Landlock (%v): a Space cannot be kept to files of its own by it", err),
		Do: trustOnly + "; kernels from 5.13 on have it"}
}

// landlockABI asks as landlock(7) says.
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
		return Finding{Level: Note, Text: "A seccomp filter confines spacehost and its Spaces, as containers do: a system call that it refuses fails in the Space with \"Operation not permitted\"",
			Do: "Nothing, unless a Space fails so; then give the container a wider filter (Docker: --security-opt seccomp=FILE)"}
	}
	return ok("This kernel has no seccomp filters")
}
