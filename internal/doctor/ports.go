package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// ports binds each address for a moment. The owner of an address in use is not named: it may belong to another user.
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
	f := Finding{Level: Note, Do: "Choose other addresses with --addr and --console-addr (127.0.0.1:0: any free port)"}
	if errors.Is(err, syscall.EADDRINUSE) {
		f.Text = address + " is already in use, perhaps by a running spacehost or Gradio: `spacehost run` needs another"
		f.Do = "Stop that process (`ss -ltnp` shows your own), or choose other addresses with --addr and --console-addr (127.0.0.1:0: any free port)"
		return f
	}
	f.Text = fmt.Sprintf("%s cannot be used: %v", address, err)
	return f
}
