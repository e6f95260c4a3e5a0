package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spacehost/internal/lease"
	"spacehost/internal/proctree"
	"spacehost/worker"
)

// protocol is the version of the messages between a host and an agent. A host ends an agent with another one. It is raised with every
// change of their types (TestProtocol): an agent of an earlier version would ignore a new field of a sandbox.
const protocol = 1

// kind is the first byte of a message. The length of the body follows, in four bytes, and the body.
type kind byte

// The kinds of messages. A connection begins with a request and its answer, both in JSON. That of a host goes on with arm, disarm
// and stop, that of a process with the others.
const (
	kindRequest kind = 'q'
	kindAnswer  kind = 'a'
	kindFiles   kind = 'F' // descriptors beside it

	kindArm    kind = 'A' // arm
	kindDisarm kind = 'D' // the lease
	kindStop   kind = 'S'

	kindFrame kind = 'f' // both ways: a worker.Frame
	kindPrint kind = 'p' // printed
	kindMark  kind = 'm' // a number
	kindNote  kind = 'n' // a text
	kindDone  kind = 'd' // done
	kindBegin kind = 'b'
	kindFail  kind = 'x' // wireError
	kindEnd   kind = 'e' // a number: the grace in nanoseconds
	kindKill  kind = 'k' // ends the grace
)

// maxMessage bounds a body. A Frame is the largest.
const maxMessage = 384 << 20

// request is the first message of a connection.
type request struct {
	Op       string // host total launch take dial pid inspect show end
	Protocol int    // host
	// OrphanAfter is how long the processes stay without a host.
	OrphanAfter time.Duration `json:",omitempty"` // host
	Files       int           `json:",omitempty"` // host: its listener of the device API follows, which it had with an earlier agent

	Config *worker.ProcessConfig `json:",omitempty"` // launch
	Kept   *worker.Kept          `json:",omitempty"` // launch

	Instance string   `json:",omitempty"` // of all ops about a process
	Port     int      `json:",omitempty"` // dial
	PID      int      `json:",omitempty"` // pid
	CanRun   bool     `json:",omitempty"` // inspect
	Targets  []string `json:",omitempty"` // show

	Limits *proctree.Limits `json:",omitempty"` // total
}

// answer follows each request.
type answer struct {
	Error *wireError `json:",omitempty"`
	Files int        `json:",omitempty"` // number of the descriptors that follow

	Protocol int                 `json:",omitempty"` // host
	PID      int                 `json:",omitempty"` // host, pid
	Kept     []worker.Kept       `json:",omitempty"` // host
	Report   lease.MachineReport `json:",omitzero"`  // host

	Tree       *wireTree          `json:",omitempty"` // launch, take
	Facts      *worker.Facts      `json:",omitempty"` // launch, take
	Status     *proctree.Status   `json:",omitempty"` // status; nil: the process has exited
	Inspection *worker.Inspection `json:",omitempty"` // inspect
	Rest       *proctree.Limits   `json:",omitempty"` // total, also with an error
}

// wireTree is a proctree.Tree. Translates means that pids of its processes have to be translated.
type wireTree struct {
	Root, Runner   proctree.Process
	Marker, Cgroup string
	Translates     bool
}

// arm is the message of a host about a lease that has become active, or that it has taken over.
type arm struct {
	lease.OpenLease
	Left time.Duration
}

type printed struct{ Stream, Line string }

// done is how a process has ended.
type done struct {
	Err  *wireError
	Exit worker.Exit
	Tail []string
}

// message returns the parts of a message.
func message(k kind, body ...[]byte) [][]byte {
	size := 0
	for _, part := range body {
		size += len(part)
	}
	head := make([]byte, 5, 5+min(size, smallMessage))
	head[0] = byte(k)
	binary.BigEndian.PutUint32(head[1:], uint32(size))
	if size <= smallMessage {
		for _, part := range body {
			head = append(head, part...)
		}
		return [][]byte{head}
	}
	return append([][]byte{head}, body...)
}

// smallMessage is the size of most messages. Their parts are joined.
const smallMessage = 16 << 10

// encode returns a body in JSON. It panics if value is no plain data, which is a bug in this package.
func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return data
}

// write writes a message to a connection that nobody else writes to at that time.
func write(conn net.Conn, parts [][]byte) error {
	buffers := net.Buffers(parts)
	_, err := buffers.WriteTo(conn)
	return err
}

// read reads one message.
func read(r io.Reader) (kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxMessage {
		return 0, nil, fmt.Errorf("a message of %d bytes is above the limit of %d", size, maxMessage)
	}
	body, err := worker.ReadExactly(r, int(size))
	return kind(head[0]), body, err
}

// readAs reads a message of one kind in JSON.
func readAs(r io.Reader, want kind, to any) error {
	got, body, err := read(r)
	if err == nil && got != want {
		err = fmt.Errorf("message %q, want %q", got, want)
	}
	if err == nil {
		err = json.Unmarshal(body, to)
	}
	return err
}

// filesAtOnce is below the kernel's limit of descriptors beside one message (SCM_MAX_FD).
const filesAtOnce = 200

