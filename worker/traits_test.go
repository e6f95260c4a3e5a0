package worker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/proctree"
	"spacehost/internal/proctree/proctreetest"
)

// knownDifferences lists all that an app can observe of the runner, with the reason. Each function reports whether
// the difference is exactly the known one.
var knownDifferences = map[string]struct {
	reason string
	known  func(added, missing []string) bool
}{
	"modules at the first line": {
		"the runner needs some of the standard library; its own modules are not there",
		func(added, missing []string) bool {
			return len(missing) == 0 && !slices.ContainsFunc(added, isNotNeeded)
		},
	},
	"sys.path_importer_cache": {
		"the folders of those modules, without the runner's folder",
		func(added, missing []string) bool {
			return len(missing) == 0 && !slices.ContainsFunc(added, func(path string) bool {
				return isNotNeeded(filepath.Base(path)) || strings.HasPrefix(path, proctreetest.Root)
			})
		},
	},
	"sys.meta_path": {
		"a finder, to hook Gradio when the app imports it, and not before",
		func(added, missing []string) bool {
			return len(missing) == 0 && slices.Equal(added, []string{"Finder"})
		},
	},
	"descriptors": {
		"the channel to the host, and memory for the stacks of its threads",
		func(added, missing []string) bool {
			return len(missing) == 0 && slices.Equal(added, []string{"/memfd", "socket"})
		},
	},
	"descriptors of a forked child": {
		"the numbers of both are /dev/null: no other file may get them while an object owns them",
		func(added, missing []string) bool {
			return len(missing) == 0 && slices.Equal(added, []string{"/dev/null", "/dev/null"})
		},
	},
	"environment of the exec": {
		"the variables that load the runner; the secrets are missing, as intended",
		func(added, missing []string) bool {
			return len(added) == 2 && strings.HasPrefix(added[0], "PYTHONPATH=") && added[1] == "SPACEHOST_FD=3" && slices.Contains(missing, "TOKEN=secret")
		},
	},
	"threads of the process": {
		"one thread waits for the host's frames; Python's threading module does not list it",
		func(added, missing []string) bool { return slices.Equal(added, []string{"waits"}) && len(missing) == 0 },
	},
	"printed": {
		"because of that thread, Python from 3.12 on warns of a fork in __main__ (as it does once there is a server)",
		func(added, missing []string) bool {
			return len(missing) == 0 && !slices.ContainsFunc(added, func(line string) bool {
				return !strings.Contains(line, "is multi-threaded, use of fork() may lead to deadlocks in the child") && !strings.HasSuffix(line, " = os.fork()")
			})
		},
	},
}

// runnerNeeds lists the modules of the standard library that the runner imports, directly or indirectly, on Python
// 3.10 to 3.13. It excludes modules that an app may want to patch before their first use (socket, ssl, threading,
// asyncio).
var runnerNeeds = strings.Fields("__future__ _collections _functools _json _locale _operator _socket _sre _struct _typing collections " +
	"contextlib copyreg encodings enum faulthandler fcntl functools itertools json keyword mmap operator re reprlib sre_compile sre_constants sre_parse struct types typing warnings")

func isNotNeeded(module string) bool {
	top, _, _ := strings.Cut(module, ".")
	return !slices.Contains(runnerNeeds, top)
}

// difference compares two lists regardless of order.
func difference(plain, ours any) (added, missing []string) {
	left, _ := ours.([]any)
	for _, one := range plain.([]any) {
		if at := slices.Index(left, one); at >= 0 {
			left = slices.Delete(slices.Clone(left), at, at+1)
		} else {
			missing = append(missing, fmt.Sprint(one))
		}
	}
	for _, one := range left {
		added = append(added, fmt.Sprint(one))
	}
	return added, missing
}

