package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/lazyregexp"
	"spacehost/internal/printable"
	"spacehost/internal/proctree"
)

// stackSignal is the signal at which faulthandler writes the stacks of all threads of a runner. Programs rarely use a
// real-time signal, and no known library uses this one.
const stackSignal = unix.Signal(51)

// Layout of stackMemory (runner, liveness.py).
const (
	closedAt     = 256 << 10 // offset of the text of a runner whose descriptors were closed
	stacksMemory = 512 << 10
)

// stackMemory is memory that a start shares with the host: the stacks of its threads. Its size is sealed, so that the Space
// can neither grow it nor cut it. The content is a claim by the Space.
type stackMemory struct{ file *os.File }

// newStackMemory returns nil on a machine without such memory. The host then reports no stacks.
func newStackMemory() *stackMemory {
	fd, err := unix.MemfdCreate("spacehost-stacks", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil
	}
	m := &stackMemory{os.NewFile(uintptr(fd), "stacks")}
	err = unix.Ftruncate(fd, stacksMemory)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		m.close()
		return nil
	}
	return m
}

func (m *stackMemory) close() {
	if m != nil {
		m.file.Close()
	}
}

// clear removes the text, and lets the next one begin at the start: host and runner share the offset of the file.
func (m *stackMemory) clear() error {
	err := m.do(func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, stacksMemory)
	})
	if err != nil {
		return fmt.Errorf("clear the memory for stacks: %w", err)
	}
	_, err = m.file.Seek(0, io.SeekStart)
	return err
}

// do calls use with the descriptor, unless it is closed: the process may exit meanwhile.
func (m *stackMemory) do(use func(fd int) error) error {
	raw, err := m.file.SyscallConn()
	if err != nil {
		return err
	}
	if closed := raw.Control(func(fd uintptr) { err = use(int(fd)) }); closed != nil {
		return closed
	}
	return err
}

// written returns the number of bytes since clear.
func (m *stackMemory) written() int64 {
	n, err := m.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0
	}
	return n
}

// text returns the text that begins at an offset.
func (m *stackMemory) text(at int64) string {
	if m == nil {
		return ""
	}
	data := make([]byte, closedAt)
	n, _ := m.file.ReadAt(data, at) // what cannot be read is not reported
	data, _, _ = bytes.Cut(data[:n], []byte{0})
	return string(data)
}

// leastDescriptor is the least number of the descriptor to which a runner writes (runner, liveness.py, HIGH).
const leastDescriptor = 240

// isOpenIn reports whether a process still has the descriptor to which it writes. Otherwise the app has closed it, and its
// number may belong to a file of the app.
func (m *stackMemory) isOpenIn(pid int) bool {
	var ours unix.Stat_t
	if m.do(func(fd int) error { return unix.Fstat(fd, &ours) }) != nil {
		return false
	}
	folder := fmt.Sprintf("/proc/%d/fd/", pid)
	all, err := os.ReadDir(folder)
	return err == nil && slices.ContainsFunc(all, func(one os.DirEntry) bool {
		if number, err := strconv.Atoi(one.Name()); err != nil || number < leastDescriptor {
			return false
		}
		theirs, err := os.Stat(folder + one.Name())
		if err != nil {
			return false
		}
		found, ok := theirs.Sys().(*syscall.Stat_t)
		return ok && found.Dev == ours.Dev && found.Ino == ours.Ino
	})
}

// sendConfig answers hello, with the descriptor of the memory for stacks. Nothing else waits in the outbox at that time. The
// lock is held.
func (p *Process) sendConfig() {
	f := p.config.order(p.tree.Cgroup == "")
	if p.stacks == nil {
		p.Send(f)
		return
	}
	if err := p.stacks.do(func(fd int) error { p.outbox.PutWith(fd, f.Parts()...); return nil }); err != nil {
		p.Send(f) // the process has exited
	}
}

// How long the host waits for stacks. A text is complete if it has not grown for stacksPause.
const (
	stacksTimeout = 3 * time.Second
	// stoppedTimeout is how long a stopped process runs to write them itself, before a signal follows.
	stoppedTimeout = time.Second
	stacksPause    = 100 * time.Millisecond
	stacksTick     = 10 * time.Millisecond
)

