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
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Process is one start of a Space: the runner, the channel to it and the tree of processes below it.
type Process struct {
	Instance string // names this start
	PID      int

	config  ProcessConfig
	cmd     *exec.Cmd
	channel net.Conn
	outbox  *outbox
	tree    tree
	exited  chan struct{} // closed when the runner is reaped
	done    chan struct{} // closed when its tree is gone too
	err     error         // why it ended; valid once done is closed

	mu      sync.Mutex
	greeted bool
	killing bool  // the host has sent SIGKILL
	reason  error // why the host killed it, if it did

	tail   tail
	memory memory
}

// ProcessConfig says what to start and whom to tell.
type ProcessConfig struct {
	Space   string // its name
	Dir     string // its folder, the working directory
	AppFile string // relative to Dir
	Python  string // the interpreter
	Runner  string // folder holding sitecustomize.py (InstallRunner)
	RunDir  string // the folder of this start, made by Start; its name marks the processes of this start
	Env     []string
	Secrets map[string]string // put into os.environ by the runner; never in /proc/*/environ
	Port    int               // of the Space's own server
	Key     string            // that its requests must carry
	Public  string            // URL at which visitors reach the Space
	Device  int               // port of the device API
	// Simulated says that no GPU is behind it: torch then computes on the CPU (runner, fake_cuda.py).
	Simulated bool
	Output    func(line string) // one line that the Space printed; called from two goroutines
	Patience  time.Duration     // for its hello; 0 means a minute
	Reporter  reporter
	Logger    *zap.Logger

	cgroups *cgroups
}

// reporter is told what the runner says, in order, from one goroutine. An error is a breach: it ends the Space.
type reporter interface {
	report(r report, payload []byte) error
}

// helloTime is ample for an interpreter to come up: hello is said before the app's first line.
const helloTime = time.Minute

// Start starts the interpreter on the app. The returned Process has not said hello yet.
func Start(config ProcessConfig) (*Process, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	if config.Patience == 0 {
		config.Patience = helloTime
	}
	if config.Secrets == nil {
		config.Secrets = map[string]string{} // JSON's null is no object
	}
	if err := config.order(true).check(); err != nil {
		return nil, fmt.Errorf("hand the Space its secrets: %w", err)
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
	raw, err := ours.SyscallConn()
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("make channel: %w", err)
	}
	p := &Process{
		Instance: filepath.Base(config.RunDir), config: config, channel: ours,
		exited: make(chan struct{}), done: make(chan struct{}), outbox: newOutbox(tryWrite(raw)),
	}
	p.cmd = p.command(theirs, marker)
	if err := p.begin(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start %s: %w", config.Python, err)
	}
	p.PID = p.cmd.Process.Pid
	root, _ := readStat(p.PID) // it cannot be reaped before run waits for it
	p.tree = tree{root: root.proc, marker: marker, cgroup: p.beginCgroup()}
	p.memory.look(p.PID)
	go p.run()
	return p, nil
}

// beginCgroup puts the interpreter into a cgroup before it gets its configuration, and so before the app's first line.
func (p *Process) beginCgroup() string {
	if p.config.cgroups == nil {
		return ""
	}
	dir, err := p.config.cgroups.begin(p.Instance, p.PID)
	if err != nil {
		p.config.Logger.Warn("space gets no cgroup", zap.Error(err))
	}
	return dir
}

// order is the host's answer to hello. Where this start has a cgroup, a worker need not be a subreaper: it would keep the
// zombies of strangers.
func (c ProcessConfig) order(subreaper bool) Frame {
	return newFrame(configOrder{
		Op: "config", Environment: c.Secrets, Port: c.Port, Key: c.Key, PublicURL: c.Public, DevicePort: c.Device, Simulated: c.Simulated,
		Subreaper: subreaper,
	}, nil)
}

// writeMarker makes the file that `spaces` reads its cgroup path from. Its name stands in the environment of
// every process of this start, also of those that daemonise: that is how they are found again.
func writeMarker(config ProcessConfig) (string, error) {
	if err := os.MkdirAll(config.RunDir, 0o700); err != nil {
		return "", fmt.Errorf("make run folder: %w", err)
	}
	path := filepath.Join(config.RunDir, "cgroup")
	text := fmt.Sprintf("0::/spacehost/%s/%s\n", config.Space, filepath.Base(config.RunDir))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write cgroup file: %w", err)
	}
	return path, nil
}

