package checkcli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spacehost/internal/check"
	"spacehost/internal/usage"
)

// execute runs one command line of check with a Config.
func execute(t *testing.T, config Config, args ...string) (string, error) {
	t.Helper()
	command := newCheck(config)
	var out strings.Builder
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(args)
	command.SilenceErrors, command.SilenceUsage = true, true
	err := command.ExecuteContext(t.Context())
	return out.String(), err
}

// byVersion are stages whose start fails with one version of Gradio.
type byVersion struct {
	stages
	wrong string
	seen  []StageOptions
}

var errStart = errors.New("the app ended")

func (s *byVersion) Run(ctx context.Context, dir string, o StageOptions, report *check.Report) error {
	s.seen = append(s.seen, o)
	if o.Gradio == s.wrong {
		return errStart
	}
	return s.stages.Run(ctx, dir, o, report)
}

func (s *byVersion) Duplicate() ([]string, error) { return []string{"GIVEN"}, nil }

// interrupted are stages that Ctrl-C ends while the Space answers: they return no error of their own.
type interrupted struct {
	stages
	interrupt context.CancelCauseFunc
}

var errInterrupt = errors.New("interrupt signal received")

func (s *interrupted) Run(context.Context, string, StageOptions, *check.Report) error {
	s.interrupt(errInterrupt)
	return nil
}

// TestInterruptedCheck covers a check that would otherwise pass without a report.
func TestInterruptedCheck(t *testing.T) {
	for _, versions := range [][]string{nil, {"--gradio", "4.44.1,5.49.1"}} {
		ctx, interrupt := context.WithCancelCause(t.Context())
		command := newCheck(Config{Stages: &interrupted{interrupt: interrupt}})
		command.SetOut(io.Discard)
		command.SetErr(io.Discard)
		command.SetArgs(append([]string{"--call", healthy(t)}, versions...))
		command.SilenceErrors, command.SilenceUsage = true, true
		if err := command.ExecuteContext(ctx); !errors.Is(err, errInterrupt) {
			t.Errorf("check with %q returns %v, want %v", versions, err, errInterrupt)
		}
		interrupt(nil)
	}
}

