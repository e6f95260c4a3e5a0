package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/outbox"
	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
)

// Process is one start of a Space: the runner, the channel to it and the tree of processes below it.
type Process struct {
	Instance string // name of this start
	PID      int

	config  ProcessConfig
	cmd     *exec.Cmd
	channel net.Conn
	outbox  *outbox.Outbox
	tree    proctree.Tree
	dialer  dialer
	exited  chan struct{} // closed when the runner is reaped
	done    chan struct{} // closed when its tree has ended too
	err     error         // why it ended; valid once done is closed

	mu      sync.Mutex
	greeted bool
	// A standby gets goOrder once begun is set and, after configured, the config frame has been sent.
	begun, configured bool
	killing           bool  // the host has sent SIGKILL
	reason            error // why the host killed it, if it did

	tail   tail
	output *output
	oom    proctree.OOMWatch

	memoryLimit  int64       // that the host enforces; 0: none
	processLimit int         // likewise
	lowersCPU    bool        // its CPU limit lowers its priority
	forkFailed   atomic.Bool // it has printed that a process or thread did not start

	stacks *stackMemory // nil: none

	sandbox *sandbox.Sandbox // nil: none
	exit    Exit             // valid once done is closed
}

// ProcessConfig describes one start.
type ProcessConfig struct {
	Space   string // name of the Space
	Dir     string // folder of the Space, the working directory
	AppFile string // relative to Dir
	Python  string // the interpreter
	Runner  string // folder with sitecustomize.py (InstallRunner)
	RunDir  string // folder of this start, created by Start; its path marks the processes of this start
	Env     []string
	Secrets map[string]string // put into os.environ by the runner; never in /proc/*/environ
	Port    int               // port of the Space's own server
	Key     string            // key that requests to Port must carry
	Public  string            // URL at which visitors reach the Space
	Local   string            // URL at which the Space itself reaches it; empty: Public
	Device  int               // port of the device API
	// Simulated means that there is no GPU: torch then computes on the CPU (runner, fake_cuda.py).
	Simulated bool
	// Strict means that what ZeroGPU refuses fails in the Space, instead of printing a warning.
	Strict bool
	// Storage means that the Space has a folder of its own at /data.
	Storage bool
	// Standby means that the process executes the first imports of its app, and then waits for goOrder.
	Standby bool
	// Shield means that the Space's own process ignores SIGTERM that does not come from End (runner, shield.py). A Keeper does not use it.
	Shield bool `json:"-"`
	// Observe makes the runner observe the start (package check); nil: it does not.
	Observe      *observeOrder
	OutputRate   int64         // bytes per second that the Reporter receives of the output; 0: the default
	HelloTimeout time.Duration // limit for the hello frame; 0 means a minute
	Limits       proctree.Limits
	Confinement

	Reporter Reporter          `json:"-"`
	Logger   *zap.Logger       `json:"-"`
	Cgroups  *proctree.Cgroups `json:"-"` // nil: the start has no cgroup
	// IsHostPort reports a loopback port at which the host listens; nil: none.
	IsHostPort func(port int) bool `json:"-"`
	// CloseDoor closes the device API for this start, once none of its processes is left; nil: no call.
	CloseDoor func() `json:"-"`
}

// helloTimeout is ample for the start of an interpreter: hello is sent before the app's first line.
const helloTimeout = time.Minute

