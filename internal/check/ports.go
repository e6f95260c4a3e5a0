package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// ports takes each address for a moment. Who has one that is taken cannot be told: it may be another user's.
func (c Config) ports(ctx context.Context) (found []Finding) {
	for _, address := range c.Addresses {
		found = append(found, port(ctx, address))
	}
	return found
}

func port(ctx context.Context, address string) Finding {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err == nil {
		listener.Close()
		return ok("%s is free", address)
	}
	f := Finding{Level: Note, Do: "Choose others by --addr and --console-addr (127.0.0.1:0: any that is free)"}
	if errors.Is(err, syscall.EADDRINUSE) {
		f.Text = address + " is taken, perhaps by a spacehost or a Gradio that runs: `spacehost run` needs another"
		f.Do = "Stop that one (`ss -ltnp` shows your own), or choose others by --addr and --console-addr (127.0.0.1:0: any that is free)"
		return f
	}
	f.Text = fmt.Sprintf("%s cannot be used: %v", address, err)
	return f
}
