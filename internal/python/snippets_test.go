package python

import (
	"os"
	"path/filepath"
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