func TestSeveralVersionsOfGradio(t *testing.T) {
	s := &byVersion{wrong: "5.49.1"}
	config := Config{Stages: s, StageOf: func(err error) string {
		if errors.Is(err, errStart) {
			return "RUNTIME_ERROR"
		}
		return ""
	}}
	out, err := execute(t, config, "--run", "--gradio", "4.44.1,5.49.1,6.31.0", healthy(t))
	if !errors.Is(err, errStart) || len(s.seen) != 3 || s.seen[0].Gradio != "4.44.1" || s.seen[2].Gradio != "6.31.0" {
		t.Fatalf("got %v after %+v", err, s.seen)
	}
	_, table, _ := strings.Cut(out, "GRADIO ")
	rows := strings.Split(strings.TrimSpace(table), "\n")
	for i, want := range []string{"RESULT ERRORS WARNINGS INFOS SECONDS", "4.44.1 passes 0 0 1", "5.49.1 RUNTIME_ERROR 0 0 0", "6.31.0 passes 0 0 1"} {
		if i >= len(rows) || !strings.HasPrefix(strings.Join(strings.Fields(rows[i]), " "), want) {
			t.Errorf("row %d: want %q\n%s", i, want, out)
		}
	}
	for args, want := range map[string]string{
		"--gradio 6.31.0":                                         "--gradio: it requires --run or --call",
		"--run --gradio newest":                                   `"newest" is no version`,
		"--run --gradio 5.49.1,6.31.0 --format json":              "requires --format text",
		"--run --gradio 5.49.1 --python /usr/bin/python3":         "exclude each other",
		"--run --gradio 5.49.1,6.31.0 --write-baseline accepted.": "run the command once per version",
	} {
		_, err := execute(t, config, append(strings.Fields(args), healthy(t))...)
		if wrong := (*usage.Error)(nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
	if out, err := execute(t, config, "--run", "--gradio", "6.31.0", "--format", "json", healthy(t)); err != nil || !strings.HasPrefix(out, "{") {
		t.Errorf("one version: %v\n%s", err, out)
	}
}

// TestAsDuplicate checks a Space that needs two variables at import and one in a call, of which a duplicate has one.
func TestAsDuplicate(t *testing.T) {
	dir := write(t, map[string]string{"README.md": readme + "---\n", "app.py": "import os\n\ntoken = os.environ[\"TOKEN\"]\ngiven = os.environ[\"GIVEN\"]\n" + app})
	s := &byVersion{wrong: "none"}
	if _, err := execute(t, Config{Stages: s}, "--run", dir); err != nil || s.seen[0].CPU {
		t.Errorf("without the flag: %v, %+v", err, s.seen)
	}
	out, err := execute(t, Config{Stages: s}, "--run", "--as-duplicate", dir)
	findings := (*FindingsError)(nil)
	if !errors.As(err, &findings) || findings.Count != 1 || !s.seen[1].CPU || !strings.Contains(out, "app.py:3: error B601") || !strings.Contains(out, "app.py:4: info B601") {
		t.Errorf("got %v with %+v\n%s", err, s.seen[1], out)
	}
	if !strings.Contains(out, "private, on CPU hardware, with the given Variables and without Secrets") {
		t.Errorf("the summary does not describe a duplicate:\n%s", out)
	}
	if _, err := execute(t, Config{Stages: s}, "--run", "--as-duplicate", "--hardware", "h200", dir); err == nil || s.seen[2].CPU {
		t.Errorf("with hardware: %v, %+v", err, s.seen[2])
	}
}

func TestLockAndLike(t *testing.T) {
	now := &check.Pins{Python: "3.12.1", Packages: map[string]string{"gradio": "6.31.0", "spaces": "0.51.3"}}
	var asked []string
	config := Config{Pins: func(_ context.Context, state, dir, gradio string) (*check.Pins, error) {
		asked = append(asked, state+" "+gradio)
		return now, nil
	}}
	dir, file := healthy(t), filepath.Join(t.TempDir(), "lock.txt")
	if out, err := execute(t, config, "--write-lock", file, dir); err != nil || !strings.Contains(out, "holds the 2 packages of Python 3.12.1") {
		t.Errorf("got %v\n%s", err, out)
	}
	if out, err := execute(t, config, "--like", file, dir); err != nil || !strings.Contains(out, "The environment has the 2 packages of "+file) {
		t.Errorf("the same: %v\n%s", err, out)
	}
	now.Packages = map[string]string{"gradio": "6.32.0", "spaces": "0.51.3", "new": "1"}
	out, err := execute(t, config, "--like", file, dir)
	if findings := (*FindingsError)(nil); !errors.As(err, &findings) || findings.Count != 2 || findings.Code != usage.ExitFindings || !strings.Contains(out, "gradio   6.31.0  6.32.0\nnew      -       1\n") {
		t.Errorf("drift: %v\n%s", err, out)
	}
	if out, err := execute(t, config, "--like", file, "--fail-on", "never", dir); err != nil || !strings.Contains(out, "6.32.0") {
		t.Errorf("drift with --fail-on never: %v\n%s", err, out)
	}
	now = nil
	if _, err := execute(t, config, "--like", file, dir); err == nil || !strings.Contains(err.Error(), "has not been built; add --run") {
		t.Errorf("without an environment: %v", err)
	}
	if err := os.WriteFile(file, []byte("no packages\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	now = &check.Pins{}
	if _, err := execute(t, config, "--like", file, dir); err == nil || !strings.Contains(err.Error(), "names no package") {
		t.Errorf("a file without packages: %v", err)
	}
}
