// Package stack makes the stacks of new goroutines large enough at once.
package stack

// reserved is what a request or a transaction needs in practice, so that the runtime chooses a stack of 16 KiB.
const reserved = 14 << 10

// Reserve is the first call of a goroutine that is started for each call of a visitor and has much to do. The stack
// of a goroutine begins with a few KiB. When it is full, the runtime copies it to one of double size, and a goroutine that
// runs a request pays for that three or four times. Here the stack grows once, while there is almost nothing to copy.
//
//go:noinline
func Reserve() {
	var room [reserved]byte
	keep(&room)
}

//go:noinline
func keep(*[reserved]byte) {}
