package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"spacehost/internal/sandbox"
)

// refusal explains why level namespaces is refused, and names the remedy.
type refusal struct{ text, remedy string }

const trustOnly = "Run only Spaces whose code you trust"

// containerRemedy has the options under which a container may create namespaces and mount /proc. Docker's profile of AppArmor
// denies every mount (moby, docs/security/apparmor.md).
const containerRemedy = "Start the container with more rights (Docker: --security-opt systempaths=unconfined --security-opt seccomp=unconfined, " +
	"and --security-opt apparmor=unconfined where AppArmor is in force; Podman: --security-opt unmask=ALL --security-opt seccomp=unconfined)"

// refusal returns the first explanation that fits the failed step and the settings of the machine. Kernels refuse at
// different steps: Ubuntu creates the namespaces and then denies the rights in them (containers/bubblewrap#632).
func (m machine) refusal(err error) refusal {
	step, isStep := errors.AsType[*sandbox.StepError](err)
	if !isStep {
		return refusal{"it was not tried to the end", trustOnly + ", or repair what the message names"}
	}
	isClone, isDenied := step.Step == sandbox.StepClone, errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case isClone && errors.Is(err, unix.ENOSPC):
		return m.noneLeft()
	case isClone && isDenied && m.read("proc/sys/kernel/unprivileged_userns_clone") == "0":
		return refusal{"this machine allows user namespaces to root alone", "Allow them: `sudo sysctl kernel.unprivileged_userns_clone=1`"}
	case isClone && isDenied && m.isFiltered():
		return m.filtered()
	case step.IsProcRefused():
		return m.maskedProc()
	case isDenied && m.read("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return refusal{"this machine gives user namespaces no rights (AppArmor)", appArmorRemedy}
	case isDenied && m.containerSign() != "":
		return refusal{"the container may not mount", containerRemedy}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return refusal{"this kernel lacks a feature", "Use Linux 5.12 or newer with user namespaces (CONFIG_USER_NS); until then run only Spaces whose code you trust"}
	}
	return refusal{"this machine does not permit it", trustOnly + "; look for a security module or a chroot that refuses the step in parentheses"}
}

const appArmorRemedy = "Allow them to this program: `spacehost doctor --apparmor | sudo tee /etc/apparmor.d/spacehost && sudo systemctl reload apparmor`; " +
	"or to all programs: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"

// noneLeft explains ENOSPC: one of the kernel's numbers of namespaces is 0, or reached.
func (m machine) noneLeft() refusal {
	var forbidden []string
	for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		if name := "max_" + kind + "_namespaces"; m.read("proc/sys/user/"+name) == "0" {
			forbidden = append(forbidden, "user."+name)
		}
	}
	if len(forbidden) == 0 {
		return refusal{"the number of namespaces of this user is reached", "Raise it: `sudo sysctl user.max_user_namespaces=10000`; `sysctl user` shows the other numbers"}
	}
	return refusal{
		"the kernel's limit is 0 for " + strings.Join(forbidden, " and "),
		fmt.Sprintf("Allow namespaces: `sudo sysctl %s=10000`", strings.Join(forbidden, "=10000 ")),
	}
}

// isFiltered reports whether a seccomp filter confines this process.
func (m machine) isFiltered() bool {
	return slices.Contains([]string{"1", "2"}, m.field("proc/self/status", "Seccomp"))
}

func (m machine) filtered() refusal {
	if m.containerSign() != "" {
		return refusal{"the container's seccomp filter refuses namespaces", containerRemedy}
	}
	return refusal{"a seccomp filter refuses namespaces", "In a systemd unit, remove RestrictNamespaces= and SystemCallFilter="}
}

func (m machine) maskedProc() refusal {
	if m.containerSign() != "" {
		return refusal{"/proc is masked, as usual in a container", containerRemedy}
	}
	return refusal{"parts of /proc are masked", "In a systemd unit, remove ProtectProc=, ProcSubset=, ProtectKernelTunables= and ProtectKernelLogs="}
}
