package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"spacehost/internal/sandbox"
)

// outcome is what a level promises about an attack.
type outcome int

const (
	refused outcome = iota
	allowed
	// unjudged attacks depend on the machine: what a program of the host's user can do at level none, what root can do.
	unjudged
)

// attackRow is one attack with the promise of each level.
type attackRow struct {
	name                    string
	none, files, namespaces outcome
	// left names a restriction of Landlock. Level files allows the attack on a kernel without it (sandbox.FilesProbe).
	left string
	// effect looks for the effect of the attack outside. nil: the attacker's report counts.
	effect func(r *redteam, got attackResult) bool
}

// at returns whether the attack succeeds at the level of the host, and false if that depends on the machine.
func (a attackRow) at(r *redteam) (want, judged bool) {
	promise := map[string]outcome{"none": a.none, "files": a.files, "namespaces": a.namespaces}[r.level]
	if a.left != "" && r.level == "files" && slices.Contains(filesProbe().Left, a.left) {
		promise = allowed
	}
	return promise == allowed, promise != unjudged
}

// filesProbe returns what this machine's Landlock restricts.
var filesProbe = sync.OnceValue(sandbox.ProbeFiles)

// ownCanaries are attacks whose answer may contain a canary, because all Spaces may read it.
var ownCanaries = []string{"F7 environment: read", "F9 model: read"}

// attackTable lists every attack. The levels are none, files and namespaces. docs/isolation.md describes the same promises.
var attackTable = slices.Concat(fileAttacks(), processAttacks, networkAttacks, kernelAttacks, useOfASpace)

// planted is a file outside, or of all Spaces, which attacks read and write.
type planted struct {
	name string
	path func(r *redteam) string
	// files and namespaces are whether a Space may read it.
	files, namespaces outcome
}

func fileAttacks() (all []attackRow) {
	home := func(path string) func(r *redteam) string {
		return func(r *redteam) string { return filepath.Join(r.home, path) }
	}
	ownEnvironment := allowed
	if isNodeSuite() { // the node has built another one
		ownEnvironment = refused
	}
	for _, p := range []planted{
		{name: "F1 ssh key", path: home(".ssh/id_ed25519")},
		{name: "F1 bashrc", path: home(".bashrc")},
		{name: "F2 hub token", path: home(".cache/huggingface/token")},
		{name: "F3 control key", path: func(r *redteam) string { return filepath.Join(r.State, "control.key") }},
		{name: "F5 source of another space", path: func(r *redteam) string { return filepath.Join(r.folders, "victim/app.py") }},
		{name: "F5 home of another space", path: func(r *redteam) string { return filepath.Join(r.stateOfSpaces(), "spaces/victim/home/note.txt") }},
		{name: "F6 runner", path: (*redteam).runner, files: allowed, namespaces: allowed}, // a Space imports it
		{name: "F7 environment", path: func(r *redteam) string { return filepath.Join(r.venv, "redteam.txt") }, files: allowed, namespaces: ownEnvironment},
		{name: "F8 uv cache", path: home(".cache/uv/wheel.txt")},
		{name: "F9 model", path: home(".cache/huggingface/hub/models--org--model/config.json"), namespaces: allowed}, // level files has a cache of its own
	} {
		read := attackRow{name: p.name + ": read", none: allowed, files: p.files, namespaces: p.namespaces, effect: p.isIn}
		write := attackRow{name: p.name + ": write", none: allowed, effect: func(r *redteam, _ attackResult) bool { return r.hasMark(p.path(r)) }}
		all = append(all, read, write)
	}
	return append(all, otherFileAttacks...)
}

// isIn reports whether the attacker has read the file: it may have made another one with this name in a folder of its own.
func (p planted) isIn(r *redteam, got attackResult) bool {
	data, err := os.ReadFile(p.path(r))
	if err != nil {
		r.t.Error(err)
	}
	first, _, _ := strings.Cut(string(data), "\n") // later lines may be those of an attack
	return got.Succeeded && first != "" && strings.HasPrefix(got.Detail, first)
}

// otherFileAttacks: level files promises nothing about names, sizes, dates and modes (package sandbox, "Limits of level files").
var otherFileAttacks = []attackRow{
	{name: "F1 ssh key: size and dates", none: allowed, files: allowed},
	{name: "F1 ssh key: change its mode", none: allowed, files: allowed},
	{name: "F3 signing key: read", none: allowed},
	{name: "F3 state folder: list", none: allowed, effect: func(_ *redteam, got attackResult) bool { // inside, it contains what is the Space's own
		return got.Succeeded && strings.Contains(got.Detail, "spacehost.db")
	}},
	{name: "F4 database: read", none: allowed},
	{name: "F4 database: write", none: allowed, effect: func(r *redteam, _ attackResult) bool {
		return r.hasMark(filepath.Join(r.State, "spacehost.db")) || r.hasMark(filepath.Join(r.State, "spacehost.db-wal"))
	}},
	{name: "F10 shared memory of the host's user", none: allowed, files: allowed},
	{name: "F10 temporary file of another program", none: allowed},
	{name: "F11 a link in its own folder", none: allowed},
	{name: "F11 a hard link in its own folder", none: allowed},
	{name: "F12 descriptors that lead outside"},
	{name: "F12 roots and folders of other processes", none: allowed},
}

