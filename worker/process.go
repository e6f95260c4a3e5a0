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
)

// Process is one start of a Space: the runner, the channel to it and the tree of processes below it.
type Process struct {
	Instance string // names this start
	PID      int

	config  ProcessConfig
	channel net.Conn
	outbox  outbox
	tree    tree
	done    chan struct{}
	err     error // why it ended; valid once done is closed

	mu     sync.Mutex
	breach error // set before the Process is killed for it

	tail tail
}

// ProcessConfig says what to start and whom to tell.
type ProcessConfig struct {
	Space    string // its name
	Dir      string // its folder, the working directory
	AppFile  string // relative to Dir
	Python   string // the interpreter
	Runner   string // folder holding sitecustomize.py (InstallRunner)
	RunDir   string // the folder of this start, made by Start; its name marks the processes of this start
	Env      []string
	Secrets  map[string]string // put into os.environ by the runner; never in /proc/*/environ
	Port     int               // of the Space's own server
	Key      string            // that its requests must carry
	Public   string            // URL at which visitors reach the Space
	Device   int               // port of the device API
	Output   func(line string) // one line that the Space printed; called from two goroutines
	Reporter reporter
	Logger   *zap.Logger
}

// reporter is told what the runner says, in order, from one goroutine. An error is a breach: it ends the Space.
type reporter interface {
	report(r report, payload []byte) error
}

// Start starts the interpreter on the app. The returned Process has not said hello yet.
func Start(config ProcessConfig) (*Process, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
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
		done: make(chan struct{}), outbox: newOutbox(),
	}
	cmd := p.command(theirs, marker)
	if err := p.begin(cmd); err != nil {
		ours.Close()
		return nil, fmt.Errorf("start %s: %w", config.Python, err)
	}
	p.PID = cmd.Process.Pid
	root, _ := readStat(p.PID) // it cannot be reaped before run waits for it
	p.tree = tree{root: root.proc, marker: marker}
	go p.run(cmd)
	return p, nil
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

func socketpair() (ours net.Conn, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "channel")
	defer file.Close()
	theirs = os.NewFile(uintptr(fds[1]), "channel")
	if ours, err = net.FileConn(file); err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	return ours, theirs, nil
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

// begin starts cmd with pipes of our own: exec's would make Wait wait for workers that inherited them.
func (p *Process) begin(cmd *exec.Cmd) error {
	var ends []*os.File
	var readers []*os.File
	for _, to := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(append(ends, readers...))
			return err
		}
		*to, ends, readers = w, append(ends, w), append(readers, r)
	}
	err := cmd.Start()
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
func (p *Process) run(cmd *exec.Cmd) {
	defer close(p.done)
	var talk sync.WaitGroup
	talk.Go(p.outbox.run(p.channel))
	talk.Go(p.listen)
	err := cmd.Wait()
	p.outbox.close()
	p.drain(&talk)
	p.tree.kill(p.config.Logger)
	p.drainOutput()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = p.breach
	if p.err == nil {
		p.err = errors.New(deathWords(err))
	}
}

// patience is how long a dead Space's last words may take; a worker that holds the pipe must not delay the news.
const patience = 200 * time.Millisecond

func (p *Process) drain(talk *sync.WaitGroup) {
	p.channel.SetDeadline(time.Now().Add(patience))
	talk.Wait()
	p.channel.Close()
}

func (p *Process) drainOutput() {
	for _, f := range p.tail.files {
		f.SetReadDeadline(time.Now().Add(patience))
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
	if r.Op != "hello" {
		return p.config.Reporter.report(r, f.Payload)
	}
	if r.Protocol != protocol {
		return &FrameError{fmt.Sprintf("protocol %d, want %d", r.Protocol, protocol)}
	}
	p.Send(newFrame(configOrder{
		Op: "config", Environment: p.config.Secrets, Port: p.config.Port, Key: p.config.Key,
		PublicURL: p.config.Public, DevicePort: p.config.Device,
	}, nil))
	return nil
}

// stopListening kills the Space for a breach. A channel that merely closed says nothing: the process may
// still run (it closed the descriptor), but without a channel it is of no use.
func (p *Process) stopListening(err error) {
	var breach *FrameError
	if errors.As(err, &breach) {
		p.mu.Lock()
		p.breach = breach
		p.mu.Unlock()
		p.config.Logger.Warn("space breached the frame protocol", zap.Error(err))
	}
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

// signal is safe until done: Wait has not reaped the pid, so it cannot be another process's.
func (p *Process) signal(sig syscall.Signal) {
	select {
	case <-p.done:
	default:
		_ = syscall.Kill(p.PID, sig) // ESRCH: it is gone already
	}
}

// outbox keeps Frames for a runner that reads slowly, so that Send never blocks the queue. What it holds is
// bounded by the Jobs that run at a time.
type outbox struct {
	*outboxState
}

type outboxState struct {
	mu     sync.Mutex
	cond   *sync.Cond
	frames []Frame
	closed bool
}

func newOutbox() outbox {
	s := &outboxState{}
	s.cond = sync.NewCond(&s.mu)
	return outbox{s}
}

func (o outbox) put(f Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frames = append(o.frames, f)
	o.cond.Signal()
}

func (o outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.cond.Signal()
}

func (o outbox) next() (Frame, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.frames) == 0 && !o.closed {
		o.cond.Wait()
	}
	if o.closed {
		return Frame{}, false
	}
	f := o.frames[0]
	o.frames = o.frames[1:]
	return f, true
}

func (o outbox) run(w io.Writer) func() {
	return func() {
		for {
			f, ok := o.next()
			if !ok {
				return
			}
			if _, err := f.WriteTo(w); err != nil {
				return // the reader of this channel sees the same end and acts upon it
			}
		}
	}
}
