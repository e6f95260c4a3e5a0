package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// message is one packet between the host and init, in either direction, with descriptors beside it.
//
//	host                 init
//	  |<----- sockets -----|   the descriptors of Spec.Sockets
//	  |------- go -------->|   once: the process is in its cgroup
//	  |<----- started -----|   or failed: the step and its error
//	  |-- dial or pidfd -->|   a port, or a pid of this pid namespace
//	  |<----- answer ------|   the connected socket or the pidfd, or an error
//	  |------ show ------->|   all device nodes on demand that shall be visible
//	  |<----- shown -------|   done, or an error
//	  |<------ ended ------|   the last message
type message struct {
	Op     string `json:"op"`
	ID     int    `json:"id,omitempty"`     // dial, pidfd, answer, show, shown
	Port   int    `json:"port,omitempty"`   // dial
	PID    int    `json:"pid,omitempty"`    // started, pidfd
	Code   int    `json:"code,omitempty"`   // ended
	Signal int    `json:"signal,omitempty"` // ended
	Step   string `json:"step,omitempty"`   // failed
	Text   string `json:"text,omitempty"`   // failed, answer, shown: the error
	Errno  int    `json:"errno,omitempty"`  // failed, answer, shown: the error, if the kernel reported it

	Nodes []string `json:"nodes,omitempty"` // show: targets of mounts
}

// withError adds an error to a message.
func (m message) withError(err error) message {
	if err == nil {
		return m
	}
	m.Text = err.Error()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		m.Errno = int(errno)
	}
	return m
}

// err returns the error of a message, nil if it has none.
func (m message) err() error {
	switch {
	case m.Errno != 0:
		return &reportedError{m.Text, syscall.Errno(m.Errno)}
	case m.Text != "":
		return errors.New(m.Text)
	}
	return nil
}

// reportedError has the words of init and the number of the kernel.
type reportedError struct {
	text  string
	errno syscall.Errno
}

func (e *reportedError) Error() string { return e.text }
func (e *reportedError) Unwrap() error { return e.errno }

// pair returns the two ends of the control channel. It keeps the limits of messages.
func pair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create control channel: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "control")
	ours, err = controlConn(fds[0])
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// controlConn takes a descriptor over.
func controlConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("open control channel: %w", err)
	}
	return conn.(*net.UnixConn), nil
}

func send(c *net.UnixConn, m message, files ...*os.File) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(data, rights, nil)
	return err
}

// maxMessage and maxFiles bound one packet. The kernel allows 253 descriptors.
const (
	maxMessage = 8 << 10
	maxFiles   = 253
)

// receive returns the next message. The caller closes the files.
func receive(c *net.UnixConn) (m message, files []*os.File, err error) {
	data, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, rightsLen, flags, _, err := c.ReadMsgUnix(data, rights)
	if err != nil {
		return m, nil, err
	}
	if n == 0 && rightsLen == 0 {
		return m, nil, io.EOF
	}
	files, err = parseRights(rights[:rightsLen])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = errors.New("control message is too long")
	}
	if err == nil {
		err = json.Unmarshal(data[:n], &m)
	}
	if err != nil {
		closeAll(files)
		return m, nil, err
	}
	return m, files, nil
}

func parseRights(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for _, one := range messages {
		fds, err := unix.ParseUnixRights(&one)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}