// hasMark reports whether a file of the pattern contains the mark of the attacks.
func (r *redteam) hasMark(pattern string) bool {
	found, _ := filepath.Glob(pattern) // the patterns are well formed
	return slices.ContainsFunc(found, func(path string) bool {
		data, _ := os.ReadFile(path) // a missing file has no mark
		return bytes.Contains(data, []byte(fmt.Sprint(r.facts["mark"])))
	})
}

var processAttacks = []attackRow{
	{name: "P1 environment of the host", none: allowed},
	{name: "P1 environment of another program", none: allowed},
	{name: "P2 memory of another space", none: withoutYama()},
	{name: "P2 memory of the host", none: withoutYama()},
	{name: "P3 process_vm_readv of the host", none: withoutYama()},
	{name: "P3 ptrace of another program", none: withoutYama()},
	{name: "P3 descriptor of the host by pidfd_getfd", none: withoutYama()},
	{name: "P4 signal the host", none: allowed, left: "signals (Linux 6.12)"},
	{name: "P4 signal another space", none: allowed, left: "signals (Linux 6.12)"},
	{name: "P4 kill every process that it may", none: allowed, left: "signals (Linux 6.12)"},
	{name: "P4 kill another program", none: allowed, left: "signals (Linux 6.12)", effect: func(r *redteam, _ attackResult) bool {
		return !alive(r.facts["killable"].(int))
	}},
	{name: "P4 raise the oom score of another program", none: allowed}, // files: only with a real GPU is /proc writable
	{name: "P4 limit the resources of another program", none: allowed},
	// The kernel protects a process with more capabilities, such as those of a root host.
	{name: "P4 priority of another program", none: allowed, files: exceptForRoot()},
	{name: "P4 CPUs of another program", none: allowed, files: exceptForRoot()},
	{name: "P5 control socket with its key"},
	{name: "P5 control socket with its key, from a daemon"},
	{name: "P7 leave the cgroup", none: unjudged},
	{name: "P8 command lines of other programs", none: allowed, files: allowed},
	// Below level namespaces, process 1 is that of the machine.
	{name: "P9 environment of process 1", none: unjudged},
	{name: "P9 descriptors of process 1", none: unjudged},
	{name: "P9 memory of process 1", none: unjudged},
	{name: "P10 System V memory of another program", none: allowed, files: allowed},
	// The kernel does not limit the processes of root.
	{name: "R1 400 processes", none: allowed, files: allowed, namespaces: onlyForRoot()},
}

// onlyForRoot is the promise about an attack that needs a root host.
func onlyForRoot() outcome {
	if os.Geteuid() == 0 {
		return unjudged
	}
	return refused
}

// withoutYama is the promise about an attack that Yama prevents on some machines (ptrace_scope).
func withoutYama() outcome {
	scope, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil || strings.TrimSpace(string(scope)) == "0" {
		return allowed
	}
	return unjudged
}

// exceptForRoot is the promise about an attack that a root host prevents.
func exceptForRoot() outcome {
	if os.Geteuid() == 0 {
		return refused
	}
	return allowed
}

// networkAttacks connect to services of this machine. Level files knows ports and no addresses.
var networkAttacks = slices.Concat(loopbackAttacks(), []attackRow{
	{name: "N1 server of another space", none: allowed, left: "TCP ports (Linux 6.7)"},
	{name: "N2 GPU on the account of another space", none: withoutYama()},
	{name: "N2 GPU on the account of another space, whose secret path is known", none: allowed, files: allowed},
	{name: "N3 GPU on the account of a person, by a forged token", none: allowed},
	{name: "N4 loopback by MPTCP", none: unjudged},
	{name: "N4 loopback by TCP fast open", none: allowed},
	{name: "N4 loopback by UDP", none: allowed, files: allowed},
	{name: "N4 loopback by UDP over IPv6", none: unjudged, files: unjudged},
	{name: "N5 another address of this machine", none: allowed, left: "TCP ports (Linux 6.7)"},
	{name: "N5 another address of this machine by UDP", none: allowed, files: allowed},
	// No service has these addresses here. wantRefusalsShown checks that the host refused them.
	{name: "N5 the metadata service of clouds", none: unjudged, files: unjudged},
	{name: "N5 a private network", none: unjudged, files: unjudged},
	{name: "N5 a name of this machine in the DNS", none: unjudged, files: unjudged},
	{name: "N6 listen at every address", none: allowed, left: "TCP ports (Linux 6.7)", effect: isReachable},
	{name: "N6 listen without bind", none: allowed, files: allowed, effect: isReachable},
	{name: "N7 abstract unix socket", none: allowed, left: "abstract unix sockets (Linux 6.12)"},
	{name: "N7 named unix socket", none: allowed, left: "named unix sockets (Linux 7.1)"},
	{name: "N7 sockets of AF_VSOCK", none: unjudged},
	{name: "N7 sockets of AF_PACKET", none: unjudged},
	{name: "N7 sockets of AF_ALG", none: unjudged},
	{name: "N7 sockets of AF_KEY", none: unjudged},
	{name: "N7 sockets of AF_BLUETOOTH", none: unjudged},
	{name: "N7 raw sockets", none: unjudged},
	{name: "N7 sockets of other programs", none: allowed, files: allowed},
	{name: "N8 metrics"},
	{name: "N8 private space of another person"},
	{name: "N9 sockets of this machine by netlink", none: allowed, files: allowed},
})

