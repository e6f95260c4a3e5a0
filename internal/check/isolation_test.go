package check

import (
	"context"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

const errReadOnly = unix.EROFS

func TestIsolation(t *testing.T) {
	const userns, landlock, seccomp = "ok | User namespaces work", "ok | version 7 of its ABI", "ok | No seccomp filter confines"
	free := map[string]string{"proc/self/status": "Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"}
	refused := func(err error) func(m *machine) {
		return func(m *machine) { m.userNamespace = func(context.Context) error { return err } }
	}
	with := func(name, text string) map[string]string {
		return map[string]string{"proc/self/status": free["proc/self/status"], name: text}
	}
	noLandlock := func(err error) func(m *machine) {
		return func(m *machine) { m.landlock = func() (int, error) { return 0, err } }
	}
	rows := []struct {
		name   string
		files  map[string]string
		change func(m *machine)
		want   []string
	}{
		{"good", free, nil, []string{userns, landlock, seccomp}},
		{"Ubuntu", with("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n"), refused(unix.EACCES),
			[]string{"note | No user namespaces (permission denied) | AppArmor profile", landlock, seccomp}},
		{"old Debian", with("proc/sys/kernel/unprivileged_userns_clone", "0\n"), refused(unix.EPERM), []string{"note | No user | unprivileged_userns_clone=1", landlock, seccomp}},
		{"number is 0", with("proc/sys/user/max_user_namespaces", "0\n"), refused(unix.ENOSPC), []string{"note | No user | max_user_namespaces=10000", landlock, seccomp}},
		{"Docker", with(".dockerenv", ""), refused(unix.EPERM), []string{"note | No user | --security-opt seccomp=FILE", landlock, seccomp}},
		{"unknown reason", free, refused(unix.EPERM), []string{"note | (operation not permitted) | Run only Spaces", landlock, seccomp}},
		{"no program for the test", free, refused(&exec.Error{Name: "true", Err: exec.ErrNotFound}), []string{"note | Unknown", landlock, seccomp}},
		{"old kernel", free, noLandlock(unix.ENOSYS), []string{userns, "note | No Landlock (function not implemented) | 5.13", seccomp}},
		{"Landlock is off", free, noLandlock(unix.EOPNOTSUPP), []string{userns, "note | disabled | lsm=landlock", seccomp}},
		{"confined", map[string]string{"proc/self/status": "Seccomp:\t2\n"}, nil, []string{userns, landlock, "note | A seccomp filter confines | wider filter"}},
		{"no seccomp", nil, nil, []string{userns, landlock, "ok | has no seccomp"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			m := fake(t, row.files)
			if row.change != nil {
				row.change(&m)
			}
			expect(t, Config{machine: m}.isolation(t.Context()), row.want...)
		})
	}
}

func TestRootIsAWarning(t *testing.T) {
	m := fake(t, map[string]string{"proc/self/status": "Seccomp:\t0\n"})
	found := Config{machine: m, SpacesAreRoot: true}.isolation(t.Context())
	expect(t, found[len(found)-1:], "warning | runs the code of every Space as root | Run spacehost as an ordinary user")
}

// TestIsolationChecksChangeNothing: only the child process gets new namespaces.
func TestIsolationChecksChangeNothing(t *testing.T) {
	m := machine{}.orThis()
	before := m.read("proc/self/uid_map") + m.read("proc/self/mountinfo")
	t.Logf("user namespace: %v", tryUserNamespace(t.Context()))
	if after := m.read("proc/self/uid_map") + m.read("proc/self/mountinfo"); after != before {
		t.Errorf("our own namespaces changed:\n%s\nwere\n%s", after, before)
	}
	if abi, err := landlockABI(); (err == nil) != (abi > 0) {
		t.Errorf("landlockABI = %d, %v; want a number or an error", abi, err)
	}
}
