package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"go.uber.org/zap"

	"spacehost/internal/proctree"
	"spacehost/worker"
)

// Link is what a Remote needs of the connection to a node (package link).
type Link interface {
	Call(ctx context.Context, op string, in, out any) error
	Open(ctx context.Context, hello any) (net.Conn, error)
}

// Remote reaches the processes of a node, which answers by its Starts. Its methods may be called concurrently. They fail when the
// link is down.
type Remote struct {
	Link   Link
	Logger *zap.Logger
}

// Launch starts the process of an instance. order is the hello of the stream, with which the node calls Starts.Launch.
func (r *Remote) Launch(ctx context.Context, instance string, order any, config worker.ProcessConfig) (worker.Running, worker.Facts, error) {
	return r.open(ctx, instance, order, config)
}

// Take takes over a process that an earlier link has left.
func (r *Remote) Take(ctx context.Context, instance string, config worker.ProcessConfig) (worker.Running, worker.Facts, error) {
	return r.open(ctx, instance, streamRequest{Op: opTake, Instance: instance}, config)
}

func (r *Remote) open(ctx context.Context, instance string, hello any, config worker.ProcessConfig) (worker.Running, worker.Facts, error) {
	conn, err := r.Link.Open(ctx, hello)
	if err != nil {
		return nil, worker.Facts{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var a answer
	err = readAs(conn, kindAnswer, &a)
	if err == nil {
		err = a.Error.error()
	}
	switch {
	case err != nil:
	case a.Tree == nil || a.Facts == nil:
		err = errors.New("the node names no process")
	case a.Facts.Instance != instance: // the end of the process would end the leases of that one
		err = errors.New("the node names the process of another start")
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, worker.Facts{}, err
	}
	p := follow(r, r.Logger, instance, conn, a, config)
	return remoteProcess{p, r}, *a.Facts, nil
}

// Kept lists the processes of a Space; "": of all Spaces.
func (r *Remote) Kept(ctx context.Context, space string) ([]worker.Kept, error) {
	a, _, err := r.call(ctx, request{Op: "kept", Instance: space})
	return a.Kept, err
}

// End ends a process that an earlier link has left, and returns when all its processes have exited.
func (r *Remote) End(ctx context.Context, instance string) error {
	_, _, err := r.call(ctx, request{Op: "end", Instance: instance})
	return err
}

func (r *Remote) call(ctx context.Context, q request) (a answer, files []*os.File, err error) {
	if err = r.Link.Call(ctx, "process/"+q.Op, q, &a); err == nil {
		err = a.Error.error()
	}
	return a, nil, err
}

func (r *Remote) dialPort(ctx context.Context, instance string, port int) (net.Conn, error) {
	conn, err := r.Link.Open(ctx, streamRequest{Op: opDial, Instance: instance, Port: port})
	if err != nil {
		return nil, fmt.Errorf("connect to the Space: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var a answer
	if err = readAs(conn, kindAnswer, &a); err == nil {
		err = a.Error.error()
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// lost leaves the process: its node ends it, or the next link takes it.
func (r *Remote) lost(proctree.Tree, *zap.Logger) error { return worker.ErrUnreachable }

// remoteProcess is a process on a node. Its pids are those of the node.
type remoteProcess struct {
	*process
	remote *Remote
}

// Status implements worker.Running. A node that does not answer reports a running process: the end of the link ends it.
func (p remoteProcess) Status() (proctree.Status, bool) {
	a, _, err := p.call(context.Background(), request{Op: "status"})
	if err != nil {
		return proctree.Status{}, true
	}
	if a.Status == nil {
		return proctree.Status{}, false
	}
	return *a.Status, true
}