// An app cannot detect that it runs under spacehost.
func TestTheRunnerIsInvisible(t *testing.T) {
	for name, own := range map[string][]string{
		"bare":                          nil,
		"with a sitecustomize":          {"PYTHONPATH=" + appDir(t, "traits-own")},
		"with odd entries, a safe path": {"PYTHONPATH=:relative::/no/such/folder:" + appDir(t, "everything"), "PYTHONSAFEPATH=1", "PYTHONNOUSERSITE=1"},
		"in dev mode":                   {"PYTHONDEVMODE=1", "PYTHONHASHSEED=0", "PYTHONDONTWRITEBYTECODE=1"},
	} {
		t.Run(name, func(t *testing.T) {
			env := pythonEnv(t, testPython(t), own...)
			run := filepath.Join(tempDir(t), "run")
			// The plain run comes first: it has the marker too, and would be ended with the other.
			plainLines, plainCode := runPlain(t, filepath.Join(run, "cgroup"), env)
			p, r := startApp(t, "traits", func(c *ProcessConfig) {
				c.Env, c.Secrets, c.RunDir = env, map[string]string{"TOKEN": "secret"}, run
			})
			within(t, patient, "the app ends", p.Done())
			if want := fmt.Sprintf("it exited with code %d", plainCode); p.Err().Error() != want || plainCode != 7 {
				t.Errorf("%v, want %s", p.Err(), want)
			}
			plain, ours := splitTraits(t, plainLines), splitTraits(t, r.printed())
			if len(plain) < 50 || len(ours) != len(plain) || len(plain["at exit, in order"].([]string)) != 2 {
				t.Errorf("%d traits, and %d", len(plain), len(ours))
			}
			for trait, want := range plain {
				got := ours[trait]
				if one, known := knownDifferences[trait]; known {
					if added, missing := difference(want, got); !one.known(added, missing) {
						t.Errorf("%s differs more than known (%s): added %q, missing %q", trait, one.reason, added, missing)
					}
				} else if !reflect.DeepEqual(got, want) {
					t.Errorf("%s\n got %v\nwant %v", trait, got, want)
				}
			}
			if own, _ := strings.CutPrefix(strings.Join(own, ""), "PYTHONPATH="); strings.HasSuffix(own, "traits-own") {
				if got := ours["sitecustomize ran"]; got != filepath.Join(own, "sitecustomize.py") {
					t.Errorf("the environment's own sitecustomize: %v", got)
				}
			}
		})
	}
}

// runPlain runs the app as its author would.
func runPlain(t *testing.T, marker string, env []string) (lines []string, code int) {
	t.Helper()
	cmd := exec.Command(testPython(t), "app.py")
	cmd.Dir, cmd.Env = appDir(t, "traits"), append(slices.Clone(env), proctree.MarkerVariable+"="+marker, "TOKEN=secret")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err strings.Builder
	cmd.Stderr = &err
	out, _ := cmd.Output()
	if err.Len() > 0 {
		t.Errorf("stderr of plain python: %s", err.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), cmd.ProcessState.ExitCode()
}

// splitTraits returns the traits that the app printed. Its other output is one of them.
func splitTraits(t *testing.T, lines []string) map[string]any {
	t.Helper()
	var traits map[string]any
	printed, atExit := []any{}, []string{}
	for _, line := range lines {
		data, ok := strings.CutPrefix(line, "TRAITS ")
		if strings.HasPrefix(line, "atexit: ") {
			atExit = append(atExit, line)
		} else if !ok {
			printed = append(printed, line)
		} else if err := json.Unmarshal([]byte(data), &traits); err != nil {
			t.Fatal(err)
		}
	}
	if traits == nil {
		t.Fatalf("no traits in %q", lines)
	}
	traits["printed"], traits["at exit, in order"] = printed, atExit
	return traits
}

// rawHost plays the host for cases that a Process cannot produce. It has received hello.
type rawHost struct {
	cmd    *exec.Cmd
	ours   net.Conn
	marker string
	lines  chan string
	ended  chan struct{}
}

func newRawHost(t *testing.T, app string) *rawHost {
	t.Helper()
	runnerDir, err := InstallRunner(filepath.Join(proctreetest.Root, "runner"))
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	h := &rawHost{ours: ours, marker: filepath.Join(tempDir(t), "cgroup"), lines: make(chan string, 1000), ended: make(chan struct{})}
	h.cmd = exec.Command(testPython(t), "app.py")
	h.cmd.Dir, h.cmd.ExtraFiles = appDir(t, app), []*os.File{theirs}
	h.cmd.Env = append(pythonEnv(t, testPython(t)), "SPACEHOST_FD=3", "PYTHONPATH="+runnerDir, proctree.MarkerVariable+"="+h.marker)
	stdout, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.cmd.Stdout, h.cmd.Stderr = out, out
	err = h.cmd.Start()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(h.lines)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			h.lines <- lines.Text()
		}
	}()
	go func() { _ = h.cmd.Wait(); close(h.ended) }()
	t.Cleanup(func() {
		ours.Close()
		_ = h.cmd.Process.Kill()
		<-h.ended
		(&proctree.Processes{}).EndOrphans(h.marker)
		<-read
		stdout.Close()
	})
	f, err := ReadFrame(ours)
	if r, _ := parseReport(f); err != nil || r.Op != "hello" || r.Protocol != protocol {
		t.Fatalf("hello is %s, %v", f.Header, err)
	}
	return h
}