// StartProcess starts the interpreter on the app. The returned Process has not sent hello yet. After an error nothing of it runs.
func StartProcess(config ProcessConfig) (*Process, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.HelloTimeout == 0 {
		config.HelloTimeout = helloTimeout
	}
	if config.Secrets == nil {
		config.Secrets = map[string]string{} // JSON's null is not an object
	}
	if err := config.order(true).check(); err != nil {
		return nil, fmt.Errorf("send secrets to the Space: %w", err)
	}
	marker, err := writeMarker(config)
	if err != nil {
		return nil, err
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &Process{
		Instance: filepath.Base(config.RunDir), config: config, channel: ours,
		exited: make(chan struct{}), done: make(chan struct{}), outbox: outbox.New(ours), output: newOutput(config.Reporter.Print, config.OutputRate),
	}
	if err := p.startTree(theirs, marker); err != nil {
		ours.Close()
		return nil, err
	}
	p.stacks = newStackMemory()
	p.oom.Look(p.PID)
	go p.run()
	return p, nil
}

// startTree starts the first process of the tree, in its cgroup and its sandbox.
func (p *Process) startTree(theirs *os.File, marker string) error {
	p.cmd = p.command(theirs, marker)
	if p.config.Sandbox != nil {
		if err := p.wrap(theirs); err != nil {
			return err
		}
	}
	if err := p.begin(); err != nil {
		p.closeSandbox()
		return fmt.Errorf("start %s: %w", p.config.Python, err)
	}
	p.PID = p.cmd.Process.Pid
	root, _ := proctree.ReadStat(p.PID) // it cannot be reaped before run waits for it
	p.tree = proctree.Tree{Root: root.Process, Marker: marker, Cgroup: p.beginCgroup()}
	p.applyLimits()
	if p.sandbox == nil {
		p.dialer = &loopbackDialer{proctree.NewPortCheck(p.tree), p.config.IsHostPort}
		return nil
	}
	p.dialer = sandboxDialer{p.sandbox}
	return p.enterSandbox()
}

// beginCgroup moves the interpreter to a cgroup before it gets its configuration, and thus before the app's first
// line.
func (p *Process) beginCgroup() string {
	if p.config.Cgroups == nil {
		return ""
	}
	dir, err := p.config.Cgroups.Begin(p.Instance, p.PID)
	if err != nil {
		p.config.Logger.Warn("cannot create cgroup for space", zap.Error(err))
	}
	return dir
}

// order returns the config frame, the host's answer to hello. If this start has a cgroup, its workers need not be
// subreapers: a subreaper keeps the zombies of other processes.
func (c ProcessConfig) order(subreaper bool) Frame {
	return newFrame(configOrder{
		Op: "config", Environment: c.Secrets, Port: c.Port, Key: c.Key, PublicURL: c.Public, LocalURL: c.Local, DevicePort: c.Device, Simulated: c.Simulated,
		Subreaper: subreaper, Strict: c.Strict, Storage: c.Storage, Standby: c.Standby,
		Shield: c.Shield, Observe: c.Observe, StackSignal: int(stackSignal),
	}, nil)
}

// writeMarker creates the file from which `spaces` reads its cgroup path. The file's path is in the environment of
// every process of this start, including daemons. These processes are found by it.
func writeMarker(config ProcessConfig) (string, error) {
	if err := os.MkdirAll(config.RunDir, 0o700); err != nil {
		return "", fmt.Errorf("create run folder: %w", err)
	}
	path := filepath.Join(config.RunDir, "cgroup")
	group := fmt.Sprintf("/spacehost/%s/%s", config.Space, filepath.Base(config.RunDir))
	text := fmt.Sprintf("1:devices:%s\n0::%s\n", group, group) // spaces before 0.41 reads only the line of cgroup v1
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write cgroup file: %w", err)
	}
	return path, nil
}

