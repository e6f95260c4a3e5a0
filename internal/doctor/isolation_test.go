package doctor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"spacehost/internal/sandbox"
)

const errReadOnly = unix.EROFS

// Findings of a machine that offers everything.
const (
	namespacesWork = "ok | Level namespaces works"
	filesWork      = "ok | Level files works: Spaces can be restricted to their own files (Landlock 7, seccomp)"
	limitsWork     = "ok | can limit memory, processes and CPU"
	unfiltered     = "ok | No seccomp filter confines"
)

// machineWith returns a fake machine with delegated cgroups, without a filter, and with further files.
func machineWith(t *testing.T, more map[string]string) machine {
	files := group(own, mountsV2, slice+"cgroup.controllers", "cpu memory pids\n", control, "")
	files["proc/self/status"] = "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"
	maps.Copy(files, more)
	return fake(t, files)
}

// refusing lets a step of the probe fail.
func refusing(step string, err error) func(*machine) {
	return func(m *machine) {
		m.namespaces = func(string) (sandbox.NamespacesProbe, error) {
			return sandbox.NamespacesProbe{Err: &sandbox.StepError{Step: step, Err: err}}, nil
		}
	}
}

func withFiles(probe sandbox.FilesProbe) func(*machine) {
	return func(m *machine) { m.files = func() sandbox.FilesProbe { return probe } }
}

