package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"spacehost/internal/cli"
	"spacehost/internal/proctree"
)

// outliving is a host at level namespaces without cgroups, and its Space with processes that try to outlive it.
type outliving struct {
	*redteam
	seconds string // the argument that the processes have, and no others
}

// TestNothingOutlives: processes of a Space and of a GPU worker leave their parent, session, group and environment, ignore
// signals, or fork for ever. None of them is left after a restart of the Space, SIGTERM or SIGKILL of the host, even without
// cgroups.
func TestNothingOutlives(t *testing.T) {
	requireLevel(t, "namespaces")
	for name, end := range map[string]func(o *outliving){
		"restart and then SIGKILL of the host": func(o *outliving) {
			o.wantNoneAfter("a restart", patience, func() { o.restart() })
			o.start()
			o.wantNoneAfter("SIGKILL of the host", killLimit(), func() { o.endWithAgent(syscall.SIGKILL) })
		},
		"SIGTERM of the host": func(o *outliving) {
			o.wantNoneAfter("SIGTERM of the host", patience, func() { o.endWithAgent(syscall.SIGTERM) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := &outliving{newRedteam(t, "namespaces", "cgroup"), fmt.Sprint(80000 + os.Getpid()%10000)}
			o.start()
			end(o)
		})
	}
}

// killLimit is one second, in which nothing is left on a machine with a free CPU. The machine may run other tests, too.
func killLimit() time.Duration {
	var load float64
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &load) // the first number is the load of the last minute
	}
	if load > float64(runtime.NumCPU()) {
		return 5 * time.Second
	}
	return time.Second
}

// start starts the processes in the Space and in a GPU worker.
func (o *outliving) start() {
	o.t.Helper()
	o.facts["seconds"] = o.seconds
	started := 0
	for _, place := range []string{"/attack_here", "/attack_in_worker"} {
		got := o.run(place, "daemons")["daemons"]
		n, err := strconv.Atoi(got.Detail)
		if !got.Succeeded || err != nil {
			o.t.Fatalf("%s: %+v", place, got)
		}
		started += n
	}
	eventually(o.t, "all ways to leave the Space run", patience, func() bool { return len(o.inside()) >= started+2 }) // process 1 and the runner
}

// inside lists the processes of the pid namespace of the Space, which none of them can leave.
func (o *outliving) inside() (found map[int]string) {
	o.t.Helper()
	return inNamespace(o.namespace())
}

// namespace returns the pid namespace of the Space's current start.
func (o *outliving) namespace() string {
	o.t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", o.view("redteam").PID))
	if err != nil {
		o.t.Fatal(err)
	}
	return link
}

// inNamespace lists the running processes of a pid namespace, by their pid on the host.
func inNamespace(link string) map[int]string {
	found := map[int]string{}
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid") // the pattern is well formed
	for _, path := range links {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2]) // the pattern admits numbers, and alive no other
		if own, err := os.Readlink(path); err != nil || own != link {
			continue
		}
		if _, running := proctree.ReadStat(pid); running { // a zombie may wait for its parent outside
			found[pid] = commandLine(pid)
		}
	}
	return found
}

// withArgument lists the running processes whose command line has the text, in whatever namespace.
func withArgument(text string) map[int]string {
	found := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, path := range files {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if line := commandLine(pid); strings.Contains(line, text) && alive(pid) {
			found[pid] = line
		}
	}
	return found
}

func commandLine(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // "" for a process that has exited
	return strings.ReplaceAll(strings.TrimRight(string(data), "\x00"), "\x00", " ")
}

// wantNoneAfter checks that no process of the present start is left within the time after end.
func (o *outliving) wantNoneAfter(what string, within time.Duration, end func()) {
	o.t.Helper()
	link := o.namespace()
	held, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", o.view("redteam").PID)) // otherwise the next start gets its number
	if err != nil {
		o.t.Fatal(err)
	}
	defer held.Close()
	if others, own := withArgument("sleep "+o.seconds+"."), inNamespace(link); len(others) == 0 || len(own) <= len(others) {
		o.t.Fatalf("before %s: %d processes with the argument, %d in the namespace, want more of the second", what, len(others), len(own))
	}
	end()
	began := time.Now()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left, named := inNamespace(link), withArgument("sleep "+o.seconds+".")
		if len(left)+len(named) == 0 {
			o.t.Logf("%s after %s nothing is left", time.Since(began).Round(time.Millisecond), what)
			return
		}
		select {
		case <-deadline.C:
			o.t.Fatalf("%s after %s these processes are left: %v, and with the argument: %v", within, what, left, named)
		case <-tick.C:
		}
	}
}

// restart restarts the Space and returns once its next start runs.
func (o *outliving) restart() {
	o.t.Helper()
	before := o.view("redteam").PID
	restartSpace(o.t.(*testing.T), o.product, "redteam")
	eventually(o.t, "the Space runs again", patience, func() bool {
		now := o.view("redteam")
		return now.PID != before && now.Stage == "RUNNING"
	})
	o.client = o.clientAt(o.Spaces[0].URL)
}

// restartSpace restarts a Space like an operator.
func restartSpace(t *testing.T, p *product, name string) {
	t.Helper()
	var out, stderr bytes.Buffer
	if code := cli.Run(t.Context(), []string{"space", "restart", name, "--state", p.State}, &out, &stderr); code != 0 {
		t.Fatalf("restart of %s: exit code %d: %s", name, code, stderr.String())
	}
}

// distantChild starts a process whose pid inside is larger than those of the other Spaces.
const distantChild = `
import os, time
child = 0
while child < 2000:
    if child:
        os.waitpid(child, 0)
    if (child := os.fork()) == 0:
        os._exit(0) if os.getpid() < 2000 else time.sleep(600)
print(child)`

// TestInnerPids: the worker of a lease is a process of the Space, by the pid that it has inside. Every other pid is refused: the
// lease's device would be watched for, or cleared of, a foreign process.
func TestInnerPids(t *testing.T) {
	requireLevel(t, "namespaces")
	r := newRedteam(t, "namespaces", "")
	var err error
	if r.facts["foreign"], err = strconv.Atoi(r.runCode(victim, r.token, distantChild)); err != nil {
		t.Fatal(err)
	}
	got := r.run("/attack_here", "pids")["pids"]
	var statuses map[string]int
	if err := json.Unmarshal([]byte(got.Detail), &statuses); err != nil {
		t.Fatalf("%v in %+v", err, got)
	}
	want := map[string]int{"the worker": http.StatusOK, "above every pid": http.StatusForbidden}
	for _, what := range []string{"the runner", "process 1", "0", "-1", "a process that has exited", "a thread", "the host", "another space", "a pid of another space", "no pid"} {
		want[what] = http.StatusForbidden
	}
	if !maps.Equal(statuses, want) {
		t.Errorf("/allow\n got %v\nwant %v", statuses, want)
	}
}
