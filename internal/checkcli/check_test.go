package checkcli

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"spacehost/internal/check"
	"spacehost/internal/usage"
)

// write makes a Space of these files.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const readme = "---\ntitle: x\nsdk: gradio\nsdk_version: 6.31.0\npython_version: \"3.12\"\n"

// app is a Space without findings.
const app = `import gradio as gr
import spaces


@spaces.GPU
def greet(name):
    return name


gr.Interface(greet, "text", "text").launch()
`

func healthy(t *testing.T) string {
	return write(t, map[string]string{"README.md": readme + "---\n", "app.py": app})
}

// warned is a Space with a warning (A107) and an error (A201).
func warned(t *testing.T) string {
	return write(t, map[string]string{"README.md": readme + "licence: mit\n---\n", "app.py": app, "requirements.txt": "torch==2.4.0\n"})
}

// result is the outcome of one command line.
type result struct {
	code        int
	out, errOut string
}

func run(args ...string) result {
	var out, errOut strings.Builder
	code := Main(args, &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

func TestExitCodes(t *testing.T) {
	t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1") // nothing listens there
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	noApp := write(t, map[string]string{"README.md": readme + "---\n"})
	baseline := filepath.Join(t.TempDir(), "baseline.json")
	for _, row := range []struct {
		args []string
		code int
		want string // in stdout or stderr
	}{
		{[]string{"check", healthy(t)}, 0, "0 errors, 0 warnings in "},
		{[]string{"check", healthy(t)}, 0, "(--run, on Linux); what its endpoints return (--call, on Linux)."},
		{[]string{"check", warned(t)}, 7, "1 error, 1 warning in "},
		{[]string{"check", "--fail-on", "never", warned(t)}, 0, "error A201"},
		{[]string{"check", "--ignore", "A201", warned(t)}, 0, "0 errors, 1 warning"},
		{[]string{"check", "--ignore", "a2", "--fail-on", "warning", warned(t)}, 7, "0 errors, 1 warning"},
		{[]string{"check", "--select", "A107", "--fail-on", "info", warned(t)}, 7, "0 errors, 1 warning"},
		{[]string{"check", "--select", "B,C9", warned(t)}, 2, `--select: unknown rule "C9"`},
		{[]string{"check", "--select", "A211", warned(t)}, 2, "did you mean A201?"},
		{[]string{"check", "--write-baseline", baseline, warned(t)}, 0, "accepts 2 findings"},
		{[]string{"check", "--baseline", baseline, warned(t)}, 0, "2 findings of the baseline"},
		{[]string{"check", "--baseline", baseline + "x", healthy(t)}, 2, "create it with --write-baseline"},
		{[]string{"check", "--baseline", baseline, "--write-baseline", baseline, healthy(t)}, 2, "exclude each other"},
		{[]string{"check", noApp}, 3, "file app.py does not exist in the Space"},
		{[]string{"check", "--fail-on", "never", noApp}, 0, "A105"},
		{[]string{"check", filepath.Join(noApp, "none")}, 3, "does not exist; pass the folder"},
		{[]string{"check", filepath.Join(noApp, "README.md")}, 3, "is not a folder"},
		{[]string{"check", "--format", "xml"}, 2, "use text, json, sarif, junit, github, gitlab"},
		{[]string{"check", "--fail-on", "never-ever"}, 2, "use error, warning, info or never"},
		{[]string{"check", "--tier", "gold"}, 2, `no tier "gold"`},
		{[]string{"check", "--quota", "2025-01"}, 2, `no quota preset "2025-01"`},
		{[]string{"check", "--hardware", "a100"}, 2, `unknown hardware "a100"`},
		{[]string{"check", "--run"}, 2, "unknown flag: --run"},
		{[]string{"check", healthy(t), filepath.Join(noApp, "none")}, 3, "does not exist; pass the folder"},
		{[]string{"check", healthy(t), warned(t)}, 7, "1 error, 1 warning in "},
		{[]string{"check", healthy(t), noApp}, 3, "file app.py does not exist in the Space"},
		{[]string{"check", "--baseline", baseline, healthy(t), warned(t)}, 2, "several folders exclude --baseline"},
		{[]string{"check", "someone/a-space"}, 1, "no folder someone/a-space, and spacehost cannot clone http://127.0.0.1:1/spaces/someone/a-space: "},
		{[]string{"check", "https://huggingface.co/spaces/someone/a-space/"}, 1, "spacehost: cannot clone http://127.0.0.1:1/spaces/someone/a-space: "},
		{[]string{"explain-rule", "f315"}, 0, "F315: A model on cuda"},
		{[]string{"explain-rule", "F999"}, 2, `unknown rule "F999"`},
		{[]string{"explain-rule"}, 0, "A201  error     A       read"},
		{[]string{"run", "."}, 2, `unknown command "run"`},
		{[]string{"version"}, 0, "spacehost dev"},
		{nil, 0, "everything that starts a Space needs Linux"},
	} {
		got := run(row.args...)
		if got.code != row.code || !strings.Contains(got.out+got.errOut, row.want) {
			t.Errorf("%q: exit code %d, want %d and %q\n%s%s", row.args, got.code, row.code, row.want, got.out, got.errOut)
		}
	}
}

// TestInterpreters covers machines without a usable Python: README.md and requirements.txt are checked all the same.
func TestInterpreters(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the stand-ins are shell scripts")
	}
	script := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, broken, other := script("python3", "echo 3 8 /usr/bin/python3.8"), script("python3", "exit 3"), script("python3", "echo hello")
	dir := warned(t)
	for name, row := range map[string]struct {
		path string // the PATH
		args []string
		want string
	}{
		"none":      {t.TempDir(), nil, "Python: there is no python3 on the PATH; install Python 3.9 or newer, or name one with --python"},
		"old":       {filepath.Dir(old), nil, old + " is Python 3.8, and 3.9 is needed; install"},
		"broken":    {filepath.Dir(broken), nil, broken + " does not start: exit status 3; install"},
		"no Python": {filepath.Dir(other), nil, other + " is no Python; install"},
		"named":     {t.TempDir(), []string{"--python", old}, "--python " + old + " is Python 3.8"},
		"missing":   {t.TempDir(), []string{"--python", "/none"}, "--python /none does not start: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", row.path)
			got := run(append([]string{"check", dir}, row.args...)...)
			if got.code != 7 || !strings.Contains(got.out, "Not looked at: Python: ") || !strings.Contains(got.out, row.want) || !strings.Contains(got.out, "A201") {
				t.Errorf("exit code %d, want %q\n%s%s", got.code, row.want, got.out, got.errOut)
			}
		})
	}
}