func socketpair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create channel: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "channel")
	defer file.Close()
	theirs = os.NewFile(uintptr(fds[1]), "channel")
	conn, err := net.FileConn(file)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("create channel: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

func (p *Process) command(theirs *os.File, marker string) *exec.Cmd {
	cmd := exec.Command(p.config.Python, p.config.AppFile)
	cmd.Dir = p.config.Dir
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.Env = append(append([]string{}, p.config.Env...),
		"SPACEHOST_FD=3", "PYTHONPATH="+pythonPath(p.config), proctree.MarkerVariable+"="+marker)
	// The runner has its own session: Ctrl-C on the terminal reaches only the host, which ends Spaces in order, and the
	// scheduler gives each session the same share of the CPUs (sched(7), autogroup), however many processes it has.
	// There is no PDEATHSIG: the runner exits when the channel closes, and ends its workers first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func pythonPath(config ProcessConfig) string {
	for _, pair := range config.Env {
		if own, ok := strings.CutPrefix(pair, "PYTHONPATH="); ok && own != "" {
			return config.Runner + string(os.PathListSeparator) + own
		}
	}
	return config.Runner
}

// begin starts the runner with explicit pipes. With the pipes of os/exec, Wait would also wait for workers that
// inherited them.
func (p *Process) begin() error {
	var ends []*os.File
	var readers []*os.File
	for _, to := range []*io.Writer{&p.cmd.Stdout, &p.cmd.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(append(ends, readers...))
			return err
		}
		*to, ends, readers = w, append(ends, w), append(readers, r)
	}
	if err := p.giveOutput(ends); err != nil {
		closeAll(append(ends, readers...))
		return err
	}
	err := p.startCommand()
	closeAll(ends)
	if err != nil {
		closeAll(readers)
		return err
	}
	for i, r := range readers {
		p.tail.wg.Go(func() { p.copyLines([]string{Stdout, Stderr}[i], r) })
	}
	p.tail.files = readers
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Leave implements Running: the process ends, for its runner does so without the host.
func (p *Process) Leave() { p.Fail(errors.New("its host has ended")) }

// Tree implements LocalProcess.
func (p *Process) Tree() proctree.Tree { return p.tree }

// Show implements LocalProcess.
func (p *Process) Show(ctx context.Context, targets []string) error {
	if p.sandbox == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, showTime)
	defer cancel()
	if err := p.sandbox.Show(ctx, targets); err != nil && !errors.Is(err, sandbox.ErrGone) {
		return fmt.Errorf("show device nodes: %w", err)
	}
	return nil
}

// showTime bounds the work of process 1, which takes less than a millisecond.
const showTime = 5 * time.Second

// Done is closed once the runner is reaped and its tree has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns the reason of the exit as a sentence for the operator. It is valid after Done.
func (p *Process) Err() error { return p.err }

// Exit returns how the runner has ended. It is valid after Done.
func (p *Process) Exit() Exit { return p.exit }