// writeFiles sends descriptors. The caller closes its own.
func writeFiles(conn *net.UnixConn, files []*os.File) error {
	for len(files) > 0 {
		part := files[:min(len(files), filesAtOnce)]
		files = files[len(part):]
		fds, err := descriptors(part)
		if err != nil {
			return err
		}
		if _, _, err := conn.WriteMsgUnix([]byte{byte(kindFiles)}, unix.UnixRights(fds...), nil); err != nil {
			return err
		}
	}
	return nil
}

// descriptors returns the numbers of files. Fd would let their reads block, also those of the other side.
func descriptors(files []*os.File) (fds []int, err error) {
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return nil, err
		}
	}
	return fds, nil
}

// readFiles receives n descriptors. After an error there are none.
func readFiles(conn *net.UnixConn, n int) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
			files = nil
		}
	}()
	beside := make([]byte, unix.CmsgSpace(4*filesAtOnce))
	for len(files) < n {
		var text [1]byte
		got, size, flags, _, err := conn.ReadMsgUnix(text[:], beside)
		if err != nil {
			return files, err
		}
		if got != 1 || kind(text[0]) != kindFiles || flags&unix.MSG_CTRUNC != 0 {
			return files, errors.New("no descriptors where they were announced")
		}
		all, err := unix.ParseSocketControlMessage(beside[:size])
		if err != nil {
			return files, err
		}
		for _, one := range all {
			fds, err := unix.ParseUnixRights(&one)
			if err != nil {
				return files, err
			}
			for _, fd := range fds {
				files = append(files, os.NewFile(uintptr(fd), "passed"))
			}
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// wireError is an error with the type that the other side distinguishes.
type wireError struct {
	Kind    string // refused frame killed foreign port; empty: Text alone counts
	Text    string
	Refused *worker.RefusedError  `json:",omitempty"`
	Killed  *proctree.KilledError `json:",omitempty"`
	Port    int                   `json:",omitempty"`
}

func toWire(err error) *wireError {
	if err == nil {
		return nil
	}
	w := &wireError{Text: err.Error()}
	refused, frame, killed, foreign := (*worker.RefusedError)(nil), (*worker.FrameError)(nil), (*proctree.KilledError)(nil), (*proctree.ForeignPortError)(nil)
	switch {
	case errors.As(err, &refused):
		w.Kind, w.Refused = "refused", refused
	case errors.As(err, &frame):
		w.Kind, w.Text = "frame", frame.Reason
	case errors.As(err, &killed):
		w.Kind, w.Killed = "killed", killed
	case errors.As(err, &foreign):
		w.Kind, w.Port = "foreign", foreign.Port
	case errors.Is(err, syscall.ECONNREFUSED):
		w.Kind = "port"
	}
	return w
}

func (w *wireError) error() error {
	switch {
	case w == nil:
		return nil
	case w.Kind == "refused" && w.Refused != nil:
		return w.Refused
	case w.Kind == "frame":
		return &worker.FrameError{Reason: w.Text}
	case w.Kind == "killed" && w.Killed != nil:
		return w.Killed
	case w.Kind == "foreign":
		return &proctree.ForeignPortError{Port: w.Port}
	case w.Kind == "port":
		return &portError{w.Text}
	}
	return errors.New(w.Text)
}

// portError reports that no server listens at a port.
type portError struct{ text string }

func (e *portError) Error() string { return e.text }

func (e *portError) Unwrap() error { return syscall.ECONNREFUSED }

// toHost gives the reports of a process to the connection of a host. It implements worker.Reporter. A failed write needs no report:
// the connection has ended, and its reader finds that out.
type toHost struct {
	conn net.Conn

	mu     sync.Mutex
	unsent []byte // messages that the next write sends first
}

var _ worker.Flusher = (*toHost)(nil)

// maxUnsent bounds the messages that wait for Flush. Each of them has smallMessage bytes at most.
const maxUnsent = 64 << 10

// write sends a message, after those that wait.
func (h *toHost) write(k kind, body ...[]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put(k, body...)
	h.flush()
}

// put adds a message to those that wait. It does not copy a large one, which is sent at once.
func (h *toHost) put(k kind, body ...[]byte) {
	parts := message(k, body...)
	if len(parts) > 1 {
		_ = write(h.conn, append([][]byte{h.unsent}, parts...))
		h.unsent = h.unsent[:0]
		return
	}
	if h.unsent = append(h.unsent, parts[0]...); len(h.unsent) > maxUnsent-smallMessage {
		h.flush()
	}
}

func (h *toHost) flush() {
	if len(h.unsent) == 0 {
		return
	}
	_, _ = h.conn.Write(h.unsent)
	h.unsent = h.unsent[:0]
}

// Flush implements worker.Flusher.
func (h *toHost) Flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flush()
}

// Report implements worker.Reporter. Flush sends the report.
func (h *toHost) Report(f worker.Frame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put(kindFrame, f.Parts()...)
	return nil
}

func (h *toHost) Print(stream, line string) { h.write(kindPrint, encode(printed{stream, line})) }
func (h *toHost) Mark(number int)           { h.write(kindMark, encode(number)) }
func (h *toHost) Note(text string)          { h.write(kindNote, encode(text)) }