func TestFormatsOnStdout(t *testing.T) {
	dir := warned(t)
	t.Chdir(filepath.Dir(dir))
	got := run("check", "--format", "json", filepath.Base(dir))
	var report struct{ Findings []check.Finding }
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != 7 || len(report.Findings) != 2 || report.Findings[0].File != "README.md" {
		t.Errorf("json: %v, %+v", err, got)
	}
	if got := run("check", "--format", "github", filepath.Base(dir)); !strings.Contains(got.out, "::error file="+filepath.Base(dir)+"/requirements.txt,line=1,title=A201::") {
		t.Errorf("github: %s", got.out)
	}
	if got := run("check", dir); !strings.Contains(got.out, filepath.Base(dir)+"/requirements.txt:1: error A201 ") || strings.Contains(got.out, "\x1b") {
		t.Errorf("text: %s", got.out)
	}
	var rules []ruleView
	if got := run("explain-rule", "--json"); json.Unmarshal([]byte(got.out), &rules) != nil || len(rules) != len(check.Rules()) {
		t.Errorf("explain-rule --json: %s", got.out)
	}
	if got := run("__complete", "explain-rule", ""); !strings.Contains(got.out, "A201\trequirements.txt excludes") {
		t.Errorf("completion: %s", got.out)
	}
}

// stages records what checkcli asks of a host.
type stages struct {
	given StageOptions
	calls int
	err   error
	wrong error
}

func (s *stages) Flags(f *pflag.FlagSet) { f.String("secret", "", "") }

