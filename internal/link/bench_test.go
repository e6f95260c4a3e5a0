package link_test

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"

	"spacehost/internal/link"
	"spacehost/internal/link/linktest"
)

// benchmarkPair returns the ends of a link over TCP.
func benchmarkPair(b *testing.B, agent link.Handler) (front, node *link.Link) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	links := make(chan *link.Link, 1)
	s := &link.Server{
		CA: linktest.NewAuthority(b), Handler: echo,
		Authorize: func(string, [32]byte) error { return nil },
		Hello:     func(l *link.Link, _ json.RawMessage) (any, error) { links <- l; return nil, nil },
	}
	go s.Serve(b.Context(), listener)
	node, _, err = link.Dial(b.Context(), listener.Addr().String(), linktest.NewIdentity(b, s.CA, "node"), nil, agent)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(node.Close)
	front = <-links
	link.SetUnlimited(front)
	return front, node
}

// BenchmarkCall calls the agent with 400 bytes and gets them back.
func BenchmarkCall(b *testing.B) {
	front, _ := benchmarkPair(b, echo)
	body := strings.Repeat("x", 400)
	for b.Loop() {
		if err := front.Call(b.Context(), "echo", body, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCallsAtOnce is BenchmarkCall with calls of many goroutines.
func BenchmarkCallsAtOnce(b *testing.B) {
	front, _ := benchmarkPair(b, echo)
	body := strings.Repeat("x", 400)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := front.Call(b.Context(), "echo", body, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFrames sends 400 bytes through a stream and gets them back.
func BenchmarkFrames(b *testing.B) {
	front, _ := benchmarkPair(b, echo)
	stream, err := front.Open(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, stream, int64(len("null"))); err != nil {
		b.Fatal(err)
	}
	frame := make([]byte, 400)
	for b.Loop() {
		if _, err := stream.Write(frame); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(stream, frame); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpload sends 256 MB through a stream of its own.
func BenchmarkUpload(b *testing.B) {
	const size = 256 << 20
	front, _ := benchmarkPair(b, linktest.Handler{OnStream: func(_ *link.Link, _ json.RawMessage, conn net.Conn) {
		defer conn.Close()
		if _, err := io.CopyN(io.Discard, conn, size); err == nil {
			conn.Write([]byte("x"))
		}
	}})
	chunk := make([]byte, 256<<10)
	b.SetBytes(size)
	for b.Loop() {
		stream, err := front.Open(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		for range size / len(chunk) {
			if _, err := stream.Write(chunk); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := io.ReadFull(stream, chunk[:1]); err != nil {
			b.Fatal(err)
		}
		stream.Close()
	}
}

// BenchmarkOpen opens a stream of the agent: TCP, a resumed TLS session and the answer of the front.
func BenchmarkOpen(b *testing.B) {
	_, node := benchmarkPair(b, echo)
	for b.Loop() {
		stream, err := node.Open(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		stream.Close()
	}
}
