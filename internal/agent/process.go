package agent

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"spacehost/internal/outbox"
	"spacehost/internal/proctree"
	"spacehost/internal/sandbox"
	"spacehost/worker"
)

// process is a process that the agent keeps. It implements worker.LocalProcess.
type process struct {
	keeper   keeper
	instance string
	config   worker.ProcessConfig
	log      *zap.Logger
	conn     net.Conn
	outbox   *outbox.Outbox
	tree     proctree.Tree
	done     chan struct{}

	mu   sync.Mutex
	left bool
	how  done  // valid once done is closed
	lost error // the same: the reason, if the agent has not sent one
}

var _ worker.LocalProcess = (*process)(nil)

// errAgentEnded is the reason of the end of a process whose agent has ended.
var errAgentEnded = errors.New("its agent has ended")

// keeper makes requests about a process to the agent that keeps it, on this machine or on another one.
type keeper interface {
	call(ctx context.Context, q request) (answer, []*os.File, error)
	// dialPort connects to a port of the process.
	dialPort(ctx context.Context, instance string, port int) (net.Conn, error)
	// lost is called when the connection of the process has ended. It returns the reason of its end.
	lost(t proctree.Tree, log *zap.Logger) error
}

// open begins the connection of a process.
func (c *Client) open(kept worker.Kept, config worker.ProcessConfig, q request) (*process, error) {
	conn, err := c.dial(context.Background())
	if err != nil {
		return nil, fmt.Errorf("connect to the agent: %w", err)
	}
	a, sockets, err := ask(conn, q)
	if err == nil && a.Tree == nil {
		err = errors.New("the agent names no process")
	}
	if err != nil {
		closeAll(sockets)
		conn.Close()
		return nil, err
	}
	if config.Opened != nil {
		config.Opened(sockets)
	} else {
		closeAll(sockets)
	}
	return follow(c, c.log, kept.Facts.Instance, conn, a, config), nil
}

// follow receives what the process reports.
func follow(k keeper, log *zap.Logger, instance string, conn net.Conn, a answer, config worker.ProcessConfig) *process {
	p := &process{keeper: k, instance: instance, config: config, log: log, conn: conn, outbox: outbox.New(conn), done: make(chan struct{})}
	if config.Logger != nil {
		p.log = config.Logger
	}
	p.tree = proctree.Tree{Root: a.Tree.Root, Runner: a.Tree.Runner, Marker: a.Tree.Marker, Cgroup: a.Tree.Cgroup}
	if a.Tree.Translates {
		p.tree.HostPID = p.hostPID
	}
	go p.outbox.Run(conn)
	go p.run()
	return p
}

// run receives the reports of the process until it has ended.
func (p *process) run() {
	reader := bufio.NewReaderSize(outbox.Direct(p.conn), 64<<10)
	for {
		k, body, err := read(reader)
		var wrong error // a message that is none
		if err == nil {
			wrong = p.receive(k, body)
			err = wrong
		}
		if err == nil && k != kindDone {
			continue
		}
		if p.hasLeft() {
			return
		}
		if err != nil {
			p.log.Warn("connection to the agent", zap.Error(err))
			if p.lost = p.keeper.lost(p.tree, p.log); wrong != nil {
				p.lost = fmt.Errorf("message of its agent: %w", wrong)
			}
			p.how = done{Exit: worker.Exit{Exit: sandbox.Exit{Signal: syscall.SIGKILL}}}
		}
		break
	}
	p.outbox.Close()
	p.conn.Close()
	if p.config.CloseDoor != nil {
		p.config.CloseDoor()
	}
	close(p.done)
}

func (p *process) hasLeft() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.left
}

// receive handles one message of the agent.
func (p *process) receive(k kind, body []byte) (err error) {
	to := p.config.Reporter
	switch k {
	case kindFrame:
		f, err := worker.ParseFrame(body)
		if err != nil {
			return err
		}
		if err := to.Report(f); err != nil {
			if breach := (*worker.FrameError)(nil); errors.As(err, &breach) {
				p.log.Warn("frame protocol violation", zap.Error(err))
			}
			p.Fail(err)
		}
	case kindPrint:
		var line printed
		if err = unmarshal(body, &line); err == nil {
			to.Print(line.Stream, line.Line)
		}
	case kindMark:
		var number int
		if err = unmarshal(body, &number); err == nil {
			to.Mark(number)
		}
	case kindNote:
		var text string
		if err = unmarshal(body, &text); err == nil {
			to.Note(text)
		}
	case kindDone:
		err = unmarshal(body, &p.how)
	default:
		err = fmt.Errorf("unknown message %q of the agent", k)
	}
	return err
}

func (p *process) send(k kind, body ...[]byte) { p.outbox.Put(message(k, body...)...) }

// Send implements worker.Running.
func (p *process) Send(f worker.Frame) { p.send(kindFrame, f.Parts()...) }

// Begin implements worker.Running.
func (p *process) Begin() { p.send(kindBegin) }

// Fail implements worker.Running.
func (p *process) Fail(reason error) { p.send(kindFail, encode(toWire(reason))) }

// End implements worker.Running.
func (p *process) End(ctx context.Context, grace time.Duration) {
	p.send(kindEnd, encode(grace))
	select {
	case <-p.done:
	case <-ctx.Done():
		p.send(kindKill)
		<-p.done
	}
}

// Leave implements worker.Running.
func (p *process) Leave() {
	p.mu.Lock()
	p.left = true
	p.mu.Unlock()
	p.outbox.Close()
	p.conn.Close()
}

// Done implements worker.Running.
func (p *process) Done() <-chan struct{} { return p.done }

// Err implements worker.Running.
func (p *process) Err() error { return cmp.Or(p.lost, p.how.Err.error()) }

// Exit implements worker.Running.
func (p *process) Exit() worker.Exit { return p.how.Exit }

// Tail implements worker.Running. It is empty before Done.
func (p *process) Tail() []string {
	select {
	case <-p.done:
		return p.how.Tail
	default:
		return nil
	}
}

// Tree implements worker.LocalProcess.
func (p *process) Tree() proctree.Tree { return p.tree }

// Status implements worker.Running.
func (p *process) Status() (proctree.Status, bool) { return p.tree.Interpreter().Status() }

// Dial implements worker.Running.
func (p *process) Dial(ctx context.Context, port int) (net.Conn, error) {
	if p.config.IsHostPort != nil && p.config.IsHostPort(port) {
		return nil, &proctree.ForeignPortError{Port: port}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return p.keeper.dialPort(ctx, p.instance, port)
}

// Show implements worker.LocalProcess.
func (p *process) Show(ctx context.Context, targets []string) error {
	_, _, err := p.call(ctx, request{Op: "show", Targets: targets})
	return err
}

// Inspect implements worker.Running.
func (p *process) Inspect(ctx context.Context, canRun bool) worker.Inspection {
	a, _, err := p.call(ctx, request{Op: "inspect", CanRun: canRun})
	if err != nil || a.Inspection == nil {
		return worker.Inspection{Why: fmt.Sprint("the agent does not answer: ", err)}
	}
	return *a.Inspection
}

func (p *process) hostPID(pid int) (int, error) {
	a, _, err := p.call(context.Background(), request{Op: "pid", PID: pid})
	return a.PID, err
}

// call makes a request about the process.
func (p *process) call(ctx context.Context, q request) (answer, []*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q.Instance = p.instance
	return p.keeper.call(ctx, q)
}
