package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns the ends of a socket.
func pair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "channel")
		if ends[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		file.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

func within(t *testing.T, what string, over <-chan struct{}) {
	t.Helper()
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Fatal(what + " does not happen")
	}
}

// message returns the two parts of message n.
func message(n, size int) [][]byte {
	return [][]byte{fmt.Appendf(nil, "%04d", n), bytes.Repeat([]byte{byte(n)}, size)}
}

// expect reads messages 0 to count-1.
func expect(t *testing.T, r io.Reader, count, size int) {
	t.Helper()
	for n := range count {
		want := bytes.Join(message(n, size), nil)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("message %d begins with %q and ends with %d", n, got[:4], got[len(got)-1])
		}
	}
}

// TestOrder checks that data goes at once while the socket accepts it, that the rest follows as it is read, and that no message
// overtakes another.
func TestOrder(t *testing.T) {
	ours, theirs := pair(t)
	raw, err := ours.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	at := 0 // bytes that went at once
	try := tryWrite(raw)
	o := newBy(func(data, rights []byte) int {
		n := try(data, rights)
		at += n
		return n
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.Run(ours)
	}()
	const count, size = 300, 20 << 10 // more than a socket buffers
	sent := make(chan int, 1)
	go func() {
		for n := range count {
			o.Put(message(n, size)...)
		}
		sent <- at
	}()
	if atOnce := <-sent; atOnce == 0 || atOnce >= count*size { // nothing is read yet, and Put has not blocked
		t.Errorf("%d bytes went at once, of %d", atOnce, count*size)
	}
	expect(t, theirs, count, size)
	theirs.Close()
	o.Put([]byte("x")) // Run finds the socket closed
	within(t, "the end of Run", ended)
	o.Put([]byte("x"))
	o.Close()
}

// TestNoSocket writes to a connection that is no socket of this process: Put does not block although nothing is read, and the order is
// kept. The first data arrives without the descriptor beside it.
func TestNoSocket(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	o := New(ours)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.Run(ours)
	}()
	const count, size = 100, 5000
	o.PutWith(0, message(0, size)...)
	for n := 1; n < count; n++ {
		o.Put(message(n, size)...)
	}
	expect(t, theirs, count, size)
	theirs.Close()
	o.Put([]byte("x")) // Run finds the connection closed
	within(t, "the end of Run", ended)
}

// TestDirect passes more than a socket buffers in both directions at once, and checks deadlines and the ends of the connection.
func TestDirect(t *testing.T) {
	for name, pair := range map[string]func(*testing.T) (net.Conn, net.Conn){"unix": pair, "tcp": tcpPair} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			d := newDirect(ours, ours.(syscall.Conn))
			if err := d.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read after the deadline: %v", err)
			}
			if err := d.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			const count, size = 100, 50 << 10
			var group sync.WaitGroup
			for _, way := range [][2]net.Conn{{d, theirs}, {theirs, d}} {
				group.Go(func() {
					for n := range count {
						if _, err := way[0].Write(bytes.Join(message(n, size), nil)); err != nil {
							t.Error(err)
							return
						}
					}
				})
				group.Go(func() {
					got, want := make([]byte, size+4), []byte(nil)
					for n := range count {
						want = bytes.Join(message(n, size), nil)
						if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, want) {
							t.Errorf("message %d: %v, begins with %q", n, err, got[:4])
							return
						}
					}
				})
			}
			group.Wait()
			theirs.Close()
			if _, err := d.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read after the end: %v, want EOF", err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					if _, err := d.Write(make([]byte, size)); err != nil {
						return
					}
				}
			}()
			within(t, "an error of Write", ended)
			d.Close()
			if _, err := d.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("read after Close: %v", err)
			}
		})
	}
}

func tcpPair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// TestWrite reuses the buffer of each write while nothing is read. What waits is counted.
func TestWrite(t *testing.T) {
	ours, theirs := pair(t)
	o := New(ours)
	const count, size = 300, 20 << 10 // more than a socket buffers
	buffer := make([]byte, 0, size+4)
	for n := range count {
		buffer = append(buffer[:0], bytes.Join(message(n, size), nil)...)
		if written, err := o.Write(buffer); written != len(buffer) || err != nil {
			t.Fatalf("write %d: %d, %v", n, written, err)
		}
	}
	if n := o.Waiting(); n == 0 || n >= count*(size+4) {
		t.Errorf("%d bytes wait of %d", n, count*(size+4))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.Run(ours)
	}()
	expect(t, theirs, count, size)
	if n := o.Waiting(); n != 0 {
		t.Errorf("%d bytes wait after all are read", n)
	}
	o.Close()
	within(t, "the end of Run", ended)
	if _, err := o.Write(buffer); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
}
