package python

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// snippetScript returns the script lines that the snippets for GitHub and GitLab have in common. It fails the test if they differ.
func snippetScript(t *testing.T) string {
	t.Helper()
	var github struct {
		Jobs map[string]struct {
			Steps []struct{ Run string }
		}
	}
	readSnippet(t, "github-action.yml", &github)
	var steps []string
	for _, step := range github.Jobs["test"].Steps {
		if step.Run != "" {
			steps = append(steps, strings.TrimSpace(step.Run))
		}
	}
	var gitlab struct {
		Test struct{ Script []string }
	}
	readSnippet(t, "gitlab-ci.yml", &gitlab)
	got, want := strings.Join(gitlab.Test.Script, "\n"), strings.Join(steps, "\n")
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