// loopbackAttacks are the names of the loopback address.
func loopbackAttacks() (all []attackRow) {
	for _, what := range []string{"127.0.0.1", "another address of the network", "a decimal number", "a hexadecimal number", "two parts", "0.0.0.0", "localhost"} {
		all = append(all, attackRow{name: "N4 loopback by " + what, none: allowed, left: "TCP ports (Linux 6.7)"})
	}
	for _, what := range []string{"::1", "::", "IPv4-mapped"} { // the machine may have no IPv6
		all = append(all, attackRow{name: "N4 loopback by " + what, none: unjudged, left: "TCP ports (Linux 6.7)"})
	}
	return all
}

// isReachable reports whether the port that the attacker names answers with its mark at this machine.
func isReachable(r *redteam, got attackResult) bool {
	if !got.Succeeded {
		return false
	}
	c, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", got.Detail), 5*time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // another program may have the port
	data, err := io.ReadAll(c)
	frozen := len(data) == 0 && errors.Is(err, os.ErrDeadlineExceeded) // an idle worker accepts in the kernel, and makes no step
	return frozen || strings.Contains(string(data), fmt.Sprint(r.facts["mark"]))
}

// kernelAttacks depend on the kernel and on root at level none.
var kernelAttacks = []attackRow{
	{name: "K1 user namespace by unshare", none: unjudged},
	{name: "K1 user namespace by clone", none: unjudged},
	{name: "K1 user namespace by clone3", none: unjudged},
	{name: "K1 keyctl", none: unjudged},
	{name: "K1 io_uring", none: unjudged},
	{name: "K1 userfaultfd", none: unjudged},
	{name: "K1 perf_event_open", none: unjudged},
	{name: "K1 bpf", none: unjudged},
	{name: "K1 mount", none: unjudged},
	{name: "K1 chroot", none: unjudged},
	{name: "K1 fsopen", none: unjudged},
	{name: "K1 open_by_handle_at", none: unjudged},
	{name: "K1 syslog", none: unjudged},
	{name: "K2 capabilities", none: unjudged},
	{name: "K2 rights of setuid programs", none: unjudged},
	{name: "K3 settings of the kernel in /proc", none: unjudged},
	{name: "K3 settings of devices in /sys", none: unjudged},
	{name: "K4 device of a disk", none: unjudged},
	{name: "K4 memory of the kernel", none: unjudged},
	{name: "K4 pages and memory areas of the kernel", none: unjudged, files: unjudged},
}

// useOfASpace is what every level lets a Space do.
var useOfASpace = []attackRow{
	{name: "allowed: write the home", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: write the folder of the Space", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: write temporary files", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: download into the Hub cache", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: shared memory of its own", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: signal and read a child", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: limit its own resources", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: pass descriptors between its processes", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: its own server on loopback", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: call a public space", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: the Hub's API of the host", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: memfd_create", none: allowed, files: allowed, namespaces: allowed},
	{name: "allowed: terminals", none: allowed, files: allowed, namespaces: allowed},
}

// wantRefusalsShown checks that an author can find out why a connection failed: in the log, and in `space list`.
func (r *redteam) wantRefusalsShown() {
	r.t.Helper()
	log := r.log()
	if n := nodeOf(r.State); n != nil {
		log = n.agent.text()
	}
	for _, destination := range []string{"169.254.169.254", "10.213.7.1", r.services.machine} {
		if !strings.Contains(log, fmt.Sprintf("%s:%d", destination, r.services.port)) {
			r.t.Errorf("the log does not show that a connection to %s was refused", destination)
		}
	}
	eventually(r.t, "`space list` shows the last refused destination", patience, func() bool { return strings.Contains(r.view("redteam").EgressRefused, "connect to ") })
}