// Status implements Start.
func (p *Process) Status() (proctree.Status, bool) { return p.runner().Status() }

// Inspect implements Start. It returns after two times stacksTimeout, and stopTimeout, at the latest.
func (p *Process) Inspect(ctx context.Context, canRun bool) (f Inspection) {
	runner := p.runner()
	status, ok := runner.Status()
	switch {
	case !ok:
		f.Why = "the process has exited"
		return f
	case status.Tracer != 0:
		f.State, f.Traced = fmt.Sprintf("traced by pid %d, a debugger", status.Tracer), true
		f.Why = "a debugger takes the signal that writes them"
		return f
	case status.State == proctree.StateStopped:
		f.State = "stopped (SIGSTOP)"
	case status.State == proctree.StateDisk:
		f.State = "waiting for a disk or a driver (state D)"
	}
	var err error
	if f.Stacks, err = p.readStacks(ctx, runner, status, canRun && f.State == ""); err != nil {
		f.Why = err.Error()
	}
	return f
}

// readStacks lets the runner write the stacks. A runner whose code runs writes them itself, which is exact; otherwise a signal
// handler does, which reads frames of threads that may run and can end the process then. A stopped runner does neither, so it
// continues until they are written and is stopped again: the program that has stopped it decides when it continues.
func (p *Process) readStacks(ctx context.Context, runner proctree.Process, status proctree.Status, canRun bool) (string, error) {
	switch {
	case p.stacks == nil:
		return "", errors.New("this machine offers no memory for them (memfd_create)")
	case !p.stacks.isOpenIn(runner.PID):
		return "", errors.New("the app has closed the descriptor for them")
	case !status.Catches(stackSignal):
		return "", fmt.Errorf("the app has replaced the handler of signal %d", stackSignal)
	}
	if err := p.stacks.clear(); err != nil {
		return "", err
	}
	first := stacksTimeout
	if status.State == proctree.StateStopped {
		if err := runner.Signal(unix.SIGCONT); err != nil {
			return "", fmt.Errorf("continue it: %w", err)
		}
		defer stopAgain(runner)
		first, canRun = stoppedTimeout, true
	}
	if canRun {
		p.Send(newFrame(stacksOrder{"stacks"}, nil))
		if p.awaitStacks(ctx, first) {
			return p.stacks.text(0), nil
		}
	}
	if err := runner.Signal(stackSignal); err != nil {
		return "", fmt.Errorf("signal %d: %w", stackSignal, err)
	}
	p.awaitStacks(ctx, stacksTimeout)
	return p.stacks.text(0), nil
}

// stopAgain returns when the process is stopped: until then its answers to probes look like those of a running one.
func stopAgain(runner proctree.Process) {
	_ = runner.Signal(unix.SIGSTOP) // it may have exited
	for range stopTimeout / stacksTick {
		if status, ok := runner.Status(); !ok || status.IsStopped() {
			return
		}
		time.Sleep(stacksTick)
	}
}

// stopTimeout bounds the wait for a stop, which takes until each thread of the process leaves the kernel.
const stopTimeout = time.Second

// awaitStacks waits until a text is complete. It returns false if there is none within limit.
func (p *Process) awaitStacks(ctx context.Context, limit time.Duration) bool {
	late, tick := time.NewTimer(limit), time.NewTicker(stacksTick)
	defer late.Stop()
	defer tick.Stop()
	size, since := int64(0), time.Now()
	for {
		select {
		case <-tick.C:
		case <-late.C:
			return size > 0
		case <-ctx.Done():
			return size > 0
		case <-p.exited:
			return size > 0
		}
		switch now := p.stacks.written(); {
		case now != size:
			size, since = now, time.Now()
		case size > 0 && time.Since(since) >= stacksPause:
			return true
		}
	}
}

// runner returns the interpreter.
func (p *Process) runner() proctree.Process { return p.tree.Interpreter() }

// pythonThread is one thread in the text of faulthandler. The innermost frame comes first.
type pythonThread struct {
	ids    []string // of all threads with these frames: the digits after 0x
	frames []frameOfPython
}

// frameOfPython is one line of a stack.
type frameOfPython struct {
	text string // as faulthandler writes it, printable
	file string // "": the line names no place
	line int
	name string // of the function
}

