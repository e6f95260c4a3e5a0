package sandbox

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/failpoint"
)

// initName is the first word of the command line of init. No shell can type it as a command.
const initName = "spacehost: init of a Space"

// Descriptors of init. The interpreter keeps the first three and the channel.
const (
	channelFD = 3
	controlFD = 4
	specFD    = 5
	treesFD   = 6 // the first tree of openMounts
)

// initFailed is the exit code of init after a failed step.
const initFailed = 125

// Steps that callers distinguish (StepError.Step).
const (
	stepTrees = "open the folders as another user" // of the host
	StepClone = "create the namespaces"            // the start of init itself
	StepView  = "open the view of files"           // all mounts
	// stepAnswer is a step of the host: init has ended without a word, for example because it was killed.
	stepAnswer = "wait for init"
)

// initProcess is process 1 of a sandbox.
type initProcess struct {
	spec    initSpec
	control *net.UnixConn
	allowed bool           // the host has sent go
	runner  int            // pid of the interpreter
	signals chan os.Signal // to the interpreter
	nodes   nodes
}

func runInit() {
	runtime.LockOSThread()                                           // the interpreter inherits what confine does to this thread
	_ = os.WriteFile("/proc/self/comm", []byte("spacehost-init"), 0) // for ps and top; without it the name is exe
	p := &initProcess{signals: make(chan os.Signal, 8)}
	if step, err := p.begin(); err != nil {
		p.reportFailure(step, err)
		os.Exit(initFailed)
	}
	if p.runner == 0 { // a probe
		os.Exit(0)
	}
	go p.serve()
	go p.forwardSignals()
	p.reap()
}

// reportFailure returns once the host has sent go: a socket that is closed with an unread message resets its peer, which
// then reads the reset before the report.
func (p *initProcess) reportFailure(step string, err error) {
	if p.control == nil {
		return
	}
	_ = send(p.control, message{Op: "failed", Step: step}.withError(err)) // fails if the host has gone
	if !p.allowed {
		_ = p.awaitGo() // as above
	}
}

// begin performs the steps in order. The interpreter starts last, so after a failure nothing of the Space has run.
func (p *initProcess) begin() (step string, err error) {
	for _, s := range p.steps() {
		failpoint.Here("sandbox: " + s.name)
		if err := s.run(); err != nil {
			return s.name, err
		}
	}
	return "", nil
}

// initStep is one step of init. Its name appears in the error of a failed start.
type initStep struct {
	name string
	run  func() error
}

func (p *initProcess) steps() []initStep {
	return []initStep{
		{"read the configuration", p.readSpec},
		{"open the network", p.network},
		{StepView, p.view},
		{"set the host name", func() error { return unix.Sethostname([]byte("space")) }},
		{"wait for the host", p.awaitGo}, // so late because the move takes 10 ms
		{"separate the cgroup", func() error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"drop rights", func() error { return confine(p.spec.Spec) }},
		{"start the interpreter", p.startRunner},
		{"report the start", func() error { return send(p.control, message{Op: "started", PID: p.runner}) }},
	}
}

// readSpec reads the Spec. The host may have inherited descriptors from its own parent: none of them reaches the
// interpreter. Init has the control channel, so no process of the Space may trace it.
func (p *initProcess) readSpec() (err error) {
	if p.control, err = controlConn(controlFD); err != nil {
		return err
	}
	if err := unix.CloseRange(channelFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep descriptors: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("refuse tracing: %w", err)
	}
	f := os.NewFile(specFD, "spec")
	defer f.Close()
	return json.NewDecoder(f).Decode(&p.spec)
}

// awaitGo waits until the host has moved this process to its cgroup. The steps after it depend on the cgroup.
func (p *initProcess) awaitGo() error {
	m, files, err := receive(p.control)
	closeAll(files)
	if err == nil && m.Op != "go" {
		err = fmt.Errorf("unexpected message %q", m.Op)
	}
	p.allowed = err == nil
	return err
}

