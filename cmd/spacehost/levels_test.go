package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestServeDemandsNamespaces: a machine without the level is a mistake of the file. The host names line and key, and starts no
// Space at a lower level. A file that chooses another level starts.
func TestServeDemandsNamespaces(t *testing.T) {
	requireOwnMachine(t, "a Space runs on a node at level namespaces only")
	folder, err := filepath.Abs(codeDir)
	if err != nil {
		t.Fatal(err)
	}
	const lab = `
gpus: {machine: mock:1xH200}
console: 127.0.0.1:0
LEVEL
spaces:
  - {folder: FOLDER, address: "127.0.0.1:0", python: PYTHON}
`
	for _, row := range []struct {
		level, own, disable string
		want                []string // in the message of exit code 6
	}{
		{"", "", "userns", []string{"lab.yaml", "spaces[0]", "this machine does not offer the level namespaces: userns is disabled", "run `spacehost doctor`"}},
		{"isolation: namespaces", "", "userns", []string{"lab.yaml:4: isolation: ", "this machine does not offer the level namespaces"}},
		{"isolation: none", "isolation: namespaces", "seccomp", []string{"lab.yaml:6: spaces[0].isolation: ", "this machine does not offer the level namespaces: seccomp is disabled"}},
		{"isolation: files", "", "landlock", []string{"lab.yaml:4: isolation: ", "this machine does not offer the level files: landlock is disabled"}},
		{"isolation: auto", "gpu_nodes: lease", "userns", []string{"need the level namespaces, which this machine does not offer"}},
		{"isolation: auto", "egress: none", "userns", []string{"lab.yaml:", "need the level namespaces, which this machine does not offer"}},
	} {
		t.Run(strings.TrimSpace(row.level+" "+row.own+" without "+row.disable), func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "lab.yaml")
			text := strings.NewReplacer("LEVEL", row.level, "FOLDER", folder, "PYTHON", environment(t)).Replace(lab)
			if row.own != "" {
				text = strings.Replace(text, "python:", row.own+", python:", 1)
			}
			writeFile(t, file, text)
			p := startServeAsIs(t, row.disable, file)
			<-p.ended
			if code := p.cmd.ProcessState.ExitCode(); code != 6 || p.URL != "" {
				t.Errorf("exit code %d, URL %q, want 6 and none", code, p.URL)
			}
			for _, want := range row.want {
				if !strings.Contains(p.text(), want) {
					t.Errorf("the screen has no %q", want)
				}
			}
			if strings.Contains(p.text(), "Starting") {
				t.Error("a Space was started")
			}
		})
	}
}

// startServeAsIs starts `serve` with a file to which the tests add no level.
func startServeAsIs(t *testing.T, disable, file string) *product {
	t.Helper()
	t.Setenv(levelVariable, "")
	return startCommandWith(t, []string{"SPACEHOST_DISABLE=" + disable}, t.TempDir(), "serve", "--config", file)
}

// TestRunTakesTheBestLevel: `run` takes the highest level that the machine offers, says which, and why it is not a higher one. A
// level that the user demands is not replaced by a lower one.
func TestRunTakesTheBestLevel(t *testing.T) {
	requireLevel(t, "files")
	requireLevel(t, "namespaces")
	for _, row := range []struct{ disable, level, want string }{
		{"", "namespaces", "code: isolated from this machine: own files, processes and network (isolation: namespaces)"},
		{"userns", "files", "code: only its files are isolated from this machine (isolation: files)\n  level namespaces is not available: userns is disabled by SPACEHOST_DISABLE"},
		{"userns,landlock", "none", "code: not isolated from this machine: run only code that you would run yourself (isolation: none)\n  level files is not available: landlock is disabled by SPACEHOST_DISABLE"},
	} {
		t.Run(row.level, func(t *testing.T) {
			p := startProductWith(t, []string{"SPACEHOST_DISABLE=" + row.disable}, t.TempDir(), codeDir, "--isolation", "auto")
			t.Cleanup(p.stop)
			p.awaitReady()
			if got := p.Spaces[0].Level; got != row.level {
				t.Errorf("the ready line shows level %s, want %s", got, row.level)
			}
			if got := p.view("code").Isolation; got != row.level {
				t.Errorf("`space list` shows level %s, want %s", got, row.level)
			}
			if !strings.Contains(p.text(), row.want) {
				t.Errorf("the screen has no %q", row.want)
			}
		})
	}
	t.Run("demanded", func(t *testing.T) {
		p := startProductWith(t, []string{"SPACEHOST_DISABLE=userns"}, t.TempDir(), codeDir, "--isolation", "namespaces")
		<-p.ended
		if code := p.cmd.ProcessState.ExitCode(); code == 0 || !strings.Contains(p.text(), "--isolation: this machine does not offer the level namespaces: userns is disabled") {
			t.Errorf("exit code %d, want a mistake of --isolation", code)
		}
	})
}

// TestStateInTheSpacesFolder: the Space would read the host's keys in its own folder.
func TestStateInTheSpacesFolder(t *testing.T) {
	requireLevel(t, "files")
	folder := filepath.Join(t.TempDir(), "code")
	if err := os.CopyFS(folder, os.DirFS(codeDir)); err != nil {
		t.Fatal(err)
	}
	p := startProduct(t, filepath.Join(folder, "state"), folder, "--isolation", "files")
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.text(), "contains the state folder "+folder+"/state") {
		t.Errorf("exit code %d, want 1 and the reason", code)
	}
}
