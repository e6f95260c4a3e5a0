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

// leaveFiles lets the next use of the files begin with the node that the Space has then. The caller holds mu, and calls end without it.
func (p *nodePlace) leaveFiles() (end func()) {
	before := p.files
	p.files = nil
	return func() {
		if before != nil {
			before.Close()
		}
	}
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