func (p *initProcess) network() error {
	files, err := openNetwork(p.spec.Spec)
	if err != nil {
		return err
	}
	defer closeAll(files)
	if len(files) == 0 {
		return nil
	}
	return send(p.control, message{Op: "sockets"}, files...)
}

// view opens the view and closes the trees, which contain more than it shows.
func (p *initProcess) view() error {
	if err := p.openView(); err != nil {
		return err
	}
	for _, m := range p.spec.Mounts {
		for _, tree := range []int{m.SourceTree, m.LayerTree} {
			if tree != 0 {
				_ = syscall.Close(tree) // no write to complete
			}
		}
	}
	return nil
}

func (p *initProcess) startRunner() (err error) {
	if len(p.spec.Argv) == 0 {
		return nil
	}
	signal.Notify(p.signals, syscall.SIGTERM, syscall.SIGINT) // before: one that comes now would end the sandbox
	p.runner, err = syscall.ForkExec(p.spec.Argv[0], p.spec.Argv, &syscall.ProcAttr{
		Dir: p.spec.Dir, Env: p.spec.Env, Files: []uintptr{0, 1, 2, channelFD},
		Sys: &syscall.SysProcAttr{Setsid: true}, // without a controlling terminal
	})
	if err != nil {
		return fmt.Errorf("%s in %s: %w", p.spec.Argv[0], p.spec.Dir, err)
	}
	return syscall.Close(channelFD)
}

// maxDials bounds the connections that are being established.
const maxDials = 64

// serve connects the host to ports of the Space. It ends with the host: the kernel then kills every process of the
// sandbox, because this is process 1.
func (p *initProcess) serve() {
	slots := make(chan struct{}, maxDials)
	for {
		m, files, err := receive(p.control)
		closeAll(files)
		if err != nil {
			os.Exit(initFailed)
		}
		switch m.Op {
		case "pidfd":
			p.answer(m, func() (*os.File, error) { return pidfd(m.PID) })
			continue
		case "show":
			_ = send(p.control, message{Op: "shown", ID: m.ID}.withError(p.nodes.show(m.Nodes))) // fails if the host has gone
			continue
		}
		select {
		case slots <- struct{}{}:
			go func() {
				defer func() { <-slots }()
				p.answer(m, func() (*os.File, error) { return dial(m.Port) })
			}()
		default:
			p.answer(m, func() (*os.File, error) { return nil, syscall.ECONNREFUSED })
		}
	}
}

// answer sends the result of find. A failed send means that the host has gone.
func (p *initProcess) answer(request message, find func() (*os.File, error)) {
	answer := message{Op: "answer", ID: request.ID}
	f, err := find()
	if err != nil {
		_ = send(p.control, answer.withError(err))
		return
	}
	defer f.Close()
	_ = send(p.control, answer, f)
}

func pidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// dialTime bounds one connection to the Space's own server.
const dialTime = 5 * time.Second

// dial connects to a port of the Space and returns the socket.
func dial(port int) (*os.File, error) {
	conn, err := (&net.Dialer{Timeout: dialTime}).Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*net.TCPConn).File()
}

// forwardSignals passes the host's request to end on to the interpreter.
func (p *initProcess) forwardSignals() {
	for s := range p.signals {
		_ = syscall.Kill(p.runner, s.(syscall.Signal)) // ESRCH: it has exited, and so will this process
	}
}

// reap waits for every orphan of the sandbox. It ends with the interpreter, and with it all other processes.
func (p *initProcess) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err != nil || pid != p.runner {
			continue
		}
		ended, code := message{Op: "ended", Code: status.ExitStatus()}, status.ExitStatus()
		if status.Signaled() {
			ended.Code, ended.Signal, code = 0, int(status.Signal()), 128+int(status.Signal())
		}
		_ = send(p.control, ended) // fails if the host has gone
		os.Exit(code)
	}
}
