package proctree

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeVariable makes the test binary a fake process. Its value is a node as JSON.
const fakeVariable = "SPACEHOST_FAKE_NODE"

// node is one process of a fake tree.
type node struct {
	Name           string
	Group, Session bool // leads its own process group or session
	IgnoresTERM    bool
	Subreaper      bool   // of its descendants
	Exits          bool   // exits once its children have been started
	Unreaped       bool   // remains a zombie after its exit
	Headless       bool   // ends its first thread and keeps the others
	ExitsOnTERM    bool   // by a handler, as a worker of spaces
	Steps          string // file that grows by a byte per millisecond
	Allocates      int    // bytes of memory that it uses, besides its own
	Delegates      string // base of cgroups that it enters, and whose hugetlb controller it tries to delegate
	Children       []node
}

func (n node) size() int {
	size := 1
	for _, child := range n.Children {
		size += child.size()
	}
	return size
}

// env returns variables that make this binary the node.
func (n node) env() []string {
	text, err := json.Marshal(n)
	if err != nil {
		panic(err)
	}
	return []string{fakeVariable + "=" + string(text), "GORACE=atexit_sleep_ms=0"}
}

func init() {
	if os.Getenv(fakeVariable) != "" {
		runtime.LockOSThread() // main runs on the first thread, which a headless node ends
	}
}

// beFake starts the children of the node, prints "name pid" and waits for a signal. It never returns.
func beFake() {
	var n node
	if err := json.Unmarshal([]byte(os.Getenv(fakeVariable)), &n); err != nil {
		panic(err)
	}
	if n.IgnoresTERM {
		signal.Ignore(syscall.SIGTERM)
	}
	if n.Subreaper {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // Linux 3.4
	}
	if n.Delegates != "" {
		if err := enter(n.Delegates, os.Getpid()); err != nil {
			panic(err)
		}
	}
	for _, child := range n.Children {
		cmd := child.start()
		if !child.Unreaped {
			go func() { _ = cmd.Wait() }()
		}
	}
	memory := make([]byte, n.Allocates)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	if n.Delegates != "" {
		_ = (&Cgroups{Base: n.Delegates}).delegate([]string{"hugetlb", "absent"}) // the test looks at the result
	}
	if n.Steps != "" {
		go step(n.Steps)
	}
	fmt.Println(n.Name, os.Getpid())
	defer runtime.KeepAlive(memory)
	switch {
	case n.Exits:
		os.Exit(0)
	case n.Headless:
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
	}
	forever := make(chan os.Signal, 1)
	signal.Notify(forever, syscall.SIGUSR1)
	if n.ExitsOnTERM {
		signal.Notify(forever, syscall.SIGTERM)
	}
	<-forever
	os.Exit(0)
}

// step never returns.
func step(path string) {
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	for range time.Tick(time.Millisecond) {
		_, _ = file.Write([]byte{'.'})
	}
}

// start runs the node with the stdout of this process.
func (n node) start() *exec.Cmd {
	path, _ := os.Executable()
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), n.env()...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: n.Group, Setsid: n.Session}
	if err := cmd.Start(); err != nil {
		fmt.Println("fake cannot start a child:", err)
		os.Exit(70)
	}
	return cmd
}

// self is the path of this binary, the fake process.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
