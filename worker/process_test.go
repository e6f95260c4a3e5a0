package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/proctree"
)

// recorder records the reports and the output of a runner.
type recorder struct {
	note func(text string) // nil: notes are not recorded

	mu      sync.Mutex
	reports []recorded
	lines   []string
}

var _ Reporter = (*recorder)(nil)

type recorded struct {
	report
	Payload string
}

func (r *recorder) Report(f Frame) error {
	header, err := parseReport(f)
	if err != nil {
		return err
	}
	if header.Op == "hello" {
		return unexpected(header)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reports = append(r.reports, recorded{header, string(f.Payload)})
	return nil
}

func (r *recorder) Mark(int) {}

func (r *recorder) Note(text string) {
	if r.note != nil {
		r.note(text)
	}
}

func (r *recorder) Print(_, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, text)
}

func (r *recorder) printed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.lines...)
}

// await returns the first report that matches.
func (r *recorder) await(t testing.TB, what string, match func(recorded) bool) (found recorded) {
	t.Helper()
	eventually(t, what, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, one := range r.reports {
			if match(one) {
				found = one
				return true
			}
		}
		return false
	})
	return found
}

func (r *recorder) awaitOp(t testing.TB, op string) recorded {
	t.Helper()
	return r.await(t, "the Space reports "+op, func(one recorded) bool { return one.Op == op })
}

// startFake starts a fake runner that is ended with the test.
func startFake(t testing.TB, mode, text string, change ...func(*ProcessConfig)) (*Process, *recorder) {
	t.Helper()
	r := &recorder{}
	config := ProcessConfig{
		Space: "test", Dir: t.TempDir(), AppFile: "app.py", Python: self(t), Runner: "/nowhere",
		RunDir: filepath.Join(tempDir(t), "instance"), Env: fakeEnv(mode, text),
		Port: 40000, Key: "key", Public: "http://127.0.0.1:7860/", Reporter: r,
	}
	for _, c := range change {
		c(&config)
	}
	p, err := StartProcess(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		p.End(ended, 0)
	})
	return p, r
}

func TestExitReasons(t *testing.T) {
	for _, row := range []struct{ mode, text, reason, tail string }{
		{"exits", "0", "it exited with code 0", "SyntaxError: invalid syntax"},
		{"exits", "3", "it exited with code 3", "SyntaxError: invalid syntax"},
		{"exits", "signal", "it was killed by SIGKILL from another program, most often for lack of memory", "SyntaxError: invalid syntax"},
		{"mid-frame", "", "it exited with code 7", ""},
		{"closes", "", "it closed its channel to the host", ""},
		{"sends", framesText(sentFrame{Header: map[string]any{"op": "hello", "protocol": 99}}), "the Space violated the frame protocol: protocol 99, want 1", ""},
		{"sends", framesText(sentFrame{Header: manifestHeader(0)}), `the Space violated the frame protocol: unexpected "manifest": hello comes first and only once`, ""},
		{"sends", framesText(helloFrame, helloFrame), `the Space violated the frame protocol: unexpected "hello": hello comes first and only once`, ""},
		{"sends", framesText(helloFrame, sentFrame{Header: "GET / HTTP/1.1\r\n\r\n"}), "above the limit", ""},
		{"sends", framesText(sentFrame{Header: "\x00\x00\x00\x02\x00\x00\x00\x00[]"}), "the header is not a JSON object", ""},
		{"sends", framesText(helloFrame, sentFrame{Header: map[string]any{"op": "done", "event": 7}}), "the Space violated the frame protocol: header: json: cannot unmarshal number", ""},
	} {
		t.Run(strings.Join(strings.Fields(row.mode+" "+row.reason), " "), func(t *testing.T) {
			p, _ := startFake(t, row.mode, row.text)
			within(t, patient, "the Process is done", p.Done())
			if got := p.Err().Error(); !strings.Contains(got, row.reason) {
				t.Errorf("it ended with %q, want %q", got, row.reason)
			}
			if tail := strings.Join(p.Tail(), "\n"); !strings.Contains(tail, row.tail) {
				t.Errorf("its last output is %q, want %q in it", tail, row.tail)
			}
			if (proctree.Process{PID: p.PID, Start: p.tree.Root.Start}).Alive() {
				t.Error("it is still running")
			}
		})
	}
}

