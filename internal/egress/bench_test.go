package egress

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkRelay reports the bytes per second of one connection over loopback, through the relay and without it.
func BenchmarkRelay(b *testing.B) {
	b.Run("relayed", func(b *testing.B) {
		space, server := newNetwork(b, Config{}).pair()
		benchmarkTransfer(b, server, space)
	})
	b.Run("direct", func(b *testing.B) {
		n := newNetwork(b, Config{})
		c, err := n.dialServer(b.Context(), "tcp", "")
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		benchmarkTransfer(b, n.accept(), c)
	})
}

func benchmarkTransfer(b *testing.B, from, to net.Conn) {
	const chunk = 1 << 20
	from.SetDeadline(time.Time{})
	to.SetDeadline(time.Time{})
	ended := make(chan error, 1)
	b.SetBytes(chunk)
	b.ResetTimer()
	go func() {
		data := make([]byte, chunk)
		for range b.N {
			if _, err := from.Write(data); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	buffer := make([]byte, chunk)
	for range b.N {
		if _, err := io.ReadFull(to, buffer); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFirstByte reports the time from the connection of a Space to the first byte of the answer, with the dial of
// the relay.
func BenchmarkFirstByte(b *testing.B) {
	n := newNetwork(b, Config{})
	n.connect(publicWeb).Close()
	n.accept().Close()
	first := make([]byte, 1)
	for b.Loop() {
		space := n.connect(publicWeb)
		server := n.accept()
		if _, err := server.Write([]byte{1}); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(space, first); err != nil {
			b.Fatal(err)
		}
		space.Close()
		server.Close()
	}
}

// BenchmarkPolicy reports the cost of the decision for one connection.
func BenchmarkPolicy(b *testing.B) {
	n := newNetwork(b, Config{Own: interfaceAddresses})
	to := netip.MustParseAddrPort(publicWeb)
	for b.Loop() {
		if err := n.policy.Allows(n.resolveDestination(to)); err != nil {
			b.Fatal(err)
		}
	}
}
