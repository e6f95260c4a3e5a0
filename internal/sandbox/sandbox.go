package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec describes one start: what runs, and everything of the machine that it sees. It is sent to init through memory,
// because a command line and an environment are public in /proc.
type Spec struct {
	Argv      []string // the interpreter, by its absolute path, and its arguments; empty: init sets everything up and exits
	Env       []string
	Dir       string
	Root      string // existing folder of the host on which init mounts the new root; with User, New chooses it
	Mounts    []Mount
	Sockets   []Socket
	CatchAll  bool   // every IPv4 address is local: wildcard Sockets receive connections to any address
	Processes uint64 // limit of processes and threads (RLIMIT_NPROC), which the kernel ignores for root; 0: none
	// User is the kernel's uid and gid of every process of the sandbox, which only root can set. Files on disk keep their
	// owners. 0: the user of the host.
	User uint32
}

// MountKind is the kind of a Mount.
type MountKind string

// The kinds of mounts.
const (
	ReadOnly  MountKind = "ro"      // Source with all mounts below it, read-only
	ReadWrite MountKind = "rw"      // Source with all mounts below it
	Device    MountKind = "dev"     // a device node, which stays usable
	Overlay   MountKind = "overlay" // Source read-only, with changes in Upper
	Empty     MountKind = "empty"   // an empty read-only folder on an existing one
	Link      MountKind = "link"    // a symbolic link to Source
	Text      MountKind = "text"    // a read-only file with Text
)

// Mount is one entry of the view. Parents of Target are created. A deeper Target is mounted later.
type Mount struct {
	Kind        MountKind
	Source      string // on the host
	Target      string // in the sandbox
	Upper, Work string // of an Overlay: existing folders on one file system; with Spec.User also in one folder
	Text        string
	// OnDemand leaves a Device out of the view until Sandbox.Show names its Target.
	OnDemand bool
	// Owned gives the Spec.User the rights of Source's owner at a ReadOnly mount, where the file system allows it. Without
	// it, the user has the rights of any other user of the machine. ReadWrite and Overlay always give them.
	Owned bool
}

// Socket is a socket that init opens in the network of the sandbox and hands to the host.
type Socket struct {
	Name    string // chosen by the caller
	Network string // tcp4 or udp4
	Address string
}

// StepError reports the step of init that failed. Nothing of the Space has run.
type StepError struct {
	Step string
	Err  error // a syscall.Errno, if the kernel refused the step
}

func (e *StepError) Error() string { return fmt.Sprintf("sandbox: %s: %v", e.Step, e.Err) }

func (e *StepError) Unwrap() error { return e.Err }

// IsProcRefused reports whether the kernel refused a new /proc. It does so if parts of the present /proc are hidden by
// other mounts, as in a container (containers/bubblewrap#505).
func (e *StepError) IsProcRefused() bool {
	return e.Step == StepView && errors.Is(e.Err, unix.EPERM) && strings.HasPrefix(e.Err.Error(), procStep)
}

// ErrGone reports that the sandbox has ended.
var ErrGone = errors.New("the sandbox has ended")

// Exit is how the interpreter ended. Signal is 0 unless a signal ended it.
type Exit struct {
	Code   int
	Signal syscall.Signal
}

// Sandbox is the host's end of one start. Its methods are safe for concurrent use.
type Sandbox struct {
	// Cmd is process 1. The caller sets Stdout and Stderr, starts it, and waits for it.
	Cmd *exec.Cmd

	control *net.UnixConn
	sockets []Socket
	theirs  []*os.File    // closed once init has them
	over    chan struct{} // closed once no message can follow

	mu    sync.Mutex
	pid   int
	exit  *Exit
	next  int
	asked map[int]chan answer // requests without an answer; nil: the sandbox has ended
}

// answer is the answer to one request.
type answer struct {
	file *os.File // set unless err is; nil for show
	err  error
}

