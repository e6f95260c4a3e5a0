package sandbox

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
)

// evaluate prints the result of each expression that it is sent.
const evaluate = `
import os, socket, stat
def kind(path):
    try: mode = os.stat(path).st_mode
    except OSError as e: return type(e).__name__
    return "device" if stat.S_ISCHR(mode) else "other"
def attempt(f, *args):
    try: return f(*args)
    except OSError as e: return type(e).__name__
channel = socket.socket(fileno=3).makefile("rw")
for line in channel:
    print(eval(line), file=channel, flush=True)
`

// evaluator is a sandbox that evaluates Python expressions.
type evaluator struct {
	*fixture
	answers *bufio.Reader
}

func startEvaluator(t *testing.T, spec Spec) *evaluator {
	f := start(t, spec, evaluate)
	return &evaluator{f, bufio.NewReader(f.channel)}
}

func (e *evaluator) want(expression, want string) {
	e.t.Helper()
	fmt.Fprintln(e.channel, expression)
	if got, err := e.answers.ReadString('\n'); err != nil || strings.TrimSpace(got) != want {
		e.t.Errorf("%s is %q (%v), want %s", expression, got, err, want)
	}
}

func (e *evaluator) show(targets ...string) {
	e.t.Helper()
	if err := e.Show(e.t.Context(), targets); err != nil {
		e.t.Errorf("show %v: %v", targets, err)
	}
}

// TestNodesOnDemand shows and hides device nodes that stand for those of a driver, while the Space hinders it.
func TestNodesOnDemand(t *testing.T) {
	for name, user := range map[string]uint32{"namespaces": 0, "users": userA} {
		t.Run(name, func(t *testing.T) {
			if user != 0 {
				requireUsers(t)
			}
			nodesOnDemand(t, user)
		})
	}
}

func nodesOnDemand(t *testing.T, user uint32) {
	const whole, part = "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap3"
	e := startEvaluator(t, Spec{User: user, Mounts: []Mount{
		{Kind: Device, Source: "/dev/zero", Target: whole, OnDemand: true},
		{Kind: Device, Source: "/dev/full", Target: part, OnDemand: true},
	}})
	e.want(`kind("/dev/null"), kind("/dev/nvidia0"), kind("/dev/nvidia-caps/nvidia-cap3")`, "('device', 'FileNotFoundError', 'FileNotFoundError')")
	e.want(`attempt(os.listdir, "/.nodes"), kind("/.nodes/0")`, "([], 'FileNotFoundError')")
	e.want(`{kind(f"/proc/1/fd/{fd}/0") for fd in range(300)} - {"FileNotFoundError"}`, "{'PermissionError'}")
	e.show(whole)
	e.want(`kind("/dev/nvidia0"), kind("/dev/nvidia-caps/nvidia-cap3")`, "('device', 'FileNotFoundError')")
	e.want(`open("/dev/nvidia0", "rb").read(2)`, `b'\x00\x00'`)
	e.show(whole, part)
	e.want(`attempt(lambda: os.write(os.open("/dev/nvidia-caps/nvidia-cap3", os.O_WRONLY), b"x"))`, "OSError")
	e.want(`attempt(os.unlink, "/dev/nvidia0"), attempt(os.rename, "/dev/nvidia0", "/dev/mine")`, "('OSError', 'OSError')")
	e.want(`attempt(os.rename, "/dev/nvidia-caps", "/dev/mine"), kind("/dev/mine/nvidia-cap3")`, "(None, 'device')")
	e.want(`globals().update(kept=os.open("/dev/nvidia0", os.O_RDONLY))`, "None")
	e.show()
	e.want(`kind("/dev/nvidia0"), kind("/dev/nvidia-caps/nvidia-cap3"), kind("/dev/mine/nvidia-cap3")`, "('FileNotFoundError', 'FileNotFoundError', 'other')")
	e.want(`os.read(kept, 1)`, `b'\x00'`) // the kernel takes no open descriptor back
	e.show(part)
	e.want(`kind("/dev/nvidia0"), kind("/dev/nvidia-caps/nvidia-cap3")`, "('FileNotFoundError', 'device')")
	if err := e.Show(t.Context(), []string{part, "/dev/nvidia7"}); err == nil || !strings.Contains(err.Error(), "/dev/nvidia7") {
		t.Errorf("a node that is not there: %v", err)
	}
	e.want(`os.mkdir("/dev/nvidia0")`, "None")
	if err := e.Show(t.Context(), []string{whole}); err == nil {
		t.Error("a node on a folder of the Space: no error")
	}
	e.want(`os.rmdir("/dev/nvidia0")`, "None")
	e.show(whole)
	e.want(`kind("/dev/nvidia0"), kind("/dev/nvidia-caps/nvidia-cap3")`, "('device', 'FileNotFoundError')")
}

// TestShowAfterTheEnd checks that a Space that has ended does not block its host.
func TestShowAfterTheEnd(t *testing.T) {
	f := start(t, Spec{}, "pass")
	f.output()
	if err := f.Show(t.Context(), nil); err == nil {
		t.Error("no error")
	}
}
