package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNodeScript prints the script of a pool of a file, and refuses flags that a job could not use.
func TestNodeScript(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"app", "state"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "lab.yaml")
	text := "cluster: {listen: \"10.0.0.5:7443\"}\npools: [{slurm: {name: lab, gres: \"gpu:2\", labels: [h200]}}]\nspaces: [{folder: app, address: \"127.0.0.1:7861\"}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := spacehostOn(t.Context(), "", "node", "script", "slurm", "--config", file)
	for _, want := range []string{"#SBATCH --gres=gpu:2", "10.0.0.5:7443", "h200", "TOKEN_FILE"} {
		if got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("got %+v, want %s in it", got, want)
		}
	}
	flags := []string{"node", "script", "slurm", "--join", "front.lab.example:7443", "--token-file", "/home/ada/token"}
	if got := spacehostOn(t.Context(), "", append(flags, "--gpus", "0,1")...); got.code != 0 || !strings.Contains(got.out, "front.lab.example:7443") {
		t.Errorf("got %+v", got)
	}
	for _, wrong := range [][]string{{"--name", strings.Repeat("a", 31)}, {"--gpus", "many"}, {"--program", "bin/spacehost"}, {"--folder", "state"}, {"--join", "front"}} {
		if got := spacehostOn(t.Context(), "", append(flags, wrong...)...); got.code != 2 || !strings.Contains(got.err, wrong[0]) {
			t.Errorf("%q: got %+v, want code 2 and the name of the flag", wrong, got)
		}
	}
}