// New prepares a sandbox. The interpreter inherits channel as descriptor 3. Call Begin after the start of Cmd, and Close
// in any case. An error is a *StepError if a mount of a Spec with a User cannot be opened.
func New(spec Spec, channel *os.File) (*Sandbox, error) {
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	s := &Sandbox{control: ours, sockets: spec.Sockets, theirs: []*os.File{theirs}, asked: map[int]chan answer{}, over: make(chan struct{})}
	if err := s.prepare(spec, channel); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// prepare creates the command of init. Its descriptors from 3 on are the channel, the control channel, the Spec and the
// trees.
func (s *Sandbox) prepare(spec Spec, channel *os.File) error {
	if spec.User != 0 {
		spec.Root = userRoot
	}
	mounts, trees, err := openMounts(spec)
	if err != nil {
		return &StepError{stepTrees, err}
	}
	s.theirs = append(s.theirs, trees...)
	file, err := memoryFile("spec", initSpec{spec, mounts})
	if err != nil {
		return fmt.Errorf("pass the specification of the sandbox: %w", err)
	}
	control := s.theirs[0]
	s.theirs = append(s.theirs, file)
	s.Cmd = initCommand(spec.User, append([]*os.File{channel, control, file}, trees...))
	return nil
}

// InsideID is the user and group of a Space in its own view, as on the Hub (hub-docs, spaces-sdks-docker.md,
// "Permissions"). The kernel sees Spec.User, or the user of the host.
const InsideID = 1000

// userRoot is the folder on which init mounts the new root if it runs as a user that cannot walk to the state folder. It
// exists on every machine. Init needs nothing of its content: the host has opened the trees.
const userRoot = "/usr"

// initCommand starts this program again, as process 1 of namespaces of its own. files are its descriptors from 3 on.
func initCommand(user uint32, files []*os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{initName}
	cmd.ExtraFiles = files
	cmd.Env = initEnv()
	uid, gid := os.Geteuid(), os.Getegid()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:    true,
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		// Without ambient capabilities, exec would take the rights away from a user that is not root. An overlay needs the last two.
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER},
	}
	if user != 0 {
		uid, gid = int(user), int(user)
		cmd.SysProcAttr.Credential = userCredential()
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true // to empty the list of groups
	}
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: InsideID, HostID: uid, Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: InsideID, HostID: gid, Size: 1}}
	return cmd
}

// testEnv is set by tests only.
var testEnv []string

func initEnv() []string { return append([]string{"GOMAXPROCS=2"}, testEnv...) }

// initSpec is what init reads. Mounts replaces Spec.Mounts.
type initSpec struct {
	Spec
	Mounts []openMount
}

// beginTime bounds the steps of init, which take about 15 ms. With a load of 35 per CPU they took more than 10 s, and `serve` refused to
// start because the probe of the level had failed.
const beginTime = time.Minute

// Begin lets init start the interpreter, and waits until it runs. Call it once, after the start of Cmd and after its process
// has been moved to its cgroup. It returns the sockets in the order of Spec.Sockets; the caller closes them. An error is
// a *StepError if a step of init failed; the caller then ends Cmd.
func (s *Sandbox) Begin() (sockets []*os.File, err error) {
	s.closeTheirs()
	_ = s.control.SetDeadline(time.Now().Add(beginTime)) // fails only on a closed channel, where send fails too
	unsent := send(s.control, message{Op: "go"})         // fails if init has crashed
	for {
		m, files, err := receive(s.control)
		sockets = append(sockets, files...)
		if err == nil && m.Op == "failed" {
			err = &StepError{m.Step, m.err()}
		} else if errors.Is(err, io.EOF) {
			err = &StepError{stepAnswer, ErrGone}
		} else if err != nil {
			err = &StepError{stepAnswer, errors.Join(unsent, err)}
		}
		if err != nil {
			closeAll(sockets)
			return nil, err
		}
		if m.Op == "started" {
			_ = s.control.SetDeadline(time.Time{})
			s.mu.Lock()
			s.pid = m.PID
			s.mu.Unlock()
			go s.listen()
			return sockets, nil
		}
	}
}

// Close ends the sandbox, if it has not ended. It may be called twice.
func (s *Sandbox) Close() {
	s.closeTheirs()
	s.control.Close()
}

func (s *Sandbox) closeTheirs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	closeAll(s.theirs)
	s.theirs = nil
}