func TestARunnerThatNeverSendsHello(t *testing.T) {
	p, _ := startFake(t, "silent", "", func(c *ProcessConfig) { c.HelloTimeout = 50 * time.Millisecond })
	within(t, patient, "the Process is done", p.Done())
	if got := p.Err().Error(); !strings.Contains(got, "did not load the runner within 50ms") || !strings.Contains(got, "PYTHONPATH") {
		t.Errorf("it ended with %q", got)
	}
}

func TestEnd(t *testing.T) {
	t.Run("at once on SIGTERM", func(t *testing.T) {
		p, r := startFake(t, "good", "")
		r.awaitOp(t, "manifest")
		began := time.Now()
		p.End(context.Background(), time.Minute)
		if took := time.Since(began); took > 45*time.Second {
			t.Errorf("it took %s", took)
		}
		if got := p.Err().Error(); got != "it was killed by signal 15 (terminated)" {
			t.Error(got)
		}
		p.End(context.Background(), time.Minute) // a second End has no effect
	})
	t.Run("after the grace if it ignores SIGTERM", func(t *testing.T) {
		p, r := startFake(t, "ignores-term", "")
		r.awaitOp(t, "manifest")
		began := time.Now()
		p.End(context.Background(), 300*time.Millisecond)
		if took := time.Since(began); took < 300*time.Millisecond || took > 45*time.Second {
			t.Errorf("it took %s", took)
		}
		if got := p.Err().Error(); got != "it was killed by signal 9 (killed)" {
			t.Error(got)
		}
	})
	t.Run("before the grace if the context ends", func(t *testing.T) {
		p, r := startFake(t, "ignores-term", "")
		r.awaitOp(t, "manifest")
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { p.End(ctx, time.Hour); close(ended) }()
		cancel()
		within(t, patient, "End returns", ended)
	})
	t.Run("a stopped one", func(t *testing.T) {
		p, r := startFake(t, "good", "")
		r.awaitOp(t, "manifest")
		if err := syscall.Kill(p.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		p.Send(newFrame(struct{}{}, make([]byte, 8<<20))) // more than a socket buffers: the writer blocks
		p.End(context.Background(), 50*time.Millisecond)
	})
}

// A child of an exited runner may keep its stdout and its channel open. The exit must be reported without waiting
// for it.
func TestExitIsSeenAlthoughAChildHoldsThePipes(t *testing.T) {
	p, r := startFake(t, "holder", "")
	var child int
	_, _ = fmt.Sscan(r.awaitOp(t, "done").Error, &child) // its last report
	within(t, time.Second, "the Process is done", p.Done())
	if p.Err().Error() != "it exited with code 5" {
		t.Error(p.Err())
	}
	eventually(t, "its child has exited", func() bool { // it was killed, which takes a moment
		_, alive := proctree.ReadStat(child)
		return child != 0 && !alive
	})
}

func TestADaemonIsFoundByItsMarker(t *testing.T) {
	p, r := startFake(t, "daemon", "")
	r.awaitOp(t, "manifest")
	var daemon int
	eventually(t, "the daemon prints its pid", func() bool {
		for _, line := range r.printed() {
			_, _ = fmt.Sscanf(line, "daemon %d", &daemon)
		}
		return daemon != 0
	})
	s, alive := proctree.ReadStat(daemon)
	if !alive || s.Parent == p.PID || s.Group == p.PID {
		t.Fatalf("daemon %+v (alive: %v) has not left runner %d", s, alive, p.PID)
	}
	processes := &proctree.Processes{}
	processes.Register("test", p.Instance, p.tree)
	if _, start, ok := processes.FromInside(p.Instance, daemon); !ok || start != s.Start {
		t.Errorf("Owns(daemon) = %d, %v; want %d", start, ok, s.Start)
	}
	p.End(context.Background(), time.Minute)
	if s.Alive() {
		t.Error("the daemon is still running after its Space has ended")
	}
}

func TestOutput(t *testing.T) {
	t.Run("a flood", func(t *testing.T) {
		p, r := startFake(t, "prints", "20000 20")
		within(t, patient, "the Process is done", p.Done())
		lines, tail := r.printed(), p.Tail()
		if len(lines) != 20001 || lines[0] != strings.Repeat("0", 20) || lines[19999] != fmt.Sprintf("%020d", 19999) || lines[20000] != "last" {
			t.Errorf("got %d lines, the last is %q", len(lines), lines[len(lines)-1])
		}
		if len(tail) != tailLines || tail[tailLines-1] != "last" || tail[0] != fmt.Sprintf("%020d", 20001-tailLines) {
			t.Errorf("the tail has %d lines, from %q to %q", len(tail), tail[0], tail[len(tail)-1])
		}
	})
	t.Run("a line of 200 kB comes in pieces", func(t *testing.T) {
		p, r := startFake(t, "prints", "1 200000")
		within(t, patient, "the Process is done", p.Done())
		lines := r.printed()
		if len(lines) != 5 || len(lines[0]) != lineLimit || lines[4] != "last" || strings.Join(lines[:4], "") != strings.Repeat("0", 200000) {
			t.Errorf("got %d pieces", len(lines))
		}
	})
}

// /proc shows the environment of the exec to every process of the same user; secrets must not be in it.
func TestSecretsAreNotInTheEnvironmentOfTheExec(t *testing.T) {
	p, r := startFake(t, "good", "", func(c *ProcessConfig) {
		c.Secrets = map[string]string{"TOKEN": "very-secret"}
		c.Env = append(c.Env, "OPEN=yes", "PYTHONPATH=/own")
	})
	r.awaitOp(t, "manifest")
	eventually(t, "the secret arrives", func() bool {
		return strings.Contains(strings.Join(r.printed(), "\n"), "given TOKEN very-secret")
	})
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
	if err != nil {
		t.Fatal(err)
	}
	environ := string(data)
	for _, want := range []string{"OPEN=yes\x00", "PYTHONPATH=/nowhere:/own\x00", proctree.MarkerVariable + "=" + p.tree.Marker + "\x00"} {
		if !strings.Contains(environ, want) {
			t.Errorf("%q is not in %q", want, environ)
		}
	}
	for _, secret := range []string{"very-secret", p.config.Key + "\x00", "PYTHONPATH=/own"} {
		if strings.Contains(environ, secret) {
			t.Errorf("%q is in %q", secret, environ)
		}
	}
}

// `spaces` reads its cgroup path from the file at the marker's path (spaces/zero/utils.py).
func TestRunFolder(t *testing.T) {
	p, r := startFake(t, "good", "")
	r.awaitOp(t, "manifest")
	text, err := os.ReadFile(p.tree.Marker)
	if want := "1:devices:/spacehost/test/instance\n0::/spacehost/test/instance\n"; err != nil || string(text) != want {
		t.Errorf("got %q (%v), want %q", text, err, want)
	}
	info, err := os.Stat(p.config.RunDir)
	if err != nil || info.Mode().Perm() != 0o700 || p.Instance != "instance" {
		t.Errorf("run folder %v (%v) of %q", info.Mode(), err, p.Instance)
	}
}

func TestStartErrors(t *testing.T) {
	config := ProcessConfig{Python: "/no/such/python", AppFile: "app.py", RunDir: filepath.Join(tempDir(t), "a"), Reporter: &recorder{}}
	if p, err := StartProcess(config); err == nil || !strings.Contains(err.Error(), "/no/such/python") {
		t.Errorf("got %v, %v", p, err)
	}
	config.Python, config.Secrets = self(t), map[string]string{"BIG": strings.Repeat("x", headerLimit)}
	if p, err := StartProcess(config); err == nil || !strings.Contains(err.Error(), "secrets") {
		t.Errorf("got %v, %v", p, err)
	}
	config.Secrets, config.RunDir = nil, filepath.Join("/proc/none", "b")
	if p, err := StartProcess(config); err == nil || !strings.Contains(err.Error(), "run folder") {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestInstallRunner(t *testing.T) {
	dir := t.TempDir()
	var found [4]string
	var all sync.WaitGroup
	for i := range found {
		all.Go(func() {
			path, err := InstallRunner(filepath.Join(dir, "runner"))
			if err != nil {
				t.Error(err)
			}
			found[i] = path
		})
	}
	all.Wait()
	for _, path := range found {
		if path != found[0] {
			t.Errorf("installed at %s and %s", path, found[0])
		}
	}
	var files []string
	err := filepath.WalkDir(filepath.Join(dir, "runner"), func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			name, _ := filepath.Rel(found[0], path)
			files = append(files, name)
		}
		return err
	})
	want := []string{"sitecustomize.py"}
	sources, _ := filepath.Glob("runner/spacehost_runner/*.py")
	for _, source := range sources {
		want = append(want, filepath.Join("spacehost_runner", filepath.Base(source)))
	}
	if got := strings.Join(files, " "); err != nil || got != strings.Join(want, " ") || len(sources) == 0 {
		t.Errorf("installed %s (%v), want %s", got, err, want)
	}
}