func TestNamespacesAreRefused(t *testing.T) {
	const network = "open the network"
	clone := refusing(sandbox.StepClone, &os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: unix.EPERM})
	none := refusing(sandbox.StepClone, &os.PathError{Op: "fork/exec", Path: "/proc/self/exe", Err: unix.ENOSPC})
	proc := refusing(sandbox.StepView, fmt.Errorf("mount /proc: %w", unix.EPERM))
	const filtered = "Seccomp:\t2\n"
	ubuntu := map[string]string{"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}
	docker := map[string]string{".dockerenv": "", "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}
	rows := []struct {
		name  string
		files map[string]string
		probe func(*machine)
		want  string
	}{
		{"Ubuntu", ubuntu, refusing(network, fmt.Errorf("bring up loopback interface: %w", unix.EPERM)),
			"warning | refused: this machine gives user namespaces no rights (AppArmor) (open the network: bring up loopback interface: operation not permitted). `run` uses level files; `serve` needs | spacehost doctor --apparmor | sysctl"},
		{"Ubuntu refuses the start", ubuntu, clone, "warning | no rights (AppArmor) | kernel.apparmor_restrict_unprivileged_userns=0"},
		{"old Debian", map[string]string{"proc/sys/kernel/unprivileged_userns_clone": "0\n"}, clone, "warning | to root alone (create the namespaces: fork/exec | unprivileged_userns_clone=1"},
		{"HPC", map[string]string{"proc/sys/user/max_user_namespaces": "0\n"}, none, "warning | limit is 0 for user.max_user_namespaces (create | sysctl user.max_user_namespaces=10000`"},
		{"a mitigation", map[string]string{"proc/sys/user/max_user_namespaces": "9\n", "proc/sys/user/max_net_namespaces": "0\n", "proc/sys/user/max_pid_namespaces": "0"}, none,
			"warning | limit is 0 for user.max_pid_namespaces and user.max_net_namespaces (create | sysctl user.max_pid_namespaces=10000 user.max_net_namespaces=10000`"},
		{"too many", map[string]string{"proc/sys/user/max_user_namespaces": "9\n"}, none, "warning | number of namespaces of this user is reached | max_user_namespaces=10000"},
		{"Docker", map[string]string{".dockerenv": "", "proc/self/status": filtered}, clone, "warning | the container's seccomp filter | --security-opt systempaths=unconfined --security-opt seccomp=unconfined"},
		{"Docker on Ubuntu", map[string]string{".dockerenv": "", "proc/self/status": filtered, "proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, clone, "warning | the container's seccomp filter"},
		{"Docker with clone", map[string]string{".dockerenv": ""}, proc, "warning | /proc is masked, as usual in a container (open the view of files: mount /proc: operation not permitted) | Podman: --security-opt unmask=ALL"},
		{"Docker on Ubuntu with clone", docker, proc, "warning | /proc is masked"},
		{"Docker with AppArmor", map[string]string{"run/.containerenv": ""}, refusing(sandbox.StepView, fmt.Errorf("make mounts private: %w", unix.EACCES)), "warning | the container may not mount | apparmor=unconfined"},
		{"unit with a filter", map[string]string{"proc/self/status": filtered}, clone, "warning | a seccomp filter refuses | RestrictNamespaces="},
		{"unit with a masked proc", nil, proc, "warning | parts of /proc are masked | ProtectProc="},
		{"kernel without user namespaces", nil, refusing(sandbox.StepClone, unix.EINVAL), "warning | lacks a feature | Linux 5.12"},
		{"old kernel", nil, refusing(sandbox.StepView, fmt.Errorf("set attributes: %w", unix.ENOSYS)), "warning | lacks a feature | Linux 5.12"},
		{"unknown reason", nil, clone, "warning | does not permit it | Run only Spaces whose code you trust"},
		{"disabled", nil, func(m *machine) {
			m.namespaces = func(string) (sandbox.NamespacesProbe, error) {
				return sandbox.NamespacesProbe{Err: errors.New("userns is disabled by SPACEHOST_DISABLE")}, nil
			}
		}, "warning | not tried to the end (userns is disabled by SPACEHOST_DISABLE) | repair what the message names"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := machineWith(t, row.files)
			row.probe(&m)
			found := Config{machine: m, State: t.TempDir()}.isolation(t.Context())
			expect(t, found[:1], row.want)
		})
	}
}

func TestIsolation(t *testing.T) {
	clone := refusing(sandbox.StepClone, unix.EPERM)
	noLandlock := withFiles(sandbox.FilesProbe{Err: errors.New("landlock: this kernel has no Landlock")})
	rows := []struct {
		name   string
		change []func(*machine)
		want   []string
	}{
		{"good", nil, []string{namespacesWork, filesWork, limitsWork, unfiltered}},
		{"older Landlock", []func(*machine){withFiles(sandbox.FilesProbe{ABI: 5, Left: []string{"signals (Linux 6.12)", "abstract unix sockets (Linux 6.12)"}})},
			[]string{namespacesWork, "note | Landlock 5, which does not restrict: signals (Linux 6.12), abstract unix sockets | newer kernel", limitsWork, unfiltered}},
		{"no Landlock", []func(*machine){noLandlock}, []string{namespacesWork, "note | Level files is refused (landlock: this kernel has no Landlock) | does not need it", limitsWork, unfiltered}},
		{"no level", []func(*machine){noLandlock, clone}, []string{"warning | `run` uses level none", "warning | refused too (landlock: this kernel has no Landlock): Spaces have all rights | lsm=landlock", limitsWork, unfiltered}},
		{"no overlay", []func(*machine){func(m *machine) {
			m.namespaces = func(string) (sandbox.NamespacesProbe, error) { return sandbox.NamespacesProbe{}, nil }
		}}, []string{namespacesWork, filesWork, "warning | cannot hold the layers of Spaces | --state DIR", limitsWork, unfiltered}},
		{"a filter", []func(*machine){func(m *machine) { m.root = machineWith(t, map[string]string{"proc/self/status": "Seccomp:\t2\n"}).root }},
			[]string{namespacesWork, filesWork, limitsWork, "note | A seccomp filter confines | wider filter"}},
		{"no seccomp", []func(*machine){func(m *machine) { m.root = machineWith(t, map[string]string{"proc/self/status": ""}).root }},
			[]string{namespacesWork, filesWork, limitsWork, "ok | has no seccomp"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := machineWith(t, nil)
			for _, change := range row.change {
				change(&m)
			}
			expect(t, Config{machine: m, State: t.TempDir()}.isolation(t.Context()), row.want...)
		})
	}
}

// TestProbeUsesDiskOfState checks that the overlay is tried on the disk of the state folder, and that nothing is said about
// that disk if it cannot be used.
func TestProbeUsesDiskOfState(t *testing.T) {
	var dirs []string
	m := machineWith(t, nil)
	m.namespaces = func(dir string) (sandbox.NamespacesProbe, error) {
		if dirs = append(dirs, dir); len(dirs) == 2 {
			return sandbox.NamespacesProbe{}, os.ErrPermission
		}
		return sandbox.NamespacesProbe{}, nil
	}
	dir := t.TempDir()
	c := Config{machine: m, State: filepath.Join(dir, "missing", "state")}
	expect(t, c.isolation(t.Context()), namespacesWork, filesWork, "warning | file system of "+c.State+" cannot hold", limitsWork, unfiltered)
	expect(t, c.isolation(t.Context()), namespacesWork, filesWork, limitsWork, unfiltered)
	if want := []string{dir, dir, os.TempDir()}; fmt.Sprint(dirs) != fmt.Sprint(want) {
		t.Errorf("tried in %v, want %v", dirs, want)
	}
}

func TestRootIsAWarning(t *testing.T) {
	found := Config{machine: machineWith(t, nil), SpacesAreRoot: true, State: t.TempDir()}.isolation(t.Context())
	expect(t, found[len(found)-1:], "warning | has no capability and sees only its own files; for these and for device nodes the kernel still treats it as root | Run spacehost as an ordinary user")
}

func TestDemandsOfAFile(t *testing.T) {
	const at = "lab.yaml:3: isolation"
	noFiles := withFiles(sandbox.FilesProbe{Err: errors.New("landlock: none")})
	clone := refusing(sandbox.StepClone, unix.EPERM)
	nothing := func(*machine) {}
	rows := []struct {
		name    string
		change  []func(*machine)
		demands []string
		want    []string
	}{
		{"offered", []func(*machine){nothing}, []string{"none", "files", "namespaces"}, []string{"ok | offers every level"}},
		{"no file", []func(*machine){clone, noFiles}, nil, nil},
		{"lower level", []func(*machine){clone}, []string{"files", "namespaces"}, []string{"problem | " + at + ": demands the level namespaces, and this machine offers files | or set `isolation: files` there"}},
		{"none", []func(*machine){clone, noFiles}, []string{"namespaces", "none"}, []string{"problem | offers none | serve only code that you would run yourself"}},
		{"files without Landlock", []func(*machine){noFiles}, []string{"files"}, []string{"problem | demands the level files, and this machine offers namespaces | `isolation: namespaces`"}},
		{"users", []func(*machine){nothing}, []string{"users"}, []string{"problem | demands the level users | does not have the level users"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := machineWith(t, nil)
			for _, change := range row.change {
				change(&m)
			}
			c := Config{machine: m}
			for _, level := range row.demands {
				c.Demands = append(c.Demands, Demand{at, level})
			}
			expect(t, c.tryLevels().demands(c.Demands), row.want...)
		})
	}
}

// TestIsolationChecksChangeNothing: only the child processes get new namespaces and rules.
func TestIsolationChecksChangeNothing(t *testing.T) {
	m := machine{}.orThis()
	before := m.read("proc/self/uid_map") + m.read("proc/self/mountinfo")
	dir := t.TempDir()
	for _, f := range (Config{machine: m, State: filepath.Join(dir, "state")}).isolation(t.Context()) {
		t.Logf("%s: %s | %s", f.Level, f.Text, f.Do)
	}
	if after := m.read("proc/self/uid_map") + m.read("proc/self/mountinfo"); after != before {
		t.Errorf("our own namespaces changed:\n%s\nwere\n%s", after, before)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v; want nothing", left, err)
	}
}