func (s *stages) Run(_ context.Context, _ string, o StageOptions, report *check.Report) error {
	s.given, s.calls = o, s.calls+1
	report.Performed = append(report.Performed, check.StageRun)
	report.LookedAt = append(report.LookedAt, "one start")
	if err := report.Add(check.StageRun, check.Fact{Rule: "A203", File: "requirements.txt", Values: map[string]string{"problem": "found at the start"}}); err != nil {
		return err
	}
	return s.err
}

func (s *stages) Check() error { return s.wrong }

// TestStagesRefuseTheirFlags: a mistake in a flag of the stages is wrong usage, and nothing is read.
func TestStagesRefuseTheirFlags(t *testing.T) {
	s := &stages{wrong: errors.New("--call-timeout -1s is not above 0")}
	command := newCheck(Config{Stages: s})
	command.SetArgs([]string{healthy(t)})
	command.SilenceErrors, command.SilenceUsage = true, true
	var wrong *usage.Error
	if err := command.ExecuteContext(t.Context()); !errors.As(err, &wrong) || s.calls != 0 {
		t.Errorf("error %v after %d calls, want wrong usage and none", err, s.calls)
	}
}

func TestStages(t *testing.T) {
	failed := errors.New("the build failed")
	for name, row := range map[string]struct {
		dir   string
		args  []string
		err   error // of Run
		calls int
		want  error
		text  string
	}{
		"read":    {healthy(t), nil, nil, 0, nil, "(--run); what its endpoints return (--call)."},
		"run":     {healthy(t), []string{"--run", "--tier", "pro"}, nil, 1, nil, "what its endpoints return (--call)."},
		"call":    {healthy(t), []string{"--call"}, nil, 1, nil, "one start"},
		"failed":  {healthy(t), []string{"--run"}, failed, 1, failed, "found at the start"},
		"refused": {write(t, map[string]string{"README.md": readme + "---\n"}), []string{"--run"}, nil, 0, &FindingsError{usage.ExitConfig, 1}, "`spacehost run` refuses the Space"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &stages{err: row.err}
			command := newCheck(Config{Stages: s})
			var out strings.Builder
			command.SetOut(&out)
			command.SetErr(&out)
			command.SetArgs(append(row.args, row.dir))
			command.SilenceErrors, command.SilenceUsage = true, true
			err := command.ExecuteContext(t.Context())
			if findings, ok := errors.AsType[*FindingsError](row.want); ok {
				if got, ok := errors.AsType[*FindingsError](err); !ok || *got != *findings {
					t.Errorf("error %v, want %+v", err, findings)
				}
			} else if err != row.want {
				t.Errorf("error %v, want %v", err, row.want)
			}
			if s.calls != row.calls || !strings.Contains(out.String(), row.text) || s.given.Call != (name == "call") {
				t.Errorf("%d calls with %+v, want %d and %q\n%s", s.calls, s.given, row.calls, row.text, out.String())
			}
		})
	}
}

// TestEnvironmentIsPreferred: the interpreter of a built environment parses the Space, unless --python is given.
func TestEnvironmentIsPreferred(t *testing.T) {
	asked := ""
	o := options{dir: "demo", state: "folder", config: Config{Environment: func(state, dir string) string { asked = state + " " + dir; return "/env/bin/python" }}}
	if python, _ := o.interpreter(t.Context()); python != "/env/bin/python" || asked != "folder demo" {
		t.Errorf("got %q, asked for %q", python, asked)
	}
	o.python = "/none"
	if python, problem := o.interpreter(t.Context()); python != "" || !strings.HasPrefix(problem, "--python /none") {
		t.Errorf("--python: got %q, %q", python, problem)
	}
}

// TestOtherSystems builds the program for systems without a host. They have no cgo.
func TestOtherSystems(t *testing.T) {
	for _, system := range []string{"darwin", "windows"} {
		command := exec.Command("go", "build", "-o", os.DevNull, "spacehost/cmd/spacehost")
		command.Env = append(os.Environ(), "GOOS="+system, "GOARCH=arm64", "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", system, err, out)
		}
	}
}
