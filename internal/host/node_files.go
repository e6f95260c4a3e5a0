package host

import (
	"context"
	"net"

	"spacehost/internal/shelf"
)

// shelf returns the files of the Space on the node.
func (p *nodePlace) shelf() *shelf.Remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files == nil {
		s := p.s
		p.files = shelf.NewRemote(shelf.RemoteConfig{
			Space: s.space().Name, Dial: p.dialFiles, ReserveUpload: s.reserveUpload, IsPresent: s.queue.IsPresent, Logger: s.host.log.Named("shelf"),
		})
	}
	return p.files
}

// leaveFiles lets the next use of the files of the Space begin with the node that it has then, if it has another one. The caller holds mu,
// and calls the result without it.
func (p *nodePlace) leaveFiles(other bool) (end func()) {
	before := p.files
	if before == nil || !other {
		return func() {}
	}
	p.files = nil
	return func() { before.Close() }
}

func (p *nodePlace) dialFiles(ctx context.Context) (net.Conn, error) {
	l, err := p.link()
	if err != nil {
		return nil, err
	}
	return l.Open(ctx, FilesStream{streamFiles})
}

func (p *nodePlace) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files != nil {
		p.files.Close()
	}
}
