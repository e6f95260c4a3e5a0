package host

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"

	"spacehost/internal/link"
	"spacehost/internal/machine"
	"spacehost/internal/nodeagent"
)

// NodeService is what an agent serves to its front: the Devices of this machine, and the Spaces on it.
type NodeService struct {
	devices *machine.Agent
	node    *node

	mu    sync.Mutex
	front *link.Link    // nil: none is connected
	came  chan struct{} // closed when another front connects
}

var _ nodeagent.Service = (*NodeService)(nil)

// NewNodeService opens what a node needs. The caller closes it after the end of Run.
func NewNodeService(ctx context.Context, c NodeConfig) (*NodeService, error) {
	s := &NodeService{came: make(chan struct{})}
	var err error
	s.devices, err = machine.Open(ctx, machine.OpenConfig{GPUs: c.GPUs, Share: c.Share, Only: c.OnlyGPUs, Machine: c.Name, Info: DescribeProcess, Logger: c.Logger.Named("machine")})
	if err != nil {
		return nil, err
	}
	if s.node, err = openNode(c, s.devices, s); err != nil {
		_ = s.devices.Close() // the first error counts
		return nil, err
	}
	return s, nil
}

// Run watches Devices and processes, and measures the folders of the Spaces, until ctx ends.
func (s *NodeService) Run(ctx context.Context) error {
	var walks sync.WaitGroup
	walks.Go(func() { s.node.host.sampler.runWalks(ctx) })
	defer walks.Wait()
	return s.devices.Run(ctx)
}

// Close ends the Spaces.
func (s *NodeService) Close() {
	s.node.close()
	_ = s.devices.Close() // nothing can be done about a driver that hangs
}

// Hello implements nodeagent.Service.
func (s *NodeService) Hello(ctx context.Context) (json.RawMessage, error) {
	return s.devices.Hello(ctx)
}

// Connected implements nodeagent.Service.
func (s *NodeService) Connected(l *link.Link, welcome json.RawMessage) {
	s.mu.Lock()
	s.front = l
	close(s.came)
	s.came = make(chan struct{})
	s.mu.Unlock()
	s.devices.Connected(l, welcome)
}

// Leave implements nodeagent.Service.
func (s *NodeService) Leave() { s.node.leave() }

// Running implements nodeagent.Service.
func (s *NodeService) Running() (processes, leases int) { return s.node.running(), s.devices.Leases() }

// End implements nodeagent.Service.
func (s *NodeService) End() { s.node.starts.EndAll() }

// open opens a stream to the front. It waits for one that is restarting until ctx ends.
func (s *NodeService) open(ctx context.Context, hello any) (net.Conn, error) {
	for {
		s.mu.Lock()
		front, came := s.front, s.came
		s.mu.Unlock()
		err := error(link.ErrDown)
		if front != nil {
			var conn net.Conn
			if conn, err = front.Open(ctx, hello); err == nil || !errors.Is(err, link.ErrDown) {
				return conn, err
			}
		}
		select {
		case <-came:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Call implements link.Handler.
func (s *NodeService) Call(ctx context.Context, l *link.Link, op string, body json.RawMessage) (any, error) {
	if answer, known, err := s.node.call(ctx, op, body); known {
		return answer, err
	}
	return s.devices.Call(ctx, l, op, body)
}

// Tell implements link.Handler.
func (s *NodeService) Tell(l *link.Link, op string, body json.RawMessage) {
	s.devices.Tell(l, op, body)
}

// Stream implements link.Handler.
func (s *NodeService) Stream(l *link.Link, hello json.RawMessage, conn net.Conn) {
	if !s.node.stream(hello, conn) {
		s.devices.Stream(l, hello, conn)
	}
}

// Suspect implements link.Handler.
func (s *NodeService) Suspect(l *link.Link, suspect bool) { s.devices.Suspect(l, suspect) }
