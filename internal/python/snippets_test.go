package python

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// githubScript returns the commands of a job of a workflow for GitHub Actions, and the inputs of its other steps.
func githubScript(t *testing.T, file, job string) (script string, inputs map[string]string) {
	t.Helper()
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct {
				Run  string
				With map[string]string
			}
		}
	}
	readSnippet(t, file, &workflow)
	var commands []string
	inputs = map[string]string{}
	for _, step := range workflow.Jobs[job].Steps {
		if step.Run != "" {
			commands = append(commands, strings.TrimSpace(step.Run))
		}
		maps.Copy(inputs, step.With)
	}
	return strings.Join(commands, "\n"), inputs
}

// gitlabJob is a job of .gitlab-ci.yml.
type gitlabJob struct {
	Script    []string
	Artifacts struct {
		Reports struct{ CodeQuality string }
	}
}

func (j gitlabJob) script() string { return strings.Join(j.Script, "\n") }

// snippetScript returns the script lines that the snippets for GitHub and GitLab have in common. It fails the test if they differ.
func snippetScript(t *testing.T) string {
	t.Helper()
	want, _ := githubScript(t, "github-action.yml", "test")
	var gitlab map[string]gitlabJob
	readSnippet(t, "gitlab-ci.yml", &gitlab)
	got := gitlab["test"].script()
	if got == "" || got != want {
		t.Fatalf("the script of gitlab-ci.yml differs from that of github-action.yml:\n%s\n---\n%s", got, want)
	}
	return got
}

// TestActionsArePinned: a tag of an action can be moved, a commit cannot. The version stands in a comment.
func TestActionsArePinned(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "examples", "ci", "github-action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	uses := strings.Count(string(text), "uses: ")
	if pinned := regexp.MustCompile(`uses: actions/[a-z-]+@[0-9a-f]{40} # v[0-9.]+\n`).FindAll(text, -1); uses == 0 || len(pinned) != uses {
		t.Errorf("%d of %d actions are pinned to a commit with its version in a comment", len(pinned), uses)
	}
}

func readSnippet(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "examples", "ci", name))
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// checkSnippets runs the scripts of the snippets about `spacehost check`, and reads the files that they give to GitHub and GitLab.
func checkSnippets(t *testing.T, e *emptyMachine) {
	t.Helper()
	if err := os.CopyFS(e.dir, os.DirFS(filepath.Join(root, "examples", "hello-zerogpu"))); err != nil {
		t.Fatal(err)
	}
	script, inputs := githubScript(t, "check-github-action.yml", "check")
	e.run(t, "sh", "-ec", script)
	var sarif struct {
		Version string
		Runs    []struct{ Results []struct{ RuleID string } }
	}
	if err := json.Unmarshal(readFrom(t, e, inputs["sarif_file"]), &sarif); err != nil || sarif.Version != "2.1.0" || len(sarif.Runs) != 1 {
		t.Errorf("the SARIF file: %v, %+v", err, sarif)
	}
	var gitlab map[string]gitlabJob
	readSnippet(t, "check-gitlab-ci.yml", &gitlab)
	e.run(t, "sh", "-ec", gitlab["check"].script())
	var quality []struct{ Fingerprint string }
	if err := json.Unmarshal(readFrom(t, e, gitlab["check"].Artifacts.Reports.CodeQuality), &quality); err != nil {
		t.Errorf("the Code Quality file: %v", err)
	}
}

func readFrom(t *testing.T, e *emptyMachine, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// checkBeforeCommit runs the real pre-commit with the snippet on a repository: a commit with an error is refused, and passes once
// the error is mended. tools has the programs of requirements.txt.
func checkBeforeCommit(t *testing.T, e *emptyMachine, tools string) {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(root, "examples", "ci", "pre-commit-config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	shell, err := exec.LookPath("bash") // of the script in .git/hooks
	if err != nil {
		t.Fatal(err)
	}
	programs := t.TempDir()
	for name, target := range map[string]string{"git": git, "bash": shell, "pre-commit": filepath.Join(tools, "bin", "pre-commit")} {
		if err := os.Symlink(target, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(e.dir, os.DirFS(filepath.Join(root, "examples", "hello-zerogpu"))); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{".pre-commit-config.yaml": string(config), "requirements.txt": "torch==2.4.0\n"} {
		if err := os.WriteFile(filepath.Join(e.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e.set("PRE_COMMIT_HOME", t.TempDir())
	out := e.run(t, "sh", "-ec", `
export PATH="$PATH:`+programs+`" GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com
git init --quiet .
pre-commit install
git add .
! git commit --message broken
echo torch > requirements.txt
git add .
git commit --message mended`)
	if refused, passed := strings.Index(out, "requirements.txt:1: error A201"), strings.LastIndex(out, "Passed"); refused < 0 || passed < refused {
		t.Errorf("pre-commit did not refuse the first commit and accept the second:\n%s", out)
	}
}

// hook is one hook of pre-commit, as .pre-commit-hooks.yaml and .pre-commit-config.yaml describe it.
type hook struct {
	ID, Name, Entry, Files string
	PassFilenames          bool `yaml:"pass_filenames"`
}

// TestHooksAgree compares the hook of this repository, which builds the program, with the snippet, which installs the package.
func TestHooksAgree(t *testing.T) {
	var own []hook
	readSnippet(t, filepath.Join("..", "..", ".pre-commit-hooks.yaml"), &own)
	var config struct{ Repos []struct{ Hooks []hook } }
	readSnippet(t, "pre-commit-config.yaml", &config)
	if len(own) != 1 || len(config.Repos) != 1 || len(config.Repos[0].Hooks) != 1 || own[0] != config.Repos[0].Hooks[0] || own[0].PassFilenames {
		t.Errorf(".pre-commit-hooks.yaml has %+v, the snippet %+v", own, config.Repos)
	}
}