func (h *rawHost) configure(t *testing.T, secrets map[string]string) {
	t.Helper()
	order := ProcessConfig{Port: 40000, Key: "key", Public: "http://127.0.0.1:7860/", Secrets: secrets}.order(true)
	if _, err := order.WriteTo(h.ours); err != nil {
		t.Fatal(err)
	}
}

// After the exit of the host, no other program would end the processes of its Spaces.
func TestTheRunnerExitsWithItsHost(t *testing.T) {
	h := newRawHost(t, "family")
	h.configure(t, map[string]string{})
	var seen []string
	processes := map[string]proctree.Process{}
	for len(processes) < 7 {
		var name string
		var pid int
		line := within(t, patient, fmt.Sprintf("all processes are running; now %v", processes), h.lines)
		if line == "" {
			t.Fatalf("the app has ended: only %v came up, %q", processes, seen)
		}
		seen = append(seen, line)
		if _, err := fmt.Sscanf(line, "pid %s %d", &name, &pid); err == nil {
			s, _ := proctree.ReadStat(pid)
			processes[name] = s.Process
		}
	}
	h.ours.Close()
	within(t, 2*time.Second, "the runner has exited", h.ended)
	if code := h.cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	for name, p := range processes {
		if !p.Await(time.Second) {
			t.Errorf("%s (pid %d) is still running", name, p.PID)
		}
	}
}

// site.py ignores errors in sitecustomize. If the runner did not exit by itself, the app would run without its host and
// unguarded.
func TestTheAppDoesNotRunWithoutItsHost(t *testing.T) {
	t.Run("the host exits before its configuration", func(t *testing.T) {
		h := newRawHost(t, "family")
		h.ours.Close()
		h.refused(t, "EOFError")
	})
	t.Run("an invalid secret", func(t *testing.T) {
		h := newRawHost(t, "family")
		h.configure(t, map[string]string{"A=B": "c"})
		h.refused(t, "ValueError: illegal environment variable name")
	})
}

func (h *rawHost) refused(t *testing.T, why string) {
	t.Helper()
	within(t, patient, "the interpreter ends", h.ended)
	if code := h.cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	var printed bool
	for line := range h.lines {
		if strings.HasPrefix(line, "pid ") {
			t.Errorf("the app ran: %s", line)
		}
		printed = printed || strings.HasPrefix(line, why)
	}
	if !printed {
		t.Errorf("it did not print %q", why)
	}
}
