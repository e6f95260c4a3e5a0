package worker

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
)

// tail keeps the last lines that a Space printed, for the report about its exit.
type tail struct {
	wg    sync.WaitGroup
	files []*os.File
	mu    sync.Mutex
	lines []string
}

const (
	tailLines = 40
	lineLimit = 64 << 10 // a longer line is split
)

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lines = append(t.lines, line); len(t.lines) > tailLines {
		t.lines = t.lines[1:]
	}
}

func (p *Process) copyLines(stream string, r io.Reader) {
	reader := bufio.NewReaderSize(r, lineLimit)
	for {
		line, err := reader.ReadSlice('\n')
		p.output.slowDown(len(line))
		if len(line) > 0 {
			if isForkFailure(line) {
				p.forkFailed.Store(true)
			}
			text, number, marked := cutMark(strings.TrimRight(string(line), "\r\n"))
			if marked {
				p.config.Reporter.Mark(number)
			}
			if !marked || text != "" {
				p.tail.add(text)
				p.output.print(stream, text)
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// isForkFailure recognizes what Python and shells print when a process or thread fails to start.
func isForkFailure(line []byte) bool {
	for _, words := range []string{"can't start new thread", "Cannot fork", "fork: Resource temporarily unavailable"} {
		if bytes.Contains(line, []byte(words)) {
			return true
		}
	}
	return false
}

// Tail returns the last lines that the Space printed.
func (p *Process) Tail() []string {
	p.tail.mu.Lock()
	defer p.tail.mu.Unlock()
	return append([]string{}, p.tail.lines...)
}