var (
	threadLine = lazyregexp.New(`^(?:Current thread|Thread) 0x([0-9a-fA-F]+)`)
	frameLine  = lazyregexp.New(`^  File "(.*)", line (\d+) in (.*)$`)
)

// maxFrames bounds what is kept of the text of one start.
const maxFrames = 5000

// parseStacks reads the text of faulthandler (Python/traceback.c, _Py_DumpTracebackThreads). Threads with the same frames are
// one: a server has dozens of idle ones.
func parseStacks(text string) (threads []pythonThread) {
	frames := 0
	var all []pythonThread
	for line := range strings.Lines(text) {
		line = printable.Text(strings.TrimRight(line, "\n"))
		if found := threadLine.FindStringSubmatch(line); found != nil {
			all = append(all, pythonThread{ids: []string{found[1]}})
			continue
		}
		if strings.TrimSpace(line) == "" || len(all) == 0 || frames == maxFrames {
			continue
		}
		frames++
		f := frameOfPython{text: line}
		if found := frameLine.FindStringSubmatch(line); found != nil {
			f.file, f.name = found[1], found[3]
			f.line, _ = strconv.Atoi(found[2]) // digits
		}
		all[len(all)-1].frames = append(all[len(all)-1].frames, f)
	}
	for _, one := range all {
		same := slices.IndexFunc(threads, func(other pythonThread) bool { return slices.Equal(one.frames, other.frames) })
		if same < 0 {
			threads = append(threads, one)
			continue
		}
		threads[same].ids = append(threads[same].ids, one.ids...)
	}
	return threads
}

// stacksText returns the stacks for a log.
func stacksText(threads []pythonThread) string {
	var b strings.Builder
	for _, t := range threads {
		fmt.Fprintf(&b, "Thread 0x%s (most recent call first):\n", strings.Join(t.ids, ", 0x"))
		for _, f := range t.frames {
			b.WriteString(f.text + "\n")
		}
	}
	return b.String()
}

// waits are the functions in which idle threads are, by the name of the file.
var waits = map[string][]string{
	"threading.py": {"wait", "join", "_wait_for_tstate_lock"}, "selectors.py": {"select"}, "queue.py": {"get"}, "blocks.py": {"block_thread"},
	"connection.py": {"wait", "_recv", "poll"}, "thread.py": {"_worker"}, "frames.py": {"_fill", "receive"}, "liveness.py": {"probe", "write_stacks", "closed"},
}

func (f frameOfPython) isWait() bool { return slices.Contains(waits[filepath.Base(f.file)], f.name) }

// placeOf returns the line of the app that most likely keeps it from answering, such as "app.py:12 in spin"; "" if no thread
// executes the app. In this order:
//
//  1. the thread of the event loop, if it alone does not answer,
//  2. a thread whose innermost frame is the app's: it executes the app's code, or a function in C,
//  3. a thread that executes a library for the app, and does not wait,
//  4. any thread with a line of the app.
func placeOf(threads []pythonThread, dir, loop string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
		if place := placeOf(threads, real, loop); place != "" {
			return place
		}
	}
	var found [5]string
	for _, t := range threads {
		at := slices.IndexFunc(t.frames, func(f frameOfPython) bool { return f.isBelow(dir) })
		if at < 0 {
			continue
		}
		f, rank := t.frames[at], 4
		relative, _ := filepath.Rel(dir, f.file) // both are absolute
		switch {
		case loop != "" && slices.ContainsFunc(t.ids, func(id string) bool { return sameThread(id, loop) }):
			rank = 1
		case at == 0:
			rank = 2
		case !t.frames[0].isWait():
			rank = 3
		}
		if found[rank] == "" {
			found[rank] = fmt.Sprintf("%s:%d in %s", relative, f.line, f.name)
		}
	}
	for _, place := range found {
		if place != "" {
			return place
		}
	}
	return ""
}

func (f frameOfPython) isBelow(dir string) bool {
	return filepath.IsAbs(f.file) && strings.HasPrefix(f.file, strings.TrimSuffix(dir, "/")+"/")
}

// sameThread compares hexadecimal numbers.
func sameThread(a, b string) bool {
	return strings.TrimLeft(strings.ToLower(a), "0") == strings.TrimLeft(strings.ToLower(b), "0")
}
