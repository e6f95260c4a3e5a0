package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/lease"
	"spacehost/internal/outbox"
	"spacehost/internal/proctree"
	"spacehost/worker"
)

// ConnectConfig is what a host needs to connect to its agent.
type ConnectConfig struct {
	State string // state folder of the host
	// Command returns the command line of an agent of this state folder, which Connect starts if none answers. It must outlast
	// the host: Connect gives it a session of its own.
	Command func() *exec.Cmd
	// Wait is how long Connect waits for an agent that somebody else starts, such as a service manager, before it starts one.
	Wait time.Duration
	// OrphanAfter is how long the processes stay when this host has gone.
	OrphanAfter time.Duration
	Logger      *zap.Logger // nil: no log
}

// Client is the connection of a host to the agent. It implements worker.Keeper and lease.Guard. Its methods are safe for concurrent
// use.
type Client struct {
	config  ConnectConfig
	log     *zap.Logger
	devices net.Listener
	report  lease.MachineReport

	renewing sync.Mutex // held while another agent is started

	mu     sync.Mutex
	conn   *net.UnixConn
	outbox *outbox.Outbox
	kept   []worker.Kept // of an earlier host, not taken yet
	closed bool
}

var (
	_ worker.Keeper = (*Client)(nil)
	_ lease.Guard   = (*Client)(nil)
)

// How long an agent may take to answer.
const (
	startTimeout = 20 * time.Second
	otherTimeout = 2 * time.Second // of an agent that somebody else has started at the same time
	callTimeout  = 10 * time.Second
	dialPause    = 10 * time.Millisecond
)

// Connect connects a host to the agent of its state folder, and starts one if none answers.
func Connect(ctx context.Context, config ConnectConfig) (*Client, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	c := &Client{config: config, log: config.Logger}
	a, files, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	if c.devices, err = net.FileListener(files[0]); err != nil {
		c.Close()
		return nil, fmt.Errorf("listen for the device API: %w", err)
	}
	c.kept, c.report = a.Kept, a.Report
	return c, nil
}

// connect begins the connection of the host, and starts an agent if none answers.
func (c *Client) connect(ctx context.Context) (a answer, files []*os.File, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var exited <-chan error
	var late <-chan time.Time
	var why error
	began := time.Now()
	for starts := true; ; {
		conn, err := c.dial(ctx)
		if err == nil {
			a, files, err = c.greet(ctx, conn)
		}
		var other *otherProtocolError
		switch {
		case err == nil:
			return a, files, nil
		case errors.As(err, &other):
			c.log.Warn("agent of another version ends", zap.Error(err))
		case starts && exited == nil && isAbsent(err) && time.Since(began) < c.config.Wait:
		case starts && exited == nil && isAbsent(err):
			if exited, err = c.start(); err != nil {
				return a, nil, err
			}
		case !isAbsent(err) && !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil: // the deadline of ctx may be ahead of its Err
			return a, nil, fmt.Errorf("connect to the agent: %w", err)
		}
		select {
		case <-time.After(dialPause):
		case err := <-exited:
			why, exited = fmt.Errorf("it has ended at once (%w), see %s", err, logPath(c.config.State)), nil
			late = time.After(otherTimeout)
			starts = false
		case <-late:
			return a, nil, fmt.Errorf("the agent does not answer at %s: %w", socketPath(c.config.State), why)
		case <-ctx.Done():
			return a, nil, fmt.Errorf("the agent does not answer at %s: %w", socketPath(c.config.State), context.Cause(ctx))
		}
	}
}

// isAbsent reports whether no agent listens, or whether one has just ended.
func isAbsent(err error) bool {
	return slices.ContainsFunc([]error{os.ErrNotExist, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF}, func(one error) bool {
		return errors.Is(err, one)
	})
}

// otherProtocolError reports an agent of another version. It ends itself, and its processes.
type otherProtocolError struct{ theirs int }

func (e *otherProtocolError) Error() string {
	return fmt.Sprintf("the agent speaks protocol %d, this host %d", e.theirs, protocol)
}

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socketPath(c.config.State))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// greet begins the connection of the host. The end of ctx ends the wait for an agent that is stopped.
func (c *Client) greet(ctx context.Context, conn *net.UnixConn) (a answer, files []*os.File, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	own, err := c.ownListener()
	if err == nil {
		a, files, err = ask(conn, request{Op: "host", Protocol: protocol, OrphanAfter: c.config.OrphanAfter, Files: len(own)}, own...)
		closeAll(own)
	}
	if !stop() && err == nil { // the connection has a deadline now
		err = os.ErrDeadlineExceeded
	}
	if err == nil && a.Protocol != protocol {
		err = &otherProtocolError{a.Protocol}
	}
	if err == nil && len(files) != 1 {
		err = errors.New("the agent has passed no listener")
	}
	if err != nil {
		closeAll(files)
		conn.Close()
		return a, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.outbox = conn, outbox.New(conn)
	go c.outbox.Run(conn)
	return a, files, nil
}

// ownListener returns the listener of this host, if it had another agent before.
func (c *Client) ownListener() ([]*os.File, error) {
	if c.devices == nil {
		return nil, nil
	}
	file, err := c.devices.(*net.TCPListener).File()
	return []*os.File{file}, err
}

// ask writes a request to a new connection and reads the answer.
func ask(conn *net.UnixConn, q request, passed ...*os.File) (a answer, files []*os.File, err error) {
	if err = write(conn, message(kindRequest, encode(q))); err == nil {
		err = writeFiles(conn, passed)
	}
	if err == nil {
		err = readAs(conn, kindAnswer, &a)
	}
	if err == nil && a.Error != nil {
		err = a.Error.error()
	}
	if err == nil {
		files, err = readFiles(conn, a.Files)
	}
	return a, files, err
}

// logPath is the file of the output of an agent that a host has started.
func logPath(state string) string { return filepath.Join(state, "logs", "agent.log") }

// start starts an agent. exited receives how it has ended.
func (c *Client) start() (exited <-chan error, err error) {
	output, err := os.OpenFile(logPath(c.config.State), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	defer output.Close()
	cmd := c.config.Command()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C reaches the host alone
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	c.log.Info("agent started", zap.Int("pid", cmd.Process.Pid))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, nil
}

// Report returns the leases of the processes that an earlier host has left, as they were when this host connected.
func (c *Client) Report() lease.MachineReport { return c.report }

// Devices returns the listener of the device API. Every host of this agent has the same one.
func (c *Client) Devices() net.Listener { return c.devices }

// Kept implements worker.Keeper.
func (c *Client) Kept(space string) (all []worker.Kept) {
	for _, kept := range c.All() {
		if kept.Space == space {
			all = append(all, kept)
		}
	}
	return all
}

// All lists the processes of all Spaces that an earlier host has left and that this one has not taken.
func (c *Client) All() []worker.Kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.kept)
}

