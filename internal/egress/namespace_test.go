package egress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"spacehost/internal/feature/featuretest"
)

// insideVariable makes the test binary the process inside a network namespace.
const insideVariable = "SPACEHOST_EGRESS_INSIDE"

// insideNames are the descriptors that runInside passes on, in this order.
var insideNames = []string{"80", "443", "8080", "udp", "tcp"}

// runInside opens the listeners of a Space, passes them on, and then executes the commands on its input.
func runInside() int {
	if err := prepareNetwork(); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		result, err := map[string]func(string) (string, error){"lookup": lookupInside, "get": getInside, "mapped": mappedInside, "python": pythonInside}[words[0]](words[1])
		if err != nil {
			result = "error: " + err.Error()
		}
		answer, _ := json.Marshal(result) // a string always has a JSON form
		fmt.Println(string(answer))
	}
	return 0
}

func prepareNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: unix.RT_TABLE_LOCAL}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add the local route: %w", err)
	}
	var fds []int
	for _, name := range insideNames {
		file, err := openInside(name)
		if err != nil {
			return err
		}
		defer file.Close()
		fds = append(fds, int(file.Fd()))
	}
	return unix.Sendmsg(3, []byte{0}, unix.UnixRights(fds...), nil, 0)
}

func openInside(name string) (*os.File, error) {
	if name == "udp" {
		p, err := net.ListenPacket("udp4", "127.0.0.1:53")
		if err != nil {
			return nil, err
		}
		defer p.Close()
		return p.(*net.UDPConn).File()
	}
	address := "0.0.0.0:" + name
	if name == "tcp" {
		address = "127.0.0.1:53"
	}
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

// lookupInside asks the resolver at 127.0.0.1 for "udp/NAME" or "tcp/NAME".
func lookupInside(arg string) (string, error) {
	network, name, _ := strings.Cut(arg, "/")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:53")
	}}
	addrs, err := resolver.LookupNetIP(context.Background(), "ip", name)
	slices.SortFunc(addrs, netip.Addr.Compare)
	return fmt.Sprint(addrs), err
}

func getInside(address string) (string, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return talk(c)
}

// mappedInside connects with an IPv6 socket to an IPv4-mapped address.
func mappedInside(address string) (string, error) {
	to := netip.MustParseAddrPort(address)
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	c := os.NewFile(uintptr(fd), "mapped")
	defer c.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}); err != nil {
		return "", err
	}
	return talk(c)
}