// RunnerPID returns the pid of the interpreter inside the sandbox.
func (s *Sandbox) RunnerPID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// listen receives the messages of init until the sandbox ends.
func (s *Sandbox) listen() {
	for {
		m, files, err := receive(s.control)
		if err != nil {
			s.gone()
			return
		}
		switch m.Op {
		case "ended":
			s.mu.Lock()
			s.exit = &Exit{m.Code, syscall.Signal(m.Signal)}
			s.mu.Unlock()
		case "answer":
			s.answered(m, files)
			continue
		case "shown":
			s.deliver(m.ID, answer{err: m.err()})
		}
		closeAll(files)
	}
}

// AwaitExit waits until the last message of init has been received, at most for limit. Call it once Cmd has exited.
func (s *Sandbox) AwaitExit(limit time.Duration) (Exit, bool) {
	select {
	case <-s.over:
	case <-time.After(limit):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exit == nil {
		return Exit{}, false
	}
	return *s.exit, true
}

func (s *Sandbox) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, waiting := range s.asked {
		waiting <- answer{nil, ErrGone}
	}
	s.asked = nil
	close(s.over)
}

// answered delivers the answer of init to the goroutine that asked. The request may have been withdrawn.
func (s *Sandbox) answered(m message, files []*os.File) {
	a := answer{err: m.err()}
	switch {
	case a.err == nil && len(files) == 1:
		a.file = files[0]
	case a.err == nil:
		a.err = fmt.Errorf("init sent %d descriptors instead of one", len(files))
		fallthrough
	default:
		closeAll(files)
	}
	s.deliver(m.ID, a)
}

func (s *Sandbox) deliver(id int, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waiting := s.asked[id]; waiting != nil {
		delete(s.asked, id)
		waiting <- a
	} else if a.file != nil {
		a.file.Close()
	}
}

// HasSocket reports whether a TCP port belongs to a socket of the Spec, and so to the host.
func (s *Sandbox) HasSocket(port int) bool {
	return slices.ContainsFunc(s.sockets, func(one Socket) bool {
		_, at, _ := net.SplitHostPort(one.Address) // init has listened there
		return one.Network == "tcp4" && at == strconv.Itoa(port)
	})
}

// Dial connects to a port of the sandbox's loopback address. Init connects and hands over the connected socket, so no
// byte is copied. Errors: syscall.ECONNREFUSED if nothing listens, ErrGone, or the context's.
func (s *Sandbox) Dial(ctx context.Context, port int) (net.Conn, error) {
	f, err := s.ask(ctx, message{Op: "dial", Port: port})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileConn(f)
}

// HostPID returns the pid on the host of a process that calls itself pid inside. Errors: syscall.ESRCH if there is none,
// ErrGone, or the context's.
func (s *Sandbox) HostPID(ctx context.Context, pid int) (int, error) {
	f, err := s.ask(ctx, message{Op: "pidfd", PID: pid})
	if err != nil {
		return 0, err
	}
	defer f.Close()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		return 0, fmt.Errorf("read pid: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pid:"); ok {
			if found, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil && found > 0 { // -1: it has been reaped
				return found, nil
			}
		}
	}
	return 0, syscall.ESRCH
}

// Show makes exactly these device nodes visible, of the mounts that are on demand, and hides the others. targets are
// Targets of such mounts. A process that has opened a node keeps its descriptor. Errors: of the kernel, ErrGone, or the
// context's; then some of the changes may have been made, and a further Show makes the rest.
func (s *Sandbox) Show(ctx context.Context, targets []string) error {
	_, err := s.ask(ctx, message{Op: "show", Nodes: targets})
	return err
}

// ask sends a request to init and returns the descriptor of the answer.
func (s *Sandbox) ask(ctx context.Context, m message) (*os.File, error) {
	result := make(chan answer, 1)
	s.mu.Lock()
	if s.asked == nil {
		s.mu.Unlock()
		return nil, ErrGone
	}
	s.next++
	m.ID = s.next
	s.asked[m.ID] = result
	s.mu.Unlock()
	if err := send(s.control, m); err != nil {
		s.forget(m.ID)
		return nil, ErrGone
	}
	select {
	case a := <-result:
		return a.file, a.err
	case <-ctx.Done():
	}
	if s.forget(m.ID) {
		return nil, context.Cause(ctx)
	}
	a := <-result // it arrived meanwhile
	return a.file, a.err
}

// forget withdraws a request. It returns false if the answer has arrived.
func (s *Sandbox) forget(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, waiting := s.asked[id]
	delete(s.asked, id)
	return waiting
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
