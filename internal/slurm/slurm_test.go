package slurm

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var full = Script{
	JobName: "spacehost-lab-0a1b2c3d", Node: "lab", Partition: "gpu", Account: "physics", Gres: "gpu:2", Options: []string{"--qos=low", "--comment=Spaces of the lab"}, Time: 8 * time.Hour,
	Drain: 10 * time.Minute, Front: "front.lab.example:7443", Token: "shj_0_1_2", Program: "/opt/space host/spacehost", Labels: []string{"lab", "h200"},
}

// TestScript compares the script of a pool with its text.
func TestScript(t *testing.T) {
	want, err := os.ReadFile("testdata/pilot.sh")
	if err != nil {
		t.Fatal(err)
	}
	if got := full.Text(); got != string(want) {
		t.Errorf("the script is\n%s", got)
	}
}

// fakeCommands puts a folder with scripts at the beginning of PATH.
func fakeCommands(t *testing.T, commands map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range commands {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/bash\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

// TestScriptRuns runs scripts with a program in place of the agent: its arguments, its stdin, and the folders.
func TestScriptRuns(t *testing.T) {
	dir := fakeCommands(t, map[string]string{"agent program": `printf '<%s>' "$@"; echo; echo "environments $SPACEHOST_ENVIRONMENTS"; [ "$5" != - ] || cat`})
	root := filepath.Join(dir, "it's a root")
	ended, running := filepath.Join(root, "jobs", "1"), filepath.Join(root, "jobs", "2")
	for _, job := range []string{ended, running} {
		if err := os.MkdirAll(filepath.Join(job, "node"), 0o700); err != nil {
			t.Fatal(err)
		}
		lock := filepath.Join(job, "node", "lock")
		if err := os.WriteFile(lock, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(lock, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	holder := exec.Command("flock", filepath.Join(running, "node", "lock"), "bash", "-c", "echo held; read")
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { stdin.Close(); _ = holder.Wait() }()
	if _, err := stdout.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	s := full
	s.Program, s.State = filepath.Join(dir, "agent program"), root
	for _, row := range []struct {
		name       string
		change     func(*Script)
		gpus, want string
	}{
		{"a pool", func(*Script) {}, "0,1", "<agent><--join><front.lab.example:7443><--token-file><-><--name><lab-77><--label><lab><--label><h200><--gpus><0,1><--state><ROOT/jobs/77><--drain><600s>\nenvironments ROOT/environments\nshj_0_1_2\n"},
		{"by hand", func(s *Script) {
			s.Token, s.TokenFile, s.GPUs, s.Labels = "", "/home/ada/it's a token", "mock:2xH200", nil
		}, "", "<agent><--join><front.lab.example:7443><--token-file></home/ada/it's a token><--name><lab-77><--gpus><mock:2xH200><--state><ROOT/jobs/77><--drain><600s>\nenvironments ROOT/environments\n"},
	} {
		one := s
		row.change(&one)
		log := filepath.Join(root, "logs", "77.log")
		_ = os.Remove(log)
		c := exec.Command("bash", "-c", one.Text())
		c.Env = append(os.Environ(), "SLURM_JOB_ID=77", "CUDA_VISIBLE_DEVICES="+row.gpus)
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s: %v: %s", row.name, err, out)
		}
		got, err := os.ReadFile(log)
		if want := strings.ReplaceAll(row.want, "ROOT", root); err != nil || string(got) != want {
			t.Errorf("%s: the log is\n%s (%v), want\n%s", row.name, got, err, want)
		}
	}
	if _, err := os.Stat(ended); !os.IsNotExist(err) {
		t.Errorf("the folder of an ended job is still there (%v)", err)
	}
	if _, err := os.Stat(running); err != nil {
		t.Errorf("the folder of a running job: %v", err)
	}
}

// TestClient runs commands that stand in for those of Slurm.
func TestClient(t *testing.T) {
	dir := fakeCommands(t, map[string]string{
		"sbatch": `cat >"$(dirname "$0")/script"; env >"$(dirname "$0")/env"; echo "42;lab"`,
		"squeue": `[ "$5" = "--format=%i|%T|%N|%r" ] || exit 2
printf '7|PENDING||Resources\n8|RUNNING|n1|None\n9|COMPLETING|n1|None\n10|FAILED|n2|NonZeroExitCode\n11|CONFIGURING|n2|None\n12|SOMETHING_NEW|n2|None\n'`,
		"scancel": `echo "scancel: error: Kill job error on job id $2: Invalid job id specified" >&2; exit 1`,
	})
	t.Setenv("HF_TOKEN", "secret")
	var c Client
	if id, err := c.Submit(t.Context(), "#!/bin/sh\n"); err != nil || id != "42" {
		t.Errorf("submit: %q, %v", id, err)
	}
	script, _ := os.ReadFile(filepath.Join(dir, "script"))
	env, _ := os.ReadFile(filepath.Join(dir, "env"))
	if string(script) != "#!/bin/sh\n" || strings.Contains(string(env), "secret") || !strings.Contains(string(env), "PATH=") {
		t.Errorf("sbatch got the script %q and the environment\n%s", script, env)
	}
	want := []Job{
		{"7", Pending, "PENDING", "", "Resources"}, {"8", Running, "RUNNING", "n1", "None"}, {"9", Ending, "COMPLETING", "n1", "None"},
		{"10", Ended, "FAILED", "n2", "NonZeroExitCode"}, {"11", Running, "CONFIGURING", "n2", "None"}, {"12", Running, "SOMETHING_NEW", "n2", "None"},
	}
	if got, err := c.Jobs(t.Context(), "spacehost-lab"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("jobs: %+v, %v", got, err)
	}
	if err := c.Cancel(t.Context(), "7"); err == nil || err.Error() != "scancel: error: Kill job error on job id 7: Invalid job id specified" {
		t.Errorf("cancel: %v", err)
	}
}

// TestClientFailures: answers that are not understood, and commands that are missing.
func TestClientFailures(t *testing.T) {
	fakeCommands(t, map[string]string{"sbatch": "echo Submitted batch job 42", "squeue": "echo 'JOBID|STATE'"})
	var c Client
	_, submit := c.Submit(t.Context(), "")
	_, list := c.Jobs(t.Context(), "x")
	t.Setenv("PATH", t.TempDir())
	missing := c.Cancel(t.Context(), "7")
	for _, row := range []struct {
		err  error
		want string
	}{
		{submit, `sbatch: the answer "Submitted batch job 42\n" is not the ID of a job`},
		{list, `squeue: the line "JOBID|STATE\n" is not understood`},
		{missing, "scancel is not installed on this machine; install the client commands of Slurm, or remove the pool"},
	} {
		if wrong := (*CommandError)(nil); !errors.As(row.err, &wrong) || row.err.Error() != row.want {
			t.Errorf("got %v, want %q", row.err, row.want)
		}
	}
}

// TestCheckOption covers what may not be an extra option of sbatch.
func TestCheckOption(t *testing.T) {
	for _, row := range []struct{ option, want string }{
		{"--qos=low", ""}, {"--exclusive", ""}, {"--mem=64G", ""}, {"--nodelist=n1", ""}, {"--time-min=10", ""}, {"--comment=a b", ""},
		{"-N2", "is not an option of sbatch in the form --name or --name=value"}, {"qos=low", "is not an option"}, {"--", "is not an option"}, {"--qos low", "is not an option"},
		{"--nodes=2", "spacehost sets the option --nodes of sbatch itself"}, {"--arr=1-9", "spacehost sets the option --array"}, {"--export=ALL", "spacehost sets the option --export"},
		{"--comment=a\nb", "must have up to 200 printable ASCII characters"}, {`--comment="a"`, "must have up to 200"},
	} {
		err := CheckOption(row.option)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v, want %q", row.option, err, row.want)
		}
	}
}