func talk(c io.ReadWriter) (string, error) {
	if _, err := io.WriteString(c, "question"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

// pythonInside lets the C library read the address, which knows decimal, octal and short forms.
func pythonInside(address string) (string, error) {
	host, port, _ := strings.Cut(address, ":")
	const code = "import socket, sys\nc = socket.create_connection((sys.argv[1], int(sys.argv[2])))\nc.sendall(b'question')\nprint(c.makefile().read())"
	out, _ := exec.Command("python3", "-c", code, host, port).CombinedOutput() // the last line has the error
	printed := strings.Split(strings.TrimSpace(string(out)), "\n")
	return printed[len(printed)-1], nil
}

// startInside returns what the process inside has opened, and a function that lets it execute a command.
func startInside(t *testing.T) (files map[string]*os.File, command func(line string) string) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	t.Cleanup(func() { ours.Close() })
	inside := exec.Command("/proc/self/exe")
	inside.Env = append(os.Environ(), insideVariable+"=1")
	inside.ExtraFiles = []*os.File{theirs}
	inside.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	input, _ := inside.StdinPipe()   // fails only after Start
	output, _ := inside.StdoutPipe() // the same
	err = inside.Start()
	theirs.Close()
	if err != nil {
		featuretest.Missing(t, "user namespaces with rights are not available: %v", err)
	}
	t.Cleanup(func() {
		input.Close()
		if err := inside.Wait(); err != nil {
			t.Error("process inside:", err)
		}
	})
	answers := bufio.NewScanner(output)
	files = receive(t, ours, answers)
	return files, func(line string) (result string) {
		t.Helper()
		fmt.Fprintln(input, line)
		if !answers.Scan() || json.Unmarshal(answers.Bytes(), &result) != nil {
			t.Fatalf("%s: got %q, want an answer", line, answers.Text())
		}
		return result
	}
}

func receive(t *testing.T, from *os.File, output *bufio.Scanner) map[string]*os.File {
	t.Helper()
	control := make([]byte, 256)
	_ = unix.SetsockoptTimeval(int(from.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}) // the test's own deadline also ends it
	_, n, _, _, err := unix.Recvmsg(int(from.Fd()), make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		output.Scan()
		featuretest.Missing(t, "user namespaces with rights are not available: %v", fmt.Sprint(output.Text(), err))
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != len(insideNames) {
		t.Fatalf("got %d descriptors, %v, want %d", len(fds), err, len(insideNames))
	}
	files := map[string]*os.File{}
	for i, fd := range fds {
		files[insideNames[i]] = os.NewFile(uintptr(fd), insideNames[i])
	}
	return files
}

// serveInside attaches an Egress to the listeners of a real network namespace.
func serveInside(t *testing.T, n *network) (command func(line string) string) {
	t.Helper()
	n.destination = localAddr // the destination that the kernel reports
	files, command := startInside(t)
	for name, file := range files {
		if name == "udp" {
			p, err := net.FilePacketConn(file)
			if err != nil {
				t.Fatal(err)
			}
			go n.ServeDNS(p) // Close waits for its end, as for the others
		} else {
			l, err := net.FileListener(file)
			if err != nil {
				t.Fatal(err)
			}
			serve := n.ServeTCP
			if name == "tcp" {
				serve = n.ServeDNSTCP
			}
			go serve(l)
		}
		file.Close()
	}
	go func() {
		for c := range n.served { // each connection gets one answer
			io.CopyN(io.Discard, c, int64(len("question")))
			io.WriteString(c, "answer")
			c.Close()
		}
	}()
	t.Cleanup(func() { close(n.served) })
	return command
}

// A process in a network namespace reaches public addresses and nothing else, however it writes the address.
func TestInANetworkNamespace(t *testing.T) {
	n := newNetwork(t, Config{
		Resolver: newZone("web.example.com 93.184.216.34", "db.example.com 10.1.2.3"),
		Policy:   Policy{Reach: []netip.AddrPort{netip.MustParseAddrPort("10.9.9.9:443")}},
	})
	command := serveInside(t, n)
	for _, c := range []struct {
		command, want string
		reason        Reason
		destination   string
	}{
		{"lookup udp/web.example.com", "[93.184.216.34]", "", ""},
		{"lookup tcp/web.example.com", "[93.184.216.34]", "", ""},
		{"lookup udp/db.example.com", "no such host", ReasonPrivate, "10.1.2.3:0"},
		{"get 93.184.216.34:443", "answer", "", ""},
		{"get 93.184.216.34:80", "answer", "", ""},
		{"get 8.8.8.8:8080", "answer", "", ""},
		{"get 10.9.9.9:443", "answer", "", ""},
		{"mapped [::ffff:93.184.216.34]:443", "answer", "", ""},
		{"python 1572395042:443", "answer", "", ""}, // 93.184.216.34
		{"get 93.184.216.34:22", "connection refused", "", ""},
		{"get 10.1.2.3:443", "connection reset", ReasonPrivate, "10.1.2.3:443"},
		{"get 192.168.0.1:8080", "connection reset", ReasonPrivate, "192.168.0.1:8080"},
		{"get 169.254.169.254:80", "connection reset", ReasonLinkLocal, "169.254.169.254:80"},
		{"get 127.0.0.1:80", "connection reset", ReasonLoopback, "127.0.0.1:80"},
		{"mapped [::ffff:10.1.2.3]:443", "connection reset", ReasonPrivate, "10.1.2.3:443"},
		{"python 167838211:443", "Connection reset", ReasonPrivate, "10.1.2.3:443"},
		{"python 0xa.0x1.515:443", "Connection reset", ReasonPrivate, "10.1.2.3:443"},
		{"python 012.01.02.03:80", "Connection reset", ReasonPrivate, "10.1.2.3:80"},
		{"python 2852039166:80", "Connection reset", ReasonLinkLocal, "169.254.169.254:80"},
		{"get [::1]:443", "connection refused", "", ""},
		{"get [2606:4700::1111]:443", "unreachable", "", ""},
	} {
		before, dials := n.Stats().Refused, n.dials.Load()
		got := command(c.command)
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.command, got, c.want)
		}
		last, _ := n.LastRefusal()
		if refused := n.Stats().Refused - before; (refused == 1) != (c.reason != "") || refused == 1 && (last.Reason != c.reason || last.Destination.String() != c.destination) {
			t.Errorf("%s: got %d refusals, the last %+v, want %q of %s", c.command, refused, last, c.reason, c.destination)
		}
		if dialled := n.dials.Load() - dials; (dialled == 1) != (c.want == "answer") {
			t.Errorf("%s: got %d dials", c.command, dialled)
		}
	}
}

// After Close the ports inside are closed, and a process inside gets an error at once.
func TestCloseEndsANamespacesNetwork(t *testing.T) {
	n := newNetwork(t, Config{Resolver: newZone("web.example.com 93.184.216.34")})
	command := serveInside(t, n)
	if got := command("get " + publicWeb); got != "answer" {
		t.Fatal(got)
	}
	start := time.Now()
	if err := n.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if got := command("get " + publicWeb); !strings.Contains(got, "connection refused") {
		t.Errorf("got %q, want connection refused", got)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("took %s", took)
	}
}