// instanceOf is the start that a marker belongs to.
func instanceOf(marker string) string { return filepath.Base(filepath.Dir(marker)) }

func socketpair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "channel")
	defer file.Close()
	theirs = os.NewFile(uintptr(fds[1]), "channel")
	conn, err := net.FileConn(file)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

func (p *Process) command(theirs *os.File, marker string) *exec.Cmd {
	cmd := exec.Command(p.config.Python, p.config.AppFile)
	cmd.Dir = p.config.Dir
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.Env = append(append([]string{}, p.config.Env...),
		"SPACEHOST_FD=3", "PYTHONPATH="+pythonPath(p.config), markerVariable+"="+marker)
	// A group of its own: Ctrl-C on the terminal is for the host, which ends Spaces in order.
	// No PDEATHSIG: the runner leaves when the channel closes, and ends its workers first.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
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

// begin starts it with pipes of our own: exec's would make Wait wait for workers that inherited them.
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
	err := p.cmd.Start()
	closeAll(ends)
	if err != nil {
		closeAll(readers)
		return err
	}
	for _, r := range readers {
		p.tail.wg.Go(func() { p.copyLines(r) })
	}
	p.tail.files = readers
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// tail keeps the last lines that a Space printed, for the sentence about its death.
type tail struct {
	wg    sync.WaitGroup
	files []*os.File
	mu    sync.Mutex
	lines []string
}

const (
	tailLines = 40
	lineLimit = 64 << 10 // a longer one is cut in pieces
)

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, line); len(t.lines) > tailLines {
		t.lines = t.lines[1:]
	}
}