// run serves the channel until the process has exited. Wait detects the exit, never the end of a pipe, because a
// worker can keep a pipe open.
func (p *Process) run() {
	defer close(p.done)
	timer := time.AfterFunc(p.config.HelloTimeout, p.checkHello)
	defer timer.Stop()
	var channel sync.WaitGroup
	channel.Go(func() { p.outbox.Run(p.channel) })
	channel.Go(p.listen)
	channel.Go(p.watchKills)
	channel.Go(p.watchMemory)
	channel.Go(p.watchProcesses)
	ended := p.wait()
	close(p.exited)
	killed := p.oom.Killed() // immediately, because the counters belong to the whole machine
	p.closeSandbox()
	p.outbox.Close()
	p.drain(&channel)
	p.tree.Kill(p.config.Logger)
	p.drainOutput()
	if p.config.CloseDoor != nil {
		p.config.CloseDoor()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.exit = Exit{Exit: ended, Stacks: p.stacks.text(closedAt), Dropped: p.output.dropped(), Hint: p.hint()}
	p.stacks.close()
	switch p.err = p.reason; {
	case p.exit.Stacks != "" && (p.err == nil || p.err == errChannelClosed):
		p.err = errors.New("it closed the descriptor of its channel to the host")
	case p.err != nil:
	case !p.killing && ended.Signal == syscall.SIGKILL:
		p.err = killed
	default:
		p.err = errors.New(exitReason(ended))
	}
}

// watchKills refreshes the readings. If the Space has been moved to another cgroup, the new cgroup counts.
func (p *Process) watchKills() {
	again := time.NewTicker(proctree.OOMInterval)
	defer again.Stop()
	for {
		select {
		case <-p.exited:
			return
		case <-again.C:
			p.oom.Look(p.PID)
		}
	}
}

func (p *Process) checkHello() {
	p.mu.Lock()
	greeted := p.greeted
	p.mu.Unlock()
	if !greeted {
		p.Fail(fmt.Errorf("its Python did not load the runner within %s: keep %s in its PYTHONPATH", p.config.HelloTimeout, p.config.Runner))
	}
}

// drainTimeout limits the reading of the last output of an exited Space: a worker that keeps the pipe open must not
// delay the report.
const drainTimeout = 200 * time.Millisecond

func (p *Process) drain(channel *sync.WaitGroup) {
	_ = p.channel.SetDeadline(time.Now().Add(drainTimeout)) // fails only on a closed channel, which needs no deadline
	channel.Wait()
	p.channel.Close()
}

func (p *Process) drainOutput() {
	for _, f := range p.tail.files {
		_ = f.SetReadDeadline(time.Now().Add(drainTimeout)) // pipes support deadlines
	}
	p.tail.wg.Wait()
	p.output.flush()
	closeAll(p.tail.files)
}

func (p *Process) listen() {
	reader := bufio.NewReaderSize(outbox.Direct(p.channel), 64<<10)
	for {
		f, err := ReadFrame(reader)
		if err == nil {
			err = p.handle(f)
		}
		if err != nil || !isBuffered(reader) {
			flush(p.config.Reporter)
		}
		if err != nil {
			p.stopListening(err)
			return
		}
	}
}

func (p *Process) handle(f Frame) error {
	p.mu.Lock()
	first := !p.greeted
	p.greeted = true
	p.mu.Unlock()
	if !first {
		return p.config.Reporter.Report(f)
	}
	r, err := parseReport(f)
	if err != nil {
		return err
	}
	p.oom.Look(p.PID) // the interpreter may be a script that moves itself to another cgroup
	switch {
	case r.Op != "hello":
		return unexpected(r)
	case r.Protocol != protocol:
		return &FrameError{fmt.Sprintf("protocol %d, want %d", r.Protocol, protocol)}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendConfig()
	if p.configured = true; p.begun {
		p.Send(newFrame(goOrder{"go"}, nil))
	}
	return nil
}

// stopListening ends the Space, which is useless without a channel. If the channel merely closed, it waits first:
// usually the process is about to exit for its own reason, which is the better report.
func (p *Process) stopListening(err error) {
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		p.Fail(refused)
		return
	}
	if breach := (*FrameError)(nil); errors.As(err, &breach) {
		p.config.Logger.Warn("frame protocol violation", zap.Error(err))
		p.Fail(breach)
		return
	}
	select {
	case <-p.exited:
	case <-time.After(p.exitGrace()):
		p.Fail(errChannelClosed)
	}
}

var errChannelClosed = errors.New("it closed its channel to the host")

// Fail kills the start for a reason of the host. Err then returns that reason.
func (p *Process) Fail(reason error) {
	p.mu.Lock()
	if p.reason == nil {
		p.reason = reason
	}
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
}

// Send queues a Frame for the runner and returns at once.
func (p *Process) Send(f Frame) { p.outbox.Put(f.Parts()...) }

// End sends SIGTERM to the Space, and kills its whole tree after grace. It returns when all processes have exited.
func (p *Process) End(ctx context.Context, grace time.Duration) {
	p.askToEnd()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.signal(syscall.SIGKILL)
	case <-ctx.Done():
		p.signal(syscall.SIGKILL)
	}
	<-p.done
}

// signal never hits another process, because os.Process knows whether the process has been reaped. Its error reports
// only that.
func (p *Process) signal(sig syscall.Signal) {
	if sig == syscall.SIGKILL {
		p.mu.Lock()
		p.killing = true
		p.mu.Unlock()
	}
	_ = p.cmd.Process.Signal(sig)
}
