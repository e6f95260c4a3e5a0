package stack

import (
	"testing"
	"unsafe"
)

// use takes n bytes of the stack.
//
//go:noinline
func use(n int) byte {
	var frame [512]byte
	frame[n%512] = 1
	if n > 512 {
		return use(n-512) + frame[0]
	}
	return frame[1]
}

// moves reports whether the stack of a new goroutine is copied while it uses n bytes.
func moves(n int, prepare func()) bool {
	moved := make(chan bool)
	go func() {
		prepare()
		var mark byte
		before := uintptr(unsafe.Pointer(&mark))
		use(n)
		moved <- uintptr(unsafe.Pointer(&mark)) != before
	}()
	return <-moved
}

func TestReserve(t *testing.T) {
	const ample = 1 << 20
	if !moves(ample, func() {}) || !moves(ample, Reserve) {
		t.Fatal("a stack that uses 1 MiB has not moved: the test sees nothing")
	}
	if moves(reserved-4<<10, Reserve) {
		t.Error("the stack has moved after Reserve")
	}
}