func (c *Client) forget(instance string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(k worker.Kept) bool { return k.Facts.Instance == instance })
}

// Launch implements worker.Keeper. An agent that has ended is replaced.
func (c *Client) Launch(config worker.ProcessConfig, kept worker.Kept) (worker.LocalProcess, error) {
	q := request{Op: "launch", Config: &config, Kept: &kept}
	p, err := c.open(kept, config, q)
	if isAbsent(err) {
		p, err = c.launchAgain(kept, config, q)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// launchAgain launches a process in another agent. Of several Spaces, the first one starts it.
func (c *Client) launchAgain(kept worker.Kept, config worker.ProcessConfig, q request) (*process, error) {
	c.renewing.Lock()
	defer c.renewing.Unlock()
	p, err := c.open(kept, config, q)
	if !isAbsent(err) {
		return p, err
	}
	c.log.Warn("the agent has ended, another one is started", zap.Error(err))
	if err := c.again(); err != nil {
		return nil, err
	}
	return c.open(kept, config, q)
}

// again connects to another agent after the end of the first. This host goes on with its own listener of the device API.
func (c *Client) again() error {
	c.mu.Lock()
	c.outbox.Close()
	c.conn.Close()
	c.mu.Unlock()
	_, files, err := c.connect(context.Background())
	closeAll(files)
	return err
}

// Take implements worker.Keeper.
func (c *Client) Take(kept worker.Kept, config worker.ProcessConfig) (worker.LocalProcess, error) {
	c.forget(kept.Facts.Instance)
	p, err := c.open(kept, config, request{Op: "take", Instance: kept.Facts.Instance})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// End implements worker.Keeper. A process that has ended already is no error.
func (c *Client) End(kept worker.Kept) {
	c.forget(kept.Facts.Instance)
	if _, _, err := c.call(context.Background(), request{Op: "end", Instance: kept.Facts.Instance}); err != nil {
		c.log.Info("process of an earlier host not ended", zap.String("instance", kept.Facts.Instance), zap.Error(err))
	}
}

// call makes one request on a connection of its own.
func (c *Client) call(ctx context.Context, q request) (answer, []*os.File, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return answer{}, nil, fmt.Errorf("ask the agent: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	a, files, err := ask(conn, q)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	return a, files, err
}

// LimitTotal sets limits on the sum of all starts, as proctree.Cgroups.LimitTotal does.
func (c *Client) LimitTotal(l proctree.Limits) (rest proctree.Limits, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	a, _, err := c.call(ctx, request{Op: "total", Limits: &l})
	if a.Rest == nil {
		return l, err
	}
	return *a.Rest, err
}

func (c *Client) dialPort(ctx context.Context, instance string, port int) (net.Conn, error) {
	_, files, err := c.call(ctx, request{Op: "dial", Instance: instance, Port: port})
	if err == nil && len(files) != 1 {
		err = errors.New("the agent has passed no connection")
	}
	defer closeAll(files)
	if err != nil {
		return nil, err
	}
	return net.FileConn(files[0])
}

// lost ends what is left of a process whose agent has ended.
func (c *Client) lost(t proctree.Tree, log *zap.Logger) error {
	t.Kill(log)
	return errAgentEnded
}

// Arm implements lease.Guard.
func (c *Client) Arm(id string, w lease.Worker, left time.Duration) {
	c.tell(kindArm, encode(arm{lease.OpenLease{Lease: id, Worker: w}, left}))
}

// Disarm implements lease.Guard.
func (c *Client) Disarm(id string) { c.tell(kindDisarm, []byte(id)) }

func (c *Client) tell(k kind, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outbox.Put(message(k, body)...)
}

// Close ends the use of the agent by this host, and leaves it the processes. It may be called twice.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.outbox.Close()
	c.conn.Close()
	if c.devices != nil {
		c.devices.Close()
	}
}

// Stop ends all processes and the agent. It returns when it has exited, or when ctx ends.
func (c *Client) Stop(ctx context.Context) error {
	c.tell(kindStop, nil)
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	var end [1]byte
	_, err := conn.Read(end[:]) // the agent writes nothing more: the read ends with it
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("the agent does not end: %w", cause)
	}
	if err != nil {
		return nil
	}
	return errors.New("the agent does not end")
}

// unmarshal is json.Unmarshal for a message of the agent.
func unmarshal(body []byte, to any) error {
	if err := json.Unmarshal(body, to); err != nil {
		return fmt.Errorf("message of the agent: %w", err)
	}
	return nil
}
