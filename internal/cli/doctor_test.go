package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"spacehost/internal/doctor"
	"spacehost/internal/feature"
)

// doctor runs the command as Main does, and returns its output and exit code.
func runDoctor(t *testing.T, args ...string) (out string, code int, err error) {
	t.Helper()
	var stdout bytes.Buffer
	c := newDoctor()
	c.SilenceUsage, c.SilenceErrors = true, true // as in the root command
	c.SetArgs(args)
	c.SetOut(&stdout)
	c.SetErr(&stdout)
	err = c.ExecuteContext(t.Context())
	return stdout.String(), exitCode(err), err
}

var checks = []string{"gpu", "python", "cgroup", "isolation", "limits", "environment", "disk", "container", "ports", "init"}

func TestDoctorInJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	out, code, err := runDoctor(t, "--json", "--state", dir)
	var found []doctor.Finding
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	var order []string
	for _, f := range found {
		if len(order) == 0 || order[len(order)-1] != f.Check {
			order = append(order, f.Check)
		}
		if f.Check == "disk" && !strings.Contains(f.Text, dir) {
			t.Errorf("finding %+v does not name the folder of --state, %s", f, dir)
		}
	}
	if got, want := strings.Join(order, " "), strings.Join(checks, " "); got != want {
		t.Errorf("got checks %s, want %s", got, want)
	}
	problems := count(found, doctor.Problem) // depends on the machine that runs the test, which may lack uv and venv
	if want := min(problems, 1); code != want {
		t.Errorf("exit code %d (%v) with %d problems, want %d", code, err, problems, want)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("stat state folder: %v, want the check not to create it", err)
	}
}

func TestDoctorFindsAProblem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SPACEHOST_ENVIRONMENTS", t.TempDir())
	out, code, err := runDoctor(t, "--state", file)
	if code != 1 || err == nil || !strings.Contains(err.Error(), "on this machine") {
		t.Errorf("exit code %d, error %v; want 1 and an error that names the machine", code, err)
	}
	if !strings.Contains(out, "✗ problem  disk         State: "+file) || !strings.Contains(out, "\n"+strings.Repeat(" ", 24)+"→ Choose another with --state DIR\n") {
		t.Errorf("the table lacks the problem or its next step:\n%s", out)
	}
}

func TestDoctorTable(t *testing.T) {
	var out bytes.Buffer
	long := strings.Repeat("words and ", 12) + "an end"
	if err := showFindings(&out, []doctor.Finding{
		{Check: "python", Level: doctor.OK, Text: "Python is there"},
		{Check: "ports", Level: doctor.Note, Text: "Taken", Do: "Choose"},
		{Check: "environment", Level: doctor.Warning, Text: long, Do: long},
		{Check: "gpu", Level: doctor.Problem, Text: "Lost", Do: "Reboot"},
	}, false); err != nil {
		t.Fatal(err)
	}
	want := `✓ ok       python       Python is there
· note     ports        Taken
                        → Choose
! warning  environment  words and words and words and words and words and words and words and words and words and
                        words and words and words and an end
                        → words and words and words and words and words and words and words and words and words and
                          words and words and words and an end
✗ problem  gpu          Lost
                        → Reboot

1 ok, 1 note, 1 warning, 1 problem
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(line); n > 120 {
			t.Errorf("line of %d characters, want at most 120: %s", n, line)
		}
	}
}

// TestDoctorReadsAFile checks that the demands of a file are compared with this machine, with line and key.
func TestDoctorReadsAFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "lab.yaml")
	write := func(isolation string) {
		text := "state: " + filepath.Join(dir, "state") + "\nconsole: 127.0.0.1:0\nspaces:\n  - folder: one\n    address: 127.0.0.1:0\n" + isolation
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	findings := func() (isolation []doctor.Finding, all string, code int) {
		out, code, _ := runDoctor(t, "--json", "--config", file)
		var found []doctor.Finding
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		for _, f := range found {
			if f.Check == "isolation" {
				isolation = append(isolation, f)
			}
		}
		return isolation, out, code
	}
	t.Setenv(feature.Variable, strings.Join([]string{feature.Userns, feature.Landlock}, ","))
	write("    isolation: files\n")
	found, all, code := findings()
	last := found[len(found)-1]
	if want := file + ":6: spaces[0].isolation: demands the level files, and this machine offers none"; last.Level != doctor.Problem || last.Text != want || code != 1 {
		t.Errorf("got %+v with exit code %d, want the problem %q", last, code, want)
	}
	if want := "State: " + filepath.Join(dir, "state"); !strings.Contains(all, want) {
		t.Errorf("no finding about the file's %q", want)
	}
	write("    isolation: auto\n")
	if found, _, _ = findings(); found[len(found)-1].Level != doctor.OK {
		t.Errorf("auto: got %+v, want no problem", found[len(found)-1])
	}
	write("    isolation: auto\n    egress: none\n")
	if found, _, _ = findings(); !strings.Contains(found[len(found)-1].Text, "demands the level namespaces") {
		t.Errorf("auto with a key that needs namespaces: got %+v, want a problem", found[len(found)-1])
	}
	write("    isolation: 7\n")
	if _, code, err := runDoctor(t, "--config", file); code != ExitServe {
		t.Errorf("wrong file: exit code %d (%v), want %d", code, err, ExitServe)
	}
}

func TestDoctorPrintsAProfile(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, code, err := runDoctor(t, "--apparmor")
	if want := `profile spacehost "` + program + `" flags=(unconfined) {`; code != 0 || !strings.Contains(out, want) || !strings.Contains(out, "\n  userns,\n") {
		t.Errorf("exit code %d (%v), want 0 and %s in\n%s", code, err, want, out)
	}
	if _, code, err := runDoctor(t, "--apparmor", "--json"); code != ExitUsage {
		t.Errorf("with --json: exit code %d (%v), want %d", code, err, ExitUsage)
	}
}

func TestDoctorVerdict(t *testing.T) {
	problem, note := doctor.Finding{Check: "gpu", Level: doctor.Problem}, doctor.Finding{Level: doctor.Warning}
	rows := []struct {
		found []doctor.Finding
		want  string
	}{
		{[]doctor.Finding{note}, ""},
		{[]doctor.Finding{note, problem}, "a problem was found on this machine (gpu), see above"},
		{[]doctor.Finding{problem, note, problem}, "2 problems were found on this machine, see above"},
	}
	for _, row := range rows {
		got := ""
		if err := verdict(row.found); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("verdict(%+v) = %q, want %q", row.found, got, row.want)
		}
	}
}

func TestDoctorUsage(t *testing.T) {
	if _, code, err := runDoctor(t, "gpu"); code != ExitUsage {
		t.Errorf("with an argument: exit code %d (%v), want %d", code, err, ExitUsage)
	}
	if got := defaultAddresses(); len(got) != 2 || got[0] != "127.0.0.1:7860" || got[1] != "127.0.0.1:7870" {
		t.Errorf("got addresses %v, want the defaults of run", got)
	}
	help, code, err := runDoctor(t, "--help")
	if err != nil || code != 0 {
		t.Errorf("--help: %v", err)
	}
	for _, part := range []string{"Exit codes:", "--json", "--state", "✗ problem", "spacehost doctor --json | jq"} {
		if !strings.Contains(help, part) {
			t.Errorf("--help lacks %q:\n%s", part, help)
		}
	}
}
