package doctor

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
)

func (c Config) limits(context.Context) []Finding {
	return []Finding{c.machine.openFiles(), c.machine.processes(), c.machine.memory()}
}

const (
	manyFiles = 20_000 // for 10,000 waiting visitors: one stream and one call each
	fewFiles  = 1_000  // the host, its database, and one or two Spaces
)

// openFiles checks the hard limit: Go programs raise the soft limit to it.
func (m machine) openFiles() Finding {
	limit := m.processLimit("Max open files")
	f := Finding{
		Level: Warning, Text: fmt.Sprintf("At most %d open files: about %d visitors can wait at the same time (10,000 need %d)", limit, limit/2, manyFiles),
		Do: "Raise the hard limit: `ulimit -Hn 65536` as root, LimitNOFILE=65536 in a systemd unit, --ulimit nofile=65536 for Docker",
	}
	switch {
	case limit >= manyFiles:
		return ok("%s open files: enough for 10,000 waiting visitors", orNoLimit(limit))
	case limit < fewFiles:
		f.Level = Problem
		f.Text = fmt.Sprintf("At most %d open files: too few for a Space and its visitors", limit)
	}
	return f
}

// processLimit returns a hard limit of proc/self/limits; unlimited if the file does not contain it.
func (m machine) processLimit(name string) uint64 {
	for line := range strings.Lines(m.read("proc/self/limits")) {
		if rest, found := strings.CutPrefix(line, name); found {
			return number(strings.Fields(rest), 1)
		}
	}
	return unlimited
}

func number(fields []string, index int) uint64 {
	if index >= len(fields) {
		return unlimited
	}
	n, err := strconv.ParseUint(fields[index], 10, 64)
	if err != nil {
		return unlimited
	}
	return n
}

func orNoLimit(n uint64) string {
	if n >= math.MaxInt64>>12 { // cgroup v1 writes this for "no limit", in pages
		return "No limit on"
	}
	return "Up to " + strconv.FormatUint(n, 10)
}

const (
	manyProcesses = 1024 // Gradio's 40 threads, torch's threads per core, workers
	fewProcesses  = 128
)

func (m machine) processes() Finding {
	limit, where := m.processLimit("Max processes"), "`ulimit -u`"
	for _, group := range []string{"", "pids"} {
		if n, file := m.lowest(group, "pids.max"); n < limit {
			limit, where = n, file
		}
	}
	f := Finding{
		Level: Warning, Text: fmt.Sprintf("At most %d processes and threads (%s): a large Space may fail with \"can't start new thread\"", limit, where),
		Do: "Raise it: TasksMax= in a systemd unit or slice, --pids-limit for Docker, `ulimit -u` as root",
	}
	switch {
	case limit >= manyProcesses:
		return ok("%s processes and threads", orNoLimit(limit))
	case limit < fewProcesses:
		f.Level = Problem
		f.Text = fmt.Sprintf("At most %d processes and threads (%s): too few for one Space", limit, where)
	}
	return f
}

const (
	muchMemory   = 2 << 30   // gradio, torch, and a small model
	littleMemory = 512 << 20 // below this, gradio alone may be killed
)

func (m machine) memory() Finding {
	total, where := number(strings.Fields(m.field("proc/meminfo", "MemTotal")), 0), "this machine's"
	if total < unlimited>>10 {
		total <<= 10 // kB
	}
	for _, limit := range [][2]string{{"", "memory.max"}, {"memory", "memory.limit_in_bytes"}} {
		if n, file := m.lowest(limit[0], limit[1]); n < total {
			total, where = n, file
		}
	}
	f := Finding{
		Level: Warning, Text: fmt.Sprintf("%s of memory (%s): a Space with torch needs more, and the kernel kills it when memory runs out", size(total), where),
		Do: "Give the machine or the container 2 GiB or more (Docker: --memory), plus the memory of the models",
	}
	switch {
	case total == unlimited:
		return Finding{Level: Note, Text: "The size of the memory cannot be read from /proc/meminfo", Do: "Mount /proc: spacehost needs it"}
	case total >= muchMemory:
		return ok("%s of memory (%s)", size(total), where)
	case total < littleMemory:
		f.Level = Problem
		f.Text = fmt.Sprintf("%s of memory (%s): too little for Gradio itself", size(total), where)
	}
	return f
}