func (p *Process) copyLines(r io.Reader) {
	reader := bufio.NewReaderSize(r, lineLimit)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			text := strings.TrimRight(string(line), "\r\n")
			p.tail.add(text)
			p.config.Output(text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// Tail returns the last lines that the Space printed.
func (p *Process) Tail() []string {
	p.tail.mu.Lock()
	defer p.tail.mu.Unlock()
	return append([]string{}, p.tail.lines...)
}

// Done is closed once the runner is reaped and its tree is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says why the Process ended, in words for people; valid after Done.
func (p *Process) Err() error { return p.err }

// run talks to the runner until its process has died; its death is seen by wait, never by the end of a pipe,
// which a worker can hold open.
func (p *Process) run() {
	defer close(p.done)
	unheard := time.AfterFunc(p.config.Patience, p.missHello)
	defer unheard.Stop()
	var talk sync.WaitGroup
	talk.Go(func() { p.outbox.run(p.channel) })
	talk.Go(p.listen)
	talk.Go(p.watchMemory)
	err := p.cmd.Wait()
	close(p.exited)
	killed := p.memory.killed() // at once: the counters are those of a machine
	p.outbox.close()
	p.drain(&talk)
	p.tree.kill(p.config.Logger)
	p.drainOutput()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.err = p.reason; {
	case p.err != nil:
	case !p.killing && wasKilled(err):
		p.err = killed
	default:
		p.err = errors.New(deathWords(err))
	}
}

// watchMemory keeps the looks fresh. Where the Space is moved to another cgroup, that one counts.
func (p *Process) watchMemory() {
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	for {
		select {
		case <-p.exited:
			return
		case <-again.C:
			p.memory.look(p.PID)
		}
	}
}

func wasKilled(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

func (p *Process) missHello() {
	p.mu.Lock()
	greeted := p.greeted
	p.mu.Unlock()
	if !greeted {
		p.fail(fmt.Errorf("its Python did not load the runner within %s: it has to take %s from PYTHONPATH", p.config.Patience, p.config.Runner))
	}
}

// lastWords is how long those of a dead Space may take: a worker that holds the pipe must not delay the news.
const lastWords = 200 * time.Millisecond

func (p *Process) drain(talk *sync.WaitGroup) {
	_ = p.channel.SetDeadline(time.Now().Add(lastWords)) // only a closed one refuses, which is as good
	talk.Wait()
	p.channel.Close()
}

func (p *Process) drainOutput() {
	for _, f := range p.tail.files {
		_ = f.SetReadDeadline(time.Now().Add(lastWords)) // a pipe takes it
	}
	p.tail.wg.Wait()
	closeAll(p.tail.files)
}

func deathWords(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return "it exited with code 0"
	}
	if status := exit.Sys().(syscall.WaitStatus); status.Signaled() {
		return fmt.Sprintf("it was killed by signal %d (%s)", status.Signal(), status.Signal())
	}
	return fmt.Sprintf("it exited with code %d", exit.ExitCode())
}

func (p *Process) listen() {
	reader := bufio.NewReaderSize(p.channel, 64<<10)
	for {
		f, err := readFrame(reader)
		if err == nil {
			err = p.hear(f)
		}
		if err != nil {
			p.stopListening(err)
			return
		}
	}
}

func (p *Process) hear(f Frame) error {
	r, err := parseReport(f)
	if err != nil {
		return err
	}
	p.mu.Lock()
	first := !p.greeted
	p.greeted = true
	p.mu.Unlock()
	if first {
		p.memory.look(p.PID) // an interpreter may be a script that takes it to another cgroup
	}
	switch {
	case first != (r.Op == "hello"):
		return &FrameError{fmt.Sprintf("%.40q where hello, once, comes first", r.Op)}
	case !first:
		return p.config.Reporter.report(r, f.Payload)
	case r.Protocol != protocol:
		return &FrameError{fmt.Sprintf("protocol %d, want %d", r.Protocol, protocol)}
	}
	p.Send(p.config.order(p.tree.cgroup == ""))
	return nil
}

// stopListening ends the Space, which is of no use without a channel. One that merely closed says nothing:
// most often the process is about to die for a reason of its own, which is worth the wait.
func (p *Process) stopListening(err error) {
	if breach := (*FrameError)(nil); errors.As(err, &breach) {
		p.config.Logger.Warn("space breached the frame protocol", zap.Error(err))
		p.fail(breach)
		return
	}
	select {
	case <-p.exited:
	case <-time.After(lastWords):
		p.fail(errors.New("it closed its channel to the host"))
	}
}

// fail kills the Space for a reason of the host's, which Err gives then.
func (p *Process) fail(reason error) {
	p.mu.Lock()
	if p.reason == nil {
		p.reason = reason
	}
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
}

// Send hands a Frame to the runner and returns at once.
func (p *Process) Send(f Frame) { p.outbox.put(f) }

// End asks the Space to end, and kills its whole tree after grace; it returns when all is gone.
func (p *Process) End(ctx context.Context, grace time.Duration) {
	p.signal(syscall.SIGTERM)
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

// signal never hits another process, since os.Process knows whether it has been reaped. Its error says just that.
func (p *Process) signal(sig syscall.Signal) {
	if sig == syscall.SIGKILL {
		p.mu.Lock()
		p.killing = true
		p.mu.Unlock()
	}
	_ = p.cmd.Process.Signal(sig)
}

// outbox keeps what a runner that reads slowly has not taken, so that Send never blocks the queue. What it holds is
// bounded by the Jobs that run at a time.
type outbox struct {
	// try writes what the channel takes at once: a Job that starts waits for no other goroutine.
	try func(data []byte) (written int)

	mu      sync.Mutex
	cond    *sync.Cond
	unsent  [][]byte
	writing bool // run writes what it has taken
	closed  bool
}

func newOutbox(try func([]byte) int) *outbox {
	o := &outbox{try: try}
	o.cond = sync.NewCond(&o.mu)
	return o
}

func (o *outbox) put(f Frame) {
	data := f.bytes()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if !o.writing && len(o.unsent) == 0 {
		data = data[o.try(data):]
	}
	if len(data) > 0 {
		o.unsent = append(o.unsent, data)
		o.cond.Signal()
	}
}

func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.cond.Signal()
}

func (o *outbox) next() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.writing = false; len(o.unsent) == 0 && !o.closed; {
		o.cond.Wait()
	}
	if o.closed {
		return nil, false
	}
	data := o.unsent[0]
	o.unsent, o.writing = o.unsent[1:], true
	return data, true
}

// run writes until the outbox is closed, or the channel: its reader sees the same end and acts upon it.
func (o *outbox) run(w io.Writer) {
	for {
		data, ok := o.next()
		if !ok {
			return
		}
		if _, err := w.Write(data); err != nil {
			o.close()
			return
		}
	}
}

// tryWrite returns a function that writes to a connection what it takes at once.
func tryWrite(conn syscall.RawConn) func([]byte) int {
	return func(data []byte) (n int) {
		_ = conn.Write(func(fd uintptr) bool { // whatever is wrong, who writes the rest finds out
			n, _ = unix.SendmsgN(int(fd), data, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			return true
		})
		return max(0, n)
	}
}
