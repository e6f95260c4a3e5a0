package worker

import (
	"bufio"
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

func (p *Process) copyLines(stream int, r io.Reader) {
	reader := bufio.NewReaderSize(r, lineLimit)
	for {
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			if text, shown := p.config.failures.mark(strings.TrimRight(string(line), "\r\n")); shown {
				p.tail.add(text)
				p.config.comparison.add(stream, text, func() { p.output.print([]string{Stdout, Stderr}[stream], text) })
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// Tail returns the last lines that the Space printed.
func (p *Process) Tail() []string {
	p.tail.mu.Lock()
	defer p.tail.mu.Unlock()
	return append([]string{}, p.tail.lines...)
}
