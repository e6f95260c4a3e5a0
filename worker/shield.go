package worker

import "syscall"

// endOrder ends a shielded Space as SIGTERM would end another one.
type endOrder struct {
	Op string `json:"op"` // end
}

// askToEnd sends SIGTERM to the Space. A runner with a shield sends it to itself, once it is configured: before, it has none.
func (p *Process) askToEnd() {
	p.mu.Lock()
	shielded := p.config.Shield && p.configured
	p.mu.Unlock()
	if shielded {
		p.Send(newFrame(endOrder{Op: "end"}, nil))
		return
	}
	p.signal(syscall.SIGTERM)
}
