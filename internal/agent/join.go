package agent

import (
	"io"
	"net"
	"sync"

	"spacehost/internal/outbox"
)

// Join copies both ways between two connections, until both directions have ended or one has failed. It closes neither if both have
// ended by themselves.
func Join(a, b net.Conn) {
	var copying sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		copying.Go(func() {
			_, err := io.Copy(outbox.Direct(way[0]), outbox.Direct(way[1]))
			if half, ok := way[0].(interface{ CloseWrite() error }); ok && err == nil {
				_ = half.CloseWrite() // a connection that has ended is found by the other direction
				return
			}
			a.Close()
			b.Close()
		})
	}
	copying.Wait()
}
